package admin

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// stories are states of the cluster that people meet.
var stories = []struct {
	name  string
	world func() *world
}{
	{"calm", calm},
	{"standby-failed", func() *world { return calm().silence("lb2", 3200*time.Millisecond, decide.Failed) }},
	{"web-suspect", func() *world { return calm().silence("web1", 300*time.Millisecond, decide.Suspect) }},
	{"primary-failed", func() *world {
		w := calm().silence("mail1", 900*time.Millisecond, decide.Failed).peer("mail2", func(a *cluster.Announcement) {
			a.Bids = []cluster.Bid{{Duty: "mail", Epoch: 3}}
			a.Promises = []cluster.Promise{{Duty: "mail", Epoch: 3, Holder: "mail2"}}
		})
		w.decision.Say.Promises = []cluster.Promise{{Duty: "mail", Epoch: 3, Holder: "mail2"}}
		return w.peer("web1", func(a *cluster.Announcement) { // of another duty, and of another bidder: they do not count
			a.Promises = []cluster.Promise{{Duty: cluster.Coordinator, Epoch: 3, Holder: "mail2"}, {Duty: "mail", Epoch: 3, Holder: "lb2"}}
		})
	}},
	{"taken-over", func() *world {
		return calm().silence("mail1", 4*time.Second, decide.Failed).peer("mail2", func(a *cluster.Announcement) {
			a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 3, State: cluster.Held}}
		})
	}},
	{"switchover", func() *world {
		w := calm()
		w.decision.Say.Holds[1].State, w.decision.Say.Holds[1].To = cluster.Offered, "lb2"
		w.decision.Say.Phase = cluster.Draining
		w.decision.Actions = []decide.Action{
			decide.Gate{Reason: "lb is offered to lb2 by request, so only what runs may finish", Role: "lb", Until: now.Add(400 * time.Millisecond), Drain: true},
			decide.CountSockets{Reason: "what runs is waited for", Role: "lb"},
			decide.StartDrain{Reason: "lb is offered to lb2 by request", Role: "lb"},
		}
		return w
	}},
	{"blocked", func() *world {
		w := calm().silence("lb2", time.Minute, decide.Failed).silence("web1", time.Minute, decide.Failed).silence("web2", time.Minute, decide.Failed).
			silence("mail1", time.Minute, decide.Failed).silence("mail2", 0, decide.NeverHeard)
		w.view.Peers["mail2"] = cluster.Peer{}
		w.view.Ledger.Failing = true
		w.decision.Say.Holds = nil
		w.decision.Blocked = []decide.Blocked{{What: "takeover of mail", Why: "1 of 6 members is heard and the ledger does not answer"}}
		w.decision.Actions = []decide.Action{decide.ReadLedger{Reason: "the lease hangs on it"}}
		return w
	}},
	{"unwell", func() *world {
		w := calm().peer("web2", func(a *cluster.Announcement) { a.Phase, a.Health = cluster.Applied, cluster.Unhealthy }).
			peer("mail2", func(a *cluster.Announcement) {
				a.Phase, a.Mirrors = cluster.Applied, []cluster.Mirror{{Role: "mail", Epoch: 1, Complete: true, Lag: 3200 * time.Millisecond}}
			}).
			peer("lb2", func(a *cluster.Announcement) { a.Paused, a.Voting = true, false }).
			peer("web1", func(a *cluster.Announcement) { a.ClockOff = true })
		w.view.Ledger.Sound, w.view.Ledger.Unsound = false, "two writers were both told that they were first"
		return w
	}},
}

func TestStatusAndPlanOfEachStoryAreTheGolden(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			st, plan := s.world().status(), s.world().plan()
			st.Cluster, st.At, st.Age = "blog", began, Duration(30*time.Millisecond)
			plan.Cluster, plan.At = "blog", began
			golden(t, s.name+".status.json", asJSON(t, st))
			golden(t, s.name+".plan.json", asJSON(t, plan))
		})
	}
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s: %s; rewrite it with -update and review the difference", path, difference(string(got), string(want)))
	}
}

