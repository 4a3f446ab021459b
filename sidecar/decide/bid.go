package decide

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// bid decides whether this node asks for a duty: it may hold it, nobody does, and no other node that could comes before it. A
// holder asks, too, for a new epoch of its own duty, when some member's promise has gone past it or hangs on a lease no longer
// needed; it keeps acting meanwhile.
func (t *turn) bid(d duty, s *Duty) {
	if s.Bid != 0 && t.withdraw(d, s) {
		return
	}
	if s.Bid != 0 || !t.votes || !slices.Contains(d.nodes, t.p.Self) {
		return
	}
	if s.Hold.State == cluster.Held && t.renew(d, s) || !acting(s.Hold.State) && t.candidate(d, s) {
		if t.Now < s.Again {
			t.at(s.Again)
			return
		}
		t.ask(d, s)
	}
}

// ask begins a bid, which starts with this node's own promise.
func (t *turn) ask(d duty, s *Duty) {
	why := t.describe(d, s)
	if !acting(s.Hold.State) {
		_, s.Loss = t.lacks(d, s)
	}
	s.BidLease = t.reach() < t.p.majority()
	s.Bid, s.Since = nextEpoch(t.lasting.Epochs[d.name], s.BidLease), t.Now
	t.asked(d, s.Bid)
	t.follow(d, s, t.p.Self, s.Bid, s.BidLease)
	if !acting(s.Hold.State) {
		s.Hold = cluster.Hold{}
		t.note(NoteSuspect, t.p.Self, d.name, fmt.Sprintf("asking for %s under epoch %d: %s", d.title(), s.Bid, why))
	}
}

// leaseEpochs are the epochs that the ledger gives: every eighth. The others are a majority's. So a member that is cut off from a
// majority's newest epoch, which the ledger may not know yet, never asks the ledger for the same one.
const leaseEpochs = 8

// nextEpoch is the first of its kind above the highest one that is known.
func nextEpoch(known uint64, lease bool) uint64 {
	switch next := known + 1; {
	case lease:
		return (known/leaseEpochs + 1) * leaseEpochs
	case next%leaseEpochs == 0:
		return next + 1
	default:
		return next
	}
}

// withdraw ends a bid that has become pointless, and says whether it did. The epoch is given up for good, and said to be.
func (t *turn) withdraw(d duty, s *Duty) bool {
	why := ""
	switch beaten := t.beaten(d, s); {
	case !t.votes:
		why = "this node may not vote"
	case s.Promise.Holder != t.p.Self || s.Promise.Epoch != s.Bid:
		why = "another node has it"
	case beaten != "":
		why = beaten
	case t.overtaken(d, t.p.Self, s.Bid):
		why = "the ledger has that epoch for " + t.Ledger.Duties[d.name].Holder
	case t.Now.Sub(s.Since) > t.patience(s):
		why = fmt.Sprintf("not enough members promised it within %s", ms(t.patience(s)))
	case !acting(s.Hold.State) && t.heard(d):
		why = "its holder is heard again"
	case !acting(s.Hold.State):
		why, _ = t.lacks(d, s)
	}
	if why == "" {
		t.at(s.Since.Add(t.patience(s)) + 1)
		return false
	}
	if !acting(s.Hold.State) {
		s.Hold = cluster.Hold{Duty: d.name, Epoch: s.Bid, State: cluster.Released}
		t.note(NoteStepped, t.p.Self, d.name, fmt.Sprintf("no longer asking for %s: %s", d.title(), why))
	}
	// Two that ask at the same time must not do so for ever: who comes later in the roster waits longer.
	s.Again = t.Now.Add(t.p.Timings.Detection/2 + t.p.Timings.Detection*time.Duration(slices.Index(d.nodes, t.p.Self)))
	s.Bid = 0
	return true
}

// patience is how long a bid may last: members answer at once or not at all, the ledger takes its time. What was asked of the
// ledger while few were heard is asked of the members once a majority is: several may have asked for the same epoch.
func (t *turn) patience(s *Duty) time.Duration {
	if s.BidLease && t.reach() < t.p.majority() || s.Promise.AfterLease {
		return 3 * t.p.Timings.LeaseWait
	}
	return 2 * t.p.Timings.Detection
}

