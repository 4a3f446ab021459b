package sim

import (
	"maps"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// laws remembers what the laws need to know.
type laws struct {
	holders map[string]map[uint64]string // by duty and epoch
	last    map[string]*node             // by duty: who began to act last
}

func newLaws() laws { return laws{map[string]map[uint64]string{}, map[string]*node{}} }

// kernelLate is how late the kernel ends a set's element: measured up to 21 ms.
const kernelLate = 21 * time.Millisecond

// single says that the provider's register alone decides where the role's traffic goes.
func single(r *decide.Role) bool { return r.Reserved.IsValid() && !r.Data }

// openGate opens a gate, and holds the law that it is the only one.
func (w *world) openGate(n *node, g decide.Gate) {
	if n.own == nil || g.Role != n.own.Name {
		return
	}
	if n.gate.shut <= w.now {
		w.measureGap(g.Role)
		w.note(n.name, "opens the gate of "+g.Role)
	}
	if !g.Drain {
		n.gate.drain = 0
	} else if n.gate.drain == 0 {
		n.gate.drain = n.clock.at(w.now)
	}
	n.gate.until = g.Until
	if shut := never; g.Until.Sub(n.clock.at(w.now)) < 2*Hour {
		shut = n.clock.when(g.Until).add(w.between(0, kernelLate))
		n.gate.shut = shut
	} else {
		n.gate.shut = shut
	}
	if single(n.own) {
		return
	}
	for _, other := range w.nodes {
		if other != n && other.own != nil && other.own.Name == g.Role && other.gate.shut > w.now && w.now < n.gate.shut {
			w.violated("%s opens the gate of %s while that of %s is open for another %s", n.name, g.Role, other.name, other.gate.shut.sub(w.now))
		}
	}
}

// measureGap notes for how long nobody has answered.
func (w *world) measureGap(role string) {
	var closed moment
	for _, n := range w.nodes {
		if n.own != nil && n.own.Name == role {
			closed = max(closed, n.gate.shut)
		}
	}
	if closed > w.firstFault && closed < w.now {
		w.report_.Gap = max(w.report_.Gap, w.now.sub(closed))
	}
}

// holders are the nodes that act under a duty.
func (w *world) holders(duty string) (names []string) {
	for _, n := range w.candidates(duty) {
		if h := n.memory.Duties[duty].Hold; h.State == cluster.Held || h.State == cluster.Offered {
			names = append(names, n.name)
		}
	}
	return names
}

// watchDuties holds the laws about epochs and displacement whenever a node's duties have changed.
func (w *world) watchDuties(n *node, before *decide.Memory) {
	for _, duty := range slices.Sorted(maps.Keys(n.memory.Duties)) {
		d, was := n.memory.Duties[duty], before.Duties[duty]
		if d.Hold == was.Hold {
			continue
		}
		if acts(was.Hold.State) && was.Hold.State != cluster.Waiting && !acts(d.Hold.State) && w.blameless(n) && !w.superseded(n, duty) {
			w.violated("%s gives up %s, and had no fault near", n.name, duty)
		}
		if n.own != nil && n.own.Name == duty && holds(d.Hold.State) {
			n.offered = d.Hold.To
		}
		if d.Hold.State == cluster.Held && (was.Hold.State != cluster.Offered || was.Hold.Epoch != d.Hold.Epoch) {
			w.began(n, duty, d, was)
		}
	}
}

func (w *world) began(n *node, duty string, d, was decide.Duty) {
	epochs := w.laws.holders[duty]
	if epochs == nil {
		epochs = map[uint64]string{}
		w.laws.holders[duty] = epochs
	}
	if by, taken := epochs[d.Hold.Epoch]; taken && by != n.name && (w.shape.ledger || w.cloud.made == len(w.nodes)) {
		// Without a ledger nobody tells new machines what the old ones have promised.
		w.violated("epoch %d of %s has two holders, %s and %s", d.Hold.Epoch, duty, by, n.name)
	}
	epochs[d.Hold.Epoch] = n.name
	if was.Hold.State == cluster.Held {
		return // a new epoch of one's own
	}
	w.report_.Takeovers++
	if d.Lease {
		w.report_.Leases++
	}
	w.lawOfData(n, duty)
	old := w.laws.last[duty]
	w.laws.last[duty] = n
	if old != nil && old != n && acts(old.memory.Duties[duty].Hold.State) && w.blameless(old) {
		w.violated("%s takes %s from %s, which had no fault near", n.name, duty, old.name)
	}
}

// blameless says that a node runs with no fault near it, among a majority of such.
func (w *world) blameless(n *node) bool {
	return n.up && !n.frozen && n.faults == 0 && n.trouble <= w.now && w.troubled() <= (len(w.nodes)-1)/2
}

// superseded says that n holds a duty whose epoch is not the newest any more: it went on alone, as the register let it.
func (w *world) superseded(n *node, duty string) bool {
	for _, other := range w.nodes {
		if other.up && acts(other.memory.Duties[duty].Hold.State) && other.memory.Duties[duty].Hold.Epoch > n.memory.Duties[duty].Promise.Epoch {
			return true
		}
	}
	r := w.ledger.duties[duty]
	later := r.Lease && r.Epoch > n.memory.Duties[duty].Promise.Epoch
	if later && (w.named(r.Holder).faults > 0 || w.now < w.named(r.Holder).trouble.add(15*time.Second)) {
		return true // by one that is, or was, cut off, and has been read of only now
	}
	if c := w.ledger.claims[n.name]; c.Tombstoned {
		return true // while it was cut off, and it has read so only now; it claims the name again
	}
	return n.own != nil && n.own.Name == duty && single(n.own) && w.laws.last[duty] != n
}

// troubled counts the nodes that have a fault near, do not run, or do not vote yet.
func (w *world) troubled() (count int) {
	for _, n := range w.nodes {
		if n.faults > 0 || n.trouble > w.now || !n.up || n.frozen || !n.said.Voting {
			count++
		}
	}
	return count
}

// lawOfRegister holds when n moves an address in the register.
func (w *world) lawOfRegister(n *node, role, from, to string) {
	mine := n.memory.Duties[role].Hold
	for _, other := range w.nodes {
		if other == n || other.machine != from || from == to || !other.up {
			continue
		}
		theirs := other.memory.Duties[role].Hold
		if theirs.State == cluster.Held && (mine.State != cluster.Held && mine.State != cluster.Offered || theirs.Epoch > mine.Epoch) {
			w.violated("%s moves the address of %s away from %s, which holds epoch %d", n.name, role, other.name, theirs.Epoch)
		}
	}
}

// lawOfZone holds when n writes a zone.
func (w *world) lawOfZone(n *node, a decide.UpdateZone) {
	if n.view.Zones[a.Zone].At == 0 {
		w.violated("%s writes %s without having read it", n.name, a.Zone)
	}
}

// checkSettled holds the law that all that can be held is held, and that who cannot says why.
func (w *world) checkSettled() {
	for _, duty := range w.duties() {
		w.settled(duty)
	}
}

// checkEnd is the same at the end of the hour.
func (w *world) checkEnd() {
	if len(w.report_.Violations) == 0 {
		w.checkSettled()
		w.checkZone()
		w.checkWhole()
	}
}

// duties are the names of all duties, with who may hold them.
func (w *world) duties() []string {
	var all []string
	for _, r := range w.nodes[0].policy.Roles {
		if r.Primary {
			all = append(all, r.Name)
		}
	}
	return append(all, cluster.Coordinator)
}

func (w *world) candidates(duty string) []*node {
	var all []*node
	for _, n := range w.nodes {
		if n.up && !n.frozen && (n.own != nil && n.own.Name == duty || n.own != nil && duty == cluster.Coordinator) {
			all = append(all, n)
		}
	}
	return all
}

func (w *world) settled(duty string) {
	candidates := w.candidates(duty)
	var holders []*node
	why := ""
	for _, n := range candidates {
		if h := n.memory.Duties[duty].Hold; h.State == cluster.Held || h.State == cluster.Offered {
			holders = append(holders, n)
		}
	}
	switch {
	case len(holders) > 1:
		w.violated("%s is held by %s and %s, long after the last fault", duty, holders[0].name, holders[1].name)
	case len(candidates) == 0:
	case len(holders) == 0 && w.needsPerson(duty):
		w.report_.Waiting++
		w.after(w.between(5*time.Minute, 30*time.Minute), func() { w.help(duty) })
	case len(holders) == 0 && w.possible():
		w.violated("nobody holds %s, %s after the last fault: %s", duty, w.now.sub(w.lastFault).Round(time.Second), w.blocked(candidates))
	case len(holders) == 0 && !w.said(candidates, duty):
		w.violated("nobody holds %s, and nobody says why: %s", duty, w.blocked(candidates))
	case len(holders) == 1:
		n := holders[0]
		if r := n.own; r != nil && r.Name == duty && (r.Link.IsValid() || r.Reserved.IsValid()) && n.gate.shut <= w.now {
			why = "its gate is closed"
		} else if r != nil && r.Name == duty && r.Reserved.IsValid() && w.cloud.register[duty].machine != n.machine {
			why = "the provider sends its address elsewhere"
		} else if r != nil && r.Name == duty && r.PrimaryUnits && !n.units.All {
			why = "its units do not run"
		}
	}
	if why != "" {
		w.violated("%s holds %s, but %s", holders[0].name, duty, why)
	}
}

// said tells whether one of the candidates says what keeps it from the duty, or from everything.
func (w *world) said(candidates []*node, duty string) bool {
	if duty == cluster.Coordinator {
		duty = "coordination"
	}
	text := w.blocked(candidates)
	return strings.Contains(text, "takeover of "+duty) || strings.Contains(text, ": vote: ")
}

// possible says that duties can be held: a majority runs, or the ledger can stand in for it.
func (w *world) possible() bool {
	run, elsewhere := 0, 0
	for _, n := range w.nodes {
		if n.up {
			run++
		} else if w.power(n.machine) == cluster.PowerOn {
			elsewhere++
		}
	}
	majority := len(w.nodes)/2 + 1
	if !w.shape.ledger && w.cloud.made > len(w.nodes) && run-1 < len(w.nodes)-majority+1 {
		return false // a new machine has too few to learn from, and nobody else to ask
	}
	return run >= majority || w.shape.ledger && elsewhere < majority
}

// blocked is what the candidates say when asked now.
func (w *world) blocked(candidates []*node) string {
	var all []string
	for _, n := range candidates {
		w.observe(n, n.clock.at(w.now))
		for _, b := range decide.Next(n.view, n.memory, n.policy).Blocked {
			all = append(all, n.name+": "+b.What+": "+b.Why)
		}
	}
	return strings.Join(all, "; ")
}

// checkZone holds that what serves is published in the end.
func (w *world) checkZone() {
	if !w.possible() {
		return
	}
	for _, r := range w.nodes[0].policy.Roles {
		if len(r.Names) == 0 || r.Data {
			continue
		}
		for _, n := range w.nodes {
			if n.own == nil || n.own.Name != r.Name || !n.up {
				continue
			}
			want := cluster.Record{Name: r.Names[0], Type: "A", Value: w.shape.public(n.i).String()}
			if !slices.Contains(w.zone.records, want) {
				w.violated("%s serves and is not published: %v", n.name, w.zone.records)
			}
		}
	}
}
