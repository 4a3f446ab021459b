package decide

import (
	"fmt"
	"maps"
	"slices"

	"understudy/sidecar/cluster"
)

// A store that was restored from an old copy, or replaced by an empty one, honours create-if-absent and answers every question, and
// all that rests on "nobody has claimed this" is wrong there. So every node keeps what the ledger has shown it, and calls a ledger
// that shows less away.

// Recall is what a reading of the ledger shows.
func (l Ledger) Recall(seed uint64) cluster.Recall {
	r := cluster.Recall{Seed: seed, Claims: map[string]cluster.Claim{}, Buried: map[string]uint64{}, Left: map[string]uint64{}, Duties: l.Duties, Tie: l.Tie,
		Intents: map[string]cluster.Intent{}, Called: map[string]uint64{}, Closed: map[string]cluster.Closing{}}
	for k, c := range l.Claims {
		if c.Tombstoned {
			r.Buried[k] = c.Epoch
		}
		if c.Left {
			r.Left[k] = c.Epoch
		}
		c.Tombstoned, c.Left = false, false
		r.Claims[k] = c
	}
	for k, in := range l.Intents {
		if in.Called > 0 {
			r.Called[k] = in.N
		}
		if in.Closed.Outcome != "" {
			in.Closed.Age = 0
			r.Closed[k] = in.Closed
		}
		in.Called, in.Age, in.Closed = 0, 0, cluster.Closing{}
		r.Intents[k] = in
	}
	return r
}

// Heard is what members say in their beats of their own claims.
func Heard(seed uint64, peers map[string]cluster.Peer) cluster.Recall {
	r := cluster.Recall{Seed: seed, Claims: map[string]cluster.Claim{}}
	for k, p := range peers {
		if s := p.Said; s.Claim > 0 && s.Machine != "" {
			r.Claims[k] = cluster.Claim{Node: k, Epoch: s.Claim, Machine: s.Machine, Private: s.Private, Public: s.Public}
		}
	}
	return r
}

// Forgotten says what a ledger has lost that was known before it was asked. Empty: nothing.
func Forgotten(known, shown cluster.Recall) string {
	if shown.Seed > known.Seed {
		return ""
	}
	less := func(what string, had, has uint64) string {
		if has >= had {
			return ""
		}
		return fmt.Sprintf("%s ends at %d and was at %d", what, has, had)
	}
	all := []string{less("the count of reseeds", known.Seed, shown.Seed), less("the series of ties", known.Tie.N, shown.Tie.N)}
	for _, k := range slices.Sorted(maps.Keys(known.Claims)) {
		all = append(all, less("the claims of "+k, known.Claims[k].Epoch, shown.Claims[k].Epoch))
		if e := known.Buried[k]; e > 0 && shown.Claims[k].Epoch == e && shown.Buried[k] == 0 {
			all = append(all, fmt.Sprintf("the tombstone of claim %d of %s is not there", e, k))
		}
	}
	for _, d := range slices.Sorted(maps.Keys(known.Duties)) {
		title := "the duty of " + d
		if d == cluster.Coordinator {
			title = "coordination"
		}
		all = append(all, less(title, known.Duties[d].Epoch, shown.Duties[d].Epoch))
	}
	for _, k := range slices.Sorted(maps.Keys(known.Intents)) {
		all = append(all, less("the replacements of "+k, known.Intents[k].N, shown.Intents[k].N))
		if n := known.Intents[k].N; shown.Intents[k].N == n && (known.Called[k] == n && shown.Called[k] != n || known.Closed[k].N == n && shown.Closed[k].N != n) {
			all = append(all, fmt.Sprintf("of replacement %d of %s a part is not there", n, k))
		}
	}
	if i := slices.IndexFunc(all, func(s string) bool { return s != "" }); i >= 0 {
		return all[i]
	}
	return ""
}

// Raise adds to what is known what another has known: the newer of each. What was known before a newer reseed is void.
func Raise(known, more cluster.Recall) cluster.Recall {
	if more.Seed > known.Seed {
		return more
	}
	if more.Seed < known.Seed {
		return known
	}
	for k, c := range more.Claims {
		if c.Epoch > known.Claims[k].Epoch {
			known.Claims = with(known.Claims, k, c)
		}
		if more.Buried[k] == known.Claims[k].Epoch && more.Buried[k] > known.Buried[k] {
			known.Buried = with(known.Buried, k, more.Buried[k])
		}
		if more.Left[k] == known.Claims[k].Epoch && more.Left[k] > known.Left[k] {
			known.Left = with(known.Left, k, more.Left[k])
		}
	}
	for d, r := range more.Duties {
		if r.Epoch > known.Duties[d].Epoch {
			known.Duties = with(known.Duties, d, r)
		}
	}
	if more.Tie.N > known.Tie.N {
		known.Tie = more.Tie
	}
	for k, in := range more.Intents {
		if in.N > known.Intents[k].N {
			known.Intents = with(known.Intents, k, in)
		}
		if n := known.Intents[k].N; more.Called[k] == n && known.Called[k] < n {
			known.Called = with(known.Called, k, n)
		}
		if n := known.Intents[k].N; more.Closed[k].N == n && known.Closed[k].N < n {
			known.Closed = with(known.Closed, k, more.Closed[k])
		}
	}
	return known
}

// with is a copy of m in which key has value.
func with[V any](m map[string]V, key string, value V) map[string]V {
	next := make(map[string]V, len(m)+1)
	maps.Copy(next, m)
	next[key] = value
	return next
}
