package admin

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// NewStatus says what a view and the decision that followed from it mean for people. It is pure. The cluster's name is left
// for the caller, and so are the time and the age: see Dated.
func NewStatus(p decide.Policy, v decide.View, d decide.Decision) Status {
	return builder{p: p, v: v, d: d}.status()
}

func (b builder) status() Status {
	p, v, d := b.p, b.v, b.d
	st := Status{
		Node: p.Self, Paused: d.Say.Paused || v.Orders.Pause, Coordinator: b.duty(cluster.Coordinator).actor(),
		Majority: b.majority(), Ledger: b.ledger(), Blocked: blocked(p, d), Doing: append(b.doing(), b.trying()...), Rollout: b.rollout(),
		Checks: []Check{}, Asked: []string{}, Mute: []string{},
	}
	for _, r := range p.Roles {
		role := b.role(r)
		for _, name := range r.Nodes {
			n := b.node(name, r)
			st.Nodes = append(st.Nodes, n)
			if n.Serves() {
				role.Serving++
			}
		}
		st.Roles = append(st.Roles, role)
	}
	if p.Beachhead != "" {
		n := b.node(p.Beachhead, decide.Role{})
		st.Beachhead = &n
	}
	for _, z := range p.Zones {
		st.Zones = append(st.Zones, b.zone(z))
	}
	st.Why = b.why(st)
	st.Redundant = len(st.Why) == 0
	st.Warnings = b.warnings(st)
	st.Roles, st.Nodes, st.Zones = some(st.Roles), some(st.Nodes), some(st.Zones)
	return st
}

// staleAfter is the age from which on knowledge is no knowledge: a loop that has not turned for so long hangs.
const staleAfter = 10 * time.Second

// Hangs says that the loop has not turned for so long that what it says is no knowledge.
func (st Status) Hangs() bool { return time.Duration(st.Age) > staleAfter }

// Dated adds when the turn was that a status tells of. What is too old is not redundant, whatever it was.
func (st Status) Dated(turned, now time.Time) Status {
	st.At, st.Age = turned, Duration(max(now.Sub(turned), 0))
	if st.Hangs() {
		hangs := fmt.Sprintf("the sidecar of %s has not looked around for %s, so nobody can tell from there; its log says why", st.Node, Words(time.Duration(st.Age)))
		st.Redundant, st.Why = false, append([]string{hangs}, st.Why...)
	}
	return st
}

