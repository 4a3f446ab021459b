package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// world is a small world that behaves: what is done to it shows when it is asked.
type world struct {
	now func() cluster.Instant

	mu       sync.Mutex
	events   []string // what happened, in order
	refuse   map[string]error
	gates    map[string]cluster.Instant
	added    map[string]bool
	holder   map[netip.Addr]cluster.AddressHolder
	delay    time.Duration // of calls to the outside
	machines []cluster.Machine
	heard    map[string]cluster.Peer
	said     cluster.Announcement
	peers    map[string]netip.AddrPort

	changed chan struct{}
}

func newWorld(now func() cluster.Instant) *world {
	return &world{now: now, refuse: map[string]error{}, gates: map[string]cluster.Instant{}, added: map[string]bool{},
		holder: map[netip.Addr]cluster.AddressHolder{}, changed: make(chan struct{}, 1)}
}

// did notes an event, and returns what it should fail with.
func (w *world) did(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := fmt.Sprintf(format, args...)
	w.events = append(w.events, e)
	return w.refuse[e]
}

func (w *world) happened() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

func (w *world) count(event string) int {
	n := 0
	for _, e := range w.happened() {
		if e == event {
			n++
		}
	}
	return n
}

func (w *world) fail(event string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse[event] = err
}

// call is a call to the outside, which takes its time and ends with its context.
func (w *world) call(ctx context.Context, format string, args ...any) error {
	w.mu.Lock()
	delay := w.delay
	w.mu.Unlock()
	err := w.did(format, args...)
	if delay == 0 {
		return err
	}
	select {
	case <-ctx.Done():
		w.did("cut off: "+format, args...)
		return ctx.Err()
	case <-time.After(delay):
		return err
	}
}

type fakeMesh struct{ *world }

func (m fakeMesh) Say(a cluster.Announcement) {
	m.mu.Lock()
	same := a.Commit == m.said.Commit && a.Voting == m.said.Voting
	m.said = a
	m.mu.Unlock()
	if !same {
		m.did("say %s", a.Commit)
	}
}
func (m fakeMesh) Flush(context.Context) error { return m.did("flush") }
func (m fakeMesh) Peers() map[string]cluster.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard
}
func (m fakeMesh) SetPeers(p map[string]netip.AddrPort) {
	m.mu.Lock()
	m.peers = p
	m.mu.Unlock()
}
func (m fakeMesh) Reset()                   { m.did("reset") }
func (m fakeMesh) Changed() <-chan struct{} { return m.changed }

type fakeAddresses struct{ *world }

func (a fakeAddresses) Gate(role string, until cluster.Instant, drain bool) error {
	state := "open"
	switch {
	case until == 0:
		state = "close"
	case drain:
		state = "drain"
	}
	if err := a.did("%s %s", state, role); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gates[role] = until
	return nil
}

func (a fakeAddresses) open(role string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gates[role] > a.now()
}

func (a fakeAddresses) Add(role string) error  { return a.put(role, true) }
func (a fakeAddresses) Drop(role string) error { return a.put(role, false) }
func (a fakeAddresses) put(role string, there bool) error {
	if err := a.did("address %s %v", role, there); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.added[role] = there
	return nil
}

func (a fakeAddresses) Present(role string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.added[role], nil
}

func (a fakeAddresses) Sockets(ctx context.Context, role string) (int, error) {
	return 3, a.call(ctx, "count %s", role)
}

type fakeProvider struct{ *world }

func (p fakeProvider) List(ctx context.Context) ([]cluster.Machine, error) {
	return p.machines, p.call(ctx, "list")
}

func (p fakeProvider) Get(ctx context.Context, id string) (cluster.Machine, error) {
	err := p.call(ctx, "get %s", id)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.machines {
		if m.ID == id {
			return m, err
		}
	}
	return cluster.Machine{ID: id, Power: cluster.PowerGone}, err
}

func (p fakeProvider) PowerOff(ctx context.Context, id, name string) error {
	return p.call(ctx, "power off %s %s", id, name)
}

