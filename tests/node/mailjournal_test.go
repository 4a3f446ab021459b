//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/sidecar/mailjournal"
)

// What profile::mail::postfix says with its journal on, as far as it matters here, with LMTP to this program.
const (
	mailMain = `compatibility_level = 3.10
myhostname = mail.blog.example
mydestination =
inet_interfaces = loopback-only
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
virtual_mailbox_domains = blog.example
virtual_transport = lmtp:inet:127.0.0.1:2424
milter_protocol = 6
milter_default_action = tempfail
smtpd_milters = inet:127.0.0.1:8892
enable_long_queue_ids = yes
milter_header_checks = regexp:/etc/postfix/journal-headers
`
	mailMaster = `
2525            inet n - n - - smtpd
127.0.0.1:10026 inet n - n - 4 smtpd
  -o syslog_name=postfix/reinject
  -o smtpd_milters=
  -o cleanup_service_name=reinject
reinject        unix n - n - 0 cleanup
  -o syslog_name=postfix/reinject
  -o header_checks=regexp:/etc/postfix/journal-headers
`
	mailHeaders = "/^X-Understudy-Journal: [0-9a-f]{32}$/ INFO\n"
)

// TestTheJournalGatesARealPostfix copies this program to the machine and plays sidecar, holder and Dovecot there.
func TestTheJournalGatesARealPostfix(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		t.Run("inside", journalGatesPostfix)
		return
	}
	m := boot(t)
	program := m.installSelf(t)
	m.write(t, "/etc/postfix/main.cf", mailMain, "0644")
	m.write(t, "/etc/postfix/journal-headers", mailHeaders, "0644")
	m.must(t, "sh", "-c", "cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf && cat >>/etc/postfix/master.cf <<'END'"+mailMaster+"END")
	defer m.must(t, "systemctl", "stop", "postfix.service")
	m.must(t, "systemctl", "start", "postfix.service")
	out, err := m.run(t.Context(), nil, "env", insideVariable+"=1", program, "-test.run=^TestTheJournalGatesARealPostfix$", "-test.v", "-test.timeout=90s")
	t.Logf("%s", out)
	if err != nil || !strings.Contains(out, "--- PASS: TestTheJournalGatesARealPostfix/inside") {
		t.Errorf("on the machine: %v", err)
	}
}

// dovecot takes mail by LMTP and remembers whose copy of which message it got; while away it defers.
type dovecot struct {
	mu   sync.Mutex
	away bool
	got  map[string]int // body → how often
}

type lmtpSession struct{ dovecot *dovecot }

func (d *dovecot) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &lmtpSession{d}, nil }
func (s *lmtpSession) Mail(string, *gosmtp.MailOptions) error      { return nil }
func (s *lmtpSession) Rcpt(string, *gosmtp.RcptOptions) error      { return nil }
func (s *lmtpSession) Reset()                                      {}
func (s *lmtpSession) Logout() error                               { return nil }

