package admin

import (
	"testing"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

func TestAPlanSaysWhatAReplacementDoes(t *testing.T) {
	e := decide.Expect{Duty: cluster.Coordinator, Epoch: 3}
	for _, c := range []struct {
		a    decide.Action
		want string
	}{
		{decide.OpenIntent{Expect: e, Intent: cluster.Intent{Node: "web1"}}, "write into the ledger that web1 shall get a new machine"},
		{decide.Tombstone{Expect: e, Node: "web1", Machine: "7"}, "write into the ledger that machine 7 is not web1 any more"},
		{decide.PowerOff{Expect: e, Node: "web1", Machine: "7"}, "cut the power of machine 7, which was web1"},
		{decide.Create{Expect: e, Intent: cluster.Intent{Node: "web1"}}, "ask the provider for a new machine for web1"},
		{decide.Delete{Expect: e, Node: "web1", Machine: "7"}, "delete machine 7, which was web1 and is off"},
		{decide.CloseIntent{Expect: e, Closing: cluster.Closing{Node: "web1", Outcome: cluster.Done}}, "write into the ledger that the replacement of web1 is done"},
	} {
		got, assumes := describe(c.a, decide.View{})
		if got != c.want || assumes != e || routine(c.a) {
			t.Errorf("%T: got %q, assuming %+v, routine %v; want %q, %+v, false", c.a, got, assumes, routine(c.a), c.want, e)
		}
	}
	if !routine(decide.ReadList{}) {
		t.Error("looking at the list of machines changes nothing, and is no routine")
	}
}

func TestAPlanSaysWhatACommitDoes(t *testing.T) {
	for want, a := range map[string]decide.Action{
		"let Puppet say what commit 77aa91c0 would change here": decide.Rehearse{Commit: nextCommit},
		"let Puppet apply commit 77aa91c0":                      decide.Apply{Commit: nextCommit},
		"start this sidecar anew":                               decide.Restart{},
	} {
		if got, _ := describe(a, decide.View{}); got != want || routine(a) {
			t.Errorf("%T: got %q, routine %v; want %q", a, got, routine(a), want)
		}
	}
}
