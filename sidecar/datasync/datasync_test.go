//go:build linux

package datasync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/sidecar/datasync/disturb"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/watch"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("owners can be given by root only: run the tests as root")
	}
}

// pair is a source and its mirror, in one process.
type pair struct {
	t      testing.TB
	from   Set
	to     Set
	epoch  uint64
	source *Source
	mirror *Mirror
	o      SourceOptions
	policy tree.Policy
	// cut, if above zero, is after how many bytes the next connection ends.
	cut int
	// wrap may change the source's end of the next connection.
	wrap func(net.Conn) net.Conn

	stop context.CancelFunc
	done chan error // of the newest session, both sides
}

func newPair(t testing.TB, p tree.Policy, o SourceOptions) *pair {
	t.Helper()
	root(t)
	dir := t.TempDir()
	set := func(side string) Set {
		must(t, os.MkdirAll(filepath.Join(dir, side, "data"), 0o755))
		return Set{Name: "mail /var/vmail", Root: filepath.Join(dir, side, "data"), Index: filepath.Join(dir, side, "index"), Policy: p, Accounts: tree.NewAccounts("/etc")}
	}
	pr := &pair{t: t, from: set("source"), to: set("mirror"), epoch: 1, o: o, policy: p}
	pr.open()
	t.Cleanup(pr.close)
	return pr
}

func (p *pair) open() {
	p.t.Helper()
	var err error
	p.source, err = OpenSource(quiet(), p.from, p.epoch, p.o)
	must(p.t, err)
	p.mirror, err = OpenMirror(context.Background(), quiet(), p.to)
	must(p.t, err)
}

func (p *pair) close() {
	p.disconnect()
	if p.source != nil {
		must(p.t, errors.Join(p.source.Close(), p.mirror.Close()))
		p.source, p.mirror = nil, nil
	}
}

// turn makes the mirror the source, in the next epoch.
func (p *pair) turn() {
	p.close()
	p.from, p.to = p.to, p.from
	p.epoch++
	p.open()
}

// connect begins a session.
func (p *pair) connect() {
	p.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(p.t, err)
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	must(p.t, err)
	accepted, err := ln.Accept()
	must(p.t, err)
	if p.cut > 0 {
		accepted = &cutting{Conn: accepted, left: p.cut}
		p.cut = 0
	}
	if p.wrap != nil {
		accepted = p.wrap(accepted)
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	p.done = make(chan error, 2)
	go func() { p.done <- fmt.Errorf("mirror: %w", p.mirror.Follow(ctx, dialed)); dialed.Close() }()
	go func() { p.done <- fmt.Errorf("source: %w", p.source.Serve(ctx, "mail2", accepted)); accepted.Close() }()
}

// disconnect ends the session and says how its sides ended, the source's end last.
func (p *pair) disconnect() error {
	if p.stop == nil {
		return nil
	}
	p.stop()
	p.stop = nil
	return errors.Join(<-p.done, <-p.done)
}

// ended waits for a session that ends by itself.
func (p *pair) ended() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		p.done <- err
		return p.disconnect()
	case <-time.After(20 * time.Second):
		p.t.Fatal("the session goes on")
		return nil
	}
}

func (p *pair) barrier() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	if err := p.source.Barrier(ctx); err != nil {
		source, mirror := p.source.State(), p.mirror.State()
		p.t.Fatalf("%v\nsource %+v\nmirror %+v\nsession %v", err, source, mirror, p.disconnect())
	}
}

// same compares the trees by scans of their own.
func (p *pair) same() {
	p.t.Helper()
	if got, want := p.tree(p.to.Root), p.tree(p.from.Root); got.Digest() != want.Digest() {
		p.t.Fatalf("the trees differ\n%s", difference(got, want))
	}
}

func (p *pair) tree(root string) *tree.Tree {
	p.t.Helper()
	dir, err := os.Open(root)
	must(p.t, err)
	defer dir.Close()
	s, err := tree.NewScanner(dir, tree.Options{Policy: p.policy, Names: p.from.Accounts})
	must(p.t, err)
	found, problems, err := s.Scan(context.Background(), nil)
	must(p.t, err)
	if problems.Count > 0 {
		p.t.Fatal(problems)
	}
	return found
}

