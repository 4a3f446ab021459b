package decide

import (
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// mayVote says whether this node grants and confirms. For one detection time after it started (or noticed a gap) it does not:
// it has forgotten what it promised, and everything that hung on its word runs out meanwhile. Nor does it without its identity
// claim, nor after a boot before it knows what was decided while it was away.
func (t *turn) mayVote() bool {
	if t.Claim.Needed && !t.Claim.Mine {
		t.blocked("vote", "this machine does not hold the identity of "+t.p.Self+taken(t.Claim))
		return false
	}
	if !t.p.Off.StartQuiet && t.Now.Sub(t.Started) <= t.p.Timings.Detection {
		return false
	}
	// Read after the claim was there: who counts on us not being there reads the claims after writing a lease, so one sees the other.
	if t.FreshBoot && t.Ledger.Configured && t.Ledger.ReadSent <= t.Claim.At && len(t.live) < len(t.p.Nodes) {
		t.leased = true
		t.blocked("vote", "this machine has booted and has neither read the ledger nor heard every member since")
		return false
	}
	enough := min(len(t.p.Nodes)-t.p.majority()+1, len(t.p.Nodes)-1) // a roster of one has nobody to learn from
	if learned := t.learned(); !t.lasting.Voted && t.hadPredecessor() && learned < enough {
		t.short = true
		t.blocked("vote", fmt.Sprintf("this disk has never voted, and %d of the %d other members needed to learn from are heard or gone", learned, enough))
		return false
	}
	return true
}

// hadPredecessor says that another disk may have voted in this node's name. A new disk knows nothing of what that one promised; of as
// many others as are more than a minority, one was there, whatever it was.
func (t *turn) hadPredecessor() bool { return !t.Ledger.Configured || t.Claim.Epoch > 1 }

// learned counts the other members that are heard, or know nothing any more and are confirmed by nobody: gone, or never there.
func (t *turn) learned() int {
	n := 0
	for _, k := range t.p.Nodes {
		if k != t.p.Self && (t.alive(k) || t.gone(k) || t.neverClaimed(k)) {
			n++
		}
	}
	return n
}

func taken(c ClaimReading) string {
	if c.Taken == "" {
		return " yet"
	}
	return ", " + c.Taken
}

// learn raises the highest epoch known of a duty.
func (t *turn) learn(d duty) {
	known := t.lasting.Epochs[d.name]
	for _, k := range t.p.Nodes {
		said := t.said(k)
		for _, x := range said.Promises {
			if x.Duty == d.name {
				known = max(known, x.Epoch)
			}
		}
		for _, x := range said.Bids {
			if x.Duty == d.name {
				known = max(known, x.Epoch)
			}
		}
		known = max(known, holdOf(said, d.name).Epoch)
	}
	t.lasting.Epochs = raise(t.lasting.Epochs, d.name, max(known, t.Ledger.Duties[d.name].Epoch))
}

// promise decides whom this node confirms. It follows a holder with a higher epoch, who has won it already, and else grants the
// highest bid, if it sees for itself that the duty is free.
func (t *turn) promise(d duty, s *Duty) {
	t.forget(d, s)
	if s.Hold.State == cluster.Held || s.Hold.State == cluster.Offered {
		s.Acted = max(s.Acted, s.Hold.Epoch)
	}
	for _, k := range t.p.Nodes {
		h := holdOf(t.said(k), d.name)
		if h.State == cluster.Held || h.State == cluster.Offered {
			s.Acted = max(s.Acted, h.Epoch)
		}
		if h.State == cluster.Waiting && leaseOf(t.said(k), d.name) && !(t.free(d, s, k) && t.acceptable(d, s, k, false)) {
			continue // a lease that is waited out may come to nothing, and must not displace a holder that is heard, nor newer data
		}
		again := s.Promise.Epoch == 0 && h.Epoch == t.lasting.Promised[d.name] // before we started, perhaps to this holder
		if acting(h.State) && slices.Contains(d.nodes, k) && (h.Epoch > t.floor(d, s) || again) && !t.overtaken(d, k, h.Epoch) {
			t.follow(d, s, k, h.Epoch, leaseOf(t.said(k), d.name))
		}
		if acting(h.State) && k == s.Promise.Holder && h.Epoch == s.Promise.Epoch && k != t.p.Self {
			s.Promise.Lease = leaseOf(t.said(k), d.name) // asked for outside a majority, won inside one
		}
	}
	if !t.votes {
		return // who has won is followed all the same: it keeps us from acting, and confirms nobody while we do not vote
	}
	best, by := cluster.Bid{}, ""
	for _, k := range d.nodes {
		if b := bidOf(t.said(k), d.name); k != t.p.Self && b.Epoch > max(best.Epoch, t.floor(d, s)) && !t.overtaken(d, k, b.Epoch) && t.acceptable(d, s, k, b.Last) {
			best, by = b, k
		}
	}
	if by != "" && (t.p.Off.Sticky || t.free(d, s, by)) {
		t.follow(d, s, by, best.Epoch, best.Lease)
	}
}

// overtaken says that the ledger has an epoch at least as high for another node. It may act on it without having been heard here.
func (t *turn) overtaken(d duty, node string, epoch uint64) bool {
	r := t.Ledger.Duties[d.name]
	return r.Epoch >= epoch && r.Holder != node
}

// floor is the epoch up to which nothing is promised any more.
func (t *turn) floor(d duty, s *Duty) uint64 { return max(s.Promise.Epoch, t.lasting.Promised[d.name]) }

// follow promises an epoch to a holder, and remembers whom that leaves.
func (t *turn) follow(d duty, s *Duty, holder string, epoch uint64, lease bool) {
	if was := s.Promise; was.Holder != "" && was.Holder != holder {
		heard := t.Peers[was.Holder].Heard
		if was.Holder == t.p.Self {
			heard = t.Now
			if !acting(s.Hold.State) {
				heard = 0 // we know that we do not act
			}
		}
		if heard != 0 || was.Lease {
			s.Before = append(s.Before, Before{Holder: was.Holder, Epoch: was.Epoch, Heard: heard, Lease: was.Lease})
		}
	}
	s.Promise = cluster.Promise{Duty: d.name, Epoch: epoch, Holder: holder, Lease: lease}
	t.lasting.Promised = raise(t.lasting.Promised, d.name, epoch)
	t.lasting.Epochs = raise(t.lasting.Epochs, d.name, epoch)
	t.forget(d, s)
}

// forget drops former holders who can no longer act on this node's word, and says in the promise what that leaves.
func (t *turn) forget(d duty, s *Duty) {
	s.Before = slices.DeleteFunc(s.Before, func(b Before) bool {
		if b.Holder == s.Promise.Holder || t.freed(d, s, b.Holder, b.Epoch) {
			return true
		}
		if b.Lease {
			return b.Epoch < s.Acted
		}
		return t.Now.Since(b.Heard) > t.quiet()
	})
	s.Promise.Clear, s.Promise.AfterLease = true, false
	for _, b := range s.Before {
		if t.Now.Since(b.Heard) <= t.quiet() {
			s.Promise.Clear = false
			t.at(b.Heard.Add(t.quiet()) + 1)
		}
		s.Promise.AfterLease = s.Promise.AfterLease || b.Lease
	}
	// What was decided while this machine was off or did not exist, it knows from the ledger only.
	if r := t.Ledger.Duties[d.name]; r.Lease && r.Holder != s.Promise.Holder && r.Epoch >= s.Acted && !t.freed(d, s, r.Holder, r.Epoch) {
		s.Promise.AfterLease = true
	}
	if t.p.Off.QuietWait {
		s.Promise.Clear = true
	}
}

// quiet is how long after its last confirmed beat a holder may still be answering: a gate time, and the slack of timers, since
// the kernel ends a set's element some 20 ms late, and two clocks do not run quite alike.
func (t *turn) quiet() time.Duration { return t.p.Timings.Gate + t.p.Timings.Slack }

// freed says that a holder will never act under an epoch again: it has said so, or its machine is off or gone.
func (t *turn) freed(d duty, s *Duty, holder string, epoch uint64) bool {
	if holder == t.p.Self {
		return !acting(s.Hold.State)
	}
	h := holdOf(t.said(holder), d.name)
	return h.State == cluster.Released && h.Epoch >= epoch || t.gone(holder)
}

// free says that, as far as this node can see for itself, nobody holds the duty whom a bidder would displace.
func (t *turn) free(d duty, s *Duty, bidder string) bool {
	h := s.Promise.Holder
	switch {
	case h == "" || h == bidder:
		return true
	case h == t.p.Self:
		return !acting(s.Hold.State) && s.Bid == 0 || s.Hold.State == cluster.Offered && s.Hold.To == bidder
	case t.silence(h) >= t.detection(h):
		return true
	}
	return t.gaveUp(d, h, bidder)
}

// gaveUp says that a living holder does not hold, nor ask for, the duty any more, or offers it to the bidder.
func (t *turn) gaveUp(d duty, h, bidder string) bool {
	said := t.said(h)
	hold := holdOf(said, d.name)
	if hold.State == cluster.Offered && hold.To == bidder {
		return true
	}
	return t.alive(h) && !acting(hold.State) && bidOf(said, d.name).Epoch == 0
}

// acting says that a hold stands in the way of others.
func acting(s cluster.HoldState) bool {
	return s == cluster.Waiting || s == cluster.Held || s == cluster.Offered
}

func holdOf(a *cluster.Announcement, duty string) cluster.Hold {
	for _, h := range a.Holds {
		if h.Duty == duty {
			return h
		}
	}
	return cluster.Hold{}
}

func bidOf(a *cluster.Announcement, duty string) cluster.Bid {
	for _, b := range a.Bids {
		if b.Duty == duty {
			return b
		}
	}
	return cluster.Bid{}
}

func promiseOf(a *cluster.Announcement, duty string) cluster.Promise {
	for _, x := range a.Promises {
		if x.Duty == duty {
			return x
		}
	}
	return cluster.Promise{}
}

// leaseOf says whether the announcing holder holds the duty by lease: its promise to itself says so.
func leaseOf(a *cluster.Announcement, duty string) bool { return promiseOf(a, duty).Lease }

// describe names who holds a duty, for sentences.
func (t *turn) describe(d duty, s *Duty) string {
	switch h := s.Promise.Holder; {
	case h == "":
		return "nobody holds it"
	case h == t.p.Self:
		return "it was ours"
	case !t.alive(h):
		return fmt.Sprintf("%s is silent for %s", h, ms(t.silence(h)))
	default:
		if hold := holdOf(t.said(h), d.name); hold.State == cluster.Offered {
			return h + " offers it"
		}
		return h + " has given it up"
	}
}
