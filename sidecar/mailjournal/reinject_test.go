package mailjournal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"
)

// smtpd is a mail server that keeps what it is given, and refuses the first messages.
type smtpd struct {
	mu     sync.Mutex
	refuse int
	got    []string // envelope and message
}

type smtpSession struct {
	smtpd    *smtpd
	envelope strings.Builder
}

func (d *smtpd) NewSession(*smtp.Conn) (smtp.Session, error) { return &smtpSession{smtpd: d}, nil }

func (s *smtpSession) Mail(from string, o *smtp.MailOptions) error {
	s.envelope.WriteString(from + " " + string(o.Body))
	return nil
}

func (s *smtpSession) Rcpt(to string, o *smtp.RcptOptions) error {
	s.envelope.WriteString(" " + to)
	for _, n := range o.Notify {
		s.envelope.WriteString(" " + string(n))
	}
	return nil
}

func (s *smtpSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.smtpd.mu.Lock()
	defer s.smtpd.mu.Unlock()
	if s.smtpd.refuse > 0 {
		s.smtpd.refuse--
		return &smtp.SMTPError{Code: 451, Message: "not yet"}
	}
	s.smtpd.got = append(s.smtpd.got, s.envelope.String()+"\n"+string(data))
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok: queued as 4dKy" + string(rune('0'+len(s.smtpd.got)))}
}

func (s *smtpSession) Reset()        { s.envelope.Reset() }
func (s *smtpSession) Logout() error { return nil }

func startSMTP(t *testing.T, d *smtpd) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(d)
	server.EnableDSN = true
	var g errgroup.Group
	g.Go(func() error { return server.Serve(ln) })
	t.Cleanup(func() {
		server.Close()
		g.Wait()
	})
	return ln.Addr().String()
}

