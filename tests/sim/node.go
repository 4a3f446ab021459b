package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// node is one member: its machine, its kernel and its sidecar.
type node struct {
	i       int
	name    string
	policy  decide.Policy
	own     *decide.Role // the role it plays; nil: none
	clock   clock
	machine string
	booted  bool // the machine runs
	up      bool // the sidecar's process runs
	frozen  bool // it runs, and gets no time
	fresh   bool // no sidecar has voted since the machine booted

	// The sidecar's memory, and what of it is on the disk.
	memory decide.Memory
	disk   decide.Lasting
	view   decide.View // readings
	said   *cluster.Announcement
	orders decide.Orders
	health cluster.Health
	starts int // processes so far, so that answers to an earlier one are not taken

	// The mesh.
	session    uint64
	seq        uint64
	peers      []peer
	inbox      []*beat
	lastSent   moment
	beat, fast moment // when the next one goes out
	due        moment // of the next turn
	last       moment // when the newest turn was
	dueBy      moment // when the turn after a freeze should have been

	gate     gate
	units    decide.UnitReading
	jobs     map[string]*job
	version  uint64 // of the readings
	calm     bool   // the newest turn has changed nothing
	idle     bool   // and it had nothing to do but look
	drained  moment // when the connections that are being finished have ended
	trouble  moment // until when the aftermath of one counts, too
	faults   int    // near it
	offered  string // to whom it offers its role's duty, or has
	buried   uint64 // epoch of the claim of this machine that was seen to have a tombstone
	buriedAt moment
	// first is when a list first had each machine.
	first map[string]cluster.Instant
	// Versions of ledger, zone and list of machines, at their newest readings.
	readVersion, zoneVersion, listVersion uint64
}

// gate is the kernel's side of a role's address on one machine.
type gate struct {
	until cluster.Instant
	drain cluster.Instant
	added bool
	shut  moment // when the kernel really closes it
}

// kinds of what a node does next
type doing uint8

const (
	nothing doing = iota
	turnDue
	beatDue
	fastDue
)

// next is what the node does by itself, and when.
func (n *node) next() (moment, doing) {
	if !n.up || n.frozen {
		return never, nothing
	}
	at, what := n.due, turnDue
	if n.beat < at {
		at, what = n.beat, beatDue
	}
	if n.fast < at {
		at, what = n.fast, fastDue
	}
	return at, what
}

func (n *node) wake(at moment) { n.due = min(n.due, max(at, n.last.add(turnsApart))) }

// turnsApart is the loop's: a burst of news costs one turn.
const turnsApart = 2 * time.Millisecond

// start begins a sidecar on a machine that runs. The kernel's gate is closed by it before anything else.
func (w *world) start(n *node) {
	w.flow()
	n.starts++
	n.up, n.frozen, n.inbox = true, false, nil
	n.session = uint64(w.now)<<8 | uint64(n.starts)
	n.seq, n.peers = 0, make([]peer, len(w.nodes))
	n.memory = decide.Memory{Lasting: n.disk}
	n.gate.until, n.gate.drain, n.gate.shut, n.gate.added = 0, 0, min(n.gate.shut, w.now), false
	n.first = nil
	n.jobs, n.said, n.orders = map[string]*job{}, &cluster.Announcement{}, decide.Orders{}
	n.due, n.last, n.dueBy = w.now.add(w.between(0, 5*time.Millisecond)), w.now, 0
	n.beat, n.fast = w.now.add(w.between(0, 100*time.Millisecond)), never
	n.health = cluster.Healthy
	v := decide.View{
		Started: n.clock.at(w.now), FreshBoot: n.fresh, Machine: n.machine, Phase: cluster.Applied,
		Health: cluster.Healthy, StandbyHealth: cluster.Healthy, Peers: map[string]cluster.Peer{}, Room: &w.room,
		Gates: map[string]decide.GateReading{}, Units: map[string]decide.UnitReading{},
		Private: w.shape.private(n.i), Public: w.shape.public(n.i), Nonce: w.nonce(),
	}
	if w.shape.ledger {
		v.Ledger.Configured = true
		v.Claim.Needed = true
		if c := w.ledger.claims[n.name]; !n.fresh && c.Machine == n.machine && !c.Tombstoned {
			v.Claim.Epoch, v.Claim.Mine = c.Epoch, true
		}
	}
	n.view = v
	w.note(n.name, "starts")
	if w.shape.ledger {
		w.testLedger(n)
	}
}

// kill ends the process. What the kernel holds open stays open until it closes by itself.
func (w *world) kill(n *node) {
	w.flow()
	n.up, n.frozen, n.inbox = false, false, nil
	n.calm = false
	n.starts++
	w.note(n.name, "its process ends")
}

// turn is one turn of the node's loop.
func (w *world) turn(n *node) {
	now := n.clock.at(w.now)
	if n.dueBy != 0 && n.clock.at(w.now).Sub(n.clock.at(n.dueBy)) > n.policy.Timings.Gate {
		w.note(n.name, "notices that it stood still")
		n.gate.until, n.gate.shut = 0, min(n.gate.shut, w.now)
		n.session, n.seq, n.peers = uint64(w.now)<<8|uint64(n.starts), 0, make([]peer, len(w.nodes))
		n.view.Started = now
	}
	n.dueBy, n.last = 0, w.now
	w.observe(n, now)
	d := decide.Next(n.view, n.memory, n.policy)
	w.report_.Turns++
	n.calm, n.idle = w.changesNothing(n, &d), !slices.ContainsFunc(d.Actions, func(a decide.Action) bool {
		_, gate := a.(decide.Gate)
		return !gate && !isReading(a)
	})
	if !n.calm {
		w.leap, w.slept = firstLeap, 0
	}
	w.carryOut(n, d)
}

