package decide

import (
	"fmt"
	"slices"

	"understudy/sidecar/cluster"
)

// win decides whether the bid has been promised by enough members, and whether the epoch may be acted on yet.
func (t *turn) win(d duty, s *Duty) {
	if s.Bid != 0 {
		promised, _, _ := t.promisers(d, s, s.Bid)
		if !t.won(d, s, promised) {
			return
		}
		s.Lease = len(promised) < t.p.majority() && !t.p.Off.Majority
		s.Promise.Lease = s.Lease
		if s.Hold.State == cluster.Held { // our own duty under a new epoch: nobody else acted meanwhile
			s.Hold.Epoch, s.Bid = s.Bid, 0
			return
		}
		s.Hold = cluster.Hold{Duty: d.name, Epoch: s.Bid, State: cluster.Waiting}
		s.Won, s.Acting, s.Confirmed, s.Bid = t.Now, 0, 0, 0
	}
	if s.Hold.State != cluster.Waiting {
		return
	}
	if why := t.mustWait(d, s); why != "" {
		t.blocked("takeover of "+d.title(), why)
		return
	}
	s.Hold.State, s.Acting = cluster.Held, t.Now
	s.Confirmed = t.confirmed(d, s)
	how := "a majority has promised it"
	if s.Lease {
		how = "the ledger has it"
	}
	t.note(NoteTaken, t.p.Self, d.name, fmt.Sprintf("%s is primary of %s under epoch %d: %s", t.p.Self, d.title(), s.Hold.Epoch, how))
	if s.Loss != "" {
		t.note(NoteMissing, t.p.Self, d.name, fmt.Sprintf("%s takes over %s with %s", t.p.Self, d.title(), s.Loss))
	}
}

// promisers are the members that have promised us an epoch from from on: all of them, those that are clear of the holder before,
// and whether one knows of a lease before.
func (t *turn) promisers(d duty, s *Duty, from uint64) (all, clear []string, afterLease bool) {
	all, clear = make([]string, 0, len(t.live)), make([]string, 0, len(t.live))
	count := func(k string, x cluster.Promise, votes bool) {
		if !votes || x.Holder != t.p.Self || x.Epoch < from {
			return
		}
		all = append(all, k)
		if x.Clear {
			clear = append(clear, k)
		}
		afterLease = afterLease || x.AfterLease
	}
	for _, k := range t.live {
		if k == t.p.Self {
			count(k, s.Promise, t.votes)
			continue
		}
		count(k, promiseOf(t.said(k), d.name), t.said(k).Voting)
	}
	return all, clear, afterLease
}

// won says that no other node can be confirmed for the duty any more: a majority has promised it, or, outside of one, nobody
// can get a majority and the ledger has taken our record.
func (t *turn) won(d duty, s *Duty, promised []string) bool {
	if len(promised) >= t.p.majority() || t.p.Off.Majority {
		_, _, afterLease := t.promisers(d, s, s.Bid)
		return !afterLease || t.taken(d, s)
	}
	if !s.BidLease {
		return false
	}
	t.short, t.leased = true, true
	if why := t.noLease(d, promised); why != "" {
		t.blocked("takeover of "+d.title(), why)
		return false
	}
	return t.tied(d, promised) && t.taken(d, s)
}

// taken says that the ledger has our bid's epoch, and else why it has not.
func (t *turn) taken(d duty, s *Duty) bool {
	why := t.noLedger()
	if why == "" && !t.written(d, s, s.Bid) {
		why = fmt.Sprintf("the ledger has not taken epoch %d yet", s.Bid)
	}
	if why != "" {
		t.blocked("takeover of "+d.title(), why)
	}
	return why == ""
}

// mustWait says why a won epoch may not be acted on yet. The one before may still be in use.
func (t *turn) mustWait(d duty, s *Duty) string {
	promised, clear, afterLease := t.promisers(d, s, s.Hold.Epoch)
	if s.Lease || afterLease {
		t.leased = true
		return t.leaseWait(d, s)
	}
	if t.p.Off.Majority || d.single() && len(promised) >= t.p.majority() { // the register decides; nothing else hangs on the duty
		return ""
	}
	if len(clear) < t.p.majority() {
		t.in(t.p.Timings.Beat / 4)
		return fmt.Sprintf("%d of the %d members needed are sure that nobody acts on their word for an earlier epoch", len(clear), t.p.majority())
	}
	return ""
}

// hold decides whether a duty is still ours. Whoever is confirmed by a majority no longer stops answering by itself (gate.go); here
// it steps down for good.
func (t *turn) hold(d duty, s *Duty) {
	if !acting(s.Hold.State) {
		if s.Hold.State == cluster.Released && s.Acted > s.Hold.Epoch {
			s.Hold = cluster.Hold{} // the successor acts, so everybody it needed has heard it
		}
		return
	}
	s.Confirmed = max(s.Confirmed, t.confirmed(d, s))
	switch why := t.lost(d, s); {
	case why != "":
		t.release(d, s, why)
	case s.Hold.State != cluster.Waiting:
		t.in(t.p.Timings.Beat / 2)
	}
}

