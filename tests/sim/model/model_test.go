package model

import (
	"flag"
	"testing"
	"time"
)

var (
	only = flag.String("scope", "", "look at this scope only")
	long = flag.Bool("long", false, "look at the large scopes, too: minutes, and some gigabytes of memory")
)

var (
	three = Scope{Members: 3, Detection: 2, Gate: 1, Epochs: 5}
	// longer has a gate that outlives the instant of the beat it hangs on.
	longer = Scope{Members: 3, Detection: 3, Gate: 2, Epochs: 5}
	two    = Scope{Members: 2, Detection: 2, Gate: 1, LeaseFor: 1, LeaseWait: 4, Epochs: 4, Ledger: true}
	ledger = Scope{Members: 3, Detection: 2, Gate: 1, LeaseFor: 1, LeaseWait: 4, Epochs: 3, Ledger: true}
	half   = Scope{Members: 4, Detection: 2, Gate: 1, LeaseFor: 1, LeaseWait: 4, Epochs: 3, Ledger: true}
)

func (sc Scope) may(b Budget) Scope             { sc.Budget = b; return sc }
func (sc Scope) until(states int) Scope         { sc.States = states; return sc }
func (sc Scope) without(m Mechanisms) Scope     { sc.Without = m; return sc }
func (sc Scope) from(b Begin, last uint8) Scope { sc.Begin, sc.Epochs = b, last; return sc }

// justHeard tells whether somebody still promises epoch, and has heard its holder in this tick.
func (s *state) justHeard(epoch uint8) bool {
	for i := range s.n {
		if n := &s.n[i]; n.epoch == epoch && int(n.holder) != i && n.heard == 0 {
			return true
		}
	}
	return false
}

type search struct {
	name  string
	scope Scope
	long  bool
}

// TestNoTwoMembersEverAnswer is the protocol's promise, in every world that is small enough to look at all of it.
func TestNoTwoMembersEverAnswer(t *testing.T) {
	each(t, []search{
		{"three from nothing", three.from(Cold, 3), false},
		{"three, one crash", three.from(Quiet, 3).may(Budget{Crashes: 1}), false},
		{"three, two crashes, two takeovers", three.may(Budget{Crashes: 2}), true},
		{"three, a beat is late", three.from(Quiet, 3).may(Budget{Late: 1}), false},
		{"three, a beat is late, one crash", three.from(Quiet, 3).may(Budget{Late: 1, Crashes: 1}), true},
		{"three, a machine is replaced", three.from(Quiet, 3).may(Budget{Losses: 1}), false},
		{"a longer gate, two takeovers", longer, false},
		{"a longer gate, one crash", longer.from(Quiet, 3).may(Budget{Crashes: 1}), false},
		{"a longer gate, a planned move", longer.from(Quiet, 3).may(Budget{Moves: 1}), false},
		{"a longer gate, a planned move, one crash", longer.from(Quiet, 3).may(Budget{Moves: 1, Crashes: 1}), true},
		{"two with a ledger, one crash", two.may(Budget{Crashes: 1}), false},
		{"two with a ledger, one is off for a while", two.may(Budget{Offs: 1}), false},
		{"three with a ledger", ledger, false},
		{"three with a ledger, one is off for a while", ledger.may(Budget{Offs: 1}), true},
		{"one of three has a lease, one crash", ledger.from(Alone, 3).may(Budget{Crashes: 1}), false},
		{"three with a ledger, epochs not told apart", ledger.without(Mechanisms{Parity: true}), true},
		{"one of three has a lease, epochs not told apart", ledger.from(Alone, 3).without(Mechanisms{Parity: true}), false},
		{"half of four with a ledger", half.from(Quiet, 2), false},
		{"half of four has a lease", half.from(Leased, 3), true},
		{"half of four has a lease, one crash", half.from(Leased, 3).may(Budget{Crashes: 1}), true},
	}, func(t *testing.T, sc Scope) {
		begin := time.Now()
		r := Search(sc)
		t.Logf("%d states, the farthest %d steps away, in %v", r.States, r.Depth, time.Since(begin).Round(time.Millisecond))
		if r.Broken != "" {
			t.Errorf("%s:\n%s", r.Broken, r.Story)
		} else if !r.Complete {
			t.Error("the search has not looked at every state")
		}
	})
}

