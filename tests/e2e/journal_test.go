//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"
)

// writer delivers numbered mails at a steady rate, each in a session of its own, and remembers what became of them.
type writer struct {
	address string
	stop    context.CancelFunc
	group   errgroup.Group

	mu       sync.Mutex
	accepted []string // the subjects that got a 250
	longest  time.Duration
	last     time.Time // when the newest of them was answered
	deferred int       // heard 4xx: their senders would try again
	failed   int       // heard nothing, so nobody promised anything
	refused  []error   // heard 5xx, which must not be
}

// write begins to deliver, so many a second.
func (c *cluster) write(t *testing.T, name string, rate int) *writer {
	ctx, stop := context.WithCancel(context.Background())
	w := &writer{address: c.ports["mail:25"], stop: stop, last: time.Now()}
	w.group.SetLimit(40) // while nobody answers, no more than so many wait
	w.group.Go(func() error {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 1; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			w.group.TryGo(func() error {
				w.deliver(fmt.Sprintf("%s %d", name, i))
				return nil
			})
		}
	})
	t.Cleanup(func() { w.end() })
	return w
}

// end returns when the last delivery has been answered, or has not been in time.
func (w *writer) end() {
	w.stop()
	w.group.Wait()
}

func (w *writer) deliver(subject string) {
	err := w.send(subject)
	w.mu.Lock()
	defer w.mu.Unlock()
	var said *smtp.SMTPError
	switch {
	case err == nil:
		now := time.Now()
		w.longest, w.last = max(w.longest, now.Sub(w.last)), now
		w.accepted = append(w.accepted, subject)
	case !errors.As(err, &said):
		w.failed++
	case said.Code/100 == 4:
		w.deferred++
	default:
		w.refused = append(w.refused, fmt.Errorf("%s: %w", subject, err))
	}
}

func (w *writer) send(subject string) error {
	conn, err := net.DialTimeout("tcp", w.address, 5*time.Second)
	if err != nil {
		return err
	}
	client := smtp.NewClient(conn)
	defer client.Close()
	client.CommandTimeout, client.SubmissionTimeout = 10*time.Second, 10*time.Second
	if err := client.Hello("bob.elsewhere.example"); err != nil {
		return err
	}
	message := "From: bob@elsewhere.example\r\nTo: " + user + "\r\nSubject: " + subject + "\r\n\r\n" + strings.Repeat("Break a leg.\r\n", 50)
	return client.SendMail("bob@elsewhere.example", []string{user}, strings.NewReader(message))
}

// more waits until so many further mails have been accepted.
func (w *writer) more(t *testing.T, n int) {
	t.Helper()
	begun := w.count()
	eventually(t, 2*time.Minute, func() error {
		if got := w.count() - begun; got < n {
			w.mu.Lock()
			defer w.mu.Unlock()
			return fmt.Errorf("%d of %d mails were accepted; %d deferred, %d unanswered", got, n, w.deferred, w.failed)
		}
		return nil
	})
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.accepted)
}

// TestAcceptedMailOutlivesThePrimary destroys the machine that answers 250, without warning; and, when there is a new one in its
// place, the machine that took over. What was accepted lies in the journals of two machines until it is in Maildirs on two, and
// is delivered from there.
func TestAcceptedMailOutlivesThePrimary(t *testing.T) {
	c := newCluster(t, "mail")
	c.healed(t, nil)
	trust := mailTLS(t, c) // while both nodes are there to compare
	var accepted []string
	for _, loss := range []string{"first", "second"} {
		w := c.write(t, loss, 20)
		w.more(t, 200)
		lost := c.primary(t, "mail", "")
		machine, before := c.machines(t)[lost], w.count()
		understudy(t, "local", "destroy", "--name", c.name, lost)
		next := c.primary(t, "mail", lost)
		w.more(t, 100)
		w.end()
		t.Logf("%s loss: %s was destroyed after %d mails, %s took over; %d deferred, %d unanswered, longest time without a 250: %v",
			loss, lost, before, next, w.deferred, w.failed, w.longest.Round(time.Millisecond))
		for _, err := range w.refused {
			t.Errorf("refused for good: %v", err)
		}
		accepted = append(accepted, w.accepted...)
		c.keeps(t, next, trust, accepted)
		c.healed(t, map[string]string{lost: machine})
	}
}

// keeps waits until every mail that was accepted is read by IMAP.
func (c *cluster) keeps(t *testing.T, primary string, trust *tls.Config, accepted []string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			log, _ := c.run(t, primary, "journalctl", "--no-pager", "-u", "understudy.service", "-u", "postfix.service", "-n", "200")
			queue, _ := c.run(t, primary, "postqueue", "-p")
			t.Logf("%s says\n%s\nand has queued\n%s", primary, log, queue)
		}
	}()
	var found map[string]int
	gently := time.NewTicker(time.Second) // to list a mailbox is work for the node that delivers into it
	defer gently.Stop()
	eventually(t, 2*time.Minute, func() error { // Postfix tries again after one, where Dovecot was late
		<-gently.C
		all, err := c.inbox(trust)
		if err != nil {
			return err
		}
		found = map[string]int{}
		for _, subject := range all {
			found[subject]++
		}
		missing := slices.DeleteFunc(slices.Clone(accepted), func(s string) bool { return found[s] > 0 })
		if len(missing) > 0 {
			return fmt.Errorf("%d of %d accepted mails are not there: %q", len(missing), len(accepted), missing[:min(len(missing), 20)])
		}
		return nil
	})
	twice := 0
	for _, n := range found {
		twice += n - 1
	}
	t.Logf("acknowledged %d, found %d, lost 0; delivered once more: %d", len(accepted), len(accepted), twice)
}