func (p fakeProvider) Create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error) {
	return cluster.Machine{}, p.call(ctx, "create %s %s", h.Name, strings.Join(h.Tags, " "))
}

func (p fakeProvider) Delete(ctx context.Context, id, name string) error {
	return p.call(ctx, "delete %s %s", id, name)
}

func (p fakeProvider) AssignAddress(ctx context.Context, a netip.Addr, id string) error {
	if err := p.call(ctx, "assign %s to %s", a, id); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holder[a] = cluster.AddressHolder{Machine: id}
	return nil
}

func (p fakeProvider) Holder(ctx context.Context, a netip.Addr) (cluster.AddressHolder, error) {
	if err := p.call(ctx, "holder of %s", a); err != nil {
		return cluster.AddressHolder{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holder[a], nil
}

var errBroken = errors.New("broken")

// rig is a loop in a bubble, with a Next that the test writes.
type rig struct {
	*world
	t      *testing.T
	start  time.Time
	skew   atomic.Int64 // nanoseconds: how far the boot clock has jumped
	loop   *Loop
	cfg    Config
	cancel context.CancelFunc
	ended  chan error
}

// plan is a stub of decide.Next: what it returns for a view.
type plan func(v decide.View, m decide.Memory) decide.Decision

func newRig(t *testing.T, next plan, change func(*Config, *World)) *rig {
	t.Helper()
	r := &rig{t: t, start: time.Now(), ended: make(chan error, 1)}
	now := func() cluster.Instant {
		return cluster.Instant(time.Hour) + cluster.Instant(time.Since(r.start)+time.Duration(r.skew.Load()))
	}
	r.world = newWorld(now)
	dir := t.TempDir()
	r.cfg = Config{
		Policy: decide.Policy{
			Self: "lb1", Nodes: []string{"lb1", "lb2", "web1"},
			Roles:   []decide.Role{{Name: "lb", Nodes: []string{"lb1", "lb2"}, Link: netip.MustParsePrefix("10.9.0.10/24"), Primary: true, PrimaryUnits: true}},
			Timings: decide.Timings{Beat: 100 * time.Millisecond, Detection: 500 * time.Millisecond, Gate: 400 * time.Millisecond, Reconcile: 5 * time.Second},
		},
		Now: now, Machine: "11", Boot: "boot", MemoryFile: filepath.Join(dir, "memory.json"), PeersFile: filepath.Join(dir, "peers.json"),
		Peers: map[string]netip.AddrPort{"lb2": netip.MustParseAddrPort("10.9.0.2:7946"), "web1": netip.MustParseAddrPort("10.9.0.3:7946")}, LeaveWithin: 15 * time.Second,
		Log: slog.New(slog.DiscardHandler),
	}
	r.cfg.Next = func(v decide.View, m decide.Memory, _ decide.Policy) decide.Decision {
		d := next(v, m)
		d.Memory.For = v.Started
		return d
	}
	w := World{Mesh: fakeMesh{r.world}, Addresses: fakeAddresses{r.world}, Provider: fakeProvider{r.world}}
	if change != nil {
		change(&r.cfg, &w)
	}
	var err error
	if r.loop, err = New(r.cfg, w); err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts the loop; stop ends it and returns its error.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel = cancel
	go func() { r.ended <- r.loop.Run(ctx) }()
}

func (r *rig) stop() error {
	r.cancel()
	return <-r.ended
}

// holding is a memory in which we hold lb's epoch 7.
func holding() decide.Memory {
	return decide.Memory{Duties: map[string]decide.Duty{"lb": {Hold: cluster.Hold{Duty: "lb", Epoch: 7, State: cluster.Held}}}}
}

func inOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	rest := got
	for _, w := range want {
		i := slices.Index(rest, w)
		if i < 0 {
			t.Fatalf("got %q, want in it, in this order, %q", got, want)
		}
		rest = rest[i+1:]
	}
}
