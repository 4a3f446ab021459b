package sim

import (
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// link is one direction between two machines.
type link struct {
	cut  int // faults that cut it now
	loss []float64
	slow time.Duration // added to what a packet takes
}

func (l *link) clean() bool { return l.cut == 0 && len(l.loss) == 0 && l.slow == 0 }

// beat is one datagram's content; it goes to everybody.
type beat struct {
	from    int
	session uint64
	seq     uint64
	sent    cluster.Instant // on the sender's clock
	said    *cluster.Announcement
	heard   []named
	hears   map[string]time.Duration
}

// named is the newest beat of a peer that a beat names: its session, and when that peer had sent it.
type named struct {
	session uint64
	sent    cluster.Instant
}

// peer is what a node's mesh knows of another.
type peer struct {
	session   uint64 // established: its beats name ours
	seq       uint64
	newest    named // newest beat that came, also of a session that does not name ours yet
	answered  uint64
	heard     cluster.Instant // arrival of the newest of the established session
	true_     moment          // the same by true time
	confirmed cluster.Instant
	hears     map[string]time.Duration
	said      *cluster.Announcement
	once      map[string]uint64 // epochs it has promised us, kept only while members break promises
}

// flight is a beat under way to some.
type flight struct {
	b  *beat
	to uint32
}

const (
	fastEvery = 20 * time.Millisecond
	missed    = 2 // beats that may fail to come before it is fast
	fastFor   = 10
)

func (w *world) write(n *node) *beat {
	n.seq++
	now := n.clock.at(w.now)
	b := &beat{from: n.i, session: n.session, seq: n.seq, sent: now, said: n.said,
		heard: make([]named, len(w.nodes)), hears: make(map[string]time.Duration, len(w.nodes))}
	for k := range n.peers {
		p := &n.peers[k]
		b.heard[k] = p.newest
		if p.heard != 0 {
			b.hears[w.nodes[k].name] = now.Sub(p.heard)
		}
	}
	return b
}

// sendAll sends a beat to everybody.
func (w *world) sendAll(n *node) {
	n.beat, n.lastSent = w.now.add(n.real(n.policy.Timings.Beat)), w.now
	w.emit(n, ^uint32(0))
	if n.fast == never && w.fastTo(n) != 0 {
		n.fast = w.now.add(fastEvery)
	}
}

// sendFast sends a beat to those between whom and this node beats are missing.
func (w *world) sendFast(n *node) {
	n.fast = never
	if to := w.fastTo(n); to != 0 {
		n.fast = w.now.add(fastEvery)
		w.emit(n, to)
	}
}

// real is a duration of the node's clock in true time.
func (n *node) real(d time.Duration) time.Duration {
	return d - time.Duration(part(int64(d), n.clock.ppm, 1_000_000+n.clock.ppm))
}

// fastTo lists, as bits, whom a beat might reach and who misses ours or whose we miss.
func (w *world) fastTo(n *node) (to uint32) {
	tm := &n.policy.Timings
	now := n.clock.at(w.now)
	missing := func(d time.Duration) bool { return d > missed*tm.Beat && d < fastFor*tm.Detection }
	for k := range n.peers {
		p := &n.peers[k]
		if p.heard == 0 || !w.nodes[k].up || w.links[n.i][k].cut > 0 {
			continue
		}
		if missing(now.Sub(p.heard)) || missing(p.hears[n.name]) && now.Sub(p.heard) < fastFor*tm.Detection {
			to |= 1 << k
		}
	}
	return to
}

// emit puts a beat into the air.
func (w *world) emit(n *node, to uint32) {
	var b *beat
	together := flight{}
	delay := w.between(80*time.Microsecond, 500*time.Microsecond)
	for k, other := range w.nodes {
		l := &w.links[n.i][k]
		if k == n.i || to&(1<<k) == 0 || !other.booted || l.cut > 0 || w.lost(l) {
			continue
		}
		if b == nil {
			b = w.write(n)
		}
		if l.slow > 0 {
			w.air.push(w.now.add(delay+l.slow/2+w.between(0, l.slow/2)), flight{b, 1 << k})
		} else {
			together.to |= 1 << k
		}
	}
	if together.to != 0 {
		together.b = b
		w.air.push(w.now.add(delay), together)
	}
}

func (w *world) lost(l *link) bool {
	for _, p := range l.loss {
		if w.chance(p) {
			return true
		}
	}
	return false
}

// land lets a beat arrive.
func (w *world) land(f flight) {
	for k, n := range w.nodes {
		switch {
		case f.to&(1<<k) == 0 || !n.up:
		case n.frozen:
			if len(n.inbox) < 64 { // a socket's buffer is finite
				n.inbox = append(n.inbox, f.b)
			}
		default:
			w.receive(n, f.b)
		}
	}
}

// receive is the mesh's part. A session counts once its beats name ours, which takes one exchange.
func (w *world) receive(n *node, b *beat) {
	p := &n.peers[b.from]
	names := b.heard[n.i].session == n.session
	if b.session < p.newest.session || b.session == p.newest.session && b.sent <= p.newest.sent {
		return
	}
	p.newest = named{b.session, b.sent}
	if b.session != p.session {
		if p.answered != b.session {
			p.answered = b.session
			w.emit(n, 1<<b.from) // at once, so that it can name us
		}
		if !names {
			return
		}
		p.session, p.seq, p.said, p.heard = b.session, 0, nil, 0
	}
	now := n.clock.at(w.now)
	news := b.said != p.said || now.Since(p.heard) > missed*n.policy.Timings.Beat
	p.seq, p.heard, p.true_, p.said, p.hears, p.confirmed = b.seq, now, w.now, b.said, b.hears, 0
	if names {
		p.confirmed = b.heard[n.i].sent
	}
	if w.o.Off.OnePromise {
		n.insist(p)
	}
	if news {
		n.wake(w.now)
	}
}

// insist is what a holder would see of a member that goes on confirming it after having promised a later epoch: the member's
// first promise to it again and again.
func (n *node) insist(p *peer) {
	said := *p.said
	said.Promises = slices.Clone(said.Promises)
	for i, x := range said.Promises {
		mine := n.memory.Duties[x.Duty].Hold
		if x.Holder == n.name {
			if p.once == nil {
				p.once = map[string]uint64{}
			}
			p.once[x.Duty] = x.Epoch
		} else if acts(mine.State) && p.once[x.Duty] == mine.Epoch {
			said.Promises[i] = cluster.Promise{Duty: x.Duty, Epoch: mine.Epoch, Holder: n.name, Clear: true}
		}
	}
	p.said = &said
}
