//go:build linux

package keepalive

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
)

func sortedCopy(names []string) []string { return slices.Sorted(slices.Values(names)) }

func equalOrEmpty[T comparable](a, b []T) bool { return slices.Equal(a, b) }

// world is a network of nodes in which time is a number, so that a minute takes milliseconds and a seed gives the same again.
type world struct {
	t     testing.TB
	now   cluster.Instant
	rand  *rand.Rand
	names []string
	nodes map[string]*host
	// owners are the nodes' names by address.
	owners map[netip.AddrPort]string
	wire   []flight // by arrival
	// lost says which datagrams do not arrive, late by how much one is delayed beyond the usual.
	lost func(from, to string) bool
	late func() time.Duration
	// seen is shown every datagram that is sent, arriving or not.
	seen func(flight)
}

type host struct {
	*node
	addr   netip.AddrPort
	wake   cluster.Instant
	asleep cluster.Instant // does nothing until then
	queue  []flight        // what the socket has received meanwhile
	news   int
	// arrived is when the newest datagram of each node was read.
	arrived map[string]cluster.Instant
	due     due
}

type flight struct {
	at       cluster.Instant
	from, to netip.AddrPort
	packet   []byte
}

func testConfig(self string) Config {
	return Config{Self: self, Key: secrets.NewSecret("cluster key"), Beat: 100 * time.Millisecond, MissedBeats: 5}.withDefaults()
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7946)
}

// newWorld makes nodes n00, n01 and so on, which know each other's addresses and have said something.
func newWorld(t testing.TB, size int, seed uint64, change func(*Config)) *world {
	w := &world{t: t, now: cluster.Instant(time.Hour), rand: rand.New(rand.NewPCG(seed, 1)), nodes: map[string]*host{}, owners: map[netip.AddrPort]string{}}
	w.lost = func(string, string) bool { return false }
	w.late = func() time.Duration { return 0 }
	for i := range size {
		w.names = append(w.names, fmt.Sprintf("n%02d", i))
	}
	for i, name := range w.names {
		cfg := testConfig(name)
		if change != nil {
			change(&cfg)
		}
		w.nodes[name], w.owners[address(i)] = &host{addr: address(i)}, name
		w.start(name, cfg)
	}
	return w
}

// start begins a new life of a node.
func (w *world) start(name string, cfg Config) {
	n, err := newNode(cfg, w.rand.Uint64())
	if err != nil {
		w.t.Fatal(err)
	}
	h := w.nodes[name]
	*h = host{node: n, addr: h.addr, arrived: map[string]cluster.Instant{}, wake: w.now.Add(time.Duration(w.rand.Int64N(int64(cfg.Beat))))}
	peers := map[string]netip.AddrPort{}
	for i, peer := range w.names {
		peers[peer] = address(i)
	}
	n.setPeers(peers)
	n.say(cluster.Announcement{Phase: cluster.Applied, Voting: true})
}

func (w *world) nameOf(addr netip.AddrPort) string { return w.owners[addr] }

// move gives a node another address, from which it sends and at which it receives.
func (w *world) move(name string, addr netip.AddrPort) {
	delete(w.owners, w.nodes[name].addr)
	w.nodes[name].addr, w.owners[addr] = addr, name
}

func (w *world) send(from netip.AddrPort, to []netip.AddrPort, packet []byte) {
	for _, addr := range to {
		if w.seen != nil {
			w.seen(flight{at: w.now, from: from, to: addr, packet: slices.Clone(packet)})
		}
		if w.lost(w.nameOf(from), w.nameOf(addr)) {
			continue
		}
		at := w.now.Add(time.Duration(200+w.rand.IntN(200))*time.Microsecond + w.late())
		w.deliver(flight{at: at, from: from, to: addr, packet: slices.Clone(packet)})
	}
}

func (w *world) deliver(f flight) {
	i, _ := slices.BinarySearchFunc(w.wire, f, func(a, b flight) int { return cmp.Or(cmp.Compare(a.at, b.at), -1) })
	w.wire = slices.Insert(w.wire, i, f)
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); ; {
		next, name := end, ""
		for _, n := range w.names {
			if h := w.nodes[n]; h.wake < next {
				next, name = h.wake, n
			}
		}
		if len(w.wire) > 0 && w.wire[0].at <= next {
			f := w.wire[0]
			w.wire = w.wire[1:]
			w.now = max(w.now, f.at)
			if to := w.nameOf(f.to); to != "" {
				w.arrive(w.nodes[to], f)
			}
			continue
		}
		w.now = max(w.now, next)
		if name == "" {
			return
		}
		h := w.nodes[name]
		for _, f := range h.queue { // it slept; what came meanwhile lies in its socket
			w.arrive(h, f)
		}
		h.queue = nil
		w.turn(h)
	}
}

func (w *world) arrive(h *host, f flight) {
	if h.asleep > w.now {
		h.queue = append(h.queue, f)
		return
	}
	if from := w.nameOf(f.from); from != "" {
		h.arrived[from] = w.now
	}
	got := h.receive(f.packet, f.from, w.now)
	if got.answer != nil {
		w.send(h.addr, []netip.AddrPort{f.from}, got.answer)
	}
	if got.hurry {
		h.wake = w.now
	}
	if got.news {
		h.news++
	}
}

func (w *world) turn(h *host) {
	h.node.due(w.now, &h.due)
	w.send(h.addr, h.due.to, h.due.packet)
	if h.wake = h.due.next; h.wake <= w.now {
		w.t.Fatalf("due asks to be called again at once, at %d", w.now)
	}
}

// say makes a node announce something, now.
func (w *world) say(name string, a cluster.Announcement) {
	h := w.nodes[name]
	h.node.say(a)
	h.wake = min(h.wake, w.now)
}

// sleep stops a node, as SIGSTOP does. What arrives meanwhile waits in its socket.
func (w *world) sleep(name string, d time.Duration) {
	h := w.nodes[name]
	h.asleep = w.now.Add(d)
	h.wake = max(h.wake, h.asleep)
}

// revive starts a killed node anew.
func (w *world) revive(name string) { w.start(name, w.nodes[name].cfg) }

// kill stops a node for good.
func (w *world) kill(name string) {
	h := w.nodes[name]
	h.asleep, h.wake, h.queue = cluster.Instant(cluster.Forever), cluster.Instant(cluster.Forever), nil
}

func (w *world) peer(at, of string) cluster.Peer { return w.nodes[at].snapshot()[of] }

// silence is how long a node has not heard another.
func (w *world) silence(at, of string) time.Duration { return w.now.Since(w.nodes[at].peers[of].heard) }
