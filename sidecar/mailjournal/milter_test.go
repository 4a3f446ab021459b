package mailjournal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-milter"
	"golang.org/x/sync/errgroup"
)

// secondFunc is a second holder made of a function.
type secondFunc func(ctx context.Context, e Entry) error

func (f secondFunc) Append(ctx context.Context, e Entry) error { return f(ctx, e) }
func (f secondFunc) Finish(context.Context, ID, How) error     { return nil }
func kept(context.Context, Entry) error                        { return nil }

// stage is a milter that listens.
type stage struct {
	*Milter
	address string
}

func serve(t testing.TB, second Second) *stage {
	t.Helper()
	j := open(t, options(t.TempDir()))
	m := &Milter{Journal: j, Second: second, Epoch: func() uint64 { return 7 }, Log: slog.New(slog.DiscardHandler)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return m.Serve(ctx, ln) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("the milter ended with %v", err)
		}
		finish(t, j)
	})
	return &stage{m, ln.Addr().String()}
}

// postfix speaks to the milter as Postfix does, packet by packet, and returns its modifications and its last answer.
type postfix struct {
	t    testing.TB
	conn net.Conn
	end  time.Time // when the end of the last message was said
}

func connect(t testing.TB, address string) *postfix {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	p := &postfix{t: t, conn: conn}
	negotiation := binary.BigEndian.AppendUint32(nil, 6)
	negotiation = binary.BigEndian.AppendUint32(negotiation, 0x1ff)
	negotiation = binary.BigEndian.AppendUint32(negotiation, 0x1fffff)
	if code, data, err := p.say(milter.CodeOptNeg, string(negotiation)); err != nil || code != 'O' || len(data) != 12 {
		t.Fatalf("negotiate: got %c %q, %v", code, data, err)
	}
	return p
}

func (p *postfix) write(code milter.Code, data string) error {
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(data)))
	_, err := p.conn.Write(append(append(packet, byte(code)), data...))
	return err
}