func difference(got, want *tree.Tree) string {
	var b strings.Builder
	for e := range want.All() {
		if have, found := got.Lookup(e.Path); !found || have.Sum() != e.Sum() {
			fmt.Fprintf(&b, "want %+v\ngot  %+v\n", e, have)
		}
	}
	for e := range got.All() {
		if _, found := want.Lookup(e.Path); !found {
			fmt.Fprintf(&b, "got only %+v\n", e)
		}
	}
	return b.String()
}

// cutting is a connection that breaks in the middle of what is written.
type cutting struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(p), c.left)
	c.left -= n
	wrote, err := c.Conn.Write(p[:n])
	if err == nil && n < len(p) {
		err = errors.Join(errors.New("cut"), c.Close())
	}
	return wrote, err
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func TestWhatIsWrittenIsOnTheMirrorAfterABarrier(t *testing.T) {
	p := newPair(t, tree.Policy{}, SourceOptions{})
	write(t, p.from.Root+"/before", "x")
	p.connect()
	p.barrier()
	p.same()
	write(t, p.from.Root+"/new/file", "y")
	must(t, os.Rename(p.from.Root+"/before", p.from.Root+"/new/before"))
	p.barrier()
	p.same()
	if s := p.source.State(); !s.Compared || s.Changes != 0 || s.Mirror != "mail2" || !s.Equal {
		t.Errorf("source: %+v", s)
	}
	if s := p.mirror.State(); !s.Equal || !s.Following || s.Position.Complete != 1 {
		t.Errorf("mirror: %+v", s)
	}
}

// narrow is a line that takes its time for each byte.
type narrow struct {
	net.Conn
	perByte time.Duration
	mu      sync.Mutex
	bytes   int
}

func (n *narrow) Write(p []byte) (int, error) {
	n.mu.Lock()
	n.bytes += len(p)
	n.mu.Unlock()
	time.Sleep(time.Duration(len(p)) * n.perByte)
	return n.Conn.Write(p)
}

func TestWhatCanBeShorterIsPackedOnANarrowLine(t *testing.T) {
	p := newPair(t, tree.Policy{}, SourceOptions{})
	const size = 24 << 20
	write(t, p.from.Root+"/text", strings.Repeat("All the world's a stage, and all the men and women merely players. ", size/67))
	line := &narrow{perByte: 20 * time.Nanosecond}
	p.wrap = func(c net.Conn) net.Conn { line.Conn = c; return line }
	p.connect()
	p.barrier()
	p.same()
	line.mu.Lock()
	defer line.mu.Unlock()
	if line.bytes > size/2 {
		t.Errorf("%d bytes were sent for a text of %d", line.bytes, size)
	}
}

// many writes n files.
func many(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
}

func TestASourceThatLostItsFilesDoesNotEmptyTheMirror(t *testing.T) {
	for name, lose := range map[string]func(p *pair){
		"while nobody followed": func(p *pair) {
			_ = p.disconnect()
			must(t, os.RemoveAll(p.from.Root+"/d"))
			p.connect()
		},
		"while it was followed": func(p *pair) { must(t, os.RemoveAll(p.from.Root+"/d")) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, tree.Policy{}, SourceOptions{})
			many(t, p.from.Root+"/d", 100)
			write(t, p.from.Root+"/stays", "x")
			p.connect()
			p.barrier()
			lose(p)
			err := p.ended()
			var refusal *tree.Refusal
			if !errors.As(err, &refusal) || p.source.State().Refused == nil {
				t.Fatalf("got %v and %+v, want a refusal", err, p.source.State())
			}
			if left, err := os.ReadDir(p.to.Root + "/d"); err != nil || len(left) < 49 { // it had begun before so much was gone; that lies in the trash
				t.Errorf("the mirror has %d of 100 files, %v", len(left), err)
			}
			p.connect() // asking again changes nothing
			if err := p.ended(); !errors.As(err, &refusal) {
				t.Errorf("the next time: %v", err)
			}
			p.source.Allow(refusal.Allow)
			p.connect()
			p.barrier()
			p.same()
			if p.source.State().Refused != nil {
				t.Error("it is still said to be refused")
			}
		})
	}
}

