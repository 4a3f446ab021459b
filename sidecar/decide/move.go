package decide

import (
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// move carries out a planned move of a duty that this node holds: the services finish what runs, then the duty is offered, and it
// is released in the same turn in which this node itself promises it to the other (hold.go).
func (t *turn) move(d duty, s *Duty) {
	if s.Hold.State != cluster.Held && s.Hold.State != cluster.Offered {
		s.stay()
		return
	}
	to, why := t.wanted(d, s)
	if why == "" {
		if s.To != "" { // taken back
			s.Hold.State, s.Hold.To = cluster.Held, ""
			s.stay()
		}
		return
	}
	if to == "" {
		t.nowhere(d, s, why)
		return
	}
	if s.To == "" {
		if t.Now < s.Again && !t.Orders.Leave {
			t.at(s.Again)
			return
		}
		s.To, s.Draining = to, t.Now
		t.note(NoteMoved, t.p.Self, d.name, fmt.Sprintf("%s moves from %s to %s: %s", d.title(), t.p.Self, to, why))
	}
	if s.Offering == 0 && !(t.drained(d, s, why) && t.stopped(d, s) && t.settled(d, s)) {
		return
	}
	if s.Offering == 0 {
		s.Offering = t.Now
	}
	s.Hold.State, s.Hold.To = cluster.Offered, s.To
	if limit := s.Offering.Add(4 * t.p.Timings.Detection); t.Now > limit {
		t.blocked("move of "+d.title(), fmt.Sprintf("%s has not taken it within %s", s.To, ms(4*t.p.Timings.Detection)))
		s.Hold.State, s.Hold.To = cluster.Held, ""
		s.stay()
		s.Again = t.Now.Add(10 * t.p.Timings.Detection)
	} else {
		t.at(limit + 1)
	}
}

// stopped says that the programs that write the data are stopped, and has them stopped: the successor must find all of it.
func (t *turn) stopped(d duty, s *Duty) bool {
	s.Stopping = d.role != nil && d.role.PrimaryUnits
	return !s.Stopping || !t.Units[d.name].Running
}

// stay forgets a planned move.
func (s *Duty) stay() { s.Draining, s.Offering, s.Halted, s.To, s.Stopping = 0, 0, 0, "", false }

// nowhere deals with a move that has no target: it waits, unless this node is going down anyway.
func (t *turn) nowhere(d duty, s *Duty, why string) {
	s.Hold.State, s.Hold.To = cluster.Held, ""
	s.stay()
	if t.Orders.Leave {
		t.release(d, s, why+", and no other node can take it")
		return
	}
	t.blocked("move of "+d.title(), why+", but no node it may go to can take it")
}

// wanted says whether, where to, and why the duty should move.
func (t *turn) wanted(d duty, s *Duty) (to, why string) {
	order, ordered := t.order(d, s)
	switch {
	case t.Orders.Leave:
		why = t.p.Self + " is going down"
	case t.leaving():
		why = t.p.Self + " leaves the cluster"
	case ordered:
		why = "it was asked for"
	case t.Orders.Pause:
		return "", ""
	case d.role != nil && t.Health == cluster.Unhealthy && t.fitter(d):
		why = t.p.Self + " is unhealthy"
	case d.role != nil && t.Health == cluster.Unhealthy:
		t.blocked("move of "+d.title(), t.p.Self+" is unhealthy, but no other node is healthier")
		return "", ""
	case d.role != nil && t.was.Handing != "" && slices.Contains(d.role.Nodes, t.p.Self):
		why = t.was.Handing
	case t.ClockOff && d.role != nil && t.rightClock(d):
		why = "the clock of " + t.p.Self + " is off"
	default:
		return "", ""
	}
	if s.To != "" && t.couldHold(d, s.To) {
		return s.To, why
	}
	if !ordered || order.To == "" || t.Orders.Leave {
		return t.best(d), why
	}
	if slices.Contains(d.nodes, order.To) && t.couldHold(d, order.To) {
		return order.To, why
	}
	return "", "it was asked to go to " + order.To
}

// order is the wish of an operator that is meant for the epoch we hold, given here or passed on by a peer.
func (t *turn) order(d duty, s *Duty) (cluster.Move, bool) {
	wishes := t.Orders.Moves
	for _, k := range t.live {
		if k != t.p.Self {
			wishes = append(slices.Clip(wishes), t.said(k).Want...)
		}
	}
	for _, w := range wishes {
		if w.Duty == d.name && w.From == s.Hold.Epoch && w.To != t.p.Self {
			return w, true
		}
	}
	return cluster.Move{}, false
}

func (t *turn) rightClock(d duty) bool {
	return slices.ContainsFunc(d.nodes, func(k string) bool {
		return k != t.p.Self && t.couldHold(d, k) && !t.said(k).ClockOff && t.said(k).Health != cluster.Unhealthy
	})
}

// best is the peer that should have the duty next. Empty: none can.
func (t *turn) best(d duty) string {
	best, top := "", -1
	for _, k := range d.nodes {
		if k == t.p.Self || !t.couldHold(d, k) {
			continue
		}
		if r := rank(t.said(k).Health, t.said(k).ClockOff); r > top {
			best, top = k, r
		}
	}
	return best
}

// announceDrain is how long a role's services, told to finish their connections, still take new ones.
const announceDrain = 1500 * time.Millisecond

// drained lets running requests finish: first the role's services say on every answer that the connection ends, while they still
// take new ones; then new connections are dropped silently, so that the client's own retry reaches the successor; then we wait for
// the last, but not for ever.
func (t *turn) drained(d duty, s *Duty, why string) bool {
	if d.role == nil || !d.role.Reserved.IsValid() && !d.role.Link.IsValid() {
		return true
	}
	if d.role.Drain {
		if until := s.Draining.Add(announceDrain); t.Now < until {
			t.act(StartDrain{Reason: Reason(fmt.Sprintf("%s finishes its connections: %s", d.title(), why)), Role: d.name})
			t.at(until + 1)
			return false
		}
	}
	if t.Now.Sub(s.Draining) > t.p.Timings.Drain {
		return true
	}
	n, closed := t.Sockets[d.name], t.Gates[d.name].Drain
	if closed != 0 && n.At > closed && n.Established == 0 {
		return true
	}
	t.act(CountSockets{Reason: Reason(d.title() + " moves when its last connection has ended"), Role: d.name})
	t.in(20 * time.Millisecond)
	return false
}

// dropsNew says that new connections are dropped now.
func (t *turn) dropsNew(d duty, s *Duty) bool {
	if s.Draining == 0 || d.role == nil {
		return false
	}
	return !d.role.Drain || t.Now.Sub(s.Draining) >= announceDrain
}
