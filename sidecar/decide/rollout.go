package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// RolloutReading is what is known here of the control repo and of Puppet's runs. Its zero value: nobody follows the repo here.
type RolloutReading struct {
	// Head is the newest commit that was accepted, whose release is on the disk. Empty: none is known.
	Head string
	// InOrder: that commit asks for one role at a time, each after those it needs.
	InOrder bool
	// Next is RosterOf the commit that was accepted last, or would be, if it is not this node's own. Zero: it is.
	Next uint64
	// Leave are the nodes of this roster for which Head has no place, in the roster's order.
	Leave []string
	// Trouble is why a push may go unnoticed, or waits, for people. Empty: it does not.
	Trouble string
	// Refused is why the tip of the branch is not Head, for people. Empty: it is.
	Refused string
	// Rehearsed is the newest run without effects, Applied the newest real one.
	Rehearsed, Applied RunReading
	// Stale: this sidecar has read another commit's roles.yaml or secrets than the one that is applied.
	Stale bool
	// Unreached is the node whose services were reached from here since it asked for leave, and are not now. Empty: none.
	Unreached string
	// Drifted: it is time to see whether the node is still as its commit wants it.
	Drifted bool
}

// RunReading is a run of Puppet that has ended.
type RunReading struct {
	ID     string // unlike that of any other run; empty: there was none
	Commit string
	At     cluster.Instant // when the end was noticed; zero: before this sidecar started
	// Good: the node is now, or would be, as the commit wants it. Judged: if not, the commit is to blame as far as can be told, and not
	// a lock or a full disk. Cut: it was ended in the middle, by a reboot or for want of memory, which may be the commit's doing.
	Good, Judged, Cut bool
	Why               string   // why not, for people
	Changes           int      // resources that were changed, or would be
	Restarts          []string // services that were restarted, or would be
}

// Rollout is what a node remembers of commits and of its own try.
type Rollout struct {
	// Try is under way since its consent was complete. Its zero value: none is.
	Try Try `json:"try,omitzero"`
	// Bad are the commits that nobody may apply, the oldest known first.
	Bad []Bad `json:"bad,omitempty"`
	// Heeded is the commit that has no place for this node, once all others were heard to have accepted it. Empty: there is none.
	Heeded string `json:"heeded,omitempty"`
}

// Try is one commit's way onto the node: Puppet's run, and a time in which the node must be healthy. Where that fails it goes back.
type Try struct {
	Commit string `json:"commit"`
	From   string `json:"from"`            // the good one to go back to
	Back   bool   `json:"back,omitempty"`  // on the way back
	After  string `json:"after,omitempty"` // the ID of the run before: whatever has another one belongs to the try
	Cut    int    `json:"cut,omitempty"`   // runs that were
}

// Bad is a commit that broke something.
type Bad struct {
	Commit string `json:"commit"`
	Node   string `json:"node"`
	Why    string `json:"why,omitempty"` // empty: that node has not said it yet
}

// Equal says that two hold the same.
func (r Rollout) Equal(other Rollout) bool {
	return r.Try == other.Try && r.Heeded == other.Heeded && slices.Equal(r.Bad, other.Bad)
}

const (
	// bake is for how long a node must be healthy after a run, and patience how long it may take to become so.
	bake, patience = 3 * time.Second, 45 * time.Second
	// mostCut is how many runs may be cut before the commit is to blame.
	mostCut = 3
	// again is the pause between two tries that failed for no fault of the commit's, or on the way back.
	again = 30 * time.Second
)

// Rehearse has Puppet say what a commit would change here.
type Rehearse struct {
	Reason
	Commit string
}

// Apply has Puppet make this node what a commit wants.
type Apply struct {
	Reason
	Commit string
	Back   bool // to where it was before
	// After is the ID of the newest run that the decision knows: once there is another one, nothing is begun.
	After string
}

// Restart ends this sidecar once its duties have moved; it is started again with the applied commit's roles.yaml and secrets.
type Restart struct{ Reason }

// Key names what the action is about.
func (a Restart) Key() string { return "sidecar" }

// Key is one for both, because there is one Puppet.
func (a Rehearse) Key() string { return "puppet" }

// Key is one for both, because there is one Puppet.
func (a Apply) Key() string { return "puppet" }