func (p *postfix) read() (code byte, data string, err error) {
	var head [5]byte
	if _, err = io.ReadFull(p.conn, head[:]); err != nil {
		return 0, "", err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(p.conn, rest)
	return head[4], string(rest), err
}

func (p *postfix) say(code milter.Code, data string) (byte, string, error) {
	if err := p.write(code, data); err != nil {
		return 0, "", err
	}
	return p.read()
}

// deliver sends one message. The answer is "accept", or the text of a refusal; the error is that of the connection.
func (p *postfix) deliver(headers [][2]string, body string) (changes []string, answer string, err error) {
	for _, c := range []struct {
		code milter.Code
		data string
	}{
		{milter.CodeMail, "<ann@elsewhere.example>\x00BODY=8BITMIME\x00SIZE=12\x00"},
		{milter.CodeRcpt, "<alice@blog.example>\x00"},
		{milter.CodeRcpt, "<bob@blog.example>\x00NOTIFY=NEVER\x00"},
	} {
		if code, _, err := p.say(c.code, c.data); err != nil || code != byte(milter.ActContinue) {
			return nil, string(code), err
		}
	}
	for _, h := range headers {
		if _, _, err := p.say(milter.CodeHeader, h[0]+"\x00"+h[1]+"\x00"); err != nil {
			return nil, "", err
		}
	}
	if _, _, err := p.say(milter.CodeEOH, ""); err != nil {
		return nil, "", err
	}
	for chunk := range slices.Chunk([]byte(body), milter.MaxBodyChunk) {
		if _, _, err := p.say(milter.CodeBody, string(chunk)); err != nil {
			return nil, "", err
		}
	}
	if err := p.write(milter.CodeMacro, "Ei\x004dKx2z1Wqz9\x00"); err != nil {
		return nil, "", err
	}
	p.end = time.Now()
	if err := p.write(milter.CodeEOB, ""); err != nil {
		return nil, "", err
	}
	for {
		code, data, err := p.read()
		switch {
		case err != nil:
			return changes, "", err
		case code == byte(milter.ActAccept):
			return changes, "accept", nil
		case code == byte(milter.ActReplyCode):
			return changes, strings.TrimSuffix(data, "\x00"), nil
		}
		changes = append(changes, string(code)+strings.ReplaceAll(data, "\x00", "|"))
	}
}

var plain = [][2]string{{"Subject", " hi"}, {"Received", " from a\n\tby b"}}

func TestAcceptedMailIsInBothCopiesWithItsEnvelope(t *testing.T) {
	m := newMember(t, options(t.TempDir()))
	s := serve(t, newCopies(t, 7, m))
	p := connect(t, s.address)
	for range 3 { // one connection carries several messages
		changes, answer, err := p.deliver(plain, "one\r\n.two\r\n")
		if err != nil || answer != "accept" || len(changes) != 1 {
			t.Fatalf("got %q, %q, %v", changes, answer, err)
		}
		id, err := ParseID(strings.TrimSuffix(strings.TrimPrefix(changes[0], "i||||"+Header+"| "), "|"))
		if err != nil {
			t.Fatal(err)
		}
		local, err := s.Journal.Read(id)
		if err != nil {
			t.Fatal(err)
		}
		second, err := m.Read(sealer(t), id)
		if err != nil || !same(local, second) {
			t.Errorf("the second copy: got %+v, %v; want %+v", second, err, local)
		}
		want := Entry{Meta: local.Meta, Queue: "4dKx2z1Wqz9", From: "ann@elsewhere.example", FromArgs: []string{"BODY=8BITMIME", "SIZE=12"},
			To:      []Recipient{{"alice@blog.example", nil}, {"bob@blog.example", []string{"NOTIFY=NEVER"}}},
			Message: []byte("Subject: hi\r\nReceived: from a\r\n\tby b\r\n\r\none\r\n.two\r\n")}
		if !same(local, want) || local.Epoch != 7 {
			t.Errorf("got %+v, want %+v", local, want)
		}
	}
}

func TestWithoutBothCopiesNothingIsAccepted(t *testing.T) {
	for name, tt := range map[string]struct {
		second secondFunc
		want   string
	}{
		"no holder": {func(context.Context, Entry) error { return ErrNoHolder }, "451 4.3.0 No second machine"},
		"deposed":   {func(context.Context, Entry) error { return ErrDeposed }, "451 4.3.0"},
		"full":      {func(context.Context, Entry) error { return ErrFull }, "452 4.3.1"},
		"too large": {func(context.Context, Entry) error { return ErrTooLarge }, "552 5.3.4"},
		"too slow": {func(ctx context.Context, _ Entry) error {
			<-ctx.Done()
			return ctx.Err()
		}, "451 4.3.0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.second)
			s.Timeout = 50 * time.Millisecond
			changes, answer, err := connect(t, s.address).deliver(plain, "x\r\n")
			if err != nil || !strings.HasPrefix(answer, tt.want) || len(changes) > 0 {
				t.Errorf("got %q, %q, %v; want %q", changes, answer, err, tt.want)
			}
			if got := s.Journal.Pending(); len(got) > 0 {
				t.Errorf("refused mail is open in the journal: %v", got)
			}
		})
	}
}

func TestALocalJournalThatFailsRefusesToo(t *testing.T) {
	s := serve(t, secondFunc(kept))
	finish(t, s.Journal)
	_, answer, err := connect(t, s.address).deliver(plain, "x\r\n")
	if err != nil || !strings.HasPrefix(answer, "451") {
		t.Errorf("got %q, %v; want 451", answer, err)
	}
	j := open(t, s.Journal.store.o)
	*s.Journal = *j // for the clean-up
}

