package mailjournal

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// primary is a node with a Service, and the other members it knows.
type primary struct {
	*Service
	t       testing.TB
	cfg     ServiceConfig
	smtpd   *smtpd
	held    atomic.Uint64
	cleared atomic.Int32

	mu     sync.Mutex
	alive  map[string]*member
	refuse map[string]int // how many more streams are not to be had
}

// newPrimary has the members under these names; who is nil is away.
func newPrimary(t testing.TB, members map[string]*member) *primary {
	t.Helper()
	p := &primary{t: t, smtpd: &smtpd{}, alive: members, refuse: map[string]int{}}
	holding := &Holding{Options: options(t.TempDir()), Epoch: func() uint64 { return 0 }}
	root := t.TempDir()
	var names []string
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free for the milter
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	p.cfg = ServiceConfig{
		Dir: t.TempDir(), Milter: ln.Addr().String(), SMTP: startSMTP(t.(*testing.T), p.smtpd), Maildirs: root, Domains: []string{"blog.example"},
		Holding: holding, Members: names, Sealer: sealer(t), Held: p.held.Load, Log: slog.New(slog.DiscardHandler), Again: 20 * time.Millisecond,
		Holders: func() (list []string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, name := range names {
				if p.alive[name] != nil {
					list = append(list, name)
				}
			}
			return list
		},
		Dial: func(ctx context.Context, node string) (net.Conn, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.refuse[node]--; p.refuse[node] >= 0 {
				return nil, errors.New("connection refused")
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", p.alive[node].ln.Addr().String())
		},
		ClearQueue: func(context.Context) error { p.cleared.Add(1); return nil },
		Barrier:    func(ctx context.Context) error { return errors.New("there is no mirror") },
		Runner:     logOf{make(chan [2]string), make(chan []string, 100)},
	}
	p.Service = NewService(p.cfg)
	t.Cleanup(func() {
		if err := errors.Join(p.Stop(), holding.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *primary) start(epoch uint64) {
	p.t.Helper()
	p.held.Store(epoch)
	if err := p.Start(p.t.Context(), epoch); err != nil {
		p.t.Fatal(err)
	}
}

func (p *primary) got() []string {
	p.smtpd.mu.Lock()
	defer p.smtpd.mu.Unlock()
	return slices.Clone(p.smtpd.got)
}

// delivered waits until Postfix has been handed exactly these, in any order.
func (p *primary) delivered(want ...Entry) {
	p.t.Helper()
	eventually(p.t, "what was open is with Postfix", func() bool { return len(p.got()) >= len(want) && len(p.behind()) == 0 })
	all := strings.Join(p.got(), "\n")
	for _, e := range want {
		if strings.Count(all, e.ID.String()) != 1 {
			p.t.Errorf("entry %v was handed over %d times, want once", e.ID, strings.Count(all, e.ID.String()))
		}
	}
	if got := len(p.got()); got != len(want) {
		p.t.Errorf("%d messages were handed over, want %d", got, len(want))
	}
}

func (p *primary) behind() []string {
	st, _ := p.State()
	return st.Behind
}

// accept has Postfix ask about a message, and returns the answer.
func (p *primary) accept() string {
	p.t.Helper()
	_, answer, err := connect(p.t, p.cfg.Milter).deliver(plain, "new mail\r\n")
	if err != nil {
		p.t.Fatal(err)
	}
	return answer
}

// fill leaves entries of a primary of epoch 7 with a holder.
func fill(t testing.TB, h *Holder, entries ...Entry) {
	t.Helper()
	for _, e := range entries {
		if err := h.store.put(t.Context(), sealer(t).seal(e.record())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATakeoverDeliversWhatOthersHoldBesideNewMail(t *testing.T) {
	mail1, web1 := newMember(t, options(t.TempDir())), newMember(t, options(t.TempDir()))
	p := newPrimary(t, map[string]*member{"mail1": mail1, "web1": web1})
	own, err := p.cfg.Holding.Holder()
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs, both := entry("mine"), entry("theirs"), entry("both")
	fill(t, own, mine, both)
	fill(t, web1.Holder, theirs, both)
	p.start(8)
	if got := p.accept(); got != "accept" {
		t.Errorf("new mail: got %q", got)
	}
	p.delivered(mine, theirs, both)
	if got := p.cleared.Load(); got != 1 {
		t.Errorf("the queue was emptied %d times, want once", got)
	}
	st, ok := p.State()
	if !ok || st.Open != 4 || st.Second != "mail1" || st.Refusing != "" {
		t.Errorf("got %+v, %v; want 4 open, second copies with mail1", st, ok)
	}
	// Whoever was deposed cannot leave anything more, neither here nor there.
	for name, h := range map[string]*Holder{"own": own, "mail1": mail1.Holder, "web1": web1.Holder} {
		if got := h.store.highest(); got != 8 {
			t.Errorf("%s knows epoch %d, want 8", name, got)
		}
	}
}

// A sidecar that is started again has the queue that Postfix has had all the time.
func TestTheQueueOfOnesOwnReignIsLeftToPostfix(t *testing.T) {
	dir := ""
	for _, tc := range []struct {
		claim   string
		epoch   uint64
		cleared int32
		again   int // messages that are handed to Postfix
	}{
		{"at first", 8, 1, 0},
		{"the same epoch", 8, 0, 0},
		{"the next epoch, so it was nobody else's in between", 9, 0, 0},
		{"a gap, in which another may have been primary", 11, 1, 3},
		{"the same again", 11, 0, 0},
	} {
		p := newPrimary(t, map[string]*member{"mail1": newMember(t, options(t.TempDir()))})
		if dir == "" {
			dir = p.cfg.Dir
		}
		p.cfg.Dir = dir
		p.Service = NewService(p.cfg)
		p.start(tc.epoch)
		if got := p.accept(); got != "accept" {
			t.Fatalf("%s: got %q", tc.claim, got)
		}
		eventually(t, tc.claim, func() bool { return len(p.behind()) == 0 && len(p.got()) >= tc.again })
		if got := p.cleared.Load(); got != tc.cleared {
			t.Errorf("%s: the queue was emptied %d times, want %d", tc.claim, got, tc.cleared)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if got := len(p.got()); got != tc.again {
			t.Errorf("%s: %d messages were handed over, want %d", tc.claim, got, tc.again)
		}
	}
}

func TestMailHeldByAMemberThatIsAwayComesWhenItIsBack(t *testing.T) {
	mail1, web1 := newMember(t, options(t.TempDir())), newMember(t, options(t.TempDir()))
	e := entry("late")
	fill(t, web1.Holder, e)
	p := newPrimary(t, map[string]*member{"mail1": mail1, "web1": nil})
	p.start(8)
	eventually(t, "mail1 was asked", func() bool { return slices.Equal(p.behind(), []string{"web1"}) })
	p.mu.Lock()
	p.alive["web1"] = web1
	p.mu.Unlock()
	p.delivered(e)
}

func TestAHolderThatFailsIsAskedAgain(t *testing.T) {
	web1 := newMember(t, options(t.TempDir()))
	e := entry("behind a stream that breaks")
	fill(t, web1.Holder, e)
	p := newPrimary(t, map[string]*member{"mail1": newMember(t, options(t.TempDir())), "web1": web1})
	p.refuse["web1"] = 2
	p.start(8)
	p.delivered(e)
}

func TestWithoutAHolderMailIsRefusedAndTheStateSaysWhy(t *testing.T) {
	mail1 := newMember(t, options(t.TempDir()))
	p := newPrimary(t, map[string]*member{"mail1": nil})
	p.start(8)
	if got := p.accept(); !strings.HasPrefix(got, "451 4.3.0 No second machine") {
		t.Errorf("got %q", got)
	}
	if st, _ := p.State(); !strings.Contains(st.Refusing, ErrNoHolder.Error()) || st.Second != "" {
		t.Errorf("got %+v, want that nobody takes the second copy", st)
	}
	p.mu.Lock()
	p.alive["mail1"] = mail1
	p.mu.Unlock()
	eventually(t, "the holder is noticed", func() bool { st, _ := p.State(); return st.Second == "mail1" && st.Refusing == "" })
	if got := p.accept(); got != "accept" {
		t.Errorf("got %q", got)
	}
}

func TestWhatCannotBePreparedKeepsTheMilterAway(t *testing.T) {
	for claim, spoil := range map[string]func(p *primary){
		"the queue cannot be emptied": func(p *primary) {
			p.cfg.ClearQueue = func(context.Context) error { return errors.New("postsuper: no") }
		},
		"the port is taken": func(p *primary) {
			ln, err := net.Listen("tcp", p.cfg.Milter)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		},
		"the directory cannot be made": func(p *primary) {
			p.cfg.Dir = filepath.Join(t.TempDir(), "file", "dir")
			if err := os.WriteFile(filepath.Dir(p.cfg.Dir), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		p := newPrimary(t, map[string]*member{"mail1": newMember(t, options(t.TempDir()))})
		spoil(p)
		p.Service = NewService(p.cfg)
		err := p.Start(t.Context(), 8)
		if _, ok := p.State(); err == nil || ok || p.Serves() {
			t.Errorf("%s: got %v, serving %v", claim, err, p.Serves())
		}
		if claim != "the port is taken" {
			if conn, err := net.Dial("tcp", p.cfg.Milter); err == nil {
				conn.Close()
				t.Errorf("%s: somebody listens", claim)
			}
		}
	}
}

func TestAGapOfEpochsEndsTheRunAndTheNextStartEmptiesTheQueue(t *testing.T) {
	p := newPrimary(t, map[string]*member{"mail1": newMember(t, options(t.TempDir()))})
	p.start(8)
	p.held.Store(9)
	p.run.mu.Lock()
	before := p.run.reign
	p.run.mu.Unlock()
	if err := p.run.prolong(9); err != nil || before.First != 8 || before.Last != 8 || !p.Serves() {
		t.Errorf("confirmed anew: got %v", err)
	}
	p.start(9)
	if got := p.cleared.Load(); got != 1 {
		t.Errorf("confirmed anew: the queue was emptied %d times, want once, at first", got)
	}
	if err := p.run.prolong(11); err == nil {
		t.Error("a gap was taken for a confirmation")
	}
	p.start(11)
	if got := p.cleared.Load(); got != 2 {
		t.Errorf("after a gap: the queue was emptied %d times, want twice", got)
	}
}

func TestAReignEndsWhereAnotherMayHaveBegun(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		was   reign
		epoch uint64
		want  reign
	}{
		{reign{}, 5, reign{5, 5, time.Time{}}}, {reign{5, 5, at}, 5, reign{5, 5, at}}, {reign{5, 5, at}, 6, reign{5, 6, at}},
		{reign{5, 6, at}, 7, reign{5, 7, at}}, {reign{5, 7, at}, 6, reign{5, 7, at}}, {reign{5, 7, at}, 9, reign{9, 9, time.Time{}}},
	} {
		if got := tc.was.with(tc.epoch); got != tc.want {
			t.Errorf("%v with %d: got %v, want %v", tc.was, tc.epoch, got, tc.want)
		}
	}
	path := filepath.Join(t.TempDir(), "reign")
	for _, text := range []string{"", "x", "0 0 1\n", "7 5 1\n", "7", "5 7\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readReign(path); err != nil || got != (reign{}) {
			t.Errorf("%q: got %v, %v; want none", text, got, err)
		}
	}
	if err := (reign{5, 7, at}).write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := readReign(path); err != nil || got != (reign{5, 7, at}) {
		t.Errorf("got %v, %v; want what was written", got, err)
	}
}

func TestAHolderHearsOfEpochsWhileAPrimarySpeaksToIt(t *testing.T) {
	var known atomic.Uint64
	h := &Holding{Options: options(t.TempDir()), Epoch: known.Load}
	here, there := net.Pipe()
	var g errgroup.Group
	g.Go(func() error { h.Serve(t.Context(), there); return nil })
	l, err := NewLink(here, sealer(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), entry("x")); err != nil {
		t.Errorf("the first primary: %v", err)
	}
	known.Store(8)
	eventually(t, "the first primary is refused", func() bool { return errors.Is(l.Append(t.Context(), entry("y")), ErrDeposed) })
	l.Close()
	g.Wait()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// What this node held for the last primary is over when this one's delivery is, or the next would send it again.
func TestACollectedCopyOfOnesOwnIsClosedToo(t *testing.T) {
	p := newPrimary(t, map[string]*member{"mail1": newMember(t, options(t.TempDir()))})
	own, err := p.cfg.Holding.Holder()
	if err != nil {
		t.Fatal(err)
	}
	e := entry("x")
	e.To = []Recipient{{Address: "alice@blog.example"}}
	fill(t, own, e)
	deliver(t, p.cfg.Maildirs, "blog.example/alice/Maildir/new", e.ID, 0)
	p.start(8)
	eventually(t, "it is closed everywhere", func() bool {
		st, _ := p.State()
		return st.Open == 0 && len(own.Pending()) == 0 && len(st.Behind) == 0
	})
	if got := p.got(); len(got) > 0 {
		t.Errorf("delivered again: %q", got)
	}
}
