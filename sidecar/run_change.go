package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/role"
	"understudy/sidecar/decide"
	pushes "understudy/sidecar/follow"
)

// mayBecome refuses a roles.yaml that a running cluster cannot go over to node by node. In between some nodes go by the old one and some
// by the new one, so both must agree on what two nodes may never disagree on: who plays what, how long silence lasts, and which
// directories are mirrored; and every majority of the old members must meet every majority of the new ones. The error names all that
// is in the way.
func mayBecome(old, next role.Roster) error {
	all := fewer(old, next)
	was, is := players(old), players(next)
	for _, node := range slices.Sorted(maps.Keys(was)) {
		if now, there := is[node]; there && now != was[node] {
			all = append(all, fmt.Sprintf("makes %s a %s instead of a %s", node, now, was[node]))
		}
	}
	if gone, added := removed(old, next), removed(next, old); majority(len(was))+majority(len(is)) <= len(was)+len(added) {
		all = append(all, tooMany(len(was), gone, added))
	}
	if (old.Beachhead == nil) != (next.Beachhead == nil) {
		all = append(all, "adds or removes the beachhead")
	}
	if o, n := old.Timings, next.Timings; o.Beat != n.Beat || o.MissedBeats != n.MissedBeats {
		all = append(all, fmt.Sprintf("changes when a silent node has failed (beat × missed_beats) from %v to %v", o.Detection(), n.Detection()))
	}
	for _, r := range old.Roles {
		i := slices.IndexFunc(next.Roles, func(other role.Role) bool { return other.Name == r.Name })
		if i >= 0 && !slices.Equal(r.Data, next.Roles[i].Data) {
			all = append(all, "changes the data of "+r.Name)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New("roles.yaml " + strings.Join(all, ", ") + ", which this version cannot do while the cluster runs")
}

// fewer says what speaks against nodes that a roles.yaml has no more. Who leaves hands over, so there must be somebody left to take it; and
// with a machine of a role with data go data.
func fewer(old, next role.Roster) (all []string) {
	is := players(next)
	for _, r := range old.Roles {
		gone := slices.DeleteFunc(slices.Clone(r.Nodes), func(node string) bool { _, stays := is[node]; return stays })
		switch {
		case len(gone) == 0:
		case len(r.Data) > 0:
			all = append(all, fmt.Sprintf("removes %s, a machine with data of %s", strings.Join(gone, ", "), r.Name))
		case len(gone) == len(r.Nodes) && r.HasPrimary():
			all = append(all, fmt.Sprintf("removes every node of %s, so that nobody is left to take its duty", r.Name))
		}
	}
	return all
}

// removed are the nodes of a roster that another one has not, sorted.
func removed(old, next role.Roster) (gone []string) {
	is := players(next)
	for _, node := range slices.Sorted(maps.Keys(players(old))) {
		if _, stays := is[node]; !stays {
			gone = append(gone, node)
		}
	}
	return gone
}

// tooMany says which nodes come and go, and how many may at a time.
func tooMany(members int, gone, added []string) string {
	switch {
	case len(gone) == 0:
		most := 0
		for majority(members)+majority(members+most+1) > members+most+1 {
			most++
		}
		return fmt.Sprintf("adds %s at once, where %d may be added at a time", strings.Join(added, ", "), most)
	case len(added) == 0:
		most := 0
		for majority(members)+majority(members-most-1) > members {
			most++
		}
		return fmt.Sprintf("removes %s at once, where %d may be removed at a time", strings.Join(gone, ", "), most)
	}
	return fmt.Sprintf("adds %s and removes %s at once, which are too many", strings.Join(added, ", "), strings.Join(gone, ", "))
}

// players is the role of every node.
func players(r role.Roster) map[string]string {
	all := map[string]string{}
	for _, of := range r.Roles {
		for _, node := range of.Nodes {
			all[node] = of.Name
		}
	}
	return all
}

func majority(members int) int { return members/2 + 1 }

// intended is a roster that this node would accept.
type intended struct {
	roster uint64    // zero: none
	since  time.Time // when the beats began to tell
	asked  time.Time // when somebody last wanted to accept it
}

const (
	// wishFor is how long a wish lasts that nobody repeats: the branch has moved on.
	wishFor = 30 * time.Second
	// askAgain is the pause after which a commit that waits for the cluster is looked at again.
	askAgain = time.Second
)

// may says whether a commit with that roles.yaml can be accepted now. One with other members waits until no member goes by, or is about to go
// by, any but the present and that one: so there are never three rosters at a time, two of which might not meet. A node says for two
// detection times that it would accept it; of two nodes with different ones in mind, at least one hears of the other's before that.
func (p *parts) may(c pushes.Candidate) error {
	if err := mayBecome(p.roster, c.Roster); err != nil {
		return err
	}
	want := decide.RosterOf(c.Roster)
	if want == p.policy.Roster {
		return nil
	}
	if gone := removed(p.roster, c.Roster); len(gone) > 0 {
		if err := p.confirmed(c, want, gone); err != nil {
			return err
		}
	}
	since := p.puppet.wants(want)
	why := p.disagrees(want)
	if wait := 2*p.policy.Timings.Detection - time.Since(since); why == "" && wait > 0 {
		why = "it changes the members, and the others hear of that first"
	}
	if why == "" {
		return nil
	}
	time.AfterFunc(askAgain, p.puppet.repo.Poke)
	return pushes.NotYet(why)
}

// disagrees says which member goes by yet another roster. Empty: none does.
func (p *parts) disagrees(want uint64) string {
	_, v, _, _ := p.snapshot()
	for _, node := range p.policy.Nodes {
		if node == p.cfg.Node {
			continue
		}
		if !p.hears(node) {
			return "it changes the members, and " + node + " is not heard, which must agree"
		}
		x := v.Peers[node].Said.Rollout
		for _, roster := range []uint64{x.Roster, x.Next} {
			if roster != 0 && roster != want && roster != p.policy.Roster {
				return "it changes the members, and " + node + " goes by others than those here and those in it"
			}
		}
	}
	return ""
}

// wants notes that a roster would be accepted, and says since when the beats tell so.
func (p *puppet) wants(roster uint64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.wish.roster != roster || now.Sub(p.wish.asked) > wishFor {
		p.wish = intended{roster: roster, since: now}
	}
	p.wish.asked = now
	return p.wish.since
}

// nextRoster is what this node is about to go by: the accepted commit's roster, or one that it would accept. Zero: the present one.
// p.mu is held.
func (p *puppet) nextRoster(s pushes.State) uint64 {
	if p.head != s.Head {
		data, err := os.ReadFile(filepath.Join(s.Release, "roles.yaml"))
		if err != nil {
			return p.next // restored at the next look
		}
		r, err := role.Parse("roles.yaml", data)
		if err != nil {
			return p.next // it was accepted, so it could be read
		}
		p.head, p.next, p.leave = s.Head, 0, removed(p.roster, r)
		if next := decide.RosterOf(r); next != p.policy.Roster {
			p.next = next
		}
	}
	if p.next == 0 && time.Since(p.wish.asked) < wishFor {
		return p.wish.roster
	}
	return p.next
}