// The JSON of all stories decodes to what it was made of, so a client sees what the server meant.
func TestStatusAndPlanSurviveTheWire(t *testing.T) {
	for _, s := range stories {
		st := s.world().status()
		var back Status
		if err := json.Unmarshal(asJSON(t, st), &back); err != nil {
			t.Fatal(err)
		}
		if got, want := string(asJSON(t, back)), string(asJSON(t, st)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", s.name, got, want)
		}
	}
}

// Redundant means: every role has all its nodes serving and, where there is a duty, a primary. Why is empty then and only then.
func TestRedundantNeedsEveryNodeAndEveryDuty(t *testing.T) {
	for _, s := range stories {
		st := s.world().status()
		all := true
		for _, r := range st.Roles {
			all = all && r.Serving == r.Wanted && (!r.Duty || r.Primary != "")
		}
		if st.Redundant != all || st.Redundant != (len(st.Why) == 0) {
			t.Errorf("%s: redundant %v, want %v; why %q", s.name, st.Redundant, all, st.Why)
		}
	}
	if st := calm().status(); !st.Redundant {
		t.Errorf("a cluster in which all is well is not redundant: %q", st.Why)
	}
	noDuty := calm()
	noDuty.decision.Say.Holds = noDuty.decision.Say.Holds[:1]
	if st := noDuty.status(); st.Redundant || len(st.Why) != 1 {
		t.Errorf("a duty without a primary: redundant %v, %q", st.Redundant, st.Why)
	}
}

// Whatever one member's fate, a status of a cluster that lost it is not redundant and says whose fault that is.
func TestEveryLossIsNamed(t *testing.T) {
	for _, name := range calm().policy.Nodes[1:] {
		for _, l := range []decide.Liveness{decide.Failed, decide.Broken} {
			st := calm().silence(name, 5*time.Second, l).status()
			if st.Redundant || !slices.ContainsFunc(st.Why, func(w string) bool { return strings.Contains(w, name) }) {
				t.Errorf("%s %v: redundant %v, why %q", name, l, st.Redundant, st.Why)
			}
		}
	}
}

// A node that has failed without ever being heard is silent for as long as this one listens, at least.
func TestTheNeverHeardAreSilentSinceTheStart(t *testing.T) {
	w := calm()
	w.view.Peers["lb2"] = cluster.Peer{}
	w.decision.Memory.Verdicts["lb2"] = decide.Verdict{State: decide.Failed}
	w.view.Started = now.Add(-90 * time.Second)
	if st := w.status(); time.Duration(st.Nodes[1].Silent) != 90*time.Second || st.Why[0] != "lb: 1 of 2 serve: lb2 has failed, silent for 1m30s" {
		t.Errorf("got %v, %q", time.Duration(st.Nodes[1].Silent), st.Why)
	}
}

// An old primary that is back and still thinks it acts must not hide the new one, and both are told of.
func TestTheHigherEpochIsThePrimary(t *testing.T) {
	w := calm().peer("mail2", func(a *cluster.Announcement) {
		a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 3, State: cluster.Held}}
	})
	st := w.status()
	if got := st.Roles[2].Primary; got != "mail2" {
		t.Errorf("primary is %q, want mail2", got)
	}
	if !slices.ContainsFunc(st.Warnings, func(s string) bool { return strings.Contains(s, "both mail2 (epoch 3) and mail1") }) {
		t.Errorf("warnings %q", st.Warnings)
	}
}

// While a winner waits, the one before it may still act and is the primary.
func TestAWaitingWinnerIsNotYetPrimary(t *testing.T) {
	w := calm().peer("mail2", func(a *cluster.Announcement) {
		a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 3, State: cluster.Waiting}}
	})
	if st := w.status(); st.Roles[2].Primary != "mail1" || st.Roles[2].State != "waiting" || len(st.Warnings) != 0 {
		t.Errorf("got %+v, warnings %q", st.Roles[2], st.Warnings)
	}
}

// difference is the first line in which two texts differ.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: got %q, want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}
