package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

var (
	testKey  = secrets.NewSecret("0123456789abcdef0123456789abcdef")
	otherKey = secrets.NewSecret("fedcba9876543210fedcba9876543210")
	began    = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
)

const now = cluster.Instant(1000 * time.Second)

// world is a cluster of six nodes in which all is well, as lb1 sees it.
type world struct {
	policy   decide.Policy
	view     decide.View
	decision decide.Decision
	journal  *Journal // nil: none runs
}

func calm() *world {
	w := &world{policy: decide.Policy{Self: "lb1", Nodes: []string{"lb1", "lb2", "web1", "web2", "mail1", "mail2"}}}
	w.policy.Roles = []decide.Role{
		{Name: "lb", Nodes: []string{"lb1", "lb2"}, Reserved: netip.MustParseAddr("203.0.113.10"), AddressNames: []string{"@", "www"}, Primary: true},
		{Name: "web", Nodes: []string{"web1", "web2"}, Names: []string{"web"}},
		{Name: "mail", Nodes: []string{"mail1", "mail2"}, Link: netip.MustParsePrefix("10.0.0.25/24"), AddressNames: []string{"mail"}, Primary: true, Data: true, PrimaryUnits: true},
	}
	w.policy.Zones = []decide.Zone{{Key: "digitalocean blog.example"}}
	w.view = decide.View{Now: now, Started: now.Add(-time.Hour), Peers: map[string]cluster.Peer{}, Zones: map[string]decide.ZoneReading{}}
	w.view.Ledger = decide.Ledger{Configured: true, Sound: true, ReadSent: now.Add(-2 * time.Second)}
	w.view.Claim = decide.ClaimReading{Needed: true, Mine: true, Epoch: 1}
	w.view.Zones["digitalocean blog.example"] = decide.ZoneReading{At: now.Add(-20 * time.Second), Records: make([]cluster.Record, 5)}
	w.decision.Memory.Verdicts = map[string]decide.Verdict{}
	w.decision.Memory.Epochs = map[string]uint64{"lb": 4, "mail": 2, cluster.Coordinator: 3}
	w.decision.LookAgain = now.Add(80 * time.Millisecond)
	for i, name := range w.policy.Nodes {
		a := cluster.Announcement{
			Claim: 1, Machine: fmt.Sprint(1001 + i), Private: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)}), Phase: cluster.Serving,
			Health: cluster.Healthy, Voting: true, Commit: "3f2a91c0d5e8b7a6f4c3d2e1f0a9b8c7d6e5f4a3",
		}
		if name == w.policy.Self {
			w.decision.Say = a
			continue
		}
		w.view.Peers[name] = cluster.Peer{Heard: now.Add(-40 * time.Millisecond), Said: a}
		w.decision.Memory.Verdicts[name] = decide.Verdict{State: decide.Alive}
	}
	w.decision.Say.Holds = []cluster.Hold{{Duty: cluster.Coordinator, Epoch: 3, State: cluster.Held}, {Duty: "lb", Epoch: 4, State: cluster.Held}}
	w.peer("mail1", func(a *cluster.Announcement) {
		a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 2, State: cluster.Held}}
	})
	return w
}

// peer changes what a peer says.
func (w *world) peer(name string, change func(*cluster.Announcement)) *world {
	p := w.view.Peers[name]
	change(&p.Said)
	w.view.Peers[name] = p
	return w
}

// silence makes a peer silent for so long.
func (w *world) silence(name string, d time.Duration, verdict decide.Liveness) *world {
	p := w.view.Peers[name]
	p.Heard = now.Add(-d)
	w.view.Peers[name] = p
	w.decision.Memory.Verdicts[name] = decide.Verdict{State: verdict}
	return w
}

func (w *world) status() Status { return NewStatus(w.policy, w.view, w.decision) }
func (w *world) plan() Plan     { return NewPlan(w.policy, w.view, w.decision) }

// backend is a loop that stands still, and remembers its orders.
type backend struct {
	mu     sync.Mutex
	world  *world
	at     time.Time
	orders decide.Orders
	past   []Incident
	gone   []Destroy // what was ordered
	err    error
	// reseeded is what was written into the ledger.
	reseeded []cluster.Recall
	wished   []cluster.Wish
	synced   []SyncFor // what was asked
	syncErr  error
	looked   int
	removal  Removal
	// confirmed are the commits whose removals were.
	confirmed []string
	ran       []PuppetRun
}

func (b *backend) Look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looked++
}

func (b *backend) Removal() Removal { return b.removal }

func (b *backend) ConfirmRemoval(commit string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.confirmed = append(b.confirmed, commit)
}

func (b *backend) Runs() []PuppetRun { return b.ran }

func (b *backend) Snapshot() (decide.Policy, decide.View, decide.Decision, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.world.policy, b.world.view, b.world.decision, b.at
}

func (b *backend) Order(change func(*decide.Orders)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.orders)
}

func (b *backend) Reseed(_ context.Context, r cluster.Recall) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reseeded = append(b.reseeded, r)
	return nil
}

func (b *backend) Wish(_ context.Context, w cluster.Wish) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.wished = append(b.wished, w)
	return nil
}

func (b *backend) Incidents(context.Context) ([]Incident, error) { return b.past, b.err }

func (b *backend) Sync(_ context.Context, f SyncFor) (RoleData, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.synced = append(b.synced, f)
	return RoleData{CaughtUp: true, Durable: f.Wait > 0}, b.syncErr
}

func (b *backend) Destroy(_ context.Context, d Destroy) (Destroyed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return Destroyed{}, b.err
	}
	b.gone = append(b.gone, d)
	return Destroyed{Node: d.Node, Machine: d.Machine, DryRun: d.DryRun}, nil
}

func (b *backend) paused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.orders.Pause
}

func newBackend() *backend { return &backend{world: calm(), at: time.Now()} }

func authority(t testing.TB, key secrets.Secret) *Authority {
	t.Helper()
	a, err := NewAuthority(key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newServer(t testing.TB, b Backend) *Server {
	t.Helper()
	return NewServer(Config{Log: slog.New(slog.DiscardHandler), Cluster: "blog", Backend: b, Authority: authority(t, testKey)})
}
