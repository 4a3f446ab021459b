package show

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
)

// Remembered is what a node knows of the ledger.
func Remembered(r admin.Remembered, look Look) string {
	p := newPage(look)
	switch {
	case !r.Ledger.Configured:
		p.line(0, plain, "the cluster has no ledger")
		return p.String()
	case r.Ledger.Usable:
		p.line(0, good, "the ledger has all that "+r.Node+" remembers")
	default:
		p.line(0, bad, "the ledger cannot be used: "+r.Ledger.Why)
	}
	p.recall(r.Known)
	return p.String()
}

// Reseeded is what was, or would be, written into a ledger that has lost it.
func Reseeded(r admin.Reseeded, look Look) string {
	p := newPage(look)
	head := "would write what is missing of this"
	if r.Written {
		head = "wrote what was missing of this; the nodes rely on the ledger again as soon as they have read it"
	}
	p.line(0, strong, fmt.Sprintf("reseed %d: %s", r.Known.Seed, head))
	for _, lost := range r.Forgot {
		p.line(2, alert, "lost: "+lost)
	}
	p.line(2, plain, "remembered by "+strings.Join(r.Heard, ", "))
	if len(r.Mute) > 0 {
		p.line(2, alert, "not asked, because they do not answer: "+strings.Join(r.Mute, ", "))
	}
	p.recall(r.Known)
	return p.String()
}

// recall lists what is remembered, a line for each object.
func (p *page) recall(r cluster.Recall) {
	t := table{columns: []column{{"WHAT", 0}, {"NUMBER", 0}, {"", 1}}}
	row := func(what string, n uint64, text string) {
		t.rows = append(t.rows, []cell{{what, plain}, {fmt.Sprint(n), plain}, {text, faint}})
	}
	for _, k := range slices.Sorted(maps.Keys(r.Claims)) {
		text := "machine " + r.Claims[k].Machine
		if r.Buried[k] == r.Claims[k].Epoch {
			text += ", ended"
		}
		row("claim of "+k, r.Claims[k].Epoch, text)
	}
	for _, d := range slices.Sorted(maps.Keys(r.Duties)) {
		title := "duty of " + d
		if d == cluster.Coordinator {
			title = "coordination"
		}
		row(title, r.Duties[d].Epoch, r.Duties[d].Holder)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Intents)) {
		text := "under way"
		if c := r.Closed[k]; c.N == r.Intents[k].N {
			text = string(c.Outcome)
		}
		row("replacement of "+k, r.Intents[k].N, text)
	}
	if r.Tie.N > 0 {
		row("tie", r.Tie.N, r.Tie.Winner)
	}
	if r.Seed > 0 {
		row("reseed", r.Seed, "")
	}
	if len(t.rows) > 0 {
		p.gap()
		p.table(t)
	}
}