func TestTheAnswerWaitsForASlowHolder(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, secondFunc(func(context.Context, Entry) error {
		<-release
		return nil
	}))
	var g errgroup.Group
	answered := make(chan string, 1)
	p := connect(t, s.address)
	g.Go(func() error {
		_, answer, err := p.deliver(plain, "x\r\n")
		answered <- answer
		return err
	})
	for len(s.Journal.Pending()) == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case got := <-answered:
		t.Errorf("got %q before the holder had it", got)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := g.Wait(); err != nil || <-answered != "accept" {
		t.Errorf("afterwards: got %v, want it accepted", err)
	}
}

func TestAcceptLocalIsAPolicy(t *testing.T) {
	s := serve(t, secondFunc(func(context.Context, Entry) error { return fmt.Errorf("%w: all are down", ErrNoHolder) }))
	s.WithoutSecond = AcceptLocal
	if _, answer, err := connect(t, s.address).deliver(plain, "x\r\n"); err != nil || answer != "accept" {
		t.Errorf("got %q, %v; want it accepted", answer, err)
	}
	s.Second = secondFunc(func(context.Context, Entry) error { return ErrDeposed })
	if _, answer, err := connect(t, s.address).deliver(plain, "x\r\n"); err != nil || !strings.HasPrefix(answer, "451") {
		t.Errorf("a deposed primary: got %q, %v; want 451 all the same", answer, err)
	}
}

func TestForgedJournalHeadersAreReplaced(t *testing.T) {
	s := serve(t, secondFunc(kept))
	forged := NewID().String()
	changes, answer, err := connect(t, s.address).deliver(
		[][2]string{{Header, " " + forged}, {"Subject", " hi"}, {strings.ToLower(Header), " second"}}, "x\r\n")
	if err != nil || answer != "accept" || len(changes) != 3 {
		t.Fatalf("got %q, %q, %v; want two removals and an insertion", changes, answer, err)
	}
	for i, index := range []string{"\x02", "\x01"} { // the last first
		if want := "m|||" + index + Header + "||"; changes[i] != want {
			t.Errorf("change %d: got %q, want %q", i, changes[i], want)
		}
	}
	e, err := s.Journal.Read(s.Journal.Pending()[0].ID)
	if err != nil || string(e.Message) != "Subject: hi\r\n\r\nx\r\n" || strings.Contains(changes[2], forged) {
		t.Errorf("got %q, %v; want it without the header", e.Message, err)
	}
}

func TestWhatIsTooLargeOrTooMuchIsRefused(t *testing.T) {
	s := serve(t, secondFunc(kept))
	s.MaxMessage, s.MaxMemory = 100<<10, 150<<10
	p := connect(t, s.address)
	if _, answer, err := p.deliver(plain, strings.Repeat("x", 200<<10)); err != nil || !strings.HasPrefix(answer, "552") {
		t.Errorf("too large: got %.60q, %v; want 552", answer, err)
	}
	if _, answer, err := p.deliver(plain, "x\r\n"); err != nil || answer != "accept" { // the refusal does not stick
		t.Errorf("the next: got %q, %v; want it accepted", answer, err)
	}
	s.memory.Add(149 << 10)
	if _, answer, err := p.deliver(plain, strings.Repeat("x", 50<<10)); err != nil || !strings.HasPrefix(answer, "451") {
		t.Errorf("too much at once: got %q, %v; want 451", answer, err)
	}
	s.memory.Add(-149 << 10)
	p.conn.Close()
	if _, answer, err := connect(t, s.address).deliver(plain, strings.Repeat("x", 99<<10)); err != nil || answer != "accept" {
		t.Errorf("afterwards: got %q, %v; want it accepted", answer, err)
	}
	if got := s.memory.Load(); got != 0 {
		t.Errorf("%d bytes are still counted", got)
	}
}

