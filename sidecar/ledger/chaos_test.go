package ledger

import (
	"errors"
	"testing"

	"understudy/sidecar/cluster"
)

func aDestruction(n uint64) cluster.Destruction {
	return cluster.Destruction{N: n, Node: "web1", Machine: "33", Seed: 42, By: "lb1", Mark: nonceA}
}

// Of two orders at once one is carried out, even if the same node gives both.
func TestADestructionIsOnesAlone(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	if r, err := l.Read(ctx); err != nil || r.Destroyed != (cluster.Destruction{}) {
		t.Errorf("before: got %+v, %v", r.Destroyed, err)
	}
	must(t, l.WriteDestruction(ctx, aDestruction(1)))
	again := aDestruction(1)
	again.Mark = nonceB
	if taken, ok := errors.AsType[*TakenError](l.WriteDestruction(ctx, again)); !ok || taken.By != "lb1" {
		t.Errorf("a second one: got %v", taken)
	}
	second := aDestruction(2)
	second.Node = "web2"
	must(t, l.WriteDestruction(ctx, second))
	r, err := New(store, "blog").Read(ctx)
	must(t, err)
	if got := r.Destroyed; got.N != 2 || got.Node != "web2" || got.Seed != 42 {
		t.Errorf("read by another: got %+v", got)
	}
}

func TestADestructionThatNobodyCouldReadIsNotWritten(t *testing.T) {
	store := NewMemory()
	l := New(store, "blog")
	for name, change := range map[string]func(*cluster.Destruction){
		"number 0":   func(d *cluster.Destruction) { d.N = 0 },
		"of nobody":  func(d *cluster.Destruction) { d.Node = "" },
		"no machine": func(d *cluster.Destruction) { d.Machine = "" },
		"by nobody":  func(d *cluster.Destruction) { d.By = "a/b" },
		"no mark":    func(d *cluster.Destruction) { d.Mark = "" },
	} {
		d := aDestruction(1)
		change(&d)
		if l.WriteDestruction(t.Context(), d) == nil {
			t.Errorf("%s was written", name)
		}
	}
	if store.Calls() != 0 {
		t.Errorf("the store was asked %d times", store.Calls())
	}
}

func TestAnIncidentHasTheCauseOfItsFirstStep(t *testing.T) {
	ctx := t.Context()
	l := New(NewMemory(), "blog")
	must(t, l.AppendIncident(ctx, Step{Incident: "1-web1", Node: "web1", Phase: "lost", Cause: cluster.Chaos, By: "lb1"}))
	must(t, l.AppendIncident(ctx, Step{Incident: "1-web1", Node: "web1", Phase: "detected", By: "lb2"}))
	all, err := l.Incidents(ctx, 10)
	must(t, err)
	if len(all) != 1 || all[0].Cause != "chaos" || all[0].Over() {
		t.Errorf("got %+v", all)
	}
	must(t, l.AppendIncident(ctx, Step{Incident: "1-web1", Node: "web1", Phase: "redundant", By: "lb2"}))
	if all, err = l.Incidents(ctx, 10); err != nil || !all[0].Over() {
		t.Errorf("in the end: got %+v, %v", all, err)
	}
}
