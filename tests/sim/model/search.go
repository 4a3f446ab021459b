package model

import (
	"fmt"
	"strings"
)

// Result is what a search has found.
type Result struct {
	States   int            // that differ
	Depth    int            // steps to the farthest
	Complete bool           // every reachable state was looked at
	Broken   string         // the law that does not hold; empty: all hold
	Story    string         // the shortest way there, for people
	Reached  map[string]int // by goal, how many steps the shortest way to it takes
}

// Goal is something that must be possible, so that the laws do not hold only because nothing ever happens.
type Goal struct {
	Name string
	Met  func(before, after *state) bool
}

// link is how a state was first reached.
type link struct {
	parent uint32
	action uint16
}

// Search looks at every state that sc allows, in the order of the steps it takes to get there, until one breaks a law.
func Search(sc Scope, goals ...Goal) Result {
	start := sc.begin()
	seen := newSet()
	seen.add(sc.hash(&start))
	links := []link{{}}
	layer := []state{start}
	first := uint32(0) // index of layer[0]
	r := Result{Reached: map[string]int{}}
	actions := sc.actions()
	for ; len(layer) > 0; r.Depth++ {
		var next []state
		begin := uint32(len(links))
		for k := range layer {
			for _, a := range actions {
				s := layer[k]
				if !sc.apply(&s, a) {
					continue
				}
				r.reach(goals, &layer[k], &s)
				if !seen.add(sc.hash(&s)) {
					continue
				}
				links = append(links, link{first + uint32(k), a.pack()})
				next = append(next, s)
				if r.Broken = sc.broken(&layer[k], &s); r.Broken != "" {
					r.States, r.Story = len(links), sc.story(links)
					return r
				}
			}
			if sc.States > 0 && len(links) >= sc.States {
				r.States = len(links)
				return r
			}
		}
		layer, first = next, begin
	}
	r.States, r.Complete = len(links), true
	return r
}

func (r *Result) reach(goals []Goal, before, after *state) {
	for _, g := range goals {
		if _, done := r.Reached[g.Name]; !done && g.Met(before, after) {
			r.Reached[g.Name] = r.Depth + 1
		}
	}
}

// actions lists everything that could be done somewhere.
func (sc Scope) actions() []action {
	all := []action{{kind: tick}, {kind: arrive, i: 0}, {kind: arrive, i: 1}, {kind: lose, i: 0}, {kind: lose, i: 1}}
	for i := range uint8(sc.Members) {
		for _, k := range []kind{bid, bidBy, write, read, release, crash, start, destroy, replace, off, on, shut} {
			if !sc.Ledger && (k == bidBy || k == write || k == read) {
				continue
			}
			all = append(all, action{kind: k, i: i})
		}
		for j := range uint8(sc.Members) {
			if i == j {
				continue
			}
			for _, k := range []kind{send, hold1, hold2, offer} {
				all = append(all, action{k, i, j})
			}
		}
	}
	return all
}

// broken is the law that does not hold after a step, or empty.
func (sc Scope) broken(before, s *state) string {
	var open []string
	for i := range sc.Members {
		n := &s.n[i]
		if s.open(i) {
			open = append(open, name(uint8(i)))
		}
		acts := n.state == waiting || n.state == held || n.state == offered
		if acts && !sc.Without.Parity && s.won[n.hold] != uint8(i)+1 {
			return fmt.Sprintf("epoch %d has two holders: %s and %s", n.hold, name(s.won[n.hold]-1), name(uint8(i)))
		}
		if s.open(i) && !before.open(i) && sc.ordered() && n.hold < before.acted {
			return fmt.Sprintf("%s begins to act under epoch %d after somebody has acted under epoch %d", name(uint8(i)), n.hold, before.acted)
		}
	}
	if len(open) > 1 {
		return strings.Join(open, " and ") + " both answer"
	}
	return ""
}

// ordered tells whether epochs must also be acted on in their order. A majority that is lost for good before it has written
// its epoch to the ledger may be followed by an earlier one there.
func (sc Scope) ordered() bool {
	return sc.Budget.Losses+sc.Budget.Offs == 0 && sc.Without == Mechanisms{}
}

// story tells the way to the newest state.
func (sc Scope) story(links []link) string {
	var steps []action
	for at := uint32(len(links) - 1); at != 0; at = links[at].parent {
		steps = append(steps, unpack(links[at].action))
	}
	s := sc.begin()
	var b strings.Builder
	b.WriteString(sc.describe(&s, nil))
	time := 0
	for k := len(steps) - 1; k >= 0; k-- {
		before, text := s, sc.text(steps[k], &s)
		sc.apply(&s, steps[k])
		if steps[k].kind == tick {
			time++
		}
		fmt.Fprintf(&b, "%3d  %s\n%s", time, text, sc.describe(&s, &before))
	}
	return b.String()
}