// rollout brings the newest good commit onto this node: within a role one node at a time, with the leave of every other one and never while
// one is missing, the primary last. A node that a commit breaks goes back, and nobody else tries that commit.
func (t *turn) rollout() {
	r := t.p.role()
	t.heedBad()
	defer t.tellBad()
	t.rolling.Roster, t.rolling.Next = t.p.Roster, t.Rollout.Next
	if r == nil || t.Rollout.Head == "" {
		return
	}
	said := &t.rolling
	said.Head = t.Rollout.Head
	if t.Rollout.Trouble != "" {
		t.blocked("pushes", t.Rollout.Trouble)
	}
	if t.Rollout.Refused != "" {
		t.blocked("the newest commit", t.Rollout.Refused)
	}
	if t.lasting.Rollout.Try.Commit != "" {
		t.try(r)
	} else if ask := t.want(r); ask != "" {
		t.askLeave(r, ask)
	}
	if try := t.lasting.Rollout.Try; try.Commit != "" {
		said.Ask, said.Busy = try.Commit, true
	}
	if said.Ask == "" {
		said.Yield = t.yield(r)
		said.Unreached = said.Yield != "" && said.Yield == t.Rollout.Unreached
	}
}

// heedBad takes over what others have found to be bad.
func (t *turn) heedBad() {
	for _, k := range t.live {
		if k == t.p.Self {
			continue
		}
		for _, b := range t.said(k).Rollout.Bad {
			t.condemn(b.Commit, b.Node, b.Why)
		}
	}
}

// tellBad says which commits are bad, also what this turn has found out.
func (t *turn) tellBad() {
	for _, b := range t.lasting.Rollout.Bad {
		told := cluster.BadCommit{Commit: b.Commit, Node: b.Node}
		if b.Node == t.p.Self && b.Commit == t.Rollout.Head {
			told.Why = clip(b.Why)
		}
		t.rolling.Bad = append(t.rolling.Bad, told)
	}
}

// condemn remembers that a commit is bad. The first one who says so is believed.
func (t *turn) condemn(commit, node, why string) {
	if known := t.bad(commit); known != nil && (known.Why != "" || why == "" || known.Node != node) {
		return
	} else if known != nil {
		t.lasting.Rollout.Bad = slices.Clone(t.lasting.Rollout.Bad)
		t.bad(commit).Why = why
		return
	}
	all := append(slices.Clone(t.lasting.Rollout.Bad), Bad{Commit: commit, Node: node, Why: why})
	t.lasting.Rollout.Bad = all[max(0, len(all)-cluster.MostBad):]
	if why != "" {
		why = ": " + why
	}
	t.note(NoteCommit, node, "", fmt.Sprintf("commit %s is bad: %s failed with it%s", brief(commit), node, why))
}

// bad is what is known against a commit; nil: nothing.
func (t *turn) bad(commit string) *Bad {
	for i, b := range t.lasting.Rollout.Bad {
		if b.Commit == commit {
			return &t.lasting.Rollout.Bad[i]
		}
	}
	return nil
}

// clip cuts a reason to what fits a beat, between two characters.
func clip(why string) string {
	return strings.ToValidUTF8(why[:min(len(why), cluster.MostWhy)], "")
}

// brief is a commit for people.
func brief(commit string) string { return commit[:min(8, len(commit))] }

// want is the commit that this node should apply next and may ask for, as far as it can tell itself. Empty: none. It says why not.
func (t *turn) want(r *Role) string {
	head, what := t.Rollout.Head, "commit "+brief(t.Rollout.Head)
	switch b := t.bad(head); {
	case t.Phase != cluster.Applied || t.Commit == "" || t.Orders.Leave || t.leaving():
		return ""
	case head == t.Commit:
		return t.drift()
	case b != nil && b.Why != "":
		t.blocked(what, fmt.Sprintf("%s failed with it: %s; push a commit that mends it", b.Node, clip(b.Why)))
		return ""
	case b != nil:
		t.blocked(what, b.Node+" failed with it, see its log; push a commit that mends it")
		return ""
	case t.Orders.Pause:
		t.blocked(what, "this node is paused (understudy resume)")
		return ""
	}
	n := t.Rollout.Rehearsed
	switch {
	case n.Commit != head || !n.Good && !n.Judged:
		t.act(Rehearse{Reason: Reason(fmt.Sprintf("what would commit %s change here?", brief(head))), Commit: head})
		return ""
	case !n.Good:
		t.condemn(head, t.p.Self, n.Why)
		return ""
	}
	return head
}

// drift is the present commit, if the node is not as that wants it any more.
func (t *turn) drift() string {
	n := t.Rollout.Rehearsed
	switch {
	case t.Orders.Pause:
		return ""
	case t.Rollout.Drifted:
		t.act(Rehearse{Reason: Reason(fmt.Sprintf("is this node still as commit %s wants it?", brief(t.Commit))), Commit: t.Commit})
		return ""
	case n.Commit != t.Commit || n.At == 0 || n.At < t.Rollout.Applied.At || n.Good && n.Changes == 0 || !n.Good && !n.Judged:
		return ""
	case !n.Good:
		t.blocked("correction of drift", n.Why)
		return ""
	case t.p.LookOnly:
		t.blocked("correction of drift", fmt.Sprintf("%d resources are not as commit %s wants them (understudy runs), and roles.yaml says to look only", n.Changes, brief(t.Commit)))
		return ""
	}
	return t.Commit
}