func (s *lmtpSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.dovecot.mu.Lock()
	defer s.dovecot.mu.Unlock()
	if s.dovecot.away {
		return &gosmtp.SMTPError{Code: 451, Message: "not now"}
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	s.dovecot.got[strings.TrimSpace(body)]++
	return nil
}

// send delivers to Postfix and returns the SMTP code of its answer to the message.
func send(body string) (code int, err error) {
	err = smtp.SendMail("127.0.0.1:2525", nil, "ann@elsewhere.example", []string{"alice@blog.example"},
		[]byte("Subject: x\r\nX-Understudy-Journal: "+strings.Repeat("0", 32)+"\r\n\r\n"+body+"\r\n"))
	if said, ok := errors.AsType[*textproto.Error](err); ok {
		return said.Code, nil
	}
	if err != nil {
		return 0, err
	}
	return 250, nil
}

// slowly is a second holder at the end of a slow line.
type slowly struct {
	mailjournal.Second
	by time.Duration
}

func (s slowly) Append(ctx context.Context, e mailjournal.Entry) error {
	time.Sleep(s.by)
	return s.Second.Append(ctx, e)
}

// play is the sidecar's part on the machine, with the holder that another machine would be.
type play struct {
	t      *testing.T
	log    *slog.Logger
	holder *mailjournal.Holder
	copies *mailjournal.Copies
	group  errgroup.Group
}

func newPlay(ctx context.Context, t *testing.T) *play {
	p := &play{t: t, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	sealer, err := mailjournal.NewSealer([]byte(strings.Repeat("k", 64)))
	if err != nil {
		t.Fatal(err)
	}
	if p.holder, err = mailjournal.OpenHolder(mailjournal.Options{Dir: t.TempDir(), Log: p.log}); err != nil {
		t.Fatal(err)
	}
	p.copies = &mailjournal.Copies{
		Holders: func() []string { return []string{"other"} }, Epoch: func() uint64 { return 1 }, Sealer: sealer, Log: p.log,
		Dial: func(context.Context, string) (net.Conn, error) {
			here, there := net.Pipe()
			p.group.Go(func() error {
				p.holder.Serve(ctx, there)
				return nil
			})
			return here, nil
		},
	}
	return p
}

func (p *play) journal() *mailjournal.Journal {
	p.t.Helper()
	j, err := mailjournal.Open(mailjournal.Options{Dir: p.t.TempDir(), Log: p.log})
	if err != nil {
		p.t.Fatal(err)
	}
	return j
}

// milter serves Postfix until stop is called.
func (p *play) milter(j *mailjournal.Journal, second mailjournal.Second) (stop func()) {
	p.t.Helper()
	ln, err := net.Listen("tcp", mailjournal.MilterAddress)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &mailjournal.Milter{Journal: j, Second: second, Epoch: func() uint64 { return 1 }, Timeout: 2 * time.Second, Log: p.log}
	done := make(chan struct{})
	p.group.Go(func() error {
		defer close(done)
		m.Serve(ctx, ln)
		return nil
	})
	return func() {
		cancel()
		<-done
	}
}

func (p *play) answers(what, body string, want int) (took time.Duration) {
	p.t.Helper()
	start := time.Now()
	if code, err := send(body); err != nil || code != want {
		p.t.Errorf("%s: got %d, %v; want %d", what, code, err, want)
	}
	return time.Since(start)
}

func journalGatesPostfix(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	p := newPlay(ctx, t)
	box := &dovecot{away: true, got: make(map[string]int)}
	ln, err := net.Listen("tcp", "127.0.0.1:2424")
	if err != nil {
		t.Fatal(err)
	}
	lmtp := gosmtp.NewServer(box)
	lmtp.LMTP = true
	p.group.Go(func() error { return lmtp.Serve(ln) })
	t.Cleanup(func() {
		cancel()
		lmtp.Close()
		p.copies.Close()
		p.group.Wait()
		p.holder.Close()
	})

	p.answers("no milter", "refused 1", 451)
	old := p.journal()
	stop := p.milter(old, p.copies)
	holders := p.copies.Holders
	p.copies.Holders = func() []string { return nil }
	p.answers("no holder", "refused 2", 451)
	p.copies.Holders = holders
	stop()
	stop = p.milter(old, slowly{p.copies, 5 * time.Second})
	p.answers("a holder that is too slow", "refused 3", 451)
	stop()
	stop = p.milter(old, slowly{p.copies, 500 * time.Millisecond})
	if took := p.answers("a slow holder", "late", 250); took < 500*time.Millisecond {
		t.Errorf("250 came after %v, before the holder had the message", took)
	}
	stop()
	stop = p.milter(old, p.copies)
	want := map[string]int{"late": 1}
	for i := range 20 {
		body := fmt.Sprintf("message %d", i)
		p.answers("with a holder", body, 250)
		want[body] = 1
	}
	stop()
	if got := len(p.holder.Pending()); got != len(want) {
		t.Errorf("the other holder has %d entries, want each of the %d that got a 250", got, len(want))
	}
	takeOver(ctx, p, box, want)
	if err := old.Close(); err != nil {
		t.Error(err)
	}
}

// takeOver loses queue and journal with the old primary, and delivers from the holder's copies.
func takeOver(ctx context.Context, p *play, box *dovecot, want map[string]int) {
	t := p.t
	if err := mailjournal.EmptyQueue(ctx, command.Exec{}); err != nil {
		t.Fatal(err)
	}
	box.mu.Lock()
	box.away = false
	box.mu.Unlock()
	p.copies.Epoch = func() uint64 { return 2 }
	j := p.journal()
	ids, err := p.copies.Collect(ctx, nil, j)
	if err != nil {
		t.Fatal(err)
	}
	closing := mailjournal.Closing{Journal: j, Second: p.copies}
	f := &mailjournal.Follower{Closing: closing, Barrier: func(context.Context) error { return nil }, Runner: command.Exec{}, Log: p.log}
	following, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return f.Run(following) })
	r := &mailjournal.Reinjector{Closing: closing, Filter: &mailjournal.Maildirs{Domains: []string{"blog.example"}}, Accepted: f.Track, Log: p.log}
	if report, err := r.Run(ctx, ids); err != nil || report.Sent != len(want) {
		t.Errorf("got %+v, %v; want %d sent", report, err, len(want))
	}
	for range 300 {
		if len(j.Pending()) == 0 && len(p.holder.Pending()) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if here, there := len(j.Pending()), len(p.holder.Pending()); here+there > 0 {
		t.Errorf("Postfix is done, and %d entries are open here, %d at the holder", here, there)
	}
	stop()
	g.Wait()
	box.mu.Lock()
	defer box.mu.Unlock()
	if fmt.Sprint(box.got) != fmt.Sprint(want) {
		t.Errorf("delivered: got %v, want %v", box.got, want)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
