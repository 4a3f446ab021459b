package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"time"

	"understudy/sidecar/decide"
)

// teller logs changes, each once. It belongs to the loop.
type teller struct {
	log    *slog.Logger
	before map[string]string // what is blocked, and why, without numbers
	shut   map[string]string // gates that could not be opened, and why
	off    []decide.Blocked  // that the clock is off, if it is
}

// notes logs what a decision has to say. Each is given once.
func (t *teller) notes(notes []decide.Note) {
	for _, n := range notes {
		attrs := []any{"kind", string(n.Kind), "reason", n.Text}
		if n.Node != "" {
			attrs = append(attrs, "node", n.Node)
		}
		if n.Duty != "" {
			attrs = append(attrs, "duty", n.Duty)
		}
		level := slog.LevelInfo
		switch {
		case n.Kind == decide.NoteSuspect && n.Duty == "":
			level = slog.LevelDebug // a beat or two that did not come: everyday, and over before anybody reads it
		case n.Kind == decide.NoteMissing:
			level = slog.LevelWarn
		}
		t.log.Log(context.Background(), level, "noticed", attrs...)
	}
}

// blocked logs what has become blocked, and what no longer is. A reason that only counts on is not told again.
func (t *teller) blocked(now []decide.Blocked) {
	next := make(map[string]string, len(now))
	for _, b := range now {
		sort := withoutNumbers(b.Why)
		if before, known := t.before[b.What]; !known || before != sort {
			t.log.Warn("blocked", "what", b.What, "reason", b.Why)
		}
		next[b.What] = sort
	}
	for _, what := range slices.Sorted(maps.Keys(t.before)) {
		if _, still := next[what]; !still {
			t.log.Info("no longer blocked", "what", what)
		}
	}
	t.before = next
}

// gate notes whether a role's gate could be opened.
func (t *teller) gate(role string, err error) {
	if err == nil {
		delete(t.shut, role)
		return
	}
	if t.shut == nil {
		t.shut = map[string]string{}
	}
	t.shut[role] = err.Error()
}

// clock notes by how much the clocks of others are ahead of this machine's, and reports whether it is off.
func (t *teller) clock(ahead time.Duration) bool {
	if t.off = nil; ahead == 0 {
		return false
	}
	word := "behind"
	if ahead < 0 {
		word = "ahead of"
	}
	t.off = []decide.Blocked{{What: "the clock", Why: fmt.Sprintf("this machine's is %v %s those of the servers it asks; "+
		"it is corrected for them, but until it is set (timedatectl timesync-status) this node is primary only if no healthy one can be",
		ahead.Abs().Round(time.Second), word)}}
	return true
}

// gates lists the gates that could not be opened.
func (t *teller) gates() []decide.Blocked {
	var all []decide.Blocked
	for _, role := range slices.Sorted(maps.Keys(t.shut)) {
		all = append(all, decide.Blocked{What: "gate " + role, Why: t.shut[role]})
	}
	return all
}

// withoutNumbers is a sentence without its digits and what durations are written with, so that one which only counts on stays
// the same.
func withoutNumbers(s string) string { return numbers.ReplaceAllString(s, "#") }

var numbers = regexp.MustCompile(`([0-9]+(\.[0-9]+)?(ns|µs|ms|s|m|h)?)+\b`)