// observe puts the readings together that are taken in every turn.
func (w *world) observe(n *node, now cluster.Instant) {
	v := &n.view
	v.Now, v.Orders, v.Health, v.StandbyHealth, v.FreshBoot = now, n.orders, n.health, n.health, n.fresh
	for k := range n.peers {
		if p := &n.peers[k]; p.heard != 0 {
			v.Peers[w.nodes[k].name] = cluster.Peer{Heard: p.heard, Confirmed: p.confirmed, Hears: p.hears, Said: *p.said}
		} else if k != n.i {
			delete(v.Peers, w.nodes[k].name)
		}
	}
	if n.own == nil {
		return
	}
	if n.own.Reserved.IsValid() || n.own.Link.IsValid() {
		g := decide.GateReading{Until: n.gate.until, Drain: n.gate.drain, Added: n.gate.added}
		if g.Until <= now {
			g.Until, g.Drain = 0, 0
		}
		v.Gates[n.own.Name] = g
	}
	if n.own.PrimaryUnits {
		v.Units[n.own.Name] = n.units
	}
	w.readMetadata(n, now)
	v.Mirrors = w.mirrors(n)
}

// carryOut does what a decision says, in the order of the loop.
func (w *world) carryOut(n *node, d decide.Decision) {
	var slow []decide.Action
	for _, a := range d.Actions {
		if g, ok := a.(decide.Gate); ok && g.Until == 0 {
			n.gate.until, n.gate.drain, n.gate.shut = 0, 0, min(n.gate.shut, w.now)
		} else if !ok {
			slow = append(slow, a)
		}
	}
	before := n.memory
	n.memory, n.disk = d.Memory, d.Memory.Lasting
	if d.Say.Voting {
		n.fresh = false
	}
	w.watchDuties(n, &before)
	for _, x := range d.Notes {
		w.note(n.name, x.Text)
	}
	if !sameSay(n.said, &d.Say) {
		n.said = &d.Say
		w.mixSay(n.said)
		n.beat = max(w.now, n.lastSent.add(turnsApart))
		if w.o.History {
			w.tell(n.name, "says "+sayText(&d.Say))
		}
	}
	for _, a := range d.Actions {
		if g, ok := a.(decide.Gate); ok && g.Until != 0 {
			w.openGate(n, g)
		}
	}
	n.due = max(n.clock.when(d.LookAgain), w.now.add(turnsApart))
	w.want(n, slow)
}

// changesNothing says that a decision only renews what is.
func (w *world) changesNothing(n *node, d *decide.Decision) bool {
	if len(d.Notes) > 0 || !sameSay(n.said, &d.Say) || !d.Memory.Lasting.Equal(n.memory.Lasting) {
		return false
	}
	for _, a := range d.Actions {
		switch a := a.(type) {
		case decide.Gate:
			if a.Until == 0 || a.Until.Since(max(n.gate.until, 1)) > n.policy.Timings.Detection && n.gate.until < d.Memory.For {
				return false
			}
		default:
			if j := n.jobs[a.Key()]; !isReading(a) && (j == nil || j.running == nil && j.again <= w.now) {
				return false
			}
		}
	}
	return maps.EqualFunc(d.Memory.Duties, n.memory.Duties, func(a, b decide.Duty) bool {
		return a.Promise == b.Promise && a.Hold == b.Hold && a.Bid == b.Bid && a.Lease == b.Lease && a.To == b.To &&
			len(a.Before) == len(b.Before) && a.Draining == b.Draining && a.Offering == b.Offering && (a.Vacant == 0) == (b.Vacant == 0)
	})
}

func sameSay(a, b *cluster.Announcement) bool {
	return a.Claim == b.Claim && a.Machine == b.Machine && a.Private == b.Private && a.Public == b.Public && a.Phase == b.Phase &&
		a.Health == b.Health && a.Voting == b.Voting && a.Paused == b.Paused && a.Commit == b.Commit && a.ClockOff == b.ClockOff &&
		slices.Equal(a.Promises, b.Promises) && slices.Equal(a.Bids, b.Bids) && slices.Equal(a.Holds, b.Holds) &&
		slices.Equal(a.Mirrors, b.Mirrors) && slices.Equal(a.Want, b.Want)
}

// sayText is an announcement's part about duties, for the history.
func sayText(a *cluster.Announcement) string {
	text := ""
	if !a.Voting {
		text = "no vote; "
	}
	for _, x := range a.Promises {
		text += fmt.Sprintf("%s %d %s", x.Duty, x.Epoch, x.Holder)
		if !x.Clear {
			text += " unclear"
		}
		if x.Lease {
			text += " lease"
		}
		if x.AfterLease {
			text += " after-lease"
		}
		text += "; "
	}
	for _, b := range a.Bids {
		text += fmt.Sprintf("BIDS %s %d lease=%v; ", b.Duty, b.Epoch, b.Lease)
	}
	for _, h := range a.Holds {
		text += fmt.Sprintf("%s %s %d %s; ", h.State, h.Duty, h.Epoch, h.To)
	}
	return text
}
