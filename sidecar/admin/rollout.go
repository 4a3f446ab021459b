package admin

import (
	"fmt"
	"slices"

	"understudy/sidecar/cluster"
)

// Rollout is how far the control repo's newest commit has come.
type Rollout struct {
	Commit string `json:"commit"` // the newest that is accepted; empty: nobody says so
	At     int    `json:"at"`     // nodes that have applied it
	Of     int    `json:"of"`     // nodes there are
	// Trying are the nodes that try it, or go back from it, now.
	Trying []string `json:"trying"`
	// Held is why it goes no further, for people. Empty: nothing is known against it.
	Held string `json:"held"`
	// Refused is why the branch's tip is not accepted, for people. Empty: it is Commit.
	Refused string `json:"refused"`
}

// rollout counts who has the commit that is newest here. Held names the node that found it bad; why, that one alone knows, or the others where
// they were asked.
func (b builder) rollout() Rollout {
	x := b.v.Rollout
	out := Rollout{Commit: x.Head, Refused: x.Refused, Trying: []string{}}
	for _, name := range b.p.Nodes {
		if name == b.p.Beachhead {
			continue
		}
		out.Of++
		if said := b.said(name); said.Commit == x.Head && x.Head != "" {
			out.At++
		}
		if b.here(name) && b.said(name).Rollout.Busy {
			out.Trying = append(out.Trying, name)
		}
	}
	for _, bad := range b.d.Memory.Rollout.Bad {
		if bad.Commit != x.Head {
			continue
		}
		out.Held = bad.Node + " failed with it"
		if bad.Why != "" {
			out.Held += ": " + bad.Why
		}
	}
	return out
}

// Line says it in one line. Empty: every node has it, and there is nothing to say.
func (r Rollout) Line() string {
	if r.Commit == "" || r.At == r.Of && len(r.Trying) == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d at %.8s", r.At, r.Of, r.Commit)
	switch {
	case r.Held != "":
		text += ", held: " + r.Held
	case len(r.Trying) > 0:
		text += ", next: " + list(r.Trying)
	}
	return text
}

// trying is what is done about commits.
func (b builder) trying() []Step {
	var steps []Step
	for _, name := range b.members() {
		x := b.said(name).Rollout
		if name == b.p.Self || !b.here(name) || !x.Busy {
			continue
		}
		why := fmt.Sprintf("%s tries commit %.8s", name, x.Ask)
		if slices.ContainsFunc(x.Bad, func(bad cluster.BadCommit) bool { return bad.Commit == x.Ask && bad.Node == name }) {
			why = fmt.Sprintf("%s goes back from commit %.8s", name, x.Ask)
		}
		steps = append(steps, Step{name, "puppet", why})
	}
	return steps
}