// beaten says which other bid or hold has gone past ours.
func (t *turn) beaten(d duty, s *Duty) string {
	for _, k := range t.p.Nodes {
		if k == t.p.Self {
			continue
		}
		said := t.said(k)
		if h := holdOf(said, d.name); acting(h.State) && h.Epoch > s.Bid {
			return k + " holds a later epoch"
		}
		if x := promiseOf(said, d.name); x.Epoch > s.Bid {
			return fmt.Sprintf("%s has promised a later epoch", k)
		}
	}
	return ""
}

// heard says that some other member is heard to act under the duty, firmly.
func (t *turn) heard(d duty) bool {
	for _, k := range t.p.Nodes {
		if k == t.p.Self {
			continue
		}
		h := holdOf(t.said(k), d.name)
		if acting(h.State) && !(h.State == cluster.Offered && h.To == t.p.Self) {
			return true
		}
	}
	return false
}

// renew says that a holder needs a new epoch: a member that is heard has promised a higher one to somebody who does not hold
// it, so it cannot confirm us any more; or our lease is not needed now that a majority is there.
func (t *turn) renew(d duty, s *Duty) bool {
	for _, k := range t.live {
		if k == t.p.Self {
			continue
		}
		x := promiseOf(t.said(k), d.name)
		if t.said(k).Voting && x.Epoch >= s.Hold.Epoch && x.Holder != t.p.Self && (x.Holder == "" || t.free(d, &Duty{Promise: x}, t.p.Self)) {
			return true
		}
	}
	return t.deserted(d, s) || s.Lease && t.confirmed(d, s) != 0 && t.Now.Sub(s.Acting) > 4*t.p.Timings.Detection
}

// candidate says that the duty is free and that this node should have it.
func (t *turn) candidate(d duty, s *Duty) bool {
	free, why := t.vacant(d, s)
	if !free {
		s.Vacant = 0
		if why != "" {
			t.blocked("takeover of "+d.title(), why)
		}
		return false
	}
	if s.Vacant == 0 {
		s.Vacant = t.Now
	}
	if why := t.unfit(d, s); why != "" {
		t.blocked("takeover of "+d.title(), why)
		return false
	}
	before := t.better(d)
	if len(before) > 0 {
		// It may see what we do not. If it has not asked for long, somebody must; members refuse where the duty is not free.
		wait := s.Vacant.Add(time.Duration(len(before)) * 4 * t.p.Timings.Detection)
		if t.Now < wait && !t.offeredToMe(d) {
			t.at(wait)
			return false
		}
	}
	return t.hopeful(d, s)
}

// vacant says that nobody else holds the duty, as far as it can be seen. If it is not but its holder is not heard here, why
// says what keeps us from taking it.
func (t *turn) vacant(d duty, s *Duty) (bool, string) {
	if t.offeredToMe(d) {
		return true, ""
	}
	if t.heard(d) {
		return false, ""
	}
	h := s.Promise.Holder
	if h == "" || h == t.p.Self {
		return true, ""
	}
	if t.alive(h) {
		return t.gaveUp(d, h, t.p.Self), ""
	}
	if d.role == nil || d.role.Reserved.IsValid() { // its move takes seconds anyway, so a little more certainty costs nothing
		if after := max(t.p.Timings.Reserved, t.limit(h)); t.silence(h) <= after {
			return false, ""
		}
	}
	if !t.silentToMost(h) {
		return false, fmt.Sprintf("%s is silent to this node only: most of those heard here hear it", h)
	}
	return true, ""
}

func (t *turn) offeredToMe(d duty) bool {
	for _, k := range t.live {
		if h := holdOf(t.said(k), d.name); k != t.p.Self && h.State == cluster.Offered && h.To == t.p.Self {
			return true
		}
	}
	return false
}

