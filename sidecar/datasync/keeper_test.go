//go:build linux

package datasync

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/sidecar/datasync/apply"
	"understudy/sidecar/datasync/tree"
)

// stage is two nodes of a role, and who has the duty.
type stage struct {
	t     *testing.T
	nodes map[string]*actor

	mu      sync.Mutex
	primary string
	epoch   uint64
	writing map[string]bool
}

type actor struct {
	keeper *Keeper
	root   string
	stop   context.CancelFunc
	ended  chan error
}

func newStage(t *testing.T) *stage {
	t.Helper()
	root(t)
	s := &stage{t: t, nodes: map[string]*actor{}, writing: map[string]bool{}}
	dir := t.TempDir()
	for _, node := range []string{"mail1", "mail2"} {
		s.nodes[node] = &actor{root: filepath.Join(dir, node, "data")}
		must(t, os.MkdirAll(s.nodes[node].root, 0o755))
	}
	for node := range s.nodes {
		s.start(node)
	}
	t.Cleanup(func() {
		for node := range s.nodes {
			s.kill(node)
		}
	})
	return s
}

func (s *stage) start(node string) {
	s.t.Helper()
	a := s.nodes[node]
	k, err := NewKeeper(KeeperConfig{
		Sets: []Set{{Name: "mail data", Root: a.root, Index: filepath.Join(filepath.Dir(a.root), "index"), Accounts: tree.NewAccounts("/etc")}},
		Primary: func() (string, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.primary, s.primary != "" && s.primary != node
		},
		Mine: func() uint64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.primary == node {
				return s.epoch
			}
			return 0
		},
		Writing: func(context.Context) (bool, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.writing[node], nil
		},
		Dial: func(ctx context.Context, to string) (net.Conn, error) { return s.dial(ctx, node, to) }, Log: quiet(),
		Options: SourceOptions{Alive: 50 * time.Millisecond},
	})
	must(s.t, err)
	s.mu.Lock()
	a.keeper = k
	s.mu.Unlock()
	var ctx context.Context
	ctx, a.stop = context.WithCancel(context.Background())
	a.ended = make(chan error, 1)
	go func() { a.ended <- k.Run(ctx) }()
}

func (s *stage) kill(node string) {
	a := s.nodes[node]
	if a.stop == nil {
		return
	}
	a.stop()
	a.stop = nil
	if err := <-a.ended; err != nil {
		s.t.Error(err)
	}
}

// dial makes a connection and lets the other node serve its end.
func (s *stage) dial(ctx context.Context, from, to string) (net.Conn, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	ours, err := (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	theirs, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	k := s.nodes[to].keeper
	s.mu.Unlock()
	go func() {
		_ = k.Serve(context.WithoutCancel(ctx), from, theirs) // its end is the mirror's trouble
		theirs.Close()
	}()
	return ours, nil
}

func (s *stage) appoint(node string, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.primary, s.epoch = node, epoch
}

func (s *stage) wait(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(15 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not so\nmail1 %+v %+v\nmail2 %+v %+v", what, s.nodes["mail1"].keeper.Copy(), s.nodes["mail1"].keeper.Sets(),
				s.nodes["mail2"].keeper.Copy(), s.nodes["mail2"].keeper.Sets())
		}
	}
}

func (s *stage) copyOf(node string) Copy { return s.nodes[node].keeper.Copy() }

func (s *stage) has(node, path, content string) bool {
	got, err := os.ReadFile(s.nodes[node].root + "/" + path)
	return err == nil && string(got) == content
}

func TestTheDirectionTurnsRoundWithTheDuty(t *testing.T) {
	s := newStage(t)
	if c := s.copyOf("mail1"); c.Epoch != 0 || c.CaughtUp || !c.Never {
		t.Errorf("at first: %+v", c)
	}
	write(t, s.nodes["mail1"].root+"/new/1", "one")
	s.appoint("mail1", 4)
	s.wait("mail2 has mail1's data", func() bool {
		return s.has("mail2", "new/1", "one") && s.copyOf("mail1").CaughtUp && s.copyOf("mail2").CaughtUp
	})
	if a, b := s.copyOf("mail1"), s.copyOf("mail2"); a.Epoch != 4 || !a.Source || !a.Complete || b.Epoch != 4 || b.Source || !b.Complete {
		t.Errorf("got %+v and %+v", a, b)
	}
	write(t, s.nodes["mail1"].root+"/new/2", "two")
	must(t, s.nodes["mail1"].keeper.Barrier(t.Context()))
	if !s.has("mail2", "new/2", "two") {
		t.Error("the barrier passed, and the file is not there")
	}
	// mail1 is lost with something that mail2 has not got.
	s.kill("mail1")
	write(t, s.nodes["mail1"].root+"/new/3", "unseen")
	s.appoint("mail2", 6)
	s.wait("mail2 is the source", func() bool { c := s.copyOf("mail2"); return c.Source && c.Epoch == 6 && !c.CaughtUp })
	write(t, s.nodes["mail2"].root+"/new/4", "four")
	s.start("mail1")
	s.wait("mail1 follows", func() bool { return s.has("mail1", "new/4", "four") && s.copyOf("mail2").CaughtUp })
	if s.has("mail1", "new/3", "unseen") || !s.has("mail1", apply.Own+"/lost+found/6/new/3", "unseen") {
		t.Error("what only the old primary had is not in lost+found")
	}
	if m := s.nodes["mail1"].keeper.Sets()[0].Mirror; m == nil || m.Kept != 1 {
		t.Errorf("got %+v, want one path in lost+found", m)
	}
}

