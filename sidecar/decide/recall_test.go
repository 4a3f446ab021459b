package decide

import (
	"reflect"
	"strings"
	"testing"

	"understudy/sidecar/cluster"
)

// remembered is a ledger with one of each: web1 is machine m3 by claim 3, and is being replaced.
func remembered() cluster.Recall {
	return cluster.Recall{
		Claims: map[string]cluster.Claim{"web1": {Node: "web1", Epoch: 3, Machine: "m3"}, "web2": {Node: "web2", Epoch: 1, Machine: "m1"}},
		Buried: map[string]uint64{"web1": 3},
		Duties: map[string]cluster.DutyRecord{"lb": {Duty: "lb", Epoch: 7, Holder: "lb1"}, cluster.Coordinator: {Duty: cluster.Coordinator, Epoch: 4, Holder: "lb2"}},
		Tie:    cluster.Tie{N: 2, Winner: "lb1"}, Intents: map[string]cluster.Intent{"web1": {Node: "web1", N: 5}},
		Called: map[string]uint64{"web1": 5}, Closed: map[string]cluster.Closing{"web1": {Node: "web1", N: 5, Outcome: cluster.Done}},
	}
}

func TestALedgerThatKnowsLessThanWasKnownHasForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *cluster.Recall)
		want   string // in the sentence; empty: nothing is forgotten
	}{
		"the same":     {func(*cluster.Recall) {}, ""},
		"more":         {func(r *cluster.Recall) { r.Claims["web2"] = cluster.Claim{Epoch: 2}; r.Tie.N++ }, ""},
		"claimed anew": {func(r *cluster.Recall) { r.Claims["web1"] = cluster.Claim{Epoch: 4}; clear(r.Buried) }, ""},
		"the next replacement": {func(r *cluster.Recall) {
			r.Intents["web1"] = cluster.Intent{N: 6}
			clear(r.Called)
			clear(r.Closed)
		}, ""},
		"nothing at all":  {func(r *cluster.Recall) { *r = cluster.Recall{} }, "ties ends at 0 and was at 2"},
		"an older claim":  {func(r *cluster.Recall) { r.Claims["web1"] = cluster.Claim{Epoch: 2} }, "claims of web1 ends at 2 and was at 3"},
		"no tombstone":    {func(r *cluster.Recall) { clear(r.Buried) }, "tombstone of claim 3 of web1"},
		"an older duty":   {func(r *cluster.Recall) { r.Duties["lb"] = cluster.DutyRecord{Epoch: 6} }, "duty of lb ends at 6 and was at 7"},
		"no coordination": {func(r *cluster.Recall) { delete(r.Duties, cluster.Coordinator) }, "coordination ends at 0"},
		"no tie":          {func(r *cluster.Recall) { r.Tie = cluster.Tie{} }, "ties ends at 0"},
		"no intent":       {func(r *cluster.Recall) { clear(r.Intents) }, "replacements of web1 ends at 0 and was at 5"},
		"no call":         {func(r *cluster.Recall) { clear(r.Called) }, "of replacement 5 of web1 a part"},
		"no closing":      {func(r *cluster.Recall) { clear(r.Closed) }, "of replacement 5 of web1 a part"},
		"a newer reseed":  {func(r *cluster.Recall) { *r = cluster.Recall{Seed: 1} }, ""},
	} {
		known, shown := remembered(), remembered()
		c.change(&shown)
		if got := Forgotten(known, shown); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := Forgotten(cluster.Recall{Seed: 2}, cluster.Recall{Seed: 1}); !strings.Contains(got, "reseeds") {
		t.Errorf("an older reseed: got %q", got)
	}
}

// What is raised has forgotten nothing of either, unless a reseed has made one of them void.
func TestRaisingLosesNothing(t *testing.T) {
	other := remembered()
	other.Claims = map[string]cluster.Claim{"web1": {Node: "web1", Epoch: 4, Machine: "m4"}, "lb1": {Node: "lb1", Epoch: 1, Machine: "m9"}}
	other.Buried, other.Called, other.Closed = nil, nil, nil
	other.Duties = map[string]cluster.DutyRecord{"lb": {Duty: "lb", Epoch: 6}}
	other.Intents = map[string]cluster.Intent{"web1": {Node: "web1", N: 6}}
	for name, pair := range map[string][2]cluster.Recall{
		"older and newer": {remembered(), other}, "newer and older": {other, remembered()}, "nothing": {{}, remembered()}, "the same": {remembered(), remembered()},
	} {
		before := remembered()
		got := Raise(pair[0], pair[1])
		for _, p := range pair {
			if lost := Forgotten(p, got); lost != "" {
				t.Errorf("%s: lost: %s", name, lost)
			}
		}
		if name == "older and newer" && !reflect.DeepEqual(pair[0], before) {
			t.Errorf("%s: what was known has been changed", name)
		}
	}
	if got := Raise(remembered(), cluster.Recall{Seed: 1, Tie: cluster.Tie{N: 1}}); got.Tie.N != 1 || len(got.Claims) != 0 {
		t.Errorf("after a reseed: got %+v, want what it says and no more", got)
	}
	if got := Raise(cluster.Recall{Seed: 1}, remembered()); len(got.Claims) != 0 {
		t.Errorf("from before a reseed: got %+v, want nothing of it", got)
	}
}

// A ledger's reading, as it is remembered, has forgotten nothing of itself, whatever its ages are.
func TestAReadingIsRememberedWithoutItsAges(t *testing.T) {
	l := Ledger{
		Claims:  map[string]cluster.Claim{"web1": {Node: "web1", Epoch: 3, Tombstoned: true}},
		Intents: map[string]cluster.Intent{"web1": {Node: "web1", N: 5, Called: 9, Age: 10, Closed: cluster.Closing{N: 5, Outcome: cluster.Done, Age: 8}}},
	}
	first := l.Recall(0)
	in := l.Intents["web1"]
	in.Called, in.Age, in.Closed.Age = 19, 20, 18
	l.Intents["web1"] = in
	if again := l.Recall(0); !reflect.DeepEqual(first, again) || first.Buried["web1"] != 3 || first.Called["web1"] != 5 || first.Closed["web1"].Outcome != cluster.Done {
		t.Errorf("got %+v, then %+v", first, again)
	}
}

// Whatever rests on the ledger's word waits while it knows less than is remembered, and nothing is written into it meanwhile.
func TestALedgerThatHasForgottenCountsAsAway(t *testing.T) {
	for _, forgot := range []string{"", "the claims of web1 ends at 0 and was at 3"} {
		v := View{Now: 1e12, Ledger: Ledger{Configured: true, Sound: true, ReadSent: 1e12 - 1e6, Forgot: forgot}}
		x := &turn{View: v, p: Policy{Self: "lb1", Timings: Timings{LeaseFor: 5e9}}}
		x.record(duty{name: "lb"}, &Duty{Hold: cluster.Hold{Duty: "lb", Epoch: 2, State: cluster.Held}})
		why := x.noLedger()
		if away := strings.Contains(why, forgot) && strings.Contains(why, "understudy ledger reseed"); away != (forgot != "") {
			t.Errorf("forgot %q: got %q", forgot, why)
		}
		if wrote := len(x.out.Actions) > 0; wrote != (forgot == "") {
			t.Errorf("forgot %q: wrote %v", forgot, x.out.Actions)
		}
	}
}
