package ledger

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"understudy/sidecar/cluster"
)

// lost is what the nodes remember of a ledger that is empty now.
func lost() cluster.Recall {
	n := strings.Repeat("a", 32)
	return cluster.Recall{
		Seed:   1,
		Claims: map[string]cluster.Claim{"web1": {Node: "web1", Epoch: 3, Machine: "m3"}, "web2": {Node: "web2", Epoch: 1, Machine: "m1"}},
		Buried: map[string]uint64{"web1": 3}, Left: map[string]uint64{"web1": 3},
		Duties: map[string]cluster.DutyRecord{"lb": {Duty: "lb", Epoch: 7, Holder: "lb1", Machine: "m9"}},
		Tie:    cluster.Tie{N: 2, Winner: "lb1", Members: []string{"lb1"}},
		Intents: map[string]cluster.Intent{
			"web1": {Node: "web1", N: 5, Nonce: n, Replaces: 3, Machine: "m3", By: "lb1", Epoch: 2, Try: 1, Why: "silent"},
			"web2": {Node: "web2", N: 1, Nonce: n, By: "lb1", Epoch: 2, Try: 1, Why: "never there"},
		},
		Called: map[string]uint64{"web1": 5, "web2": 1},
		Closed: map[string]cluster.Closing{"web2": {Node: "web2", N: 1, Outcome: cluster.Done, By: "lb1", Why: "it serves"}},
	}
}

func TestAReseededLedgerHasAllThatIsRemembered(t *testing.T) {
	store := NewMemory()
	was := New(store, "blog")
	if err := was.Reseed(t.Context(), lost()); err != nil {
		t.Fatal(err)
	}
	if _, err := was.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The bucket is emptied under a process that goes on, but for what somebody has written since.
	for key := range maps.Clone(store.objects) {
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := New(store, "blog").ClaimIdentity(t.Context(), cluster.Claim{Node: "web2", Epoch: 1, Machine: "m2"}); err != nil {
		t.Fatal(err)
	}
	if _, err := was.Read(t.Context()); !isForgotten(err) {
		t.Fatalf("got %v, want that it has forgotten", err)
	}
	again := lost()
	again.Seed = 2
	for range 2 { // it may be repeated
		if err := New(store, "blog").Reseed(t.Context(), again); err != nil {
			t.Fatal(err)
		}
	}
	for name, l := range map[string]*Ledger{"a process that has seen the old one": was, "another": New(store, "blog")} {
		r, err := l.Read(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := fmt.Sprint(r.Seed, r.Claims["web1"].Tombstoned, r.Claims["web1"].Left, r.Claims["web1"].Machine, r.Claims["web2"].Machine, r.Duties["lb"].Epoch, r.Tie.N,
			r.Intents["web1"].N, r.Intents["web1"].Called > 0, r.Intents["web1"].Open(), r.Intents["web2"].Open())
		if want := fmt.Sprint(2, true, true, "m3", "m2", 7, 2, 5, true, true, false); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if !reflect.DeepEqual(r.Duties["lb"], lost().Duties["lb"]) {
			t.Errorf("%s: got %+v", name, r.Duties["lb"])
		}
	}
}

// The count is written last, so a reseed that was cut short changes nothing for those who have seen the old ledger.
func TestAReseedThatIsCutShortCountsForNothing(t *testing.T) {
	store := NewMemory()
	l := New(store, "blog")
	store.Set(Faults{Silent: true})
	if err := l.Reseed(t.Context(), lost()); err == nil {
		t.Fatal("no error, though the store gave no answer")
	}
	store.Set(Faults{})
	if r, err := l.Read(t.Context()); err != nil || r.Seed != 0 {
		t.Errorf("got reseed %d, %v; want none", r.Seed, err)
	}
	if err := l.Reseed(t.Context(), cluster.Recall{}); err == nil {
		t.Error("a reseed without a number was written")
	}
}

func isForgotten(err error) bool {
	_, ok := errors.AsType[*ForgottenError](err)
	return ok
}
