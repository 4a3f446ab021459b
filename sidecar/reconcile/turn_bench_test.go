package reconcile

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// BenchmarkTurn is a turn of a primary among eight members at rest: what a sidecar does all day.
func BenchmarkTurn(b *testing.B) {
	now := cluster.Instant(time.Hour)
	p := decide.Policy{Self: "n1", Timings: decide.Timings{
		Beat: 100 * time.Millisecond, Detection: 500 * time.Millisecond, Slack: 50 * time.Millisecond, Gate: 400 * time.Millisecond,
		Reserved: 1200 * time.Millisecond, LedgerIdle: 10 * time.Second, Reconcile: 5 * time.Second,
	}}
	heard := map[string]cluster.Peer{}
	for i := range 8 {
		p.Nodes = append(p.Nodes, fmt.Sprintf("n%d", i+1))
	}
	p.Roles = []decide.Role{{Name: "lb", Nodes: p.Nodes[:2], Link: netip.MustParsePrefix("10.9.0.10/24"), Primary: true}, {Name: "web", Nodes: p.Nodes[2:]}}
	w := newWorld(func() cluster.Instant { return now })
	w.heard = heard
	dir := b.TempDir()
	l, err := New(Config{
		Policy: p, Next: decide.Next, Now: func() cluster.Instant { return now }, Boot: "b", MemoryFile: filepath.Join(dir, "m"), PeersFile: filepath.Join(dir, "p"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, World{Mesh: fakeMesh{w}, Addresses: fakeAddresses{w}, Notify: func(string) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	beat := func() {
		now = now.Add(50 * time.Millisecond)
		next := map[string]cluster.Peer{}
		for _, k := range p.Nodes[1:] {
			hears := map[string]time.Duration{}
			for _, j := range p.Nodes {
				hears[j] = 50 * time.Millisecond
			}
			said := cluster.Announcement{Voting: true, Phase: cluster.Serving, Health: cluster.Healthy}
			for _, x := range w.said.Bids {
				said.Promises = append(said.Promises, cluster.Promise{Duty: x.Duty, Epoch: x.Epoch, Holder: "n1", Clear: true})
			}
			for _, x := range w.said.Holds {
				said.Promises = append(said.Promises, cluster.Promise{Duty: x.Duty, Epoch: x.Epoch, Holder: "n1", Clear: true})
			}
			next[k] = cluster.Peer{Heard: now, Every: p.Timings.Beat, Confirmed: now - 1, Hears: hears, Said: said}
		}
		w.mu.Lock()
		w.heard = next
		w.mu.Unlock()
	}
	for range 100 {
		beat()
		l.turn(b.Context())
		l.due = now.Add(50 * time.Millisecond)
	}
	if l.memory.Duties["lb"].Hold.State != cluster.Held {
		b.Fatalf("the node does not hold its duty: %+v", l.look().Decision.Blocked)
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		beat()
		w.events = w.events[:0]
		l.due = now
		b.StartTimer()
		l.turn(b.Context())
	}
	l.exec.wait()
}
