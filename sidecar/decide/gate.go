package decide

import (
	"fmt"

	"understudy/sidecar/cluster"
)

// gate keeps a role's gate open for as long as the right to answer lasts, and no longer: it closes by itself. It runs out one gate
// time after the sending of the newest beat that a majority has confirmed, or when the ledger's word does.
func (t *turn) gate(d duty, s *Duty) {
	if d.role == nil || !d.role.Reserved.IsValid() && !d.role.Link.IsValid() {
		return
	}
	now := t.Gates[d.name]
	if s.Hold.State != cluster.Held && s.Hold.State != cluster.Offered {
		// When the duty has just been given up the gate is closed by hand, too: the kernel ends an element some 20 ms late, and what is
		// said next lets the successor act.
		if now.Until > t.Now || acting(t.was.Duties[d.name].Hold.State) && s.Hold.State != cluster.Waiting {
			t.act(Gate{Reason: Reason(fmt.Sprintf("%s does not have %s", t.p.Self, d.title())), Role: d.name})
		}
		return
	}
	until, why := t.openUntil(d, s)
	drain := t.dropsNew(d, s)
	late := until.Since(max(now.Until, 1)) > t.p.Timings.Gate/8 || now.Until <= t.Now
	late = late || now.Until > until && until > 0 // a lease's end is further away than that of a majority's word, which takes its place
	if until <= t.Now || !late && drain == (now.Drain != 0) {
		return
	}
	t.act(Gate{Reason: Reason(why), Role: d.name, Until: until, Drain: drain})
}

// mayAct says that the duty is surely ours now: after a pause it may be another's already, though nobody has told us yet.
func (t *turn) mayAct(d duty, s *Duty) bool {
	until, _ := t.openUntil(d, s)
	return until > t.Now
}

// openUntil is until when this node may answer, and why.
func (t *turn) openUntil(d duty, s *Duty) (cluster.Instant, string) {
	tm := t.p.Timings
	until, why := s.Confirmed.Add(tm.Gate), "a majority confirms "+t.p.Self+" for "+d.title()
	if l := t.leaseUntil(d, s); l > until {
		until, why = l, "the ledger names "+t.p.Self+" for "+d.title()
	}
	if t.alone(d, s) {
		if l := t.Holders[d.name].HereAt.Add(3 * tm.Reconcile); l > until {
			until, why = l, "the provider sends the address of "+d.title()+" to this machine"
		}
	}
	if t.p.Off.SelfClose {
		until = t.Now.Add(cluster.Forever / 2)
	}
	return until, why
}
