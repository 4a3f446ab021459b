package ledger

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/cluster"
)

func lb(epoch uint64, holder string) cluster.DutyRecord {
	return cluster.DutyRecord{Duty: "lb", Epoch: epoch, Holder: holder, Machine: "m-" + holder}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadingHasTheNewestOfEachKind(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	a, b := New(store, "blog"), New(store, "blog")
	other := New(store, "blog2") // in the same bucket
	must(t, other.WriteDuty(ctx, lb(99, "lb9")))
	for _, d := range []cluster.DutyRecord{lb(1, "lb1"), lb(2, "lb2"), lb(10, "lb1"), {Duty: "@cluster", Epoch: 3, Holder: "web1", Lease: true}} {
		must(t, a.WriteDuty(ctx, d))
	}
	claim := cluster.Claim{Node: "web1", Epoch: 2, Machine: "7", Private: netip.MustParseAddr("10.0.0.7")}
	must(t, a.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 1, Machine: "6"}))
	must(t, a.Tombstone(ctx, "web1", 1))
	must(t, a.ClaimIdentity(ctx, claim))
	must(t, a.ClaimIdentity(ctx, cluster.Claim{Node: "web2", Epoch: 1, Machine: "8"}))
	must(t, a.Tombstone(ctx, "web2", 1))
	must(t, a.ClaimIdentity(ctx, cluster.Claim{Node: "web3", Epoch: 1, Machine: "9"}))
	for range 2 { // an answer may be lost
		must(t, a.Leave(ctx, "web3", 1))
	}
	must(t, a.ClaimTie(ctx, cluster.Tie{N: 1, Winner: "lb1", Members: []string{"lb1", "web1"}}))
	must(t, a.Beat(ctx, "lb1", Heartbeat{Machine: "5", Count: 1, Holds: []string{"lb"}}))
	for name, l := range map[string]*Ledger{"the writer": a, "another node": b} {
		r, err := l.Read(ctx)
		must(t, err)
		want := Reading{
			Duties: map[string]cluster.DutyRecord{"lb": lb(10, "lb1"), "@cluster": {Duty: "@cluster", Epoch: 3, Holder: "web1", Lease: true}},
			Claims: map[string]cluster.Claim{"web1": claim, "web2": {Node: "web2", Epoch: 1, Machine: "8", Tombstoned: true}, "web3": {Node: "web3", Epoch: 1, Machine: "9", Tombstoned: true, Left: true}},
			Tie:    cluster.Tie{N: 1, Winner: "lb1", Members: []string{"lb1", "web1"}},
			Beats:  r.Beats, Intents: map[string]cluster.Intent{}, Wishes: map[string]cluster.Wish{},
		}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("%s: got %+v, want %+v", name, r, want)
		}
		if age, ok := r.Stale("lb1"); len(r.Beats) != 1 || !ok || age > time.Minute {
			t.Errorf("%s: heartbeats: got %v", name, r.Beats)
		}
	}
	beats, err := b.Heartbeats(ctx)
	if got := beats["lb1"]; err != nil || got.Machine != "5" || got.Count != 1 || got.Modified.IsZero() {
		t.Errorf("heartbeats: got %+v, %v", beats, err)
	}
}