// lost says why the duty is not ours any more, or must be given up.
func (t *turn) lost(d duty, s *Duty) string {
	if s.Promise.Holder != t.p.Self {
		return fmt.Sprintf("%s has epoch %d", s.Promise.Holder, s.Promise.Epoch)
	}
	if r := t.Ledger.Duties[d.name]; r.Epoch >= s.Hold.Epoch && r.Holder != t.p.Self {
		return fmt.Sprintf("the ledger says that %s has epoch %d", r.Holder, r.Epoch)
	}
	if w := t.Ledger.Wrote[d.name]; w.Lost && w.Epoch == s.Hold.Epoch {
		return fmt.Sprintf("the ledger has epoch %d for another node", w.Epoch)
	}
	if t.Claim.Needed && !t.Claim.Mine {
		return "this machine no longer holds the identity of " + t.p.Self
	}
	limit := t.p.Timings.Detection + t.p.Timings.Slack
	if why := t.uselessWait(d, s); why != "" {
		return why
	}
	since := max(s.Confirmed, s.Won, s.Acting)
	if t.Started > since && t.Started.Sub(since) <= t.p.Timings.LeaseFor {
		since = t.Started // after a gap the others may still be with us; after a long one another may hold it by the ledger's word
	}
	if t.Now.Sub(since) <= limit {
		return ""
	}
	t.short = true
	if t.leaseUntil(d, s) > t.Now || t.alone(d, s) {
		t.leased = t.leased || s.Lease
		return ""
	}
	if s.Lease && s.Hold.State == cluster.Waiting { // the ledger's wait is longer than a detection time
		t.leased = true
		if t.Ledger.Failing {
			return "the ledger is away while its lease is waited out"
		}
		return ""
	}
	return fmt.Sprintf("a majority has not confirmed this node for %s", ms(t.Now.Sub(since)))
}

// uselessWait says why an epoch that is being waited for will come to nothing: newer data have come back meanwhile, or, where it is
// a lease that is waited out, a majority is here, and has not promised it.
func (t *turn) uselessWait(d duty, s *Duty) string {
	if s.Hold.State != cluster.Waiting {
		return ""
	}
	if why, _ := t.lacks(d, s); why != "" {
		return why
	}
	if !s.Lease {
		return ""
	}
	if promised, _, _ := t.promisers(d, s, s.Hold.Epoch); len(promised) < t.p.majority() && t.reach() >= t.p.majority() {
		return "a majority is heard again, and has not promised it"
	}
	if t.Now.Sub(s.Won) > 3*t.p.Timings.LeaseWait {
		return "it could not be acted on for " + ms(t.Now.Sub(s.Won))
	}
	return ""
}

// alone says that the holder of a single register may go on without a majority: its machine's own metadata says that the address
// is here.
func (t *turn) alone(d duty, s *Duty) bool {
	if !d.single() || s.Hold.State == cluster.Waiting {
		return false
	}
	h := t.Holders[d.name]
	return h.Here && t.Now.Since(h.HereAt) < 2*t.p.Timings.Reconcile
}

// release gives the duty up: first the gate closes and the writers stop (gate.go, units.go), then the beats say so.
func (t *turn) release(d duty, s *Duty, why string) {
	if s.Hold.State == cluster.Waiting {
		t.note(NoteStepped, t.p.Self, d.name, fmt.Sprintf("%s does not take over %s: %s", t.p.Self, d.title(), why))
	} else {
		t.note(NoteStepped, t.p.Self, d.name, fmt.Sprintf("%s steps down from %s: %s", t.p.Self, d.title(), why))
	}
	s.Hold = cluster.Hold{Duty: d.name, Epoch: s.Hold.Epoch, State: cluster.Released}
	if s.Promise.Holder != t.p.Self {
		s.Hold.To = s.Promise.Holder
	}
	s.Acting, s.Bid, s.Lease = 0, 0, false
	s.stay()
	s.Again = t.Now.Add(t.p.Timings.Detection)
}

// confirmed is when we sent the newest beat that a majority has confirmed under the epoch we hold, this node included. Zero: no
// majority confirms us.
func (t *turn) confirmed(d duty, s *Duty) cluster.Instant {
	if t.p.Off.Majority {
		return t.Now
	}
	promised, _, _ := t.promisers(d, s, s.Hold.Epoch)
	sent := make([]cluster.Instant, 0, len(promised))
	for _, k := range promised {
		if k == t.p.Self {
			sent = append(sent, t.Now)
		} else if at := t.Peers[k].Confirmed; at != 0 {
			sent = append(sent, at)
		}
	}
	if len(sent) < t.p.majority() {
		return 0
	}
	slices.Sort(sent)
	return sent[len(sent)-t.p.majority()]
}