func TestNobodyMirrorsIntoWhatIsBeingWritten(t *testing.T) {
	s := newStage(t)
	s.appoint("mail1", 4)
	s.wait("equal", func() bool { return s.copyOf("mail2").CaughtUp })
	s.mu.Lock()
	s.primary, s.epoch, s.writing["mail1"] = "mail2", 5, true // deposed, and its programs run still
	s.mu.Unlock()
	s.wait("mail2 is the source", func() bool { return s.copyOf("mail2").Epoch == 5 })
	write(t, s.nodes["mail2"].root+"/f", "x")
	time.Sleep(5 * lookEvery) // long enough for a session to begin, if there were one
	if s.has("mail1", "f", "x") {
		t.Error("a mirror writes where programs write")
	}
	s.mu.Lock()
	s.writing["mail1"] = false
	s.mu.Unlock()
	s.wait("mail1 follows", func() bool { return s.has("mail1", "f", "x") })
}

func TestASourceOfAnOlderEpochDoesNotBegin(t *testing.T) {
	s := newStage(t)
	s.appoint("mail1", 7)
	s.wait("equal", func() bool { return s.copyOf("mail2").CaughtUp })
	var stale *apply.StaleEpochError
	if err := s.nodes["mail2"].keeper.Begin(6); !errors.As(err, &stale) {
		t.Errorf("got %v", err)
	}
	s.wait("mail2 follows again", func() bool { return s.copyOf("mail2").CaughtUp })
}

func TestADirectoryThatIsNotMountedIsRefused(t *testing.T) {
	s := newStage(t)
	write(t, s.nodes["mail1"].root+"/f", "x")
	s.appoint("mail1", 7)
	s.wait("equal", func() bool { return s.copyOf("mail2").CaughtUp })
	s.kill("mail1")
	must(t, os.Rename(s.nodes["mail1"].root, s.nodes["mail1"].root+".elsewhere"))
	must(t, os.Mkdir(s.nodes["mail1"].root, 0o755))
	s.appoint("mail1", 8)
	s.start("mail1")
	s.wait("it says so", func() bool { return s.nodes["mail1"].keeper.Sets()[0].Trouble != "" })
	if !s.has("mail2", "f", "x") {
		t.Error("the mirror was emptied")
	}
}

func TestAnEmptiedSourceIsTheOperatorsToSee(t *testing.T) {
	s := newStage(t)
	s.appoint("mail1", 1)
	names := []string{"a", "b", "c"}
	root := s.nodes["mail1"].root
	for _, name := range names {
		write(t, root+"/"+name, "x")
	}
	s.wait("all are there", func() bool { return s.has("mail2", "a", "x") && s.has("mail2", "b", "x") && s.has("mail2", "c", "x") })
	if woes := s.nodes["mail1"].keeper.Woes(); len(woes) > 0 {
		t.Errorf("nothing is wrong, but %v", woes)
	}
	s.kill("mail2")
	for _, name := range names {
		must(t, os.Remove(root+"/"+name))
	}
	s.start("mail2")
	s.wait("it is said", func() bool {
		return strings.HasPrefix(s.nodes["mail1"].keeper.Woes()[root], "they are not mirrored: the source is empty")
	})
	if woes := s.nodes["mail2"].keeper.Woes(); len(woes) > 0 {
		t.Errorf("the mirror says it, too: %v", woes)
	}
	s.nodes["mail1"].keeper.Allow(3)
	s.wait("it is over", func() bool { return len(s.nodes["mail1"].keeper.Woes()) == 0 && !s.has("mail2", "a", "x") })
}