// some is s, and never nil, so that JSON shows a list.
func some[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// builder holds what NewStatus reads.
type builder struct {
	p decide.Policy
	v decide.View
	d decide.Decision
	// trouble is what health checks complain about, by node.
	trouble map[string][]string
}

// said is what a member last said of itself; for this node what it says from now on.
func (b builder) said(name string) cluster.Announcement {
	if name == b.p.Self {
		return b.d.Say
	}
	return b.v.Peers[name].Said
}

// verdict is what its silence says of a member.
func (b builder) verdict(name string) decide.Liveness {
	if name == b.p.Self {
		return decide.Alive
	}
	if verdict, ok := b.d.Memory.Verdicts[name]; ok {
		return verdict.State
	}
	if b.v.Peers[name].Heard == 0 {
		return decide.NeverHeard
	}
	return decide.Alive // heard, and not judged yet
}

// here says whether a member's word still stands for what it does now.
func (b builder) here(name string) bool {
	l := b.verdict(name)
	return l == decide.Alive || l == decide.Suspect || l == decide.Broken
}

// silent is how long a member has not been heard: of one that has failed without ever being heard, since this node listens.
func (b builder) silent(name string) time.Duration {
	since := b.v.Peers[name].Heard
	if since == 0 && b.verdict(name) == decide.Failed {
		since = b.v.Started
	}
	if since == 0 || name == b.p.Self {
		return 0
	}
	return max(b.v.Now.Since(since), 0)
}

// members are all who may vote, the roster's in its order.
func (b builder) members() []string {
	all := slices.Clone(b.p.Nodes)
	if b.p.Beachhead != "" && !slices.Contains(all, b.p.Beachhead) {
		all = append(all, b.p.Beachhead)
	}
	return all
}

// dutyState is who has, or asks for, a duty.
type dutyState struct {
	duty   string
	holder string // of the newest epoch that a present member says it has
	hold   cluster.Hold
	bidder string // who asks for a newer one
	bid    uint64
	gone   string // the absent member that said last it held the duty, with
	was    uint64 // this epoch
	also   string // another present member that says it acts, under an older epoch
	known  uint64 // highest epoch of all that was heard of
}

// actor is the one who acts on the duty; empty: nobody.
func (s dutyState) actor() string {
	if s.hold.State == cluster.Held || s.hold.State == cluster.Offered {
		return s.holder
	}
	return s.also
}

func (b builder) duty(duty string) dutyState {
	s := dutyState{duty: duty, known: b.d.Memory.Epochs[duty]}
	for _, name := range b.members() {
		said := b.said(name)
		for _, p := range said.Promises {
			if p.Duty == duty {
				s.known = max(s.known, p.Epoch)
			}
		}
		for _, bid := range said.Bids {
			if bid.Duty == duty && b.here(name) && bid.Epoch > s.bid {
				s.bidder, s.bid = name, bid.Epoch
			}
		}
		for _, h := range said.Holds {
			if h.Duty == duty {
				s = s.claim(name, h, b.here(name))
			}
		}
	}
	s.known = max(s.known, s.hold.Epoch, s.was)
	if s.bid <= s.hold.Epoch {
		s.bidder, s.bid = "", 0
	}
	return s
}

// claim takes in that a member says it has the duty.
func (s dutyState) claim(name string, h cluster.Hold, present bool) dutyState {
	acts := h.State == cluster.Held || h.State == cluster.Offered
	switch {
	case !present:
		if acts && h.Epoch > s.was {
			s.gone, s.was = name, h.Epoch
		}
	case h.Epoch > s.hold.Epoch:
		if s.hold.State == cluster.Held || s.hold.State == cluster.Offered {
			s.also = s.holder
		}
		s.holder, s.hold = name, h
	case acts:
		s.also = name
	}
	return s
}

func (b builder) role(r decide.Role) Role {
	role := Role{Name: r.Name, Duty: r.Primary, Names: slices.Concat(r.AddressNames, r.Names), Wanted: len(r.Nodes)}
	role.Names = some(role.Names)
	switch {
	case r.Reserved.IsValid():
		role.Address, role.Kind = r.Reserved, "reserved"
	case r.Link.IsValid():
		role.Address, role.Kind = r.Link.Addr(), "link"
	}
	if r.Primary {
		s := b.duty(r.Name)
		role.Primary, role.Epoch, role.State, role.To = s.actor(), s.known, s.hold.State.String(), s.hold.To
	}
	return role
}

func (b builder) node(name string, r decide.Role) Node {
	said, verdict := b.said(name), b.verdict(name)
	n := Node{
		Name: name, Role: r.Name, Phase: said.Phase.String(), Alive: verdict.String(), Silent: Duration(b.silent(name)),
		Incarnation: said.Claim, Machine: said.Machine, Address: said.Private, Public: said.Public, Commit: said.Commit,
		Health: said.Health.String(), Trouble: some(b.trouble[name]), CaughtUp: true, Voting: said.Voting, Paused: said.Paused, ClockOff: said.ClockOff,
	}
	if n.Address == (netip.Addr{}) { // a node that was never heard is in the ledger, perhaps
		claim := b.v.Ledger.Claims[name]
		n.Address, n.Public = claim.Private, claim.Public
		if n.Machine == "" {
			n.Machine, n.Incarnation = claim.Machine, claim.Epoch
		}
	}
	switch verdict {
	case decide.Failed:
		n.Phase, n.Voting = decide.Failed.String(), false
	case decide.NeverHeard:
		n.Phase, n.Voting = cluster.Phase(0).String(), false
	}
	switch {
	case !r.Primary || !b.here(name): // who is not there stands by for nothing
	case b.duty(r.Name).actor() == name:
		n.Duty = "primary"
	default:
		n.Duty = "standby"
	}
	for _, m := range said.Mirrors {
		if m.Role != r.Name || n.Duty == "primary" { // whose own is about the other's copy
			continue
		}
		n.CaughtUp, n.Lag, n.Behind = m.CaughtUp, Duration(m.Lag), m.Behind
		if !n.CaughtUp {
			n.Copy = decide.Copying(m)
		}
	}
	return n
}

func (b builder) majority() Majority {
	all := b.members()
	m := Majority{Members: len(all), Needed: len(all)/2 + 1}
	for _, name := range all {
		if l := b.verdict(name); l == decide.Alive || l == decide.Suspect {
			m.Heard++
		}
	}
	m.Have = m.Heard >= m.Needed
	return m
}

func (b builder) ledger() Ledger {
	from := b.v.Ledger
	l := Ledger{Configured: from.Configured, Usable: from.Configured && from.Sound && !from.Failing && from.ReadSent != 0}
	if from.ReadSent != 0 {
		l.Age = Duration(b.v.Now.Since(from.ReadSent))
	}
	switch {
	case !from.Configured || l.Usable:
	case !from.Sound && from.Unsound != "":
		l.Why = from.Unsound
	case !from.Sound:
		l.Why = "whether it honours create-if-absent is not shown yet"
	case from.Forgot != "":
		l.Why = "it knows less than the nodes remember (" + from.Forgot + "); when you know why: understudy ledger reseed"
	case from.ReadSent == 0:
		l.Why = "it has not been read yet"
	default:
		l.Why = "it does not answer; it was last read " + Words(time.Duration(l.Age)) + " ago"
	}
	return l
}

func (b builder) zone(z decide.Zone) Zone {
	r := b.v.Zones[z.Key]
	out := Zone{Name: z.Key, Known: r.At != 0, Epoch: r.Epoch, Records: len(r.Records)}
	if out.Known {
		out.Age = Duration(b.v.Now.Since(r.At))
	}
	return out
}
