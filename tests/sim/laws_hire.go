package sim

import (
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// Laws of replacement. Each is about what is true, which nobody inside sees whole.

// hearers are the members that have heard a node within a while, itself included.
func (w *world) hearers(k *node, within time.Duration) (count int) {
	if k.up && !k.frozen {
		count++
	}
	for _, j := range w.nodes {
		if j != k && j.up && !j.frozen && j.peers[k.i].heard != 0 && j.peers[k.i].session == k.session && w.now.sub(j.peers[k.i].true_) < within {
			count++
		}
	}
	return count
}

// lawOfLoss holds when n gives a node up whose machine runs: a majority has been without it, n itself for the hold time, and
// there is something wrong with it.
func (w *world) lawOfLoss(n *node, name, machine string) {
	k := w.named(name)
	if m := w.machine(machine); m == nil || m.power != cluster.PowerOn || k.machine != machine {
		return
	}
	tm := n.policy.Timings
	switch heard := w.now.sub(n.peers[k.i].true_); {
	case n.peers[k.i].heard != 0 && heard < tm.Hold*99/100:
		w.violated("%s gives %s up %s after having heard it", n.name, name, heard)
	case w.hearers(k, tm.Detection) > len(w.nodes)/2:
		w.violated("%s gives %s up, which a majority hears", n.name, name)
	case w.blameless(k):
		w.violated("%s gives %s up, which had no fault near", n.name, name)
	}
}

// lawOfMinority holds when n is about to cut the power of a node's machine, which runs.
func (w *world) lawOfMinority(n *node, name string) {
	heard := 1
	for k := range n.peers {
		if k != n.i && n.peers[k].heard != 0 && w.now.sub(n.peers[k].true_) < 2*n.policy.Timings.Detection+time.Second {
			heard++
		}
	}
	if heard <= len(w.nodes)/2 {
		w.violated("%s switches off the machine of %s, and hears %d of %d", n.name, name, heard, len(w.nodes))
	}
}

// lawOfTouch holds when a machine's power is cut, or it is deleted.
func (w *world) lawOfTouch(n *node, m *machine, does string) {
	if m.foreign {
		w.violated("%s %s machine %s, which is not the cluster's", n.name, does, m.id)
	}
	if w.ledger.claimants[m.id] == 0 && w.now.sub(m.born) < ticketLife {
		w.violated("%s %s machine %s, which may still join", n.name, does, m.id)
	}
}

// lawOfIntent holds when a replacement begins: another one of a machine that is there is not under way.
func (w *world) lawOfIntent(n *node, in cluster.Intent) {
	if in.Machine == "" || w.power(in.Machine) == cluster.PowerGone {
		return
	}
	for _, other := range w.ledger.intents {
		joined := w.ledger.claims[other.Node].Epoch > other.Replaces // it may be copying for long
		if other.Open() && !joined && other.Machine != "" && w.power(other.Machine) != cluster.PowerGone {
			w.violated("%s replaces %s while %s is being replaced", n.name, in.Node, other.Node)
		}
	}
}

// lawOfCreate holds when a machine is asked for: there is room for it, none has been made for the intent, and it is not one too
// many in an hour.
func (w *world) lawOfCreate(in cluster.Intent) {
	const listed = 2 * time.Second // how old a list may be; what is switched on after it nobody can have counted
	kept, counted := 0, 0
	for _, m := range w.cloud.machines {
		switch {
		case m.foreign || !slices.Contains(m.tags, tag):
		case slices.Contains(m.tags, in.Tag()):
			w.violated("a second machine is asked for by intent %d for %s", in.N, in.Node)
		case (m.power == cluster.PowerOff || m.began > 0 && w.now.sub(m.began) < listed) && w.ledger.claimants[m.id] > 0 && kept < 3:
			kept++
		default:
			counted++
		}
	}
	if most := w.members() + 1; counted >= most {
		w.violated("a machine is asked for beside %d others, of at most %d", counted, most)
	}
	recent := 0
	for _, at := range w.cloud.asked {
		if w.now.sub(at) < time.Hour {
			recent++
		}
	}
	w.cloud.asked = append(w.cloud.asked, w.now)
	if recent >= w.members()+3 {
		w.violated("%d machines are asked for within an hour", recent+1)
	}
}

// members is how many nodes have machines of roles.
func (w *world) members() (count int) {
	for _, n := range w.nodes {
		if n.own != nil {
			count++
		}
	}
	return count
}

// missing says what keeps a node from being whole. Empty: it is.
func (w *world) missing(n *node) string {
	c := w.ledger.claims[n.name]
	switch {
	case !n.up || n.frozen:
		return "does not run"
	case c.Machine != n.machine || c.Tombstoned:
		return "has no claim"
	case w.isOpen(n.name, n.newest(w)):
		return "has an open intent"
	}
	return ""
}

func (n *node) newest(w *world) uint64 {
	if in := w.ledger.intents[n.name]; in != nil {
		return in.N
	}
	return 0
}

// checkWhole holds that every node has one machine again, long after the last fault. Where the provider had faults, tries may have
// been used up; then somebody says so.
func (w *world) checkWhole() {
	if !w.shape.ledger || w.extinct() {
		return
	}
	said := w.blocked(slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.up || n.frozen }))
	for _, n := range w.nodes {
		why := w.missing(n)
		tells := strings.Contains(said, "replacement of "+n.name) || strings.Contains(said, "a machine for "+n.name)
		if n.own != nil && why != "" && !(tells && w.cloud.failed) && !w.needsPerson(n.own.Name) {
			w.violated("%s %s, %s after the last fault: %s", n.name, why, w.now.sub(w.lastFault).Round(time.Second), said)
		}
	}
	w.checkTidy()
}

// extinct says that no node with a role runs: there is nobody whom the laws could ask to build the others.
func (w *world) extinct() bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.up && n.own != nil })
}

// checkTidy holds that machines too many are collected, and others are not.
func (w *world) checkTidy() {
	for _, m := range w.cloud.machines {
		n := w.embodied(m)
		if m.foreign || n != nil || len(m.tags) == 0 || m.power == cluster.PowerOff {
			continue
		}
		if w.now.sub(m.born) > 40*time.Minute && w.whole() {
			w.violated("machine %s, called %s, is not wanted and still runs after %s", m.id, m.name, w.now.sub(m.born))
		}
	}
}

func (w *world) whole() bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.own != nil && w.missing(n) != "" })
}
