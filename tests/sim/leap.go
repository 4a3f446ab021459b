package sim

import (
	"slices"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// The first leap through a quiet time, and the longest. Each one is four times the one before, as long as nothing changes.
const (
	firstLeap = 400 * time.Millisecond
	mostLeap  = 30 * time.Minute
	// steadyFor is how long nothing has changed in a cluster without any fault when nothing will: longer than any pause of decide's.
	steadyFor = 2 * time.Minute
	// recent is how old something that is renewed with every beat can be.
	recent = 260 * time.Millisecond
	// longAgo is how long something has been silent when no decision hangs on the length of the silence any more.
	longAgo = 1600 * time.Millisecond
)

// tryLeap leaps if nothing is going on.
func (w *world) tryLeap() {
	for _, n := range w.nodes {
		if !n.calm && n.up {
			return
		}
	}
	if w.now < w.quietUntil || !w.quiet() {
		return
	}
	for w.air.next() != never {
		w.now = max(w.now, min(w.air.next(), w.now)) // the air is emptied a little early
		w.land(w.air.pop())
	}
	by := min(max(w.leap-w.slept, firstLeap/20), w.untilHire(), w.events.next().sub(w.now)-5*time.Millisecond, w.end.sub(w.now)-time.Millisecond)
	if by < firstLeap/20 || !w.quiet() {
		return
	}
	w.jump(by)
	w.report_.Leaps++
	if w.slept += by; w.slept < w.leap {
		return
	}
	for i, n := range w.nodes { // is it still so?
		n.calm = false
		n.due = w.now.add(time.Duration(i) * time.Millisecond)
	}
	w.quietUntil = w.now.add(100 * time.Millisecond)
	if w.leap, w.slept = min(4*w.leap, mostLeap), 0; w.leap > steadyFor && w.steady() {
		w.leap = never.sub(w.now)
	}
}

// spare says that there are machines of ours that run and are no node.
func (w *world) spare() bool {
	return slices.ContainsFunc(w.cloud.machines, func(m *machine) bool {
		return m.power != cluster.PowerOff && !m.foreign && w.embodied(m) == nil
	})
}

// steady says that everything is as it should be, so that all that a node looks at is renewed over and over.
func (w *world) steady() bool {
	if w.active > 0 || w.spare() || w.shape.ledger && !w.whole() {
		return false
	}
	for i, n := range w.nodes {
		if !n.up || n.frozen || !n.idle || w.shape.ledger && (n.view.Ledger.Failing || n.readVersion != w.ledger.version) {
			return false
		}
		for k := range w.nodes {
			if k != i && !w.flows(k, i) {
				return false
			}
		}
	}
	return true
}

// untilHire bounds a leap while a replacement waits for a time to come.
func (w *world) untilHire() time.Duration {
	const soon, later, tomorrow = 2 * time.Second, 30 * time.Second, 5 * time.Minute
	by := never.sub(0)
	for _, n := range w.nodes {
		if !n.up || n.own == nil || !acts(n.memory.Duties[cluster.Coordinator].Hold.State) || !w.shape.ledger {
			continue
		}
		for _, k := range w.nodes {
			if v := n.memory.Verdicts[k.name]; v.State == decide.Failed && n.clock.at(w.now).Sub(v.Since) < n.policy.Timings.Hold+soon {
				return soon
			} else if w.isOpen(k.name, k.newest(w)) {
				by = min(by, later)
			} else if v.State == decide.Failed { // the next try comes in minutes, or in a day
				by = min(by, tomorrow)
			}
		}
	}
	if w.spare() {
		by = min(by, later) // machines too many are watched for a while
	}
	if w.unheld() { // somebody may be finding out whether all newer data are gone, question by question
		if by = min(by, 5*soon); w.now < w.lastFault.add(5*time.Minute) {
			by = min(by, soon)
		}
	}
	return by
}

// quiet says that every node only does over and over what it does.
func (w *world) quiet() bool {
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		if n.frozen || n.dueBy != 0 {
			return false
		}
		now := n.clock.at(w.now)
		for k := range w.nodes {
			if k != n.i && !w.flows(k, n.i) && now.Since(max(n.peers[k].heard, n.view.Started)) < longAgo {
				return false
			}
		}
		if n.gate.shut > w.now && n.gate.shut != never && !w.renewed(n, n.own.Name) && n.gate.until.Sub(now) < time.Second {
			return false
		}
	}
	return true
}

// flows says that beats from k to n come as they should, with nothing new in them.
func (w *world) flows(k, n int) bool {
	p, from := &w.nodes[n].peers[k], w.nodes[k]
	if p.session != from.session || p.said != from.said && !w.o.Off.OnePromise {
		return false
	}
	return w.nodes[k].up && !w.nodes[k].frozen && w.links[k][n].clean() && p.heard != 0 && w.now.sub(p.true_) < recent
}