// askLeave asks the other nodes of the role for leave, once it is this node's turn, and begins when all have given it.
func (t *turn) askLeave(r *Role, commit string) {
	what := "commit " + brief(commit)
	if why, quiet := t.notYet(r, commit); why != "" {
		if !quiet {
			t.blocked(what, why)
		}
		return
	}
	t.rolling.Ask = commit
	for _, k := range r.Nodes {
		if k != t.p.Self && t.said(k).Rollout.Yield != t.p.Self && !t.without(k, commit) && !(commit == t.Rollout.Head && t.leaves(k)) {
			return // its next beat will say so
		}
	}
	t.lasting.Rollout.Try = Try{Commit: commit, From: t.Commit, After: t.Rollout.Applied.ID}
	t.note(NoteCommit, t.p.Self, "", fmt.Sprintf("%s goes from commit %s to %s", t.p.Self, brief(t.Commit), brief(commit)))
	t.try(r)
}

// notYet says why it is not this node's turn. Quiet: because others of the role come first, or are at it.
func (t *turn) notYet(r *Role, commit string) (why string, quiet bool) {
	d := duty{name: r.Name, role: r, nodes: r.Nodes}
	primary := r.Primary && t.holds(r.Name)
	newest := commit == t.Rollout.Head
	if k := t.leaver(); newest && k != "" {
		return k + " leaves first", false
	}
	for i, k := range r.Nodes {
		if k == t.p.Self {
			continue
		}
		said := t.said(k)
		x := said.Rollout
		before := i < slices.Index(r.Nodes, t.p.Self)
		switch {
		case t.without(k, commit), newest && t.leaves(k):
		case !t.alive(k):
			return k + " is missing, and a role changes only while it is whole", false
		case x.Ask != "" && (x.Busy || before):
			return k + " comes first", true
		case t.ownHealth() == cluster.Unhealthy: // nothing to lose, and perhaps to win
		case x.Head != t.Rollout.Head && said.Commit != commit:
			return k + " has not heard of it yet", false
		case said.Phase != cluster.Serving && said.Phase != cluster.Draining:
			return k + " does not serve, and a role changes only while it is whole", false
		case said.Commit != commit && (primary || before && holdOf(said, r.Name).State == 0):
			return k + " comes first", true
		}
	}
	if other := t.earlier(r, commit); other != "" {
		return other + " comes first: the commit wants one role at a time", true
	}
	if n := t.Rollout.Rehearsed; primary && len(n.Restarts) > 0 && t.best(d) != "" {
		t.handing = fmt.Sprintf("commit %s restarts %s", brief(commit), strings.Join(n.Restarts, ", "))
		return "the duty moves first", true
	}
	return "", false
}

// without says that an operator wants a commit although a node is missing.
func (t *turn) without(k, commit string) bool {
	return !t.alive(k) && commit != "" && t.Orders.Without == commit
}

// earlier is a node of a role that comes before this one's where the commit wants an order. Empty: none is waited for.
func (t *turn) earlier(r *Role, commit string) string {
	if !t.Rollout.InOrder || commit != t.Rollout.Head {
		return ""
	}
	for _, name := range t.p.Hire {
		if name == r.Name {
			return ""
		}
		for _, other := range t.p.Roles {
			if other.Name != name {
				continue
			}
			for _, k := range other.Nodes {
				if !t.leaves(k) && t.said(k).Commit != commit || t.said(k).Rollout.Ask != "" {
					return k
				}
			}
		}
	}
	return ""
}

// yield is the node of the role that this one gives leave to: whoever has begun, then the one it gave leave before, then the first that asks.
func (t *turn) yield(r *Role) string {
	first := ""
	for _, k := range r.Nodes {
		switch x := t.said(k).Rollout; {
		case k == t.p.Self || x.Ask == "":
		case x.Busy:
			return k
		case first == "" || k == t.was.Yield:
			first = k
		}
	}
	return first
}

// try goes on with what was begun.
func (t *turn) try(r *Role) {
	try := &t.lasting.Rollout.Try
	run, target := t.Rollout.Applied, try.Commit
	if try.Back {
		target = try.From
	}
	if run.ID == try.After || run.Commit != target {
		t.apply(*try, target)
		return
	}
	switch {
	case run.Good:
		t.bake(r, run)
	case try.Back:
		t.stuck(run)
	case run.Cut && try.Cut+1 < mostCut:
		try.Cut, try.After = try.Cut+1, run.ID
		t.apply(*try, target)
	case run.Judged || run.Cut:
		t.back(run, run.Why)
	default:
		t.blocked("commit "+brief(try.Commit), run.Why)
		t.retry(run, target)
	}
}

