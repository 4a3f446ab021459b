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
func (c *cluster) write(t *testing.T, rate int) *writer {
	ctx, stop := context.WithCancel(context.Background())
	w := &writer{address: c.ports["mail:25"], stop: stop, last: time.Now()}
	w.group.SetLimit(250) // while nobody answers, no more than so many wait
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
				w.deliver(fmt.Sprintf("Number %d", i))
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
	conn, err := net.DialTimeout("tcp", w.address, 3*time.Second)
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

// TestAcceptedMailOutlivesBothNodes destroys the machine that answers 250, without warning: what it had accepted lies in the journals of two
// machines and in its mirror, and the other one delivers what it has not got. When the cluster is whole again, that other one is destroyed.
func TestAcceptedMailOutlivesBothNodes(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	trust := mailTLS(t, c) // while both nodes are there to compare
	w := c.write(t, 20)
	lost := c.primary(t, "mail", "")
	for range 2 {
		machines := c.machines(t)
		w.more(t, 200)
		understudy(t, "local", "destroy", "--name", c.name, lost)
		destroyed := w.count()
		next := c.primary(t, "mail", lost)
		w.more(t, 100)
		t.Logf("%s was destroyed after %d mails, %s took over; longest time without a 250: %v", lost, destroyed, next, w.gap())
		c.healed(t, map[string]string{lost: machines[lost]})
		c.allThere(t, w, trust, next)
		lost = next
	}
	w.end()
	for _, err := range w.refused {
		t.Errorf("refused for good: %v", err)
	}
	c.allThere(t, w, trust, c.primary(t, "mail", ""))
}

// allThere waits until every mail that was accepted by now can be read.
func (c *cluster) allThere(t *testing.T, w *writer, trust *tls.Config, node string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			log, _ := c.run(t, node, "journalctl", "--no-pager", "-u", "understudy.service", "-u", "postfix.service", "-n", "150")
			queue, _ := c.run(t, node, "postqueue", "-p")
			t.Logf("%s says\n%s\nand has queued\n%s", node, log, queue)
		}
	}()
	w.mu.Lock()
	accepted := slices.Clone(w.accepted)
	w.mu.Unlock()
	missing := accepted
	var found []string
	gently := time.NewTicker(time.Second) // to list a mailbox is work for the node that delivers into it
	defer gently.Stop()
	eventually(t, 2*time.Minute, func() error { // Postfix tries again after one, where Dovecot was late
		<-gently.C
		all, err := c.inbox(trust)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, "Number ") })
		there := map[string]bool{}
		for _, s := range found {
			there[s] = true
		}
		missing = slices.DeleteFunc(slices.Clone(accepted), func(s string) bool { return there[s] })
		if len(missing) > 0 {
			return fmt.Errorf("%d of %d accepted mails are not there: %q", len(missing), len(accepted), missing[:min(len(missing), 10)])
		}
		return nil
	})
	distinct := slices.Compact(slices.Sorted(slices.Values(found)))
	t.Logf("acknowledged %d, found %d, lost %d; %d more than once; %d were deferred, %d unanswered",
		len(accepted), len(accepted)-len(missing), len(missing), len(found)-len(distinct), w.deferred, w.failed)
}

// gap is the longest time between two mails that were accepted.
func (w *writer) gap() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest.Round(time.Millisecond)
}

// TestPublishedPackagesOutliveBothNodes destroys one node of the repository after the other, each as soon as the cluster is whole.
func TestPublishedPackagesOutliveBothNodes(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	names := []string{"blog"}
	for round := range 2 {
		name := fmt.Sprintf("act%d", round)
		understudy(t, "publish", "--local", c.name, "--repo", repo(t), greeting(t, name))
		names = append(names, name)
		machines := c.machines(t)
		lost := c.primary(t, "repo", "")
		understudy(t, "local", "destroy", "--name", c.name, lost)
		next := c.primary(t, "repo", lost)
		c.healed(t, map[string]string{lost: machines[lost]})
		c.on(t, "web1", "apt-get", "-qq", "update")
		for _, name := range names {
			c.on(t, "web1", "sh", "-c", "cd /tmp && apt-get -qq download "+name) // the index names it, and the file has the hash that stands there
		}
		t.Logf("%s was destroyed after %d packages, %s has all of them", lost, len(names), next)
	}
}
