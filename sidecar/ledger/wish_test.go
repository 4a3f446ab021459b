package ledger

import (
	"errors"
	"reflect"
	"testing"

	"understudy/sidecar/cluster"
)

func aWish(n uint64) cluster.Wish {
	return cluster.Wish{Node: "mail1", N: n, Keep: []string{"33"}, Discard: []string{"34"}, By: "lb1", Mark: nonceA}
}

// The newest wish of a node holds, and of two at once one is told that the other came first.
func TestTheNewestWishOfANodeIsRead(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	must(t, l.WriteWish(ctx, aWish(1)))
	again := aWish(1)
	again.Mark = nonceB
	if taken, ok := errors.AsType[*TakenError](l.WriteWish(ctx, again)); !ok || taken.By != "lb1" {
		t.Errorf("a second one: got %v", taken)
	}
	second := aWish(2)
	second.Keep = nil
	must(t, l.WriteWish(ctx, second))
	other := aWish(1)
	other.Node = "repo1"
	must(t, l.WriteWish(ctx, other))
	r, err := New(store, "blog").Read(ctx)
	must(t, err)
	if want := map[string]cluster.Wish{"mail1": second, "repo1": other}; !reflect.DeepEqual(r.Wishes, want) {
		t.Errorf("got %+v, want %+v", r.Wishes, want)
	}
}

func TestAWishThatNobodyCouldReadIsNotWritten(t *testing.T) {
	store := NewMemory()
	l := New(store, "blog")
	for name, change := range map[string]func(*cluster.Wish){
		"number 0":         func(w *cluster.Wish) { w.N = 0 },
		"for nobody":       func(w *cluster.Wish) { w.Node = "" },
		"one without ID":   func(w *cluster.Wish) { w.Keep = []string{""} },
		"both of one":      func(w *cluster.Wish) { w.Discard = w.Keep },
		"by nobody":        func(w *cluster.Wish) { w.By = "a/b" },
		"without any mark": func(w *cluster.Wish) { w.Mark = "" },
	} {
		w := aWish(1)
		change(&w)
		if l.WriteWish(t.Context(), w) == nil {
			t.Errorf("%s was written", name)
		}
	}
	if store.Calls() != 0 {
		t.Errorf("the store was asked %d times", store.Calls())
	}
}