// An index comes after what it names, also when it was written first.
func TestWhatComesLastComesLast(t *testing.T) {
	p := newPair(t, tree.AptRepository(), SourceOptions{Watch: watch.Options{Settle: time.Millisecond}})
	write(t, p.from.Root+"/dists/stable/InRelease", "0")
	p.connect()
	p.barrier()
	ctx, stop := context.WithCancel(t.Context())
	bad := make(chan error, 1)
	go func() { // whoever reads the mirror meanwhile
		for ctx.Err() == nil {
			index, err := os.ReadFile(p.to.Root + "/dists/stable/InRelease")
			if err != nil {
				bad <- err
				return
			}
			var n int
			if _, err := fmt.Sscan(string(index), &n); err != nil {
				bad <- err
				return
			}
			if n == 0 {
				continue
			}
			if _, err := os.Stat(fmt.Sprintf("%s/pool/%d.deb", p.to.Root, n)); err != nil {
				bad <- fmt.Errorf("index %d: %w", n, err)
				return
			}
		}
		bad <- nil
	}()
	for n := 1; n <= 60; n++ {
		write(t, fmt.Sprintf("%s/pool/%d.deb", p.from.Root, n), strings.Repeat("x", 20000))
		must(t, os.WriteFile(p.from.Root+"/dists/stable/new", fmt.Append(nil, n), 0o644))
		must(t, os.Rename(p.from.Root+"/dists/stable/new", p.from.Root+"/dists/stable/InRelease"))
		time.Sleep(time.Duration(n%4) * time.Millisecond) // a pace, not a wait
	}
	p.barrier()
	stop()
	if err := <-bad; err != nil {
		t.Error(err)
	}
	p.same()
}

// Law: after a barrier tree(mirror) == tree(source), whatever was done, and wherever the stream was cut.
func TestTheMirrorIsTheSameTreeWhereverTheStreamIsCut(t *testing.T) {
	histories := 950
	if testing.Short() {
		histories = 100
	}
	for lane := range 4 {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(lane); seed < uint64(histories); seed += 4 {
				if !t.Run(fmt.Sprint(seed), func(t *testing.T) { history(t, seed) }) {
					return
				}
			}
		})
	}
}

func history(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 5))
	p := newPair(t, tree.Policy{}, SourceOptions{Retry: 20 * time.Millisecond, Watch: watch.Options{Settle: time.Millisecond}})
	large := []int{10000, 10000, 1 << 20}[r.IntN(3)]
	for range r.IntN(30) {
		disturb.Edit(r, p.from.Root, large)
	}
	p.close()
	for range r.IntN(3) {
		disturb.Edit(r, p.to.Root, large) // somebody who should not
	}
	p.open()
	p.source.Allow(1 << 20)
	for range 2 {
		if r.IntN(2) == 0 {
			p.cut = 1 + r.IntN(30000)
			p.connect()
			for range r.IntN(20) {
				disturb.Edit(r, p.from.Root, large)
			}
			if r.IntN(2) == 0 {
				_ = p.disconnect()
			} else {
				time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond) // a pace, not a wait
				_ = p.disconnect()
			}
		}
		p.source.Allow(1 << 20)
		p.connect()
		for range 2 {
			for range r.IntN(15) {
				disturb.Edit(r, p.from.Root, large)
			}
			p.barrier()
			p.same()
		}
		_ = p.disconnect()
		switch r.IntN(4) {
		case 0:
			p.turn()
			p.source.Allow(1 << 20)
		case 1: // both begin anew, from their indices
			p.close()
			p.open()
			p.source.Allow(1 << 20)
		}
	}
}