func TestAPanicOrNonsenseNeverAccepts(t *testing.T) {
	s := serve(t, secondFunc(kept))
	s.Accepted = func(Entry) { panic("a bug") }
	if _, answer, err := connect(t, s.address).deliver(plain, "x\r\n"); err == nil {
		t.Errorf("after a panic: got %q, want the connection closed", answer)
	}
	s.Accepted = nil
	for _, packets := range [][2]string{{"E", ""}, {"?", "x"}, {"D", ""}, {"C", "x"}} {
		p := connect(t, s.address)
		p.write(milter.Code(packets[0][0]), packets[1])
		if code, _, err := p.read(); err == nil && code == byte(milter.ActAccept) {
			t.Errorf("%q was accepted", packets)
		}
	}
	if _, answer, err := connect(t, s.address).deliver(plain, "x\r\n"); err != nil || answer != "accept" {
		t.Errorf("other connections: got %q, %v; want them served", answer, err)
	}
}

func TestParametersAreThoseOfTheirCommandHoweverTheBytesArrive(t *testing.T) {
	packet := func(code milter.Code, data string) string {
		return string(append(binary.BigEndian.AppendUint32(nil, uint32(1+len(data))), byte(code))) + data
	}
	stream := packet(milter.CodeMail, "<a@b>\x00SIZE=1\x00BODY=7BIT\x00") + packet(milter.CodeBody, strings.Repeat("x", 3*maxCommand)) +
		packet(milter.CodeRcpt, "<c@d>\x00") + packet(milter.CodeRcpt, "<c@d>\x00NOTIFY=NEVER\x00")
	for _, size := range []int{1, 3, 7, 4096, len(stream)} {
		var got []string
		c := &tapped{Conn: readerConn{r: strings.NewReader(stream)}, closed: make(chan struct{})}
		buffer := make([]byte, size)
		for read := 0; read < len(stream); {
			n, err := c.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			read += n
			if now := fmt.Sprint(c.args); len(got) == 0 || got[len(got)-1] != now {
				got = append(got, now)
			}
		}
		if last := got[len(got)-1]; last != "[NOTIFY=NEVER]" {
			t.Errorf("in pieces of %d: got %q", size, got)
		}
		if size == 1 && strings.Join(got, "") != "[][SIZE=1 BODY=7BIT][][NOTIFY=NEVER]" {
			t.Errorf("got %q", got)
		}
	}
}

type readerConn struct {
	net.Conn
	r io.Reader
}

func (c readerConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestAllAcceptedMailSurvivesThePrimary delivers from many clients while the primary goes away, and compares what was
// answered with accept with what the holder has.
func TestAllAcceptedMailSurvivesThePrimary(t *testing.T) {
	m := newMember(t, options(t.TempDir()))
	copies := newCopies(t, 7, m)
	var dead atomic.Bool
	dial := copies.Dial
	copies.Dial = func(ctx context.Context, node string) (net.Conn, error) {
		if dead.Load() {
			return nil, errors.New("this machine is cut off")
		}
		return dial(ctx, node)
	}
	s := serve(t, copies)
	var mu sync.Mutex
	accepted := make(map[string]bool)
	var g errgroup.Group
	for i := range 8 {
		p := connect(t, s.address)
		g.Go(func() error {
			for n := range 40 {
				body := fmt.Sprintf("client %d message %d\r\n", i, n)
				if _, answer, err := p.deliver(plain, body); err != nil || answer != "accept" {
					return nil // the primary is gone
				}
				mu.Lock()
				accepted[body] = true
				if len(accepted) == 100 {
					dead.Store(true)
					copies.Close() // in the middle of others' appends
				}
				mu.Unlock()
			}
			return nil
		})
	}
	g.Wait()
	for _, meta := range m.Pending() {
		e, err := m.Read(sealer(t), meta.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(e.Message), "\r\n\r\n")
		delete(accepted, body)
	}
	if len(accepted) > 0 {
		t.Errorf("accepted and lost: %v", accepted)
	}
}
