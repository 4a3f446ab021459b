package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// Outside a majority a duty is held by the ledger's word. That is safe only where no majority can be there without us: those that
// have promised the duty here, and those that are gone or never were, leave fewer members than a majority needs.

// noLease says why the members in mine may not act by the ledger's word. Empty: they may.
func (t *turn) noLease(d duty, mine []string) string {
	if why := t.noLedger(); why != "" {
		return why
	}
	var elsewhere []string
	for _, k := range t.p.Nodes {
		if !slices.Contains(mine, k) && !t.gone(k) && !t.neverClaimed(k) {
			elsewhere = append(elsewhere, k)
		}
	}
	if len(elsewhere) >= t.p.majority() {
		return fmt.Sprintf("%s may still be a majority without this node", strings.Join(elsewhere, ", "))
	}
	return ""
}

// noLedger says why nothing can be built on the ledger now.
func (t *turn) noLedger() string {
	switch l := t.Ledger; {
	case !l.Configured:
		return "there is no ledger"
	case !l.Sound && l.Unsound != "":
		return "the ledger cannot be relied on: " + l.Unsound
	case !l.Sound:
		return "the ledger has not been tested yet"
	case l.Forgot != "":
		t.leased = true
		return "the ledger knows less than the nodes remember (" + l.Forgot + "); when you know why: understudy ledger reseed"
	case l.Failing || t.Now.Since(l.ReadSent) > t.p.Timings.LeaseFor:
		t.leased = true // so that it is read soon
		return "the ledger has not answered lately"
	}
	return ""
}

// gone says that the provider, asked by ID twice, knows the member's machine as off or gone. The answer must be about the machine
// that holds the member's identity.
func (t *turn) gone(k string) bool {
	m := t.Machines[k]
	if k == t.p.Self || m.ID == "" || m.ID != t.machineOf(k) || t.alive(k) {
		return false
	}
	return (m.Power == cluster.PowerGone || m.Power == cluster.PowerOff) && m.Same >= 2
}

// machineOf is the ID of a member's machine: by its claim, else by what it said last.
func (t *turn) machineOf(k string) string {
	if c, ok := t.Ledger.Claims[k]; ok && c.Machine != "" {
		return c.Machine
	}
	return t.Peers[k].Said.Machine
}

// neverClaimed says that the member has no identity claim in the ledger, so no machine has ever voted in its name.
func (t *turn) neverClaimed(k string) bool {
	if t.Ledger.ReadSent == 0 || !t.Claim.Needed || t.Peers[k].Heard != 0 {
		return false
	}
	_, ok := t.Ledger.Claims[k]
	return !ok
}

