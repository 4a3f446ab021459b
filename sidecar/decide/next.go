package decide

import (
	"maps"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// Next decides one turn. It changes none of its arguments.
func Next(v View, m Memory, p Policy) Decision {
	if v.Room == nil {
		v.Room = &Room{}
	}
	t := &turn{View: v, p: p, was: m, lasting: m.Lasting, room: slices.Grow(v.Room.seen[:0], len(p.Nodes)+1)}
	t.look = v.Now.Add(t.p.Timings.LedgerIdle)
	t.judge()
	t.votes = t.mayVote()
	t.lasting.Voted = t.lasting.Voted || t.votes
	if t.reach() < p.majority() && t.votes {
		t.shortSince = max(m.Short, v.Started)
		if m.Short == 0 {
			t.shortSince = v.Now
		}
	}
	for _, d := range p.duties() {
		t.duty(d)
	}
	for _, dir := range slices.Sorted(maps.Keys(t.Woes)) {
		t.blocked("data in "+dir, t.Woes[dir])
	}
	t.leave()
	t.replace()
	t.readLedger()
	t.readMachines()
	t.publish()
	t.rollout()
	t.out.Memory = Memory{Yield: t.rolling.Yield, Handing: t.handing, Restarting: t.restarting, Out: t.outSince, Lasting: t.lasting, For: v.Started, Duties: t.duties, Verdicts: t.verdicts, Short: t.shortSince}
	t.out.Say = t.say()
	v.Room.seen = t.room
	t.out.LookAgain = max(t.look, v.Now.Add(time.Millisecond))
	return t.out
}

// turn is the work of one call of Next. View's fields are the readings, was is the memory before.
type turn struct {
	View
	p   Policy
	was Memory

	lasting  Lasting              // with the maps of was until one is changed, see raise
	room     []seen               // of members, as they were looked up first
	next     int                  // in room, behind the one looked up last
	mute     cluster.Announcement // of whoever is not heard
	verdicts map[string]Verdict
	live     []string // members that are heard, this one included, in the roster's order
	votes    bool     // this node grants and confirms
	duties   map[string]Duty
	look     cluster.Instant
	leased   bool // something hangs on fresh readings of the ledger
	// shortSince is since when fewer than a majority vote here; zero: they are enough.
	shortSince cluster.Instant
	short      bool // a duty lacks a majority, so the ledger and the provider matter
	rolling    cluster.Rollout
	restarting cluster.Instant
	outSince   cluster.Instant // see Memory.Out
	handing    string          // why the role's duty must go to another node before Puppet runs here
	out        Decision
}

// duty is one duty with what the policy says of it. Role is nil for the coordinator's.
type duty struct {
	name  string
	role  *Role
	nodes []string // who may hold it, the first preferred
}

// title is the duty's name for people.
func (d duty) title() string {
	if d.role == nil {
		return "coordination"
	}
	return d.name
}

// single says that the provider's register decides where the role's traffic goes, and that nothing but answering hangs on the
// duty: then its holder may go on alone.
func (d duty) single() bool { return d.role != nil && d.role.Reserved.IsValid() && !d.role.Data }

// duties are all duties, the coordinator's last.
func (p Policy) duties() []duty {
	all := make([]duty, 0, len(p.Roles)+1)
	for i := range p.Roles {
		if r := &p.Roles[i]; r.Primary {
			all = append(all, duty{name: r.Name, role: r, nodes: r.Nodes})
		}
	}
	nodes := p.Nodes
	if p.Beachhead != "" {
		nodes = slices.DeleteFunc(slices.Clone(p.Nodes), func(n string) bool { return n == p.Beachhead })
	}
	return append(all, duty{name: cluster.Coordinator, nodes: nodes})
}

// majority is more than half of the members.
func (p Policy) majority() int { return len(p.Nodes)/2 + 1 }

// role is the role this node plays; nil for the beachhead.
func (p Policy) role() *Role {
	for i, r := range p.Roles {
		if slices.Contains(r.Nodes, p.Self) {
			return &p.Roles[i]
		}
	}
	return nil
}

// at asks to be called again at i at the latest.
func (t *turn) at(i cluster.Instant) {
	if i != 0 && i < t.look {
		t.look = i
	}
}

// in asks to be called again after d at the latest.
func (t *turn) in(d time.Duration) { t.at(t.Now.Add(d)) }

// act adds an action. Two duties may ask for the same thing; once is enough.
func (t *turn) act(a Action) {
	if !slices.ContainsFunc(t.out.Actions, func(b Action) bool { return b.Key() == a.Key() }) {
		t.out.Actions = append(t.out.Actions, a)
	}
}

func (t *turn) blocked(what, why string) {
	t.out.Blocked = append(t.out.Blocked, Blocked{What: what, Why: why})
}

func (t *turn) note(kind NoteKind, node, duty, text string) {
	t.out.Notes = append(t.out.Notes, Note{Kind: kind, Node: node, Duty: duty, Text: text})
}

// duty goes through one duty: whom to confirm first, because everything else counts on it.
func (t *turn) duty(d duty) {
	if t.duties == nil {
		t.duties = make(map[string]Duty, len(t.was.Duties))
	}
	s := t.was.Duties[d.name]
	s.Before = slices.Clone(s.Before)
	if s.Promise.Epoch == 0 && len(s.Before) == 0 { // after a restart
		for _, l := range t.was.Leases[d.name] {
			s.Before = append(s.Before, Before{Holder: l.Holder, Epoch: l.Epoch, Lease: true})
		}
	}
	if t.was.For != t.Started { // the clock goes on through a gap, but what was heard is void
		s.Bid, s.Vacant = 0, 0
		s.stay()
	}
	t.learn(d)
	t.promise(d, &s)
	t.hold(d, &s)
	t.move(d, &s)
	t.bid(d, &s)
	t.win(d, &s)
	t.forget(d, &s)
	t.gate(d, &s)
	t.address(d, &s)
	t.units(d, &s)
	t.record(d, &s)
	t.data(d, &s)
	t.duties[d.name] = s
	t.remember(d, &s)
}

// remember keeps the leases that are not known to be over for the time after a restart.
func (t *turn) remember(d duty, s *Duty) {
	var all []Lease
	for _, b := range s.Before {
		if b.Lease {
			all = append(all, Lease{Holder: b.Holder, Epoch: b.Epoch})
		}
	}
	if s.Promise.Lease {
		all = append(all, Lease{Holder: s.Promise.Holder, Epoch: s.Promise.Epoch})
	}
	if r := t.Ledger.Duties[d.name]; r.Lease && r.Holder != t.p.Self && r.Epoch >= s.Acted && !t.freed(d, s, r.Holder, r.Epoch) {
		if l := (Lease{Holder: r.Holder, Epoch: r.Epoch}); !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	if slices.Equal(all, t.lasting.Leases[d.name]) {
		return
	}
	leases := make(map[string][]Lease, len(t.lasting.Leases)+1)
	maps.Copy(leases, t.lasting.Leases)
	if delete(leases, d.name); len(all) > 0 {
		leases[d.name] = all
	}
	t.lasting.Leases = leases
}

// raise returns epochs, in which a duty has at least a value now: a copy, if it had less. Turns that change nothing share one map.
func raise(epochs map[string]uint64, duty string, to uint64) map[string]uint64 {
	if epochs[duty] >= to {
		return epochs
	}
	raised := make(map[string]uint64, len(epochs)+1)
	maps.Copy(raised, epochs)
	raised[duty] = to
	return raised
}

// Equal says that two hold the same, so that nothing needs to be written.
func (l Lasting) Equal(other Lasting) bool {
	return l.Voted == other.Voted && maps.Equal(l.Epochs, other.Epochs) && maps.Equal(l.Promised, other.Promised) &&
		maps.EqualFunc(l.Leases, other.Leases, slices.Equal[[]Lease]) && maps.Equal(l.Data, other.Data) && l.Rollout.Equal(other.Rollout)
}
