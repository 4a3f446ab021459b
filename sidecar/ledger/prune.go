package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keepFor is how old, by the store's clock, an object is at least before it is pruned.
const keepFor = 90 * 24 * time.Hour

// Prune deletes up to most objects that nobody needs any more, and says how many: what is older than 90 days, but never the
// newest of a kind, nor anything of an intent or an incident that is not over. What it does not know it leaves alone.
func (l *Ledger) Prune(ctx context.Context, most int) (int, error) {
	records, _, err := l.store.List(ctx, l.cluster+"/", "")
	if err != nil {
		return 0, fmt.Errorf("prune the ledger: %w", err)
	}
	steps, _, err := l.store.List(ctx, l.incidents(), "")
	if err != nil {
		return 0, fmt.Errorf("prune the ledger: %w", err)
	}
	keys := slices.Concat(oldRecords(l.cluster+"/", records), oldSteps(l.incidents(), steps))
	keys = keys[:min(len(keys), most)]
	for i, key := range keys {
		if err := l.store.Delete(ctx, key); err != nil {
			return i, fmt.Errorf("prune the ledger: delete %s: %w", key, err)
		}
	}
	return len(keys), nil
}

// pruned are the kinds of which anything goes, in the order in which it goes: an intent before what shows that it is closed.
var pruned = []kind{intents, calls, closings, left, tombstones, claims, duties, ties, destructions, wishes, seeds, tickets}

// oldRecords are the keys of a cluster's records that may go, in the order in which they must.
func oldRecords(prefix string, objects []Object) []string {
	type record struct {
		key    string
		rank   int    // in pruned
		series string // the key without its number
		n      uint64 // zero: it has none
		old    bool
	}
	newest := map[string]uint64{} // by series
	closed := map[string]bool{}   // "web1/00…05", of intents
	var all []record
	for _, o := range objects {
		rest, ok := strings.CutPrefix(o.Key, prefix)
		name, id, cut := strings.Cut(rest, "/")
		k := kind(name)
		rank := slices.Index(pruned, k)
		if !ok || !cut || rank < 0 {
			continue
		}
		r := record{key: o.Key, rank: rank, old: o.Age() > keepFor}
		if k != tickets {
			at := strings.LastIndexByte(o.Key, '/') + 1
			if r.n, ok = parseNumber(o.Key[at:]); !ok {
				continue
			}
			r.series = o.Key[:at]
			newest[r.series] = max(newest[r.series], r.n)
		}
		if k == closings {
			closed[id] = true
		}
		all = append(all, r)
	}
	all = slices.DeleteFunc(all, func(r record) bool {
		of := strings.TrimPrefix(r.key, prefix+string(pruned[r.rank])+"/")
		open := (pruned[r.rank] == intents || pruned[r.rank] == calls) && !closed[of]
		return !r.old || open || r.n > 0 && r.n == newest[r.series]
	})
	slices.SortStableFunc(all, func(a, b record) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.key, b.key)) })
	keys := make([]string, len(all))
	for i, r := range all {
		keys[i] = r.key
	}
	return keys
}

// oldSteps are the keys of incidents that may go: each from its beginning to its end, so that one that is half gone is still over.
func oldSteps(prefix string, objects []Object) []string {
	type incident struct {
		over, young bool
		keys        []string
	}
	all, newest := map[string]*incident{}, ""
	var ids []string
	for _, o := range objects {
		id, step, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		num, _, _ := strings.Cut(step, "-")
		n, err := strconv.Atoi(num)
		if err != nil || n < 0 || n >= len(phases) || step != stepName(n) || !ValidIncident(id) {
			continue
		}
		if all[id] == nil {
			all[id], ids, newest = &incident{}, append(ids, id), max(newest, id)
		}
		in := all[id]
		in.keys = append(in.keys, o.Key)
		in.over = in.over || n == len(phases)-1
		in.young = in.young || o.Age() <= keepFor
	}
	var keys []string
	for _, id := range ids {
		if in := all[id]; in.over && !in.young && id != newest {
			keys = append(keys, slices.Sorted(slices.Values(in.keys))...)
		}
	}
	return keys
}
