package decide

import (
	"fmt"
	"slices"

	"understudy/sidecar/cluster"
)

// A node for which the newest commit has no place leaves the cluster by itself: it hands over what it holds, goes out of the names, lets the
// requests end, and only once every other member goes by the new roster, or was about to and is silent, it ends its claim. Nobody else ever
// concludes from a roles.yaml that a machine may be deleted. Until the claim is ended all of that can be taken back.

// Release ends this machine's own claim to be its node, for good.
type Release struct {
	Reason
	Node  string
	Epoch uint64 // of the claim
}

// Key names what the action is about.
func (a Release) Key() string { return "tombstone of " + a.Node }

// leaves says that the newest commit has no place for a node under its role, and is not known to be bad.
func (t *turn) leaves(k string) bool {
	return slices.Contains(t.Rollout.Leave, k) && t.bad(t.Rollout.Head) == nil
}

// leaving says that this node is on its way out. It finishes first what it has begun.
func (t *turn) leaving() bool {
	return t.leaves(t.p.Self) && t.lasting.Rollout.Try.Commit == "" && !t.Orders.Pause
}

// isOut says that a leaving node serves nobody any more. What it said last counts: it may have ended its claim since.
func (t *turn) isOut(k string) bool {
	x := t.Peers[k].Said.Rollout
	return x.Drained && x.Head == t.Rollout.Head || t.Ledger.Claims[k].Left
}

// leaver is a node that must be out before anybody applies the newest commit. Empty: there is none. All wait, not only its role, so that it
// hands over in a whole cluster.
func (t *turn) leaver() string {
	for _, k := range t.Rollout.Leave {
		if t.leaves(k) && !t.isOut(k) && !t.without(k, t.Rollout.Head) {
			return k
		}
	}
	return ""
}

// leave goes on with leaving.
func (t *turn) leave() {
	r := t.p.role()
	if r == nil || !t.leaving() {
		return
	}
	t.rolling.Leaves = true
	what := "leaving of " + t.p.Self
	if t.hasLeft() {
		return
	}
	for _, k := range r.Nodes[:slices.Index(r.Nodes, t.p.Self)] {
		if t.leaves(k) && !t.isOut(k) {
			t.blocked(what, k+" leaves first")
			return
		}
	}
	if d := t.burden(); d != "" {
		t.blocked(what, d+" moves to another node first")
		return
	}
	if t.outSince = t.was.Out; t.outSince == 0 || t.was.For != t.Started {
		t.outSince = t.Now
		t.note(NoteCommit, t.p.Self, "", fmt.Sprintf("%s serves no more: commit %s has no place for it", t.p.Self, brief(t.Rollout.Head)))
	}
	if until := t.outSince.Add(t.p.Timings.Drain); t.Now < until {
		t.blocked(what, "it is out of the names, and its last requests end")
		t.at(until + 1)
		return
	}
	t.rolling.Drained = true
	t.end(what)
}

// burden is a duty that this node holds, or whose programs still run here. Empty: none.
func (t *turn) burden() string {
	for _, d := range t.p.duties() {
		if s := t.duties[d.name].Hold.State; s != 0 && s != cluster.Released || t.Units[d.name].Running {
			return d.title()
		}
	}
	return ""
}

// end ends the claim once nobody counts on this node any more.
func (t *turn) end(what string) {
	heeded, why := true, ""
	for _, k := range t.p.Nodes {
		if k == t.p.Self || k == t.p.Beachhead {
			continue
		}
		x := t.Peers[k].Said.Rollout
		heeds := x.Roster == t.Rollout.Next || x.Next == t.Rollout.Next
		heeded = heeded && heeds
		switch silent := t.Now.Sub(max(t.Peers[k].Heard, t.Started)); {
		case why != "":
		case !heeds && (t.alive(k) || t.lasting.Rollout.Heeded != t.Rollout.Head):
			why = k + " has not accepted the commit"
		case t.leaves(k) && t.isOut(k):
		case t.alive(k) && x.Roster != t.Rollout.Next:
			why = k + " still counts on it"
		case !t.alive(k) && silent < t.p.Timings.Hold:
			why = "the others may need it until they have been silent for " + ms(t.p.Timings.Hold)
			t.in(t.p.Timings.Hold - silent)
		}
	}
	if heeded { // those who have gone over do not talk to it any more, also after this sidecar was started anew
		t.lasting.Rollout.Heeded = t.Rollout.Head
	}
	if why == "" {
		why = t.noLedger()
	}
	if why != "" {
		t.blocked(what, why)
		return
	}
	if t.Claim.Mine {
		t.act(Release{
			Reason: Reason(fmt.Sprintf("commit %s has no place for %s, and nobody counts on it any more", brief(t.Rollout.Head), t.p.Self)),
			Node:   t.p.Self, Epoch: t.Claim.Epoch,
		})
	}
}

// hasLeft says that this very machine has ended its claim.
func (t *turn) hasLeft() bool {
	c := t.Ledger.Claims[t.p.Self]
	return c.Left && c.Machine == t.Machine
}