// unfit says why this node should not have the duty at all.
func (t *turn) unfit(d duty, s *Duty) string {
	switch {
	case t.Orders.Pause:
		return "this node is paused; understudy resume ends that"
	case t.Orders.Leave:
		return "this node is going down"
	case t.leaving():
		return "this node leaves the cluster"
	case d.role == nil:
		return ""
	case t.Phase < cluster.Applied:
		return "this node has not applied its role yet"
	case t.Units[d.name].Running:
		return "the programs here that write its data are still stopping"
	}
	if why, _ := t.lacks(d, s); why != "" {
		return why
	}
	if t.health(false) == cluster.Unhealthy && t.fitter(d) {
		return "this node is unhealthy and another is not"
	}
	return ""
}

// health is the verdict of the checks that apply, to a holder or to a standby.
func (t *turn) health(holds bool) cluster.Health {
	if holds {
		return t.Health
	}
	return t.StandbyHealth
}

// fitter says that another living node could have the duty and is healthy.
func (t *turn) fitter(d duty) bool {
	return slices.ContainsFunc(d.nodes, func(k string) bool {
		return k != t.p.Self && t.couldHold(d, k) && t.said(k).Health == cluster.Healthy
	})
}

// couldHold says that a peer may hold the duty, as it says itself.
func (t *turn) couldHold(d duty, k string) bool {
	said := t.said(k)
	if !t.alive(k) || !said.Voting || said.Paused || said.Phase == cluster.Stopping || said.Rollout.Leaves || d.role != nil && said.Phase < cluster.Applied {
		return false
	}
	own, mirrored := t.mirror(d)
	if !mirrored {
		return true
	}
	switch theirs, ok := t.copyOf(d, k); {
	case !ok:
		return false
	case !holding(t.was.Duties[d.name].Hold.State):
		return theirs.Synced >= own.Synced
	default:
		return t.follows(theirs, own) || t.Orders.Leave && theirs.Complete && theirs.Epoch == own.Epoch // it may do so soon
	}
}

// better lists the peers that come before this node: with better data, healthier, with a clock that is right, or earlier in the
// roster.
func (t *turn) better(d duty) []string {
	mine := rank(t.health(false), t.ClockOff)
	own, _ := t.mirror(d)
	var all []string
	me := slices.Index(d.nodes, t.p.Self)
	for i, k := range d.nodes {
		if k == t.p.Self || !t.couldHold(d, k) {
			continue
		}
		if holdOf(t.said(k), d.name).State == cluster.Released && bidOf(t.said(k), d.name).Epoch == 0 {
			continue // it has just given up, and knows why
		}
		data, _ := t.copyOf(d, k)
		theirs := rank(t.said(k).Health, t.said(k).ClockOff)
		if cmp.Or(cmp.Compare(data.Synced, own.Synced), cmp.Compare(theirs, mine), worth(data, own), cmp.Compare(me, i)) > 0 {
			all = append(all, k)
		}
	}
	return all
}

func rank(h cluster.Health, clockOff bool) int {
	r := map[cluster.Health]int{cluster.Healthy: 2, cluster.Unknown: 1}[h] * 2
	if !clockOff {
		r++
	}
	return r
}

// hopeful says that asking can succeed: those that are heard are a majority, or the ledger may stand in for it.
func (t *turn) hopeful(d duty, s *Duty) bool {
	if t.reach() >= t.p.majority() || t.p.Off.Majority {
		return true
	}
	t.short = true
	why := t.noLease(d, t.live)
	// Beats and votes come in one after the other: a majority may be about to be there.
	patience := t.shortSince.Add(2 * t.p.Timings.Detection)
	if why == "" && t.shortSince != 0 && t.Now > patience {
		return true
	}
	if why == "" {
		t.at(patience + 1)
		why = "the others may be about to"
	}
	t.blocked("takeover of "+d.title(), fmt.Sprintf("only %d of %d members vote here, %d are needed, and %s", t.reach(), len(t.p.Nodes), t.p.majority(), why))
	return false
}

// reach is how many members vote and are heard, this one included.
func (t *turn) reach() int {
	n := 0
	for _, k := range t.live {
		if k == t.p.Self && t.votes || t.said(k).Voting {
			n++
		}
	}
	return n
}