// tied says that this side may act: it is more than half of those that can be left, or it has the newest tie object.
func (t *turn) tied(d duty, mine []string) bool {
	gone := 0
	for _, k := range t.p.Nodes {
		if !slices.Contains(mine, k) && (t.gone(k) || t.neverClaimed(k)) {
			gone++
		}
	}
	if 2*(len(mine)+gone) > len(t.p.Nodes) {
		return true
	}
	tie := t.Ledger.Tie
	if r := t.Ledger.Duties[cluster.Coordinator]; r.Epoch > tie.Epoch && !r.Lease {
		tie.Winner, tie.Members = "", nil // the halves it was between have been one since
	}
	half := slices.Sorted(slices.Values(mine))
	if tie.N > 0 && slices.Contains(tie.Members, t.p.Self) && subset(half, tie.Members) {
		return true
	}
	for _, k := range tie.Members {
		if tie.N > 0 && !slices.Contains(half, k) && t.Ledger.Stale[k] < t.p.Timings.StaleAfter && !t.gone(k) {
			t.blocked("takeover of "+d.title(), fmt.Sprintf("the other half of the roster has won tie %d, and %s was heard of there less than %s ago",
				tie.N, k, t.p.Timings.StaleAfter))
			t.in(time.Second)
			return false
		}
	}
	t.act(ClaimTie{
		Reason: Reason(fmt.Sprintf("exactly half of the roster is heard (%s), and it should be the half that acts", strings.Join(half, ", "))),
		Tie:    cluster.Tie{N: tie.N + 1, Winner: t.p.Self, Members: half, Epoch: t.lasting.Epochs[cluster.Coordinator]},
	})
	t.blocked("takeover of "+d.title(), fmt.Sprintf("exactly half of the roster is heard, and tie %d is not won yet", tie.N+1))
	return false
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// written says that the ledger has taken our record of an epoch; until it has, it asks for that.
func (t *turn) written(d duty, s *Duty, epoch uint64) bool {
	if w := t.Ledger.Wrote[d.name]; w.Epoch == epoch && !w.Lost {
		return true
	}
	t.act(WriteDuty{
		Reason: Reason(fmt.Sprintf("%s claims %s under epoch %d in the ledger", t.p.Self, d.title(), epoch)),
		Record: cluster.DutyRecord{Duty: d.name, Epoch: epoch, Holder: t.p.Self, Machine: t.Machine, Lease: s.BidLease},
	})
	return false
}

// leaseWait says why an epoch that follows a lease, or is one, may not be acted on yet: whoever held the one before may act until
// its last reading of the ledger is LeaseFor old. A node that has released, or whose machine is off or gone, does not.
func (t *turn) leaseWait(d duty, s *Duty) string {
	if why := t.noLedger(); why != "" {
		return why
	}
	t.leased = true
	w := t.Ledger.Wrote[d.name]
	if !t.written(d, s, s.Hold.Epoch) {
		return fmt.Sprintf("the ledger has not taken epoch %d", s.Hold.Epoch)
	}
	if s.Lease {
		if why := t.stillAlone(d, s, w.At); why != "" {
			return why
		}
	}
	if t.p.Off.LeaseWait || t.nobodyBefore(d, s) {
		return ""
	}
	if until := w.At.Add(t.p.Timings.LeaseWait); t.Now < until {
		t.at(until + 1)
		return fmt.Sprintf("whoever had it may act for another %s by the ledger's word", ms(until.Sub(t.Now)))
	}
	return ""
}

// stillAlone says why it is not certain that no majority can be without us, going by readings that are newer than our record in the
// ledger. A member that came to be, or was switched on, before such a reading shows in it; one that does later reads our record
// before it votes.
func (t *turn) stillAlone(d duty, s *Duty, written cluster.Instant) string {
	if t.Ledger.ReadSent <= written {
		return "the ledger is read once more, now that it has our record"
	}
	_, promised, _ := t.promisers(d, s, s.Hold.Epoch)
	for _, k := range t.p.Nodes {
		if m := t.Machines[k]; !slices.Contains(promised, k) && t.gone(k) && m.Power == cluster.PowerOff && m.At <= written {
			t.act(ReadMachine{Reason: Reason(fmt.Sprintf("is the machine of %s still off, now that the ledger has our record?", k)), Node: k, Machine: m.ID})
			return fmt.Sprintf("the provider is asked once more whether %s is off", k)
		}
	}
	return t.noLease(d, promised)
}

// nobodyBefore says that no other node can be acting under an earlier epoch, nor be about to: every node that may have the duty is
// off or gone, has never been, or has promised us this epoch and does not act.
func (t *turn) nobodyBefore(d duty, s *Duty) bool {
	for _, k := range d.nodes {
		if k == t.p.Self || t.gone(k) || t.neverClaimed(k) {
			continue
		}
		x := promiseOf(t.said(k), d.name)
		if x.Holder != t.p.Self || x.Epoch != s.Hold.Epoch || acting(holdOf(t.said(k), d.name).State) {
			return false
		}
	}
	return true
}

// leaseUntil is how long the ledger's word lets us act. Zero: not at all.
func (t *turn) leaseUntil(d duty, s *Duty) cluster.Instant {
	r := t.Ledger.Duties[d.name]
	if !s.Lease || !t.Ledger.Sound || r.Epoch != s.Hold.Epoch || r.Holder != t.p.Self {
		return 0
	}
	return t.Ledger.ReadSent.Add(t.p.Timings.LeaseFor)
}
