package ledger

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

// listed are objects of so many days, by the store's clock, as "claims/web1/3 95".
func listed(prefix string, all ...string) []Object {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var objects []Object
	for _, s := range all {
		var key string
		var days int
		if _, err := fmt.Sscanf(s, "%s %d", &key, &days); err != nil {
			panic(s)
		}
		cut := strings.LastIndexByte(key, '/') + 1
		var n uint64
		if _, err := fmt.Sscanf(key[cut:]+"|", "%d|", &n); err == nil && !strings.HasPrefix(key, "tickets/") {
			key = key[:cut] + number(n)
		}
		objects = append(objects, Object{prefix + key, Meta{Date: at, Modified: at.Add(-time.Duration(days) * 24 * time.Hour)}})
	}
	return objects
}

func TestOnlyWhatIsOldAndNotTheNewestAndNotOpenIsPruned(t *testing.T) {
	for name, c := range map[string]struct{ objects, want []string }{
		"old claims, not the newest":   {[]string{"claims/web1/1 300", "claims/web1/2 200", "claims/web1/3 100"}, []string{"claims/web1/1 0", "claims/web1/2 0"}},
		"young ones":                   {[]string{"claims/web1/1 90", "claims/web1/2 80"}, nil},
		"of each node its newest":      {[]string{"claims/web1/9 300", "claims/web2/1 300"}, nil},
		"numbers, not texts":           {[]string{"duty/lb/9 300", "duty/lb/10 300"}, []string{"duty/lb/9 0"}},
		"tombstones":                   {[]string{"tombstones/web1/1 300", "tombstones/web1/2 200"}, []string{"tombstones/web1/1 0"}},
		"ties, chaos and reseeds":      {[]string{"chaos/1 300", "chaos/2 300", "reseeds/1 300", "reseeds/2 300", "tie/1 300", "tie/2 300"}, []string{"tie/1 0", "chaos/1 0", "reseeds/1 0"}},
		"tickets, which are used up":   {[]string{"tickets/00aa 91", "tickets/00ab 89"}, []string{"tickets/00aa 0"}},
		"heartbeats and what is newer": {[]string{"heartbeat/web1 300", "novelty/web1/1 300", "novelty/web1/2 300"}, nil},
		"keys that are not ours":       {[]string{"claims/web1/x 300", "claims 300", "claims/web1/y 300"}, nil},
		"a closed intent, its end last": {
			[]string{"calls/web1/1 300", "calls/web1/2 100", "closed/web1/1 300", "closed/web1/2 100", "intents/web1/1 300", "intents/web1/2 100"},
			[]string{"intents/web1/1 0", "calls/web1/1 0", "closed/web1/1 0"}},
		"an open intent, though not the newest": {[]string{"calls/web1/1 300", "calls/web1/2 100", "closed/web1/2 100", "intents/web1/1 300", "intents/web1/2 100"}, nil},
		"a closing whose intent is gone":        {[]string{"closed/web1/1 300", "closed/web1/2 100", "intents/web1/2 100"}, []string{"closed/web1/1 0"}},
	} {
		var want []string
		for _, o := range listed("blog/", c.want...) {
			want = append(want, o.Key)
		}
		if got := oldRecords("blog/", listed("blog/", c.objects...)); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := oldRecords("blog/", []Object{{Key: "blog/claims/web1/" + number(1)}, {Key: "blog/claims/web1/" + number(2)}}); len(got) > 0 {
		t.Errorf("a store that tells no time: got %q, want nothing pruned", got)
	}
}

func TestIncidentsArePrunedFromTheirBeginning(t *testing.T) {
	all := listed("blog.incidents/",
		"a/08-redundant 200", "a/00-lost 200", "a/04-created 200", // over
		"b/00-lost 200",                     // open
		"c/00-lost 91", "c/08-redundant 89", // young
		"d/00-lost 95", "d/08-redundant 95", // the newest
	)
	want := []string{"blog.incidents/a/00-lost", "blog.incidents/a/04-created", "blog.incidents/a/08-redundant"}
	if got := oldSteps("blog.incidents/", all); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Whatever is pruned, and however often, a reading says the same before and after, also to those who have read it before.
func TestPruningIsSlowAndChangesNoReading(t *testing.T) {
	store := NewMemory()
	l := New(store, "blog")
	for n := uint64(1); n <= 4; n++ {
		nonce := fmt.Sprintf("%032x", n)
		for _, err := range []error{
			l.ClaimIdentity(t.Context(), cluster.Claim{Node: "web1", Epoch: n, Machine: fmt.Sprint(n)}),
			l.WriteDuty(t.Context(), cluster.DutyRecord{Duty: "lb", Epoch: n, Holder: "lb1"}),
			l.WriteIntent(t.Context(), cluster.Intent{Node: "web1", N: n, Nonce: nonce, By: "lb1", Try: 1}),
			l.WriteClosing(t.Context(), cluster.Closing{Node: "web1", N: n, Outcome: cluster.Done, By: "lb1"}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := l.Prune(t.Context(), 5); n != 0 || err != nil {
		t.Fatalf("pruned %d young objects, %v", n, err)
	}
	for key, o := range maps.Clone(store.objects) {
		store.objects[key] = stored{o.body, o.modified.Add(-keepFor - time.Hour)}
	}
	before, err := l.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var each []int
	for range 4 {
		n, err := l.Prune(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		each = append(each, n)
		for name, reader := range map[string]*Ledger{"the same process": l, "another": New(store, "blog")} {
			after, err := reader.Read(t.Context())
			if err != nil || !reflect.DeepEqual(ageless(before), ageless(after)) {
				t.Errorf("%s: got %+v, %v, want %+v", name, after, err, before)
			}
		}
	}
	if want := []int{5, 5, 2, 0}; !slices.Equal(each, want) { // three of each of four kinds
		t.Errorf("pruned %v, want %v", each, want)
	}
}

// ageless is a reading without what changes from one to the next.
func ageless(r Reading) Reading {
	in := r.Intents["web1"]
	in.Age, in.Called, in.Closed.Age = 0, 0, 0
	r.Intents = map[string]cluster.Intent{"web1": in}
	return r
}
