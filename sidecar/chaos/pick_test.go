package chaos

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var blog = []Candidate{{"lb", "lb1"}, {"lb", "lb2"}, {"web", "web1"}, {"web", "web2"}, {"web", "web3"}, {"web", "web4"}, {"mail", "mail2"}}

// What a seed picks is written down in scripts and incidents, so it must not change.
func TestASeedPicksWhatItAlwaysPicked(t *testing.T) {
	var got []string
	for seed := range uint64(8) {
		got = append(got, Pick(seed, blog).Node)
	}
	if want := []string{"web3", "lb1", "lb2", "web1", "lb1", "mail2", "web2", "web1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestThePickIsOneOfTheCandidatesWhateverTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfNDistinct(rapid.SampledFrom(blog), 1, len(blog), func(c Candidate) string { return c.Node }).Draw(t, "all")
		mixed := rapid.Permutation(all).Draw(t, "mixed")
		seed := rapid.Uint64().Draw(t, "seed")
		before := slices.Clone(all)
		got := Pick(seed, all)
		if !slices.Contains(all, got) || Pick(seed, mixed) != got {
			t.Fatalf("got %v, in another order %v", got, Pick(seed, mixed))
		}
		if !slices.Equal(all, before) {
			t.Fatalf("the candidates were changed: %v", all)
		}
	})
}

// A role of four nodes is hit as often as one with a single one; within a role all nodes are.
func TestRolesArePickedAlikeAndThenTheirNodes(t *testing.T) {
	const seeds = 12000
	roles, nodes := map[string]int{}, map[string]int{}
	for seed := range uint64(seeds) {
		c := Pick(seed, blog)
		roles[c.Role]++
		nodes[c.Node]++
	}
	near := func(what string, got, want int) {
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("%s was picked %d times of %d, want about %d", what, got, seeds, want)
		}
	}
	for _, c := range blog {
		near(c.Role, roles[c.Role], seeds/3)
	}
	for node, want := range map[string]int{"lb1": seeds / 6, "lb2": seeds / 6, "web1": seeds / 12, "web4": seeds / 12, "mail2": seeds / 3} {
		near(node, nodes[node], want)
	}
}
