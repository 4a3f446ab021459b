package mailjournal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-milter"
	"golang.org/x/sync/errgroup"
)

const (
	// Header holds the ID. It is the only key by which duplicates are known: a Message-ID is the sender's, and need not be unique.
	Header = "X-Understudy-Journal"
	// MilterAddress and ReinjectAddress are where profile::mail::postfix expects the milter, and listens for re-injection.
	MilterAddress   = "127.0.0.1:8892"
	ReinjectAddress = "127.0.0.1:10026"
)

// Second keeps second copies. *Copies is the real one.
type Second interface {
	// Append returns nil once another machine has e, synced.
	Append(ctx context.Context, e Entry) error
	// Finish closes the entry there; nil if it was never there.
	Finish(ctx context.Context, id ID, how How) error
}

// Milter is what Postfix asks before it answers a message.
type Milter struct {
	Journal *Journal
	Second  Second
	// Epoch is the duty's epoch that this node holds.
	Epoch func() uint64
	// Accepted is told of each message that is about to be answered with 250. It must not block. Nil: nobody is told.
	Accepted func(e Entry)
	// Refused is told why a message was not kept. It must not block. Nil: nobody is told.
	Refused func(err error)
	// Timeout is how long a message may wait for both copies. Zero: 5 s.
	Timeout time.Duration
	// MaxMessage is the largest message in bytes; larger ones are refused for good. Zero: 50 MiB.
	MaxMessage int64
	// MaxMemory is how many bytes of messages may be in memory; above it messages are deferred. Zero: 256 MiB.
	MaxMemory int64
	// WithoutSecond says what becomes of mail while no other machine takes the second copy.
	WithoutSecond Policy
	Log           *slog.Logger

	memory atomic.Int64
}

// Policy for mail of which there would be one copy only. Zero: Defer.
type Policy int

const (
	// Defer answers 451: the sender's machine keeps the message and tries again.
	Defer Policy = iota
	// AcceptLocal takes it, with a warning: it is lost if this machine is lost before the mirror has it.
	AcceptLocal
)

// Serve answers Postfix's connections to ln until ctx ends, then closes them and waits for what they were doing.
func (m *Milter) Serve(ctx context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	g, inner := errgroup.WithContext(ctx)
	for {
		conn, err := ln.Accept()
		if err != nil {
			ln.Close()
			g.Wait() // sessions return nil
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("accept a connection of Postfix: %w", err)
		}
		g.Go(func() error {
			m.session(inner, conn)
			return nil
		})
	}
}

// session serves one connection. Each has a server of its own, because go-milter's does not tell its handlers which
// connection they belong to, and drops the ESMTP parameters, which the connection therefore listens for.
func (m *Milter) session(ctx context.Context, conn net.Conn) {
	c := &tapped{Conn: conn, closed: make(chan struct{})}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s := &session{milter: m, ctx: ctx, conn: c}
	server := milter.Server{
		NewMilter: func() milter.Milter { return s },
		Actions:   milter.OptAddHeader | milter.OptChangeHeader,
		Protocol:  milter.OptNoConnect | milter.OptNoHelo | milter.OptNoUnknown | milter.OptNoData | milter.OptHeaderLeadingSpace,
	}
	server.Serve(&once{conn: c}) // returns at once, with the error of the second Accept
	<-c.closed                   // by go-milter, when the session is over, also after a panic
	s.reset()
}

// once is a listener with one connection.
type once struct{ conn net.Conn }

func (o *once) Accept() (net.Conn, error) {
	if conn := o.conn; conn != nil {
		o.conn = nil
		return conn, nil
	}
	return nil, io.EOF
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// tapped notes the strings behind the address of MAIL and RCPT while go-milter reads a connection. One goroutine reads.
type tapped struct {
	net.Conn
	closed chan struct{}
	once   sync.Once

	frame []byte // what has been read of the current frame, as long as it may be of interest
	left  uint32 // bytes of the frame still to come
	args  []string
}

func (t *tapped) Close() error {
	defer t.once.Do(func() { close(t.closed) })
	return t.Conn.Close()
}

// maxCommand bounds what is kept of a frame: an SMTP command line is 2048 bytes in Postfix (line_length_limit).
const maxCommand = 64 << 10

func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	for b := p[:n]; len(b) > 0; {
		if t.left == 0 { // in the length
			need := min(4-len(t.frame), len(b))
			t.frame, b = append(t.frame, b[:need]...), b[need:]
			if len(t.frame) == 4 {
				t.left, t.frame = binary.BigEndian.Uint32(t.frame), t.frame[:0]
			}
			continue
		}
		take := min(int(t.left), len(b))
		if len(t.frame) < maxCommand {
			t.frame = append(t.frame, b[:min(take, maxCommand-len(t.frame))]...)
		}
		t.left, b = t.left-uint32(take), b[take:]
		if t.left == 0 {
			t.note()
		}
	}
	return n, err
}

func (t *tapped) note() {
	if code := milter.Code(t.frame[0]); code == milter.CodeMail || code == milter.CodeRcpt {
		words := strings.Split(strings.TrimSuffix(string(t.frame[1:]), "\x00"), "\x00")
		t.args = slices.DeleteFunc(words[1:], func(s string) bool { return s == "" })
	}
	t.frame = t.frame[:0]
}

// session is one connection of Postfix, with at most one message at a time.
type session struct {
	milter.NoOpMilter
	milter *Milter
	ctx    context.Context // of the connection: go-milter hands none over
	conn   *tapped

	entry   Entry
	message bytes.Buffer
	held    int64 // bytes counted in milter.memory
	forged  int   // journal headers that the message came with
	refuse  *milter.CustomResponse
}