// retry begins once more, after a pause.
func (t *turn) retry(run RunReading, target string) {
	try := &t.lasting.Rollout.Try
	if at := max(run.At, t.Started).Add(again); t.Now < at {
		t.at(at + 1)
		return
	}
	try.After = run.ID
	t.apply(*try, target)
}

func (t *turn) apply(try Try, commit string) {
	why := fmt.Sprintf("all nodes of the role give leave for commit %s", brief(commit))
	switch {
	case try.Back:
		why = fmt.Sprintf("commit %s failed here, so this node goes back to %s", brief(try.Commit), brief(commit))
	case try.Commit == try.From:
		why = fmt.Sprintf("this node is not as commit %s wants it", brief(commit))
	}
	t.act(Apply{Reason: Reason(why), Commit: commit, Back: try.Back, After: try.After})
}

// bake waits until the node has been healthy for a while after a run, by its own checks and to those of its role that look at it.
func (t *turn) bake(r *Role, run RunReading) {
	try := &t.lasting.Rollout.Try
	since, ill := max(run.At, t.Started), t.ill(r)
	switch after := t.Now.Sub(since); {
	case t.Rollout.Stale:
		t.restart(run)
	case after < bake:
		t.at(since.Add(bake) + 1)
	case ill == "":
		t.note(NoteCommit, t.p.Self, "", fmt.Sprintf("%s is at commit %s and healthy", t.p.Self, brief(run.Commit)))
		*try = Try{}
	case after < patience:
		t.at(since.Add(patience) + 1)
	case try.Back:
		t.note(NoteCommit, t.p.Self, "", fmt.Sprintf("%s is back at commit %s, and still not healthy", t.p.Self, brief(run.Commit)))
		*try = Try{}
	default:
		t.back(run, fmt.Sprintf("%s within %s after it", ill, ms(patience)))
	}
}

// ill says what this node's services lack after a run, in the past tense. Empty: nothing.
func (t *turn) ill(r *Role) string {
	if t.ownHealth() != cluster.Healthy {
		return t.p.Self + " did not become healthy"
	}
	for _, k := range r.Nodes {
		if x := &t.said(k).Rollout; k != t.p.Self && x.Unreached && x.Yield == t.p.Self {
			return fmt.Sprintf("%s, which had reached the services of %s before, did not reach them again", k, t.p.Self)
		}
	}
	return ""
}

// restart starts this sidecar anew, with the roles.yaml and the secrets of the commit that is applied now: one node after the other, so that
// those who stay are a majority. Whoever wants to says so first, for long enough that everybody has heard it or counts as silent.
func (t *turn) restart(run RunReading) {
	t.rolling.Restarts = true
	if t.restarting = t.was.Restarting; t.restarting == 0 || t.was.For != t.Started {
		t.restarting = t.Now
	}
	staying, before := 0, true
	for _, k := range t.p.Nodes {
		said := t.said(k)
		switch {
		case k == t.p.Self:
			before = false
		case said.Phase == cluster.Stopping || before && said.Rollout.Restarts:
			t.blocked("new start of this sidecar", k+" comes first")
			return
		case t.alive(k) && said.Voting:
			staying++
		}
	}
	if need := min(t.p.majority(), len(t.p.Nodes)-1); staying < need {
		t.blocked("new start of this sidecar", fmt.Sprintf("only %d other members would go on voting, and %d must", staying, need))
		return
	}
	if at := t.restarting.Add(t.p.Timings.Detection); t.Now <= at {
		t.at(at + 1)
		return
	}
	t.act(Restart{Reason: Reason(fmt.Sprintf("commit %s changes roles.yaml or the secrets", brief(run.Commit)))})
}

// back condemns the commit that was tried, and turns round. A run that was to correct a drift has no commit to blame.
func (t *turn) back(run RunReading, why string) {
	try := &t.lasting.Rollout.Try
	if try.Commit == try.From {
		t.note(NoteCommit, t.p.Self, "", fmt.Sprintf("%s cannot be made what commit %s wants: %s", t.p.Self, brief(try.Commit), why))
		*try = Try{}
		return
	}
	t.condemn(try.Commit, t.p.Self, why)
	try.Back, try.After, try.Cut = true, run.ID, 0
	t.apply(*try, try.From)
}

// stuck is a node that failed on the way back as well: it tries again now and then, unless there is a newer commit that may help.
func (t *turn) stuck(run RunReading) {
	try := &t.lasting.Rollout.Try
	t.blocked("the way back to commit "+brief(try.From), run.Why)
	if head := t.Rollout.Head; head != try.Commit && head != try.From && t.bad(head) == nil {
		*try = Try{}
		return
	}
	t.retry(run, try.From)
}
