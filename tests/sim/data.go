package sim

import (
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// The data of a role are written as long as its primary answers, without a pause, so what a disk has of a term is a moment: all that
// was written until then. A mirror that is connected has it a little later, once it has the rest.

// term is one primary's writing under one epoch.
type term struct {
	epoch uint64
	on    *machine
	began moment
}

// tree is a role's data on one machine's disk.
type tree struct {
	epoch    uint64 // as in cluster.Mirror
	source   bool
	complete bool
	has      map[*term]moment // of each term, what was written until then
	ready    moment           // when the copy will be complete, if nothing cuts it off
	full     moment           // when it was last known to have everything; never before the first
}

// writing is what goes on in a role with data.
type writing struct {
	terms []*term
	both  map[*term]moment // what lay on two disks once
	at    moment           // of the newest look
}

// Pauses of the copying.
const (
	mostFirst  = 30 * time.Second // a first copy takes up to so long
	reconnects = 300 * time.Millisecond
	delay      = 30 * time.Millisecond
	slowDelay  = 900 * time.Millisecond // while copies are slow: just within what counts as keeping up
)

// mostAtRisk is what a takeover may leave behind: what is written from when the copy is cut off until the primary, which has noticed
// that it has no copy, has a new epoch for what it writes. Asking for one may take a few tries; and if the sidecar is killed, the gate
// stays open for what is left of a lease.
const mostAtRisk = 6 * time.Second

func (w *world) tree(m *machine) *tree {
	if m.tree == nil {
		m.tree = &tree{full: never, has: map[*term]moment{}}
	}
	return m.tree
}

// flow lets the data of all roles come up to now. Whoever cuts something off calls it first.
func (w *world) flow() {
	for i := range w.nodes[0].policy.Roles {
		if r := &w.nodes[0].policy.Roles[i]; r.Data {
			w.flowOf(r)
		}
	}
}

func (w *world) flowOf(r *decide.Role) {
	x := w.data[r.Name]
	if x == nil {
		x = &writing{both: map[*term]moment{}}
		w.data[r.Name] = x
	}
	since := w.now.sub(x.at)
	x.at = w.now
	for _, n := range w.nodes {
		if n.own == nil || n.own.Name != r.Name || n.memory.Duties[r.Name].Writes == 0 || !n.booted {
			continue
		}
		m := w.machine(n.machine)
		if m == nil {
			continue
		}
		t := w.source(x, n, m)
		if upto := w.answered(n); upto > x.at.add(-since) {
			w.tree(m).has[t] = upto
		}
		for _, other := range w.nodes {
			if other != n && other.own != nil && other.own.Name == r.Name {
				w.copy(x, n, other, since)
			}
		}
	}
}

// source lets a node's disk be what it writes, and returns the term.
func (w *world) source(x *writing, n *node, m *machine) *term {
	d, epoch := w.tree(m), n.memory.Duties[n.own.Name].Writes
	if d.epoch != epoch || !d.source {
		d.epoch, d.source, d.complete, d.full = epoch, true, true, never
		x.terms = append(x.terms, &term{epoch: epoch, on: m, began: w.now})
	}
	i := slices.IndexFunc(x.terms, func(t *term) bool { return t.on == m && t.epoch == epoch })
	return x.terms[i]
}

// answered is until when clients have reached the programs that write, now at the latest. Those of a role without an address are
// reached by way of the sidecar.
func (w *world) answered(n *node) moment {
	switch {
	case n.own.PrimaryUnits && !n.units.All || n.gate.drain != 0:
		return 0
	case n.own.Link.IsValid() || n.own.Reserved.IsValid():
		return min(w.now, n.gate.shut)
	case n.up && !n.frozen && n.memory.Duties[n.own.Name].Hold.State == cluster.Held:
		return w.now
	}
	return 0
}

// copy lets a mirror follow, if it can, as it could all the time since the last look.
func (w *world) copy(x *writing, n, other *node, since time.Duration) {
	m := w.machine(other.machine)
	if m == nil {
		return
	}
	from, to := w.tree(w.machine(n.machine)), w.tree(m)
	if !w.connected(n, other) || to.epoch > from.epoch {
		to.ready = max(to.ready.add(since), w.now.add(reconnects))
		return
	}
	if to.epoch != from.epoch {
		takes := w.logarithmic(100*time.Millisecond, mostFirst)
		to.epoch, to.source, to.complete, to.full, to.ready = from.epoch, false, false, never, w.now.add(takes)
		w.after(takes+time.Millisecond, func() { n.wake(w.now); other.wake(w.now) })
	}
	if w.now < to.ready {
		return
	}
	upto := w.now.add(-w.copyLag())
	to.complete, to.full, from.full = true, upto, upto
	for _, t := range x.terms {
		if had := min(from.has[t], to.full); had > to.has[t] {
			to.has[t] = had
		}
		x.both[t] = max(x.both[t], min(from.has[t], to.has[t]))
	}
}

// copyLag is how much later a copy has what is written.
func (w *world) copyLag() time.Duration {
	if w.copiesSlow > 0 {
		return slowDelay
	}
	return delay
}

// connected says that the stream between two sidecars is up.
func (w *world) connected(a, b *node) bool {
	return a.up && b.up && !a.frozen && !b.frozen && w.links[a.i][b.i].cut+w.links[b.i][a.i].cut == 0
}

// mirrors is what a node knows of its role's data. How far they are behind it tells in few steps, so that it seldom changes.
func (w *world) mirrors(n *node) []cluster.Mirror {
	if n.own == nil || !n.own.Data {
		return nil
	}
	m := w.machine(n.machine)
	if m == nil {
		return nil
	}
	w.flow()
	d := w.tree(m)
	out := cluster.Mirror{Role: n.own.Name, Epoch: d.epoch, Source: d.source, Complete: d.complete, Lag: cluster.Forever}
	if d.full == never {
		return []cluster.Mirror{out}
	}
	switch lag := w.now.sub(d.full); {
	case lag <= 2*delay:
		out.CaughtUp, out.Lag = true, 0
	case lag <= n.policy.Timings.Behind:
		out.Lag = n.policy.Timings.Behind
	default:
		out.Lag = time.Minute
	}
	return []cluster.Mirror{out}
}

// settle passes a barrier when the mirror has all that was written before.
func (w *world) settle(n *node, a decide.Settle, done func(error, func(*decide.View))) {
	asked, at := n.clock.at(w.now), w.now
	w.after(w.copyLag()+w.between(0, 10*time.Millisecond), func() {
		w.flow()
		if m := w.machine(n.machine); m == nil || w.tree(m).full == never || w.tree(m).full < at {
			done(errAway, nil)
			return
		}
		done(nil, func(v *decide.View) { v.Settled = with(v.Settled, a.Role, asked) })
	})
}

// lacks is how much of what b has a does not have, as the time in which it was written.
func lacks(a, b *tree) (by time.Duration) {
	for t, upto := range b.has {
		if from := max(a.has[t], t.began); upto > from {
			by += upto.sub(from)
		}
	}
	return by
}

// lawOfData holds when n begins to act: no machine that is there has more than what was at risk, and none that has handed it over
// in good order has anything more. What lay on two disks is there, if any of them is.
func (w *world) lawOfData(n *node, duty string) {
	mine := w.machine(n.machine)
	if n.own == nil || n.own.Name != duty || !n.own.Data || mine == nil {
		return
	}
	w.flow()
	x, own := w.data[duty], w.tree(mine)
	for _, m := range w.cloud.machines {
		if m == mine || m.tree == nil || m.foreign || !slices.ContainsFunc(x.terms, func(t *term) bool { return m.tree.has[t] > 0 }) {
			continue
		}
		by := lacks(own, m.tree)
		if by > mostAtRisk {
			w.violated("%s takes over %s without what was written in %s, which machine %s has", n.name, duty, by.Round(time.Millisecond), m.id)
		}
		other := w.embodied(m)
		if by > 0 && other != nil && other.offered == n.name && n.own.PrimaryUnits {
			w.violated("%s is handed %s by %s without what was written in %s", n.name, duty, other.name, by.Round(time.Millisecond))
		}
		for _, t := range x.terms {
			had, there := max(own.has[t], t.began), min(x.both[t], m.tree.has[t])
			if there > had {
				w.violated("%s takes over %s without what lay on two disks: %s of epoch %d, which machine %s has", n.name, duty,
					there.sub(had).Round(time.Millisecond), t.epoch, m.id)
			}
		}
	}
}

// unheld says that a node could take a role with data that nobody has.
func (w *world) unheld() bool {
	if w.now > w.lastFault.add(Hour/2) {
		return false // by then it is found out, or waited for
	}
	for _, r := range w.nodes[0].policy.Roles {
		if r.Data && len(w.holders(r.Name)) == 0 && len(w.candidates(r.Name)) > 0 {
			return true
		}
	}
	return false
}

// help is what a person does about it: switches on what is off and still the node, and gives up what is on other machines.
func (w *world) help(role string) {
	if !w.needsPerson(role) || !w.shape.ledger {
		return
	}
	w.note("person", "helps "+role)
	for _, m := range slices.Clone(w.cloud.machines) {
		n := w.embodied(m)
		if m.tree == nil || n != nil && n.up || !slices.ContainsFunc(w.candidates(role), func(c *node) bool { return w.sameRole(m, w.machine(c.machine)) }) {
			continue
		}
		if c := w.ledger.claims[m.name]; n != nil && c.Machine == m.id && !c.Tombstoned {
			w.switchOn(m)
			continue
		}
		was := w.ledger.wishes[m.name]
		w.ledger.wishes[m.name] = cluster.Wish{Node: m.name, N: was.N + 1, Discard: append(slices.Clone(was.Discard), m.id)}
		w.ledger.version++
		m.tree = nil // nobody misses it any more
	}
}

// needsPerson says that a role with data has nobody because the newest data may be on a machine that does not come back by itself: it
// is off or another's now. Without a ledger nobody remembers machines, so that one that is gone may be waited for, too.
func (w *world) needsPerson(role string) bool {
	candidates := w.candidates(role)
	if w.data[role] == nil || len(candidates) == 0 || len(w.holders(role)) > 0 || !strings.Contains(w.blocked(candidates), "understudy discard") {
		return false
	}
	if !w.shape.ledger {
		return true
	}
	return slices.ContainsFunc(w.cloud.machines, func(m *machine) bool {
		n := w.embodied(m)
		return m.tree != nil && (n == nil || !n.up) && slices.ContainsFunc(candidates, func(c *node) bool {
			mine := w.machine(c.machine)
			return mine != nil && c.own.Name == role && lacks(w.tree(mine), m.tree) > 0
		})
	})
}

// lawOfOnlyCopy holds when n takes a machine away: some other one has what lies there.
func (w *world) lawOfOnlyCopy(n *node, m *machine, does string) {
	if m.tree == nil || len(m.tree.has) == 0 {
		return
	}
	w.flow()
	least := cluster.Forever
	for _, other := range w.cloud.machines {
		if other != m && w.sameRole(other, m) {
			least = min(least, lacks(w.tree(other), m.tree))
		}
	}
	if least > mostAtRisk {
		w.violated("%s %s machine %s, which alone has what was written in %s", n.name, does, m.id, least.Round(time.Millisecond))
	}
}

// sameRole says that two machines are, or were, nodes of one role.
func (w *world) sameRole(a, b *machine) bool {
	return !a.foreign && slices.ContainsFunc(w.nodes[0].policy.Roles, func(r decide.Role) bool {
		return slices.Contains(r.Nodes, a.name) && slices.Contains(r.Nodes, b.name)
	})
}