// renewed says that a duty hangs on beats that a majority confirms all the time.
func (w *world) renewed(n *node, duty string) bool {
	d := n.memory.Duties[duty]
	if d.Confirmed == 0 || n.clock.at(w.now).Sub(d.Confirmed) >= recent {
		return false
	}
	confirm := 0
	for k := range n.peers {
		switch {
		case k == n.i:
			confirm++
		case w.flows(k, n.i) && w.flows(n.i, k) && promises(n.peers[k].said, duty, n.name, d.Hold.Epoch):
			confirm++
		}
	}
	return confirm > len(w.nodes)/2
}

// promises says that a member has promised a duty to a node, under that epoch or a later one.
func promises(said *cluster.Announcement, duty, holder string, epoch uint64) bool {
	return slices.ContainsFunc(said.Promises, func(x cluster.Promise) bool {
		return x.Duty == duty && x.Holder == holder && x.Epoch >= epoch
	})
}

// jump moves the world, and with it all that is renewed over and over.
func (w *world) jump(by time.Duration) {
	type shift struct {
		flows   []bool
		gate    bool
		renewed []string // duties
	}
	shifts := make([]shift, len(w.nodes))
	for i, n := range w.nodes {
		shifts[i].flows = make([]bool, len(w.nodes))
		if !n.up {
			continue
		}
		for k := range w.nodes {
			shifts[i].flows[k] = k != i && w.flows(k, i)
		}
		shifts[i].gate = n.own != nil && n.gate.shut > w.now && n.gate.shut != never && (w.renewed(n, n.own.Name) || w.lends(n))
		for duty := range n.memory.Duties {
			if w.renewed(n, duty) {
				shifts[i].renewed = append(shifts[i].renewed, duty)
			}
		}
	}
	from := w.now
	w.now = w.now.add(by)
	for i, n := range w.nodes {
		if !n.up {
			continue
		}
		d := n.clock.at(w.now) - n.clock.at(from)
		for k := range n.peers {
			if shifts[i].flows[k] {
				w.keep(n, k, from, d, shifts[k].flows != nil && shifts[k].flows[i])
			}
		}
		for _, duty := range shifts[i].renewed {
			x := n.memory.Duties[duty]
			x.Confirmed += d
			n.memory.Duties[duty] = x
		}
		if shifts[i].gate {
			w.keepGate(n, d)
		}
		w.keepReadings(n, from, d)
		n.beat, n.last, n.lastSent = n.beat.add(by), n.last.add(by), n.lastSent.add(by)
		if n.fast != never {
			n.fast = n.fast.add(by)
		}
		n.due = n.due.add(by)
	}
}

// keepGate moves the end of a gate along with what it hangs on. One that was set for longer, when it hung on something else,
// is not moved beyond that.
func (w *world) keepGate(n *node, d cluster.Instant) {
	end := n.gate.until + d
	if !w.lends(n) {
		end = max(n.gate.until, min(end, n.memory.Duties[n.own.Name].Confirmed.Add(n.policy.Timings.Gate)))
	}
	n.gate.shut = n.gate.shut.add(n.real(time.Duration(end - n.gate.until)))
	n.gate.until = end
}

// lends says that the node's gate hangs on the ledger's word or the register's, which go on being read.
func (w *world) lends(n *node) bool {
	d := n.memory.Duties[n.own.Name]
	return d.Lease && w.reaches(n) && !n.view.Ledger.Failing || single(n.own) && n.view.Holders[n.own.Name].Here
}

// keep moves what a node knows of a peer whose beats have come all the time, and which has heard this node's, too, or not.
func (w *world) keep(n *node, k int, from moment, d cluster.Instant, hears bool) {
	p, other := &n.peers[k], w.nodes[k]
	p.heard += d
	p.true_ = p.true_.add(w.now.sub(from))
	p.newest.sent += other.clock.at(w.now) - other.clock.at(from)
	if hears && p.confirmed != 0 && n.clock.at(from).Sub(p.confirmed) < recent+100*time.Millisecond {
		p.confirmed += d
	}
}

// keepReadings moves the readings that would have been made again and found the same.
func (w *world) keepReadings(n *node, from moment, d cluster.Instant) {
	v := &n.view
	if v.Ledger.ReadSent != 0 && !v.Ledger.Failing && w.reaches(n) && n.readVersion == w.ledger.version {
		v.Ledger.ReadSent += d
		v.Ledger.Stale = w.stale(n)
		v.Ledger.Intents, v.Ledger.Hired = w.intents(n.clock.when(v.Ledger.ReadSent))
	}
	if v.List.At != 0 && w.cloud.away+w.cloud.partial+w.cloud.strange == 0 && n.listVersion == w.cloud.version {
		v.List.At += d
		v.List.Agree++
	}
	for key, z := range v.Zones {
		if z.At != 0 && w.zone.away == 0 && n.zoneVersion == w.zone.version {
			z.At += d
			v.Zones = with(v.Zones, key, z)
		}
	}
	for role, h := range v.Holders {
		if r := w.cloud.register[role]; h.At != 0 && w.cloud.away == 0 && h.Machine == r.machine && !h.Pending {
			h.At += d
			v.Holders = with(v.Holders, role, h)
		}
	}
}
