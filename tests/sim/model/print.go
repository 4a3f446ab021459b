package model

import (
	"fmt"
	"strings"
)

var holdWords = [...]string{"", "bids for", "waits with", "holds", "offers", "released"}

// describe tells the state of every member that differs from what it was before, a line each.
func (sc Scope) describe(s, before *state) string {
	var b strings.Builder
	for i := range sc.Members {
		line := sc.line(s, i)
		if before == nil || line != sc.line(before, i) {
			fmt.Fprintf(&b, "       %s: %s\n", name(uint8(i)), line)
		}
	}
	return b.String()
}

func (sc Scope) line(s *state, i int) string {
	n := &s.n[i]
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch {
	case n.gone:
		say("gone")
	case !n.up:
		say("down")
	case n.mute > 0:
		say("silent for %d", n.mute)
	}
	if n.disk > 0 {
		say("remembers epoch %d", n.disk)
	}
	if n.epoch > 0 {
		say("promised %d to %s", n.epoch, name(n.holder))
		if left := max(n.clearLast, n.clearOlder); left > 0 {
			say("clear in %d", left)
		}
	}
	if n.lease {
		say("which is held by lease")
	}
	if n.afterLease {
		say("after a lease")
	}
	if n.state != none {
		say("%s %d", holdWords[n.state], n.hold)
	}
	if n.state != none && n.state != released {
		say("promised by %s", members(n.promised))
	}
	if n.wrote {
		say("in the ledger")
	}
	if n.wait > 0 {
		say("waits %d", n.wait)
	}
	if s.open(i) {
		say("OPEN for %d", max(n.gate, n.read))
	}
	return strings.Join(words, ", ")
}

func members(set uint8) string {
	var names []string
	for m := range uint8(maxMembers) {
		if set&(1<<m) != 0 {
			names = append(names, name(m))
		}
	}
	return strings.Join(names, "+")
}
