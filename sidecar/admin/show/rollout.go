package show

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/admin"
)

// Applying is what came of the order to look for a newer commit.
func Applying(a admin.Applying) string {
	var b strings.Builder
	if a.Removal != nil {
		fmt.Fprintf(&b, "commit %s goes on, and removes %s; see: understudy status --watch\n", short(a.Removal.Commit), Removed(*a.Removal))
	}
	switch line := a.Rollout.Line(); {
	case line != "":
		fmt.Fprintln(&b, line)
	case a.Rollout.Commit != "":
		fmt.Fprintf(&b, "every node has commit %s\n", short(a.Rollout.Commit))
	}
	if a.Rollout.Refused != "" {
		fmt.Fprintln(&b, "a push is refused: "+a.Rollout.Refused)
	}
	for _, m := range a.Missed {
		fmt.Fprintln(&b, "not told "+m)
	}
	return b.String()
}

// Removed are the nodes that a commit removes, with their machines: "web3 (machine 3164494, which will be deleted)".
func Removed(r admin.Removal) string {
	all := slices.Clone(r.Nodes)
	for i, m := range r.Machines {
		if m != "" {
			all[i] += " (machine " + m + ", which will be deleted)"
		}
	}
	return strings.Join(all, ", ")
}

// Runs is a table of runs, and below it why those failed that did.
func Runs(all admin.Runs, look Look) string {
	p := newPage(look)
	if len(all.Runs) == 0 {
		p.line(0, plain, "Puppet has not run on "+all.Node+" since its first boot")
		return p.String()
	}
	t := table{columns: []column{{"BEGAN", 0}, {"COMMIT", 0}, {"FOR", 0}, {"TOOK", 2}, {"CHANGED", 0}, {"FAILED", 1}, {"CORRECTIVE", 3}, {"CAME TO", 0}}}
	for _, r := range all.Runs {
		why, came := r.Why, cell{r.Kind, plain}
		if r.Noop {
			why += ", only looking"
		}
		if came.text == "" {
			came.text = "nothing"
		}
		if !r.Good() {
			came.tone = bad
		}
		changed := r.Resources.Changed
		if r.Noop {
			changed = r.Resources.OutOfSync
		}
		t.rows = append(t.rows, []cell{
			{r.Began.Local().Format("2 Jan 15:04:05"), plain}, {short(r.Commit), plain}, {why, plain}, {admin.Words(r.Duration().Round(100 * time.Millisecond)), plain},
			{fmt.Sprintf("%d of %d", changed, r.Resources.Total), plain}, {fmt.Sprint(r.Resources.Failed), plain}, {fmt.Sprint(r.Resources.Corrective), plain}, came,
		})
	}
	p.table(t)
	for _, r := range all.Runs {
		if r.Good() {
			continue
		}
		p.line(0, alert, fmt.Sprintf("%s, commit %s: %s; %s", r.Began.Local().Format("2 Jan 15:04:05"), short(r.Commit), r.Message, r.Next))
	}
	return p.String()
}
