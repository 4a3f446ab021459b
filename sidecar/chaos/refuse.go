package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
	"understudy/sidecar/ledger"
)

// What speaks against an order, each by one kind of reading: a sentence, or nothing. All of it is pure.

const (
	// settle is how long after an order its machine may still have the node's newest claim. After that the order came to nothing:
	// the provider did not carry it out, or whoever gave it was lost right before.
	settle = 15 * time.Minute
	// abandoned is how long nobody has written to an incident, in a cluster that is redundant, until it is taken for one that
	// was left open because the node that told it was lost.
	abandoned = time.Hour
)

// byStatus judges by what the node believes that carries the order out. It returns the role of the one that is to go, too.
func byStatus(st admin.Status, o admin.Destroy) (role, why string) {
	if !st.Redundant {
		return "", "the cluster is not redundant: " + strings.Join(st.Why, "; ")
	}
	switch {
	case !st.Majority.Have:
		return "", st.Node + " hears no majority of the members"
	case !st.Ledger.Usable:
		return "", "the ledger cannot be used: " + st.Ledger.Why
	case o.Node == st.Node:
		return "", st.Node + " carries the order out, so it cannot be the one that goes; ask another node"
	}
	i := slices.IndexFunc(st.Nodes, func(n admin.Node) bool { return n.Name == o.Node })
	if i < 0 {
		return "", fmt.Sprintf("no node is called %.100q", o.Node)
	}
	for _, n := range st.Nodes {
		switch {
		case n.Paused || n.Name == st.Node && st.Paused:
			return "", n.Name + " is paused, so it would not help; first: understudy resume"
		case n.Alive != decide.Alive.String():
			return "", n.Name + " has not been heard for a moment"
		case !n.Voting:
			return "", n.Name + " does not vote yet: its sidecar has just started, or stood still"
		}
	}
	if m := st.Nodes[i].Machine; m != o.Machine {
		return "", fmt.Sprintf("%s is machine %s now, not %s", o.Node, m, o.Machine)
	}
	return st.Nodes[i].Role, ""
}

// byLedger judges by a fresh reading.
func byLedger(r ledger.Reading, o admin.Destroy, self, selfMachine string) string {
	if c := r.Claims[self]; c.Machine != selfMachine || c.Tombstoned {
		return "this machine is not " + self + " any more"
	}
	if c := r.Claims[o.Node]; c.Machine != o.Machine || c.Tombstoned {
		return fmt.Sprintf("machine %s has not the newest claim to be %s", o.Machine, o.Node)
	}
	for _, node := range slices.Sorted(maps.Keys(r.Intents)) {
		if r.Intents[node].Open() {
			return node + " is being replaced"
		}
	}
	last := r.Destroyed
	switch apart := time.Duration(o.Apart); {
	case last.N == 0:
	case last.Age < settle && r.Claims[last.Node].Machine == last.Machine:
		return fmt.Sprintf("the order to destroy %s, %s ago, has not run its course yet", last.Node, admin.Words(last.Age))
	case last.Age < apart:
		return fmt.Sprintf("%s was destroyed %s ago; the next one may go %s after that", last.Node, admin.Words(last.Age), admin.Words(apart))
	}
	return ""
}

// byHistory judges by the incidents. now is the wall clock, which their steps have, too; a wrong one makes the answer no more
// than stricter or laxer, while everything else must hold as well.
func byHistory(all []ledger.Incident, now time.Time) string {
	for _, in := range all {
		if len(in.Steps) == 0 || in.Over() {
			continue
		}
		if last := in.Steps[len(in.Steps)-1]; now.Sub(last.At) < abandoned {
			return fmt.Sprintf("the loss of %s is not made good yet: the incident is at %q", in.Node, last.Phase)
		}
	}
	return ""
}

// byProvider judges by the list of machines and the machine's own entry, asked for by its ID.
func byProvider(list []cluster.Machine, m cluster.Machine, o admin.Destroy, selfMachine, tag string) string {
	has := func(id string) bool {
		return slices.ContainsFunc(list, func(m cluster.Machine) bool { return m.ID == id })
	}
	switch {
	case !has(selfMachine):
		return fmt.Sprintf("the list of machines does not have this one (%s), so it cannot be right", selfMachine)
	case !has(o.Machine):
		return fmt.Sprintf("the list of machines does not have machine %s", o.Machine)
	case m.ID != o.Machine || m.Name != o.Node || !slices.Contains(m.Tags, tag):
		return fmt.Sprintf("machine %s is called %q and has the tags %q, so it is not the cluster's %s", m.ID, m.Name, m.Tags, o.Node)
	case m.Power != cluster.PowerOn:
		return fmt.Sprintf("machine %s does not run", m.ID)
	}
	if same := slices.DeleteFunc(slices.Clone(list), func(m cluster.Machine) bool { return m.Name != o.Node }); len(same) > 1 {
		return fmt.Sprintf("there are %d machines called %s; the one too many goes first", len(same), o.Node)
	}
	return ""
}
