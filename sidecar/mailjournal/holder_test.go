package mailjournal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func sealer(t testing.TB) *Sealer {
	t.Helper()
	s, err := NewSealer([]byte("the key of a cluster, long enough"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// member is a holder that listens.
type member struct {
	*Holder
	ln      net.Listener
	options Options
	group   errgroup.Group

	mu    sync.Mutex
	conns []net.Conn
}

func newMember(t testing.TB, o Options) *member {
	t.Helper()
	h, err := OpenHolder(o)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Holder: h, options: o}
	if m.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	m.group.Go(func() error {
		for {
			conn, err := m.ln.Accept()
			if err != nil {
				return nil
			}
			m.mu.Lock()
			m.conns = append(m.conns, conn)
			m.mu.Unlock()
			m.group.Go(func() error {
				m.Serve(context.Background(), conn) // how it ends is what the tests look at from the other side
				return nil
			})
		}
	})
	t.Cleanup(func() { m.stop(t) })
	return m
}

// stop is the death of the member: no more streams. What it has on disk stays.
func (m *member) stop(t testing.TB) {
	m.ln.Close()
	m.mu.Lock()
	for _, conn := range m.conns {
		conn.Close()
	}
	m.mu.Unlock()
	m.group.Wait()
	select {
	case <-m.store.ended:
	default:
		finish(t, m.Holder)
	}
}

func (m *member) link(t testing.TB) *Link {
	t.Helper()
	conn, err := net.Dial("tcp", m.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLink(conn, sealer(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestTheHolderHasWhatItAcknowledgedAndCannotReadIt(t *testing.T) {
	o := options(t.TempDir())
	m := newMember(t, o)
	l := m.link(t)
	e, gone := entry("a secret between two"), entry("gone")
	for _, e := range []Entry{e, gone, e} {
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Finish(t.Context(), 7, gone.ID, Delivered); err != nil {
		t.Fatal(err)
	}
	m.stop(t)
	for _, name := range segments(t, o.Dir) {
		data, err := os.ReadFile(name)
		if err != nil || bytes.Contains(data, []byte("secret")) || bytes.Contains(data, []byte("alice")) {
			t.Errorf("%s: %v, or it holds mail in clear", name, err)
		}
	}
	l = newMember(t, o).link(t)
	list, err := l.Pending(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != e.ID || !list[0].Time.Equal(e.Time) {
		t.Errorf("got %v, %v; want %v", list, err, e.ID)
	}
	check(t, func(id ID) (Entry, error) { return l.Read(t.Context(), id) }, e)
	if _, err := l.Read(t.Context(), gone.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("a closed entry: got %v, want ErrUnknown", err)
	}
}

func TestTheHolderRefusesADeposedPrimaryAlsoAfterARestart(t *testing.T) {
	o := options(t.TempDir())
	m := newMember(t, o)
	l := m.link(t)
	old, next := entry("old"), entry("new")
	next.Epoch = 8
	for _, e := range []Entry{old, next} {
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	late := entry("late")
	for range 2 {
		if err := l.Append(t.Context(), late); !errors.Is(err, ErrDeposed) {
			t.Errorf("append: got %v, want ErrDeposed", err)
		}
		if err := l.Finish(t.Context(), 7, old.ID, Delivered); !errors.Is(err, ErrDeposed) {
			t.Errorf("finish: got %v, want ErrDeposed", err)
		}
		m.stop(t)
		m = newMember(t, o)
		l = m.link(t)
	}
	m.Raise(9)
	if err := l.Append(t.Context(), next); !errors.Is(err, ErrDeposed) {
		t.Errorf("below a raised epoch: got %v, want ErrDeposed", err)
	}
}

func TestManyAppendsAreInFlightOnOneStreamAndShareASync(t *testing.T) {
	f := &fault{slow: make(chan struct{})}
	m := newMember(t, f.options(t.TempDir()))
	l := m.link(t)
	const n = 100
	var g errgroup.Group
	for i := range n {
		g.Go(func() error { return l.Append(t.Context(), entry(fmt.Sprint(i))) })
		if i == 0 {
			f.hangs(t)
		}
	}
	for len(m.store.requests) < n-1 {
		time.Sleep(time.Millisecond)
	}
	if list, err := l.Pending(t.Context()); err != nil || len(list) != 0 { // it is answered meanwhile
		t.Errorf("before the sync: got %v, %v; want nothing", list, err)
	}
	close(f.slow)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if f.syncs != 2 {
		t.Errorf("got %d syncs for %d appends, want one for the first and one for all others", f.syncs, n)
	}
}

func TestAnAppendThatWasGivenUpDoesNotOutliveItsClosing(t *testing.T) {
	f := &fault{slow: make(chan struct{})}
	m := newMember(t, f.options(t.TempDir()))
	l := m.link(t)
	e := entry("x")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Append(ctx, e); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the disk hangs: got %v, want context.DeadlineExceeded", err)
	}
	closed := make(chan error, 1)
	var g errgroup.Group
	g.Go(func() error {
		closed <- l.Finish(t.Context(), 7, e.ID, Refused)
		return nil
	})
	close(f.slow)
	if err := <-closed; err != nil || len(m.Pending()) != 0 {
		t.Errorf("got %v and %v, want nothing open", err, m.Pending())
	}
	g.Wait()
}

func TestALongListComesInPages(t *testing.T) {
	f := &fault{}
	m := newMember(t, f.options(t.TempDir()))
	l := m.link(t)
	const n = maxListed + 10
	var g errgroup.Group
	g.SetLimit(200)
	for range n {
		g.Go(func() error { return l.Append(t.Context(), entry("x")) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	list, err := l.Pending(t.Context())
	seen := make(map[ID]bool)
	for _, m := range list {
		seen[m.ID] = true
	}
	if err != nil || len(list) != n || len(seen) != n {
		t.Errorf("got %d entries, %d different, %v; want %d", len(list), len(seen), err, n)
	}
}

func TestAStreamThatDoesNotKeepToTheProtocolIsClosedAndChangesNothing(t *testing.T) {
	m := newMember(t, options(t.TempDir()))
	for name, bytes := range map[string]string{
		"another greeting": strings.Repeat("x", len(hello)),
		"huge frame":       hello + "\xff\xff\xff\xff\x01",
		"no such kind":     hello + string(frame{kind: 99}.encode()),
		"an answer":        hello + string(frame{kind: kindDone}.encode()),
		"short record":     hello + string(frame{kind: kindAppend, body: []byte("x")}.encode()),
		"half a frame":     hello + string(recordFrame(kindAppend, sealer(t).seal(entry("x").record())).encode()[:200]),
	} {
		conn, err := net.Dial("tcp", m.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, bytes)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the stream is still open", name)
		}
		conn.Close()
	}
	if got := m.Pending(); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

func TestASealedEntryIsBoundToItsEpochAndKey(t *testing.T) {
	s := sealer(t)
	e := entry("x")
	sealed := s.seal(e.record())
	other, err := NewSealer([]byte("the key of another cluster, or a new one"), []byte("the key of a cluster, long enough"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.open(sealed); err != nil || !same(got, e) {
		t.Errorf("with the former key: got %v, %v", got, err)
	}
	changed := sealed
	changed.epoch++
	if _, err := s.open(changed); err == nil {
		t.Error("a changed epoch was taken")
	}
	if _, err := s.open(other.seal(e.record())); err == nil {
		t.Error("another cluster's entry was opened")
	}
	if _, err := s.open(record{body: []byte("short")}); err == nil {
		t.Error("a short body was opened")
	}
	if _, err := NewSealer([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
}

// newCopies sends to the members in this order.
func newCopies(t testing.TB, epoch uint64, members ...*member) *Copies {
	t.Helper()
	var names []string
	addresses := make(map[string]string)
	for i, m := range members {
		name := fmt.Sprintf("node%d", i+1)
		names = append(names, name)
		addresses[name] = m.ln.Addr().String()
	}
	c := &Copies{
		Holders: func() []string { return names },
		Dial: func(ctx context.Context, node string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addresses[node])
		},
		Epoch: func() uint64 { return epoch }, Sealer: sealer(t), Try: time.Second, Log: slog.New(slog.DiscardHandler),
	}
	t.Cleanup(func() { finish(t, c) })
	return c
}

func TestTheNextHolderIsAskedWhenOneIsDown(t *testing.T) {
	first, second := newMember(t, options(t.TempDir())), newMember(t, options(t.TempDir()))
	c := newCopies(t, 7, first, second)
	a, b := entry("a"), entry("b")
	if err := c.Append(t.Context(), a); err != nil || len(first.Pending()) != 1 || len(second.Pending()) != 0 {
		t.Errorf("got %v; want it on the first holder only", err)
	}
	first.stop(t)
	if err := c.Append(t.Context(), b); err != nil || len(second.Pending()) != 1 {
		t.Errorf("got %v; want it on the second holder", err)
	}
	if err := c.Finish(t.Context(), a.ID, Delivered); err == nil {
		t.Error("an entry was closed although its holder was not told")
	}
	second.stop(t)
	if err := c.Append(t.Context(), entry("c")); !errors.Is(err, ErrNoHolder) {
		t.Errorf("got %v, want ErrNoHolder", err)
	}
}

func TestADeposedPrimaryDoesNotLookForAMoreCredulousHolder(t *testing.T) {
	first, second := newMember(t, options(t.TempDir())), newMember(t, options(t.TempDir()))
	first.Raise(8)
	if err := newCopies(t, 7, first, second).Append(t.Context(), entry("x")); !errors.Is(err, ErrDeposed) || len(second.Pending()) != 0 {
		t.Errorf("got %v and %v, want ErrDeposed and nothing", err, second.Pending())
	}
}

func TestTheNewPrimaryCollectsEveryOpenEntryOnce(t *testing.T) {
	own, other, away := newMember(t, options(t.TempDir())), newMember(t, options(t.TempDir())), newMember(t, options(t.TempDir()))
	old := newCopies(t, 7, own, other)
	both, mine, theirs, closed := entry("both"), entry("mine"), entry("theirs"), entry("closed")
	for _, put := range []struct {
		m *member
		e []Entry
	}{{own, []Entry{both, mine, closed}}, {other, []Entry{both, theirs}}} {
		l := put.m.link(t)
		for _, e := range put.e {
			if err := l.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := old.Finish(t.Context(), closed.ID, Delivered); err != nil {
		t.Fatal(err)
	}
	away.stop(t)
	j := open(t, options(t.TempDir()))
	defer finish(t, j)
	next := newCopies(t, 8, other, away)
	for round := range 2 {
		got, err := next.Collect(t.Context(), own.Holder, j)
		if err == nil || !strings.Contains(err.Error(), "node2") {
			t.Errorf("got %v, want it to say that node2 is away", err)
		}
		if len(got) != 3 {
			t.Errorf("round %d: got %v, want three", round, got)
		}
	}
	for _, want := range []Entry{both, mine, theirs} {
		want.Epoch, want.Queue = 8, "" // the other machine's queue ID means nothing here
		check(t, j.Read, want)
	}
	if got := len(other.Pending()); got != 3 { // what only this machine had has its second copy again
		t.Errorf("the other holder has %d, want 3", got)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(recordFrame(kindAppend, entry("x").record()).encode())
	f.Add(recordFrame(kindFinish, record{how: Relayed, id: NewID()}).encode())
	f.Add(listedFrame([]Meta{{ID: NewID()}}).encode())
	f.Add(refusedFrame(ErrFull).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 16
		got, err := readFrame(bufio.NewReader(bytes.NewReader(data)), limit)
		if err != nil {
			return
		}
		if len(got.body) > limit || !bytes.HasPrefix(data, got.encode()) {
			t.Errorf("got %v, which is not what was read", got)
		}
		if r, err := got.record(); err == nil && !bytes.Equal(recordFrame(got.kind, r).body, got.body) {
			t.Errorf("record: got %v", r)
		}
		if list, err := got.listed(); err == nil && !bytes.Equal(listedFrame(list).body, got.body) {
			t.Errorf("list: got %v", list)
		}
		got.id()
		if got.kind == kindRefused && got.refusal() == nil {
			t.Error("a refusal without an error")
		}
	})
}
