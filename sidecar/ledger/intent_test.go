package ledger

import (
	"errors"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

const (
	nonceA = "00112233445566778899aabbccddeeff"
	nonceB = "ffeeddccbbaa99887766554433221100"
)

func anIntent(n uint64) cluster.Intent {
	return cluster.Intent{Node: "web1", N: n, Nonce: nonceA, Replaces: 3, Machine: "33", By: "lb1", Epoch: 7, Try: 1, Why: "it is gone"}
}

func TestAReplacementIsReadWithItsCallAndItsEnd(t *testing.T) {
	ctx := t.Context()
	l := New(NewMemory(), "blog")
	read := func(l *Ledger) cluster.Intent {
		t.Helper()
		r, err := l.Read(ctx)
		must(t, err)
		return r.Intents["web1"]
	}
	if in := read(l); in.N != 0 || in.Open() {
		t.Errorf("before: %+v", in)
	}
	must(t, l.WriteIntent(ctx, anIntent(1)))
	must(t, l.WriteIntent(ctx, anIntent(1))) // an answer that was lost
	other := anIntent(1)
	other.Nonce, other.By = nonceB, "lb2"
	if taken, ok := errors.AsType[*TakenError](l.WriteIntent(ctx, other)); !ok || taken.By != "lb1" {
		t.Errorf("a second intent: %v", taken)
	}
	if in := read(l); !in.Open() || in.Called != 0 || in.Nonce != nonceA {
		t.Errorf("open: %+v", in)
	}
	must(t, l.WriteCall(ctx, cluster.Call{Node: "web1", N: 1, By: "lb1", Mark: nonceA}))
	if _, ok := errors.AsType[*TakenError](l.WriteCall(ctx, cluster.Call{Node: "web1", N: 1, By: "lb1", Mark: nonceB})); !ok {
		t.Error("a second call by the same node was let through")
	}
	if in := read(New(l.store, "blog")); in.Called <= 0 || !in.Open() {
		t.Errorf("called, read by another: %+v", in)
	}
	end := cluster.Closing{Node: "web1", N: 1, Outcome: cluster.Failed, By: "lb1", Why: "no machine came"}
	must(t, l.WriteClosing(ctx, end))
	in := read(New(l.store, "blog"))
	if in.Open() || in.Closed.Outcome != cluster.Failed || in.Closed.Why != end.Why {
		t.Errorf("closed: %+v", in)
	}
	must(t, l.WriteIntent(ctx, anIntent(2)))
	if in := read(l); in.N != 2 || in.Called != 0 || !in.Open() {
		t.Errorf("the next one: %+v", in)
	}
	r, err := l.Read(ctx)
	must(t, err)
	if len(r.Hired) != 0 {
		t.Errorf("hired %v, but the node has never had a machine", r.Hired)
	}
}

func TestALaunchCountsIntoNoBudget(t *testing.T) {
	type key struct {
		kind kind
		node string
		n    uint64
	}
	for _, c := range []struct {
		name    string
		objects []key // in the order of their writing, a second apart
		want    int
	}{
		{"a node on its way", []key{{intents, "web1", 1}}, 0},
		{"its second try", []key{{intents, "web1", 1}, {intents, "web1", 2}}, 0},
		{"it has come", []key{{intents, "web1", 1}, {claims, "web1", 1}}, 0},
		{"it was replaced", []key{{intents, "web1", 1}, {claims, "web1", 1}, {intents, "web1", 2}, {claims, "web1", 2}}, 1},
		{"the seed was replaced", []key{{claims, "web1", 1}, {intents, "web1", 1}, {intents, "web1", 2}, {claims, "web1", 2}}, 2},
		{"its first claim has been pruned", []key{{claims, "web1", 7}, {intents, "web1", 9}}, 1},
		{"another's claim", []key{{claims, "web2", 1}, {intents, "web1", 1}}, 0},
	} {
		l := New(NewMemory(), "blog")
		f := emptyFound()
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i, key := range c.objects {
			must(t, f.add(l, Object{Key: l.series(key.kind, key.node) + number(key.n), Meta: Meta{Date: now, Modified: now.Add(time.Duration(i-10) * time.Second)}}))
		}
		if got := f.replaced(); len(got) != c.want {
			t.Errorf("%s: hired %v, want %d", c.name, got, c.want)
		}
	}
}

func TestAReplacementThatNobodyCouldReadIsNotWritten(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	for name, change := range map[string]func(*cluster.Intent){
		"nonce":             func(i *cluster.Intent) { i.Nonce = "x" },
		"number":            func(i *cluster.Intent) { i.N = 0 },
		"try":               func(i *cluster.Intent) { i.Try = 0 },
		"claim, no machine": func(i *cluster.Intent) { i.Machine = "" },
		"machine, no claim": func(i *cluster.Intent) { i.Replaces = 0 },
		"by nobody":         func(i *cluster.Intent) { i.By = "" },
		"node":              func(i *cluster.Intent) { i.Node = "../x" },
	} {
		in := anIntent(1)
		if change(&in); l.WriteIntent(ctx, in) == nil {
			t.Errorf("%s: written", name)
		}
	}
	if l.WriteCall(ctx, cluster.Call{Node: "web1", N: 1, By: "lb1"}) == nil || l.WriteClosing(ctx, cluster.Closing{Node: "web1", N: 1, By: "lb1", Outcome: "?"}) == nil ||
		l.SpendTicket(ctx, "x", "age1") == nil || l.SpendTicket(ctx, nonceA, "") == nil {
		t.Error("written")
	}
	if store.Calls() != 0 {
		t.Errorf("the store was asked %d times", store.Calls())
	}
}

func TestATicketIsSpentByOne(t *testing.T) {
	ctx := t.Context()
	l := New(NewMemory(), "blog")
	must(t, l.SpendTicket(ctx, nonceA, "age1a"))
	must(t, l.SpendTicket(ctx, nonceA, "age1a"))
	if _, ok := errors.AsType[*TakenError](New(l.store, "blog").SpendTicket(ctx, nonceA, "age1b")); !ok {
		t.Error("spent twice")
	}
	must(t, l.SpendTicket(ctx, nonceB, "age1b"))
	_, err := l.Read(ctx) // tickets are no concern of it
	must(t, err)
}

func TestTheHistoryOfANodeHasAllItsMachines(t *testing.T) {
	ctx := t.Context()
	l := New(NewMemory(), "blog")
	second := anIntent(2)
	second.Nonce = nonceB
	must(t, errors.Join(l.WriteIntent(ctx, anIntent(1)), l.WriteIntent(ctx, second),
		l.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 1, Machine: "11"}), l.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 2, Machine: "22"}),
		l.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 3, Machine: "22"}), l.ClaimIdentity(ctx, cluster.Claim{Node: "web2", Epoch: 1, Machine: "99"})))
	h, err := l.History(ctx, "web1")
	must(t, err)
	if !h.Nonces[nonceA] || !h.Nonces[nonceB] || h.Nonces["x"] || h.Claims["11"] != 1 || h.Claims["22"] != 3 || h.Claims["99"] != 0 {
		t.Errorf("got %+v", h)
	}
	_, err = l.store.Put(ctx, "blog/intents/web1/"+number(3), []byte(`{"v":1,"value":{}}`))
	must(t, err)
	if _, err := l.History(ctx, "web1"); err == nil || !strings.Contains(err.Error(), number(3)) {
		t.Errorf("a foreign object: %v", err)
	}
	if _, err := l.History(ctx, "../x"); err == nil {
		t.Error("the history of no node")
	}
}

func TestAgesAreByTheStoresClock(t *testing.T) {
	l := New(NewMemory(), "blog")
	must(t, l.WriteIntent(t.Context(), anIntent(1)))
	r, err := l.Read(t.Context())
	must(t, err)
	if in := r.Intents["web1"]; in.Age < 0 || in.Age > time.Minute {
		t.Errorf("got an age of %v", in.Age)
	}
}