// deliver puts a message into a mailbox.
func deliver(t *testing.T, root, dir string, id ID, age time.Duration) {
	t.Helper()
	name := filepath.Join(root, dir, "1800000000.M1P1.mail1:2,S")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "Return-Path: <ann@elsewhere.example>\nDelivered-To: x\n" + Header + ": " + id.String() + "\n\nbody\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyWhoHasNotGotAMessageGetsItAgain(t *testing.T) {
	root := t.TempDir()
	e, done, old := entry("x"), entry("done"), entry("old")
	done.To = []Recipient{{Address: "Alice+list@Blog.example"}}
	old.To = done.To
	e.To = append(e.To, Recipient{Address: "carol@elsewhere.example"}, Recipient{Address: "hello@blog.example"})
	deliver(t, root, "blog.example/alice/Maildir/.Lists/cur", done.ID, 0)
	deliver(t, root, "blog.example/alice/Maildir/new", e.ID, 0)
	deliver(t, root, "blog.example/alice/Maildir/cur", old.ID, 48*time.Hour)
	deliver(t, root, "blog.example/bob/Maildir/tmp", e.ID, 0) // not delivered yet
	deliver(t, root, ".understudy/trash/bob/Maildir/cur", e.ID, 0)
	if err := os.Symlink("/etc", filepath.Join(root, "blog.example/bob/cur")); err != nil {
		t.Fatal(err)
	}
	m := &Maildirs{Domains: []string{"blog.example"}}
	if err := m.Scan(t.Context(), root, time.Now().Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	names := func(list []Recipient) (out []string) {
		for _, r := range list {
			out = append(out, r.Address)
		}
		return out
	}
	local, outbound := m.Missing(e)
	if got, want := names(local), []string{"bob@blog.example", "hello@blog.example"}; !slices.Equal(got, want) {
		t.Errorf("local: got %v, want %v", got, want)
	}
	if got, want := names(outbound), []string{"carol@elsewhere.example"}; !slices.Equal(got, want) {
		t.Errorf("outbound: got %v, want %v", got, want)
	}
	if local, outbound := m.Missing(done); len(local)+len(outbound) > 0 {
		t.Errorf("a delivered one: got %v and %v, want nobody", local, outbound)
	}
	if local, _ := m.Missing(old); len(local) != 1 {
		t.Errorf("in a file older than asked for: got %v, want alice", local)
	}
	m.Resolve = func(address string) string {
		return map[string]string{"hello@blog.example": "alice@blog.example"}[address]
	}
	if local, _ := m.Missing(Entry{Meta: e.Meta, To: []Recipient{{Address: "hello@blog.example"}}}); len(local) > 0 {
		t.Errorf("an alias: got %v, want nobody", local)
	}
}

func TestReinjectionDeliversEachOpenEntryOnceWithItsIDAndEnvelope(t *testing.T) {
	d := &smtpd{refuse: 2}
	j := open(t, options(t.TempDir()))
	defer finish(t, j)
	e, twin, closed := appendTo(t, j, entry(".dot\r\nx")), appendTo(t, j, entry("delivered")), appendTo(t, j, entry("closed"))
	if err := j.Finish(t.Context(), closed.ID, Delivered); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	deliver(t, root, "blog.example/alice/Maildir/new", twin.ID, 0)
	deliver(t, root, "blog.example/bob/Maildir/new", twin.ID, 0)
	m := &Maildirs{Domains: []string{"blog.example"}}
	if err := m.Scan(t.Context(), root, time.Time{}); err != nil {
		t.Fatal(err)
	}
	queues := make(map[ID]string)
	r := &Reinjector{
		Closing: Closing{j, secondFunc(kept)}, Filter: m, Address: startSMTP(t, d), Backoff: time.Millisecond,
		Accepted: func(id ID, queue string) { queues[id] = queue }, Log: slog.New(slog.DiscardHandler),
	}
	report, err := r.Run(t.Context(), []ID{e.ID, twin.ID, closed.ID})
	if want := (Report{Sent: 1, Duplicates: 1}); err != nil || report != want {
		t.Errorf("got %+v, %v; want %+v", report, err, want)
	}
	want := "ann@elsewhere.example 8BITMIME alice@blog.example bob@blog.example NEVER\n" +
		Header + ": " + e.ID.String() + "\r\n" + string(e.Message)
	if len(d.got) != 1 || d.got[0] != want {
		t.Errorf("got %q, want %q", d.got, want)
	}
	if queues[e.ID] != "4dKy1" {
		t.Errorf("queue IDs: got %v, want 4dKy1", queues)
	}
	if got := ids(j.Pending()); len(got) != 1 || got[0] != e.ID { // until Postfix has delivered it
		t.Errorf("open: got %v, want %v", got, e.ID)
	}
}

func TestAnEnvelopeCannotSmuggleACommand(t *testing.T) {
	j := open(t, options(t.TempDir()))
	defer finish(t, j)
	e := entry("x")
	e.From = "a@b>\r\nRCPT TO:<c@d"
	appendTo(t, j, e)
	d := &smtpd{}
	r := &Reinjector{Closing: Closing{j, secondFunc(kept)}, Filter: &Maildirs{}, Address: startSMTP(t, d), Log: slog.New(slog.DiscardHandler)}
	if err := r.one(t.Context(), e.ID, new(Report)); err == nil || len(d.got) > 0 {
		t.Errorf("got %v and %q, want a refusal", err, d.got)
	}
}

func TestReinjectionGoesOnUntilItIsToldToStop(t *testing.T) {
	j := open(t, options(t.TempDir()))
	defer finish(t, j)
	e := appendTo(t, j, entry("x"))
	var log bytes.Buffer
	r := &Reinjector{Closing: Closing{j, secondFunc(kept)}, Filter: &Maildirs{}, Address: startSMTP(t, &smtpd{refuse: 1 << 30}),
		Backoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Run(ctx, []ID{e.ID}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(log.String(), e.ID.String()) {
		t.Errorf("got %v, and the log %q", err, log.String())
	}
}