func TestEmptyLedgerIsReadAsEmpty(t *testing.T) {
	r, err := New(NewMemory(), "blog").Read(t.Context())
	if err != nil || len(r.Duties)+len(r.Claims)+len(r.Beats) != 0 || r.Tie.N != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestReadingAgainCostsOneRequest(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l, reader := New(store, "blog"), New(store, "blog")
	for e := range uint64(20) {
		must(t, l.WriteDuty(ctx, lb(e+1, "lb1")))
	}
	cost := func() int {
		before := store.Calls()
		_, err := reader.Read(ctx)
		must(t, err)
		return store.Calls() - before
	}
	if got := cost(); got != 2 {
		t.Errorf("the first reading of one duty: got %d requests, want a listing and one record", got)
	}
	if got := cost(); got != 1 {
		t.Errorf("the second: got %d requests, want 1", got)
	}
}

// One record per key, whoever asks how often: the law behind epochs, claims and ties.
func TestOfRacingWritersExactlyOneWins(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	names := []string{"lb1", "lb2", "web1", "web2", "mail1", "mail2"}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = New(store, "blog").WriteDuty(ctx, lb(7, name)) })
	}
	wg.Wait()
	r, err := New(store, "blog").Read(ctx)
	must(t, err)
	winner := r.Duties["lb"].Holder
	for i, name := range names {
		var taken *TakenError
		switch {
		case errs[i] == nil && name != winner:
			t.Errorf("%s was told it won; the ledger says %s", name, winner)
		case errs[i] != nil && name == winner:
			t.Errorf("%s won and was told %v", name, errs[i])
		case errs[i] != nil && (!errors.As(errs[i], &taken) || taken.By != winner):
			t.Errorf("%s: got %v, want taken by %s", name, errs[i], winner)
		}
	}
}

func TestWritingAgainAfterALostAnswerIsNoDefeat(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	writes := map[string]func() error{
		"duty":      func() error { return l.WriteDuty(ctx, lb(1, "lb1")) },
		"claim":     func() error { return l.ClaimIdentity(ctx, cluster.Claim{Node: "lb1", Epoch: 1, Machine: "1"}) },
		"tombstone": func() error { return l.Tombstone(ctx, "lb1", 1) },
		"tie":       func() error { return l.ClaimTie(ctx, cluster.Tie{N: 1, Winner: "lb1", Members: []string{"lb1"}}) },
		"incident": func() error {
			return l.AppendIncident(ctx, Step{Incident: "i", Phase: "lost", At: time.Unix(1, 2345), By: "lb1"})
		},
	}
	for name, write := range writes {
		store.Set(Faults{Silent: true})
		if err := write(); err == nil {
			t.Errorf("%s: a lost answer was taken for success", name)
		}
		store.Set(Faults{})
		if err := write(); err != nil {
			t.Errorf("%s: again: got %v, want nil", name, err)
		}
	}
}

func TestOthersRecordIsNeverOurs(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	first, second := New(store, "blog"), New(store, "blog")
	must(t, first.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 4, Machine: "1"}))
	must(t, first.ClaimTie(ctx, cluster.Tie{N: 2, Winner: "lb1"}))
	must(t, first.AppendIncident(ctx, Step{Incident: "i", Phase: "lost", By: "lb1"}))
	for want, err := range map[string]error{
		"machine 1": second.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 4, Machine: "2"}),
		"lb1":       second.ClaimTie(ctx, cluster.Tie{N: 2, Winner: "lb2"}),
		"lb1 ":      second.AppendIncident(ctx, Step{Incident: "i", Phase: "lost", By: "lb2"}),
	} {
		var taken *TakenError
		if !errors.As(err, &taken) || taken.By != strings.TrimSpace(want) {
			t.Errorf("got %v, want taken by %s", err, want)
		}
	}
}

func TestStoreThatForgetsIsNotBelieved(t *testing.T) {
	ctx := t.Context()
	for name, lose := range map[string]func(*Memory){
		"everything": func(m *Memory) { m.Set(Faults{Blind: true}) },
		"the newest": func(m *Memory) { must(t, m.Delete(ctx, "blog/duty/lb/"+number(2))) },
		"a grave":    func(m *Memory) { must(t, m.Delete(ctx, "blog/tombstones/lb1/"+number(1))) },
	} {
		store := NewMemory()
		writer, reader := New(store, "blog"), New(store, "blog")
		must(t, writer.WriteDuty(ctx, lb(1, "lb1")))
		must(t, writer.WriteDuty(ctx, lb(2, "lb2")))
		must(t, writer.Tombstone(ctx, "lb1", 1))
		_, err := reader.Read(ctx)
		must(t, err)
		lose(store)
		for who, l := range map[string]*Ledger{"writer": writer, "reader": reader} {
			var forgot *ForgottenError
			if r, err := l.Read(ctx); !errors.As(err, &forgot) || r.Duties != nil {
				t.Errorf("%s, %s: got %+v, %v; want a *ForgottenError", name, who, r, err)
			}
		}
	}
}