func (s *session) reset() {
	s.milter.memory.Add(-s.held)
	*s = session{milter: s.milter, ctx: s.ctx, conn: s.conn}
}

func (s *session) MailFrom(from string, _ *milter.Modifier) (milter.Response, error) {
	s.reset()
	s.entry.From, s.entry.FromArgs = from, s.conn.args
	return milter.RespContinue, nil
}

func (s *session) RcptTo(to string, _ *milter.Modifier) (milter.Response, error) {
	if len(s.entry.To) < maxStrings {
		s.entry.To = append(s.entry.To, Recipient{Address: to, Args: s.conn.args})
	} else {
		s.refuse = answer("452 4.5.3 Too many recipients")
	}
	return milter.RespContinue, nil
}

// Header gets the value as it stands behind the colon. Whatever came with our name is forged, or comes from another
// cluster: what is re-injected does not pass here.
func (s *session) Header(name, value string, _ *milter.Modifier) (milter.Response, error) {
	if strings.EqualFold(name, Header) {
		s.forged++
		return milter.RespContinue, nil
	}
	line := name + ":" + strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\n", "\r\n") + "\r\n"
	s.write([]byte(line))
	return milter.RespContinue, nil
}

func (s *session) Headers(textproto.MIMEHeader, *milter.Modifier) (milter.Response, error) {
	s.write([]byte("\r\n"))
	return milter.RespContinue, nil
}

func (s *session) BodyChunk(chunk []byte, _ *milter.Modifier) (milter.Response, error) {
	s.write(chunk)
	return milter.RespContinue, nil
}

// write keeps a part of the message. Once the message is refused, nothing of it is.
func (s *session) write(data []byte) {
	if s.refuse != nil {
		return
	}
	n := int64(len(data))
	s.held += n
	total := s.milter.memory.Add(n)
	switch {
	case s.held > nonZero(s.milter.MaxMessage, 50<<20):
		s.refuse = answer("552 5.3.4 Message too large for the mail journal")
	case total > nonZero(s.milter.MaxMemory, 256<<20):
		s.refuse = answer("451 4.3.2 Too many messages at once, try again later")
	default:
		s.message.Write(data)
		return
	}
	s.milter.memory.Add(-s.held)
	s.held, s.message = 0, bytes.Buffer{}
}

func (s *session) Abort(*milter.Modifier) error {
	s.reset()
	return nil
}

// Body is the end of the message. An error, like a panic, ends the connection, and milter_default_action is tempfail.
func (s *session) Body(m *milter.Modifier) (milter.Response, error) {
	defer s.reset()
	if s.refuse != nil {
		return s.refuse, nil
	}
	if len(s.entry.To) == 0 || s.message.Len() == 0 {
		return nil, errors.New("a message ended that never began")
	}
	e := s.entry
	e.ID, e.Epoch, e.Time, e.Queue, e.Message = NewID(), s.milter.Epoch(), time.Now(), m.Macros["i"], s.message.Bytes()
	ctx, cancel := context.WithTimeout(s.ctx, nonZero(s.milter.Timeout, 5*time.Second))
	defer cancel()
	if err := s.milter.keep(ctx, e); err != nil {
		s.milter.Log.Warn("mail is not accepted", "entry", e.ID, "queue", e.Queue, "reason", err)
		if s.milter.Refused != nil {
			s.milter.Refused(err)
		}
		s.milter.forget(s.ctx, e.ID)
		return reply(err), nil
	}
	for i := s.forged; i > 0; i-- { // from the last on: each removal renumbers those behind it
		if err := m.ChangeHeader(i, Header, ""); err != nil {
			return nil, err
		}
	}
	// The leading space is ours to give, because we asked for values with theirs.
	if err := m.InsertHeader(0, Header, " "+e.ID.String()); err != nil {
		return nil, err
	}
	if s.milter.Accepted != nil {
		s.milter.Accepted(e)
	}
	return milter.RespAccept, nil
}

// keep writes both copies at the same time.
func (m *Milter) keep(ctx context.Context, e Entry) error {
	var g errgroup.Group
	g.Go(func() error { return m.Journal.Append(ctx, e) })
	second := m.Second.Append(ctx, e)
	if errors.Is(second, ErrNoHolder) && m.WithoutSecond == AcceptLocal {
		m.Log.Warn("mail is accepted with one copy", "entry", e.ID, "reason", second)
		second = nil
	}
	return errors.Join(g.Wait(), second)
}

// forget closes what may have been kept of a message that is refused. If that does not work, a failover delivers the
// message although its sender was told to try again: a duplicate, and not a loss.
func (m *Milter) forget(ctx context.Context, id ID) {
	ctx, cancel := context.WithTimeout(ctx, nonZero(m.Timeout, 5*time.Second))
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return m.Journal.Finish(ctx, id, Refused) })
	err := m.Second.Finish(ctx, id, Refused)
	if err := errors.Join(err, g.Wait()); err != nil {
		m.Log.Warn("a copy of refused mail may remain", "entry", id, "err", err)
	}
}

// reply is what the sender hears. It never learns more than that this is temporary or not.
func reply(err error) *milter.CustomResponse {
	switch {
	case errors.Is(err, ErrTooLarge):
		return answer("552 5.3.4 Message too large for the mail journal")
	case errors.Is(err, ErrFull):
		return answer("452 4.3.1 The mail journal is full, try again later")
	case errors.Is(err, ErrNoHolder):
		return answer("451 4.3.0 No second machine to keep the message, try again later")
	}
	return answer("451 4.3.0 The message could not be kept safely, try again later")
}

func answer(text string) *milter.CustomResponse {
	return milter.NewResponseStr(byte(milter.ActReplyCode), text)
}
