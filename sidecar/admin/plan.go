package admin

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Plan is what the node would do now: the newest decision, whether or not it is carried out.
type Plan struct {
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"`
	At      time.Time `json:"at"`
	Age     Duration  `json:"age"`
	// Paused: nothing of it is carried out.
	Paused  bool      `json:"paused"`
	Actions []Action  `json:"actions"` // what changes something first
	Blocked []Blocked `json:"blocked"`
	// LookAgain is when the node decides anew if nothing happens before; zero: at once.
	LookAgain Duration `json:"look_again"`
}

// Action is one thing to do.
type Action struct {
	What string `json:"what"` // what it is about; one at a time is done about the same
	Do   string `json:"do"`   // in the imperative
	Why  string `json:"why"`
	// Assumes is what is read again right before it is done; empty: nothing is.
	Assumes []string `json:"assumes"`
	// Routine: it keeps a state or reads something, as every few moments.
	Routine bool `json:"routine"`
}

// NewPlan says what a decision means for people. It is pure. The cluster's name, the time and the age are left for the
// caller, who knows them.
func NewPlan(p decide.Policy, v decide.View, d decide.Decision) Plan {
	plan := Plan{Node: p.Self, Paused: d.Say.Paused || v.Orders.Pause, Actions: []Action{}, Blocked: blocked(p, d)}
	if d.LookAgain > v.Now {
		plan.LookAgain = Duration(d.LookAgain.Sub(v.Now))
	}
	var routines []Action
	for _, a := range d.Actions {
		do, expect := describe(a, v)
		out := Action{What: a.Key(), Do: do, Why: a.Text(), Assumes: assumptions(expect), Routine: routine(a)}
		if out.Routine {
			routines = append(routines, out)
		} else {
			plan.Actions = append(plan.Actions, out)
		}
	}
	plan.Actions = append(plan.Actions, routines...)
	return plan
}

// routine says whether an action changes nothing that a person would want to hear of.
func routine(a decide.Action) bool {
	switch a := a.(type) {
	case decide.Gate:
		return a.Until != 0 && !a.Drain
	case decide.ReadHolder, decide.ReadMachine, decide.ReadList, decide.ReadLedger, decide.ReadZone, decide.CountSockets, decide.Settle:
		return true
	}
	return false
}

// describe puts an action into words and returns what it assumes. An action it does not know is its key.
func describe(a decide.Action, v decide.View) (string, decide.Expect) {
	switch a := a.(type) {
	case decide.Gate:
		return describeGate(a, v.Now), decide.Expect{}
	case decide.LinkAddress:
		if a.Add {
			return "put the address of " + a.Role + " on its interface and announce it", a.Expect
		}
		return "take the address of " + a.Role + " off its interface", a.Expect
	case decide.AssignReserved:
		return fmt.Sprintf("assign %s to this machine (%s)", a.Address, a.Machine), a.Expect
	case decide.ReadHolder:
		return fmt.Sprintf("ask the provider who has %s", a.Address), decide.Expect{}
	case decide.ReadMachine:
		return fmt.Sprintf("ask the provider about machine %s of %s", a.Machine, a.Node), decide.Expect{}
	case decide.PrimaryUnits:
		if a.Start {
			return "start the primary units of " + a.Role, a.Expect
		}
		return "stop the primary units of " + a.Role, a.Expect
	case decide.StartDrain:
		return "let the services of " + a.Role + " finish their connections", decide.Expect{}
	case decide.CountSockets:
		return "count the connections to the address of " + a.Role, decide.Expect{}
	case decide.Settle:
		return "wait until the other node has all data of " + a.Role, decide.Expect{}
	case decide.ReadLedger:
		return "read the ledger", decide.Expect{}
	case decide.WriteDuty:
		return fmt.Sprintf("write into the ledger that %s has epoch %d of %s", a.Record.Holder, a.Record.Epoch, a.Record.Duty), decide.Expect{}
	case decide.ClaimTie:
		return fmt.Sprintf("claim in the ledger that this half of the roster acts (tie %d)", a.Tie.N), decide.Expect{}
	case decide.ReadZone:
		return "read what " + a.Zone + " publishes", decide.Expect{}
	case decide.UpdateZone:
		return fmt.Sprintf("publish %d records in %s", len(a.Want), a.Zone), a.Expect
	}
	return describeHiring(a)
}

// describeHiring is describe for the steps of a replacement.
func describeHiring(a decide.Action) (string, decide.Expect) {
	switch a := a.(type) {
	case decide.ReadList:
		return "ask the provider for the list of machines", decide.Expect{}
	case decide.OpenIntent:
		return "write into the ledger that " + a.Intent.Node + " shall get a new machine", a.Expect
	case decide.Tombstone:
		return fmt.Sprintf("write into the ledger that machine %s is not %s any more", a.Machine, a.Node), a.Expect
	case decide.Release:
		return "write into the ledger that this machine has left " + a.Node + " by itself", decide.Expect{}
	case decide.PowerOff:
		return fmt.Sprintf("cut the power of machine %s, which was %s", a.Machine, a.Node), a.Expect
	case decide.Create:
		return "ask the provider for a new machine for " + a.Intent.Node, a.Expect
	case decide.Delete:
		return fmt.Sprintf("delete machine %s, which was %s and is off", a.Machine, a.Node), a.Expect
	case decide.CloseIntent:
		return fmt.Sprintf("write into the ledger that the replacement of %s is %s", a.Closing.Node, a.Closing.Outcome), a.Expect
	}
	return describeRun(a), decide.Expect{}
}

// describeRun is describe for what a commit makes of this node.
func describeRun(a decide.Action) string {
	switch a := a.(type) {
	case decide.Rehearse:
		return fmt.Sprintf("let Puppet say what commit %.8s would change here", a.Commit)
	case decide.Apply:
		return fmt.Sprintf("let Puppet apply commit %.8s", a.Commit)
	case decide.Restart:
		return "start this sidecar anew"
	}
	return a.Key()
}

func describeGate(g decide.Gate, now cluster.Instant) string {
	switch {
	case g.Until == 0:
		return "close the gate of " + g.Role
	case g.Drain:
		return "let only established connections through the gate of " + g.Role
	}
	return fmt.Sprintf("keep the gate of %s open for %s", g.Role, Words(g.Until.Sub(now)))
}

func blocked(p decide.Policy, d decide.Decision) []Blocked {
	out := []Blocked{}
	for _, b := range d.Blocked {
		out = append(out, Blocked{Node: p.Self, What: b.What, Why: b.Why})
	}
	return out
}

func assumptions(e decide.Expect) []string {
	out := []string{}
	if e.Epoch != 0 {
		out = append(out, fmt.Sprintf("this node holds epoch %d of %s", e.Epoch, e.Duty))
	}
	if e.Reads && e.Holder == "" {
		out = append(out, "the provider says that nobody has the address")
	} else if e.Reads {
		out = append(out, "the provider says that machine "+e.Holder+" has the address")
	}
	return out
}