func TestOlderEpochsMayGo(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	must(t, l.WriteDuty(ctx, lb(1, "lb1")))
	must(t, l.WriteDuty(ctx, lb(2, "lb2")))
	must(t, store.Delete(ctx, "blog/duty/lb/"+number(1)))
	if r, err := l.Read(ctx); err != nil || r.Duties["lb"].Epoch != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestWhatCannotBeReadIsAnErrorAndNotAbsence(t *testing.T) {
	ctx := t.Context()
	good, err := encode(lb(3, "lb1"))
	must(t, err)
	for name, c := range map[string]struct{ key, body string }{
		"no JSON":              {"blog/duty/lb/" + number(3), "garbage"},
		"nothing":              {"blog/duty/lb/" + number(3), ""},
		"another epoch's":      {"blog/duty/lb/" + number(4), string(good)},
		"another duty's":       {"blog/duty/mail/" + number(3), string(good)},
		"other spaces":         {"blog/duty/lb/" + number(3), string(good) + "\n"},
		"an unknown key":       {"blog/duty/lb/" + number(3), strings.Replace(string(good), `"v":1,`, `"v":1,"w":2,`, 1)},
		"other capitals":       {"blog/duty/lb/" + number(3), strings.Replace(string(good), `"holder"`, `"Holder"`, 1)},
		"a newer version":      {"blog/duty/lb/" + number(3), strings.Replace(string(good), `"v":1,`, `"v":2,`, 1)},
		"no holder":            {"blog/duty/lb/" + number(3), strings.Replace(string(good), `"holder":"lb1"`, `"holder":""`, 1)},
		"too much":             {"blog/duty/lb/" + number(3), strings.Repeat("x", maxObject+1)},
		"a short number":       {"blog/duty/lb/3", string(good)},
		"a signed number":      {"blog/duty/lb/+0000000000000000003", string(good)},
		"zero":                 {"blog/duty/lb/" + number(0), string(good)},
		"too large a number":   {"blog/duty/lb/99999999999999999999", string(good)},
		"a deeper key":         {"blog/duty/lb/x/" + number(3), string(good)},
		"a tie without number": {"blog/tie/x", "{}"},
		"a claim of nobody":    {"blog/claims//" + number(1), "{}"},
		"a claim without ID":   {"blog/claims/web1/" + number(1), `{"v":1,"value":{"node":"web1","epoch":1,"machine":""}}`},
		"a tombstone's key":    {"blog/tombstones/web1", "{}"},
		"a heartbeat's key":    {"blog/heartbeat/a/b", "{}"},
	} {
		store := NewMemory()
		l := New(store, "blog")
		_, err := store.Put(ctx, c.key, []byte(c.body))
		must(t, err)
		if r, err := l.Read(ctx); err == nil || r.Duties != nil {
			t.Errorf("%s: got %+v, %v; want an error and nothing else", name, r, err)
		}
		// It does not get better by writing over it.
		var taken *TakenError
		if err := l.WriteDuty(ctx, lb(3, "lb1")); c.key == "blog/duty/lb/"+number(3) && (err == nil || errors.As(err, &taken)) {
			t.Errorf("%s: writing over it: got %v, want another error", name, err)
		}
	}
}

func TestKeysOfNewerVersionsAreLeftAlone(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	must(t, l.WriteDuty(ctx, lb(1, "lb1")))
	_, err := store.Put(ctx, "blog/votes/web1/1", []byte("?"))
	must(t, err)
	if r, err := l.Read(ctx); err != nil || r.Duties["lb"].Holder != "lb1" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestWhatNobodyCouldReadIsNotWritten(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	for name, err := range map[string]error{
		"epoch 0":            l.WriteDuty(ctx, lb(0, "lb1")),
		"no holder":          l.WriteDuty(ctx, lb(1, "")),
		"a duty with a path": l.WriteDuty(ctx, cluster.DutyRecord{Duty: "a/b", Epoch: 1, Holder: "lb1"}),
		"a node with a path": l.ClaimIdentity(ctx, cluster.Claim{Node: "../x", Epoch: 1, Machine: "1"}),
		"no machine":         l.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 1}),
		"a text that is none": l.ClaimIdentity(ctx, cluster.Claim{Node: "web1", Epoch: 1,
			Machine: "\xff"}),
		"tie 0":             l.ClaimTie(ctx, cluster.Tie{Winner: "lb1"}),
		"nobody's beat":     l.Beat(ctx, "a/b", Heartbeat{}),
		"too much":          l.Beat(ctx, "web1", Heartbeat{Commit: strings.Repeat("x", maxObject)}),
		"no phase":          l.AppendIncident(ctx, Step{Incident: "i", Phase: "dead"}),
		"no incident":       l.AppendIncident(ctx, Step{Incident: "../i", Phase: "lost"}),
		"a test of nobody":  l.SelfTest(ctx, "a/b"),
		"a grave of nobody": l.Tombstone(ctx, "", 1),
	} {
		if err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if store.Calls() != 0 {
		t.Errorf("the store was asked %d times", store.Calls())
	}
}

func TestAgeIsByOneAnswerOnly(t *testing.T) {
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		m    Meta
		want time.Duration
	}{{Meta{at.Add(time.Minute), at}, time.Minute}, {Meta{Modified: at}, 0}, {Meta{Date: at}, 0}, {Meta{at, at.Add(time.Second)}, 0}} {
		if got := c.m.Age(); got != c.want {
			t.Errorf("%v: got %v, want %v", c.m, got, c.want)
		}
	}
}

func TestSlowStoreDoesNotOutliveItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		store.Set(Faults{Delay: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := New(store, "blog").Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v, want 3s", took)
		}
	})
}

func TestIncidentsAreReadAsTheyHappened(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	l := New(store, "blog")
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.FixedZone("x", 3600))
	for _, s := range []Step{
		{Incident: "2-web1", Phase: "redundant", Took: time.Minute, By: "lb1"},
		{Incident: "2-web1", Phase: "taken over", Took: time.Second, By: "web2", Node: "web1", Role: "web"},
		{Incident: "1-lb1", Phase: "lost", By: "lb2", Node: "lb1", Role: "lb"},
		{Incident: "2-web1", Phase: "lost", At: at, By: "web2", Node: "web1", Role: "web"},
		{Incident: "3-web1", Phase: "lost", By: "web2", Node: "web1", Role: "web", Detail: "one sentence"},
	} {
		must(t, l.AppendIncident(ctx, s))
	}
	got, err := l.Incidents(ctx, 2)
	must(t, err)
	if len(got) != 2 || got[0].ID != "2-web1" || got[1].ID != "3-web1" || got[0].Node != "web1" || got[0].Role != "web" {
		t.Fatalf("got %+v", got)
	}
	var order []string
	for _, s := range got[0].Steps {
		order = append(order, s.Phase)
	}
	if want := []string{"lost", "taken over", "redundant"}; !reflect.DeepEqual(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
	if s := got[0].Steps[0]; !s.At.Equal(at) || s.Took != 0 {
		t.Errorf("got %+v", s)
	}
	if none, err := l.Incidents(ctx, 0); err != nil || len(none) != 0 {
		t.Errorf("none asked for: got %v, %v", none, err)
	}
	_, err = store.Put(ctx, "blog.incidents/3-web1/07-lost", nil)
	must(t, err)
	if _, err := l.Incidents(ctx, 1); err == nil {
		t.Error("a key that is not ours: got no error")
	}
}