// TestEveryMechanismIsNeeded searches the protocol without one of its rules, and must find it broken.
func TestEveryMechanismIsNeeded(t *testing.T) {
	each(t, []search{
		{"majority", three.without(Mechanisms{Majority: true}), false},
		{"one promise", three.without(Mechanisms{OnePromise: true}), false},
		{"quiet wait", longer.may(Budget{Moves: 1}).without(Mechanisms{QuietWait: true}), false},
		{"chained wait", longer.may(Budget{Moves: 2}).without(Mechanisms{ChainedWait: true}), false},
		{"start quiet", three.may(Budget{Crashes: 1}).without(Mechanisms{StartQuiet: true}), false},
		{"disk epoch", three.may(Budget{Crashes: 1}).without(Mechanisms{DiskEpoch: true}), false},
		{"disk lease", half.from(Leased, 3).may(Budget{Crashes: 1}).without(Mechanisms{DiskLease: true}), false},
		{"disk seen", ledger.from(Alone, 3).may(Budget{Crashes: 1}).without(Mechanisms{DiskSeen: true}), false},
		{"self-closing gate", three.may(Budget{Crashes: 1}).without(Mechanisms{SelfClose: true}), false},
		{"sequence", three.may(Budget{Late: 1}).without(Mechanisms{Sequence: true}), false},
		{"after a lease", half.from(Leased, 3).without(Mechanisms{AfterLease: true}), false},
		{"lease wait", two.without(Mechanisms{LeaseWait: true}), false},
		{"lease read", two.without(Mechanisms{LeaseRead: true}), false},
		{"blocking promises", ledger.without(Mechanisms{Blocking: true}), false},
		{"giving up", ledger.may(Budget{Offs: 1}).without(Mechanisms{GiveUp: true}), true},
		{"reading after a boot", ledger.from(Alone, 3).without(Mechanisms{FreshRead: true}), false},
		{"the ledger's epochs count", ledger.may(Budget{Offs: 1}).without(Mechanisms{LedgerFloor: true}), true},
		{"the same where epochs are not told apart", ledger.from(Alone, 3).without(Mechanisms{LedgerFloor: true, Parity: true}), false},
		{"learning", three.may(Budget{Losses: 1}).without(Mechanisms{Learning: true}), false},
		{"skip safely", two.may(Budget{Moves: 2}).without(Mechanisms{SkipSafely: true}), false},
	}, func(t *testing.T, sc Scope) {
		r := Search(sc)
		if r.Broken == "" {
			t.Fatalf("nothing is broken without it in %d states; then what is it for?", r.States)
		}
		t.Logf("%s, after %d states:\n%s", r.Broken, r.States, r.Story)
	})
}

// each does the searches that are asked for.
func each(t *testing.T, all []search, do func(*testing.T, Scope)) {
	for _, c := range all {
		if c.name == *only || *only == "" && (*long || !c.long) {
			t.Run(c.name, func(t *testing.T) { do(t, c.scope) })
		}
	}
}

// TestTheProtocolGetsSomewhere keeps the searches honest: what is promised to be possible is, so nothing holds merely because
// nobody ever acts.
func TestTheProtocolGetsSomewhere(t *testing.T) {
	opens := func(before, after *state) *node {
		for i := range after.n {
			if after.open(i) && !before.open(i) {
				return &after.n[i]
			}
		}
		return nil
	}
	goals := []Goal{
		{"a majority takes over", func(before, after *state) bool {
			n := opens(before, after)
			return n != nil && n.hold == 3 && n.gate > 0
		}},
		{"the ledger lends the duty", func(before, after *state) bool {
			n := opens(before, after)
			return n != nil && n.hold == 2 && n.read > 0
		}},
		{"a planned move leaves no tick without an answer", func(before, after *state) bool {
			n := opens(before, after)
			// Nobody's last word for the old holder would have run out in this tick.
			return n != nil && n.gaveUp && n.lastEpoch == 1 && n.gate > 0 && before.justHeard(1)
		}},
	}
	r := Search(ledger.may(Budget{Moves: 1}).until(200_000), goals...)
	for _, g := range goals {
		if steps, ok := r.Reached[g.Name]; ok {
			t.Logf("%s after %d steps at the soonest", g.Name, steps)
		} else {
			t.Errorf("it is not possible that %s", g.Name)
		}
	}
}
