package chaos

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// Candidate is a node that may be picked.
type Candidate struct{ Role, Node string }

// Pick chooses a node by a seed: a role first, each as likely as any other however many nodes it has, then a node of it. The
// same seed and the same candidates, in whatever order, give the same node. It panics if there is no candidate.
func Pick(seed uint64, all []Candidate) Candidate {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Candidate) int { return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Node, b.Node)) })
	var roles []string
	for _, c := range all {
		roles = append(roles, c.Role)
	}
	roles = slices.Compact(roles)
	// A published generator, so that what a seed gives does not change with Go; and one whose first numbers differ for seeds that
	// hardly do, as those that people type: PCG's for 1 to 5 all had the same two lowest bits.
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	r := rand.NewChaCha8(key)
	role := roles[r.Uint64()%uint64(len(roles))]
	nodes := slices.DeleteFunc(all, func(c Candidate) bool { return c.Role != role })
	return nodes[r.Uint64()%uint64(len(nodes))]
}
