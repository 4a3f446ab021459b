package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
)

// written makes the stage's ledger tell of these incidents.
func (s *stage) written(past ...admin.Incident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = past
}

func (s *stage) ordered() []admin.Destroy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gone)
}

func chaosIncident(phases ...string) admin.Incident {
	in := admin.Incident{ID: "8", Node: "lb2", Role: "lb", Cause: cluster.Chaos}
	for i, p := range phases {
		in.Phases = append(in.Phases, admin.IncidentPhase{Name: p, At: time.Unix(int64(i), 0), Took: admin.Duration(i * int(time.Second))})
	}
	return in
}

func TestChaosEndsWhenTheClusterIsRedundantAgain(t *testing.T) {
	s := newStage(t)
	s.written(chaosIncident("lost", "detected"))
	var out, errs tape
	var code int
	var g errgroup.Group
	g.Go(func() error {
		code = understudyTo(t.Context(), &out, &errs, "chaos", "--socket", s.socket, "--seed", "7", "--apart", "1h")
		return nil
	})
	until(t, func() bool { return len(s.ordered()) == 1 })
	want := admin.Destroy{Node: "lb2", Machine: "1002", Seed: 7, Apart: admin.Duration(time.Hour)}
	if got := s.ordered()[0]; got != want {
		t.Errorf("ordered %+v, want %+v", got, want)
	}
	s.boot()
	until(t, func() bool { return strings.Contains(out.String(), "lb2 is booting") })
	s.serve() // with the machine that is to go: nobody has noticed, or the order came to nothing
	until(t, func() bool { return strings.Contains(out.String(), "lb2 is serving") })
	s.written(chaosIncident("lost", "detected", "redundant"))
	s.lb2(func(a *cluster.Announcement) { a.Machine = "1003" })
	_ = g.Wait() // never fails
	for _, want := range []string{"picked with seed 7: lb2 (lb), machine 1002\ndestroyed; the cluster has 15m to be redundant again\n", "redundant again after ",
		"\n\nlb2 (lb) was destroyed by chaos; redundant again after 3s\n  lost"} {
		if code != 0 || !strings.Contains(out.String(), want) || errs.String() != "" {
			t.Errorf("got %d, want %q in:\n%s%s", code, want, &out, &errs)
		}
	}
}

func TestChaosThatIsNotMadeGoodInTimeEndsWithWhatIsMissing(t *testing.T) {
	s := newStage(t)
	s.written(chaosIncident("lost"))
	out, errs, code := understudy(t.Context(), "chaos", "--socket", s.socket, "--timeout", "300ms")
	if want := "understudy: the cluster is not redundant within 300ms: lb2 has no other machine yet\n"; code != 1 || errs != want ||
		!strings.Contains(out, "lb2 (lb) was destroyed by chaos ") || !strings.Contains(out, "is not made good yet") {
		t.Errorf("got %d, %q, want %q\n%s", code, errs, want, out)
	}
	out, _, code = understudy(t.Context(), "chaos", "--socket", s.socket, "--timeout", "300ms", "--json")
	var got Chaos
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || got.Redundant || got.Incident == nil || got.Node != "lb2" || len(got.Why) != 1 {
		t.Errorf("JSON: got %d, %v\n%s", code, err, out)
	}
}

// Whoever refuses, nothing has happened and the exit status is 3; what may have happened is another matter.
func TestChaosRefusesWithAReasonAndStatus3(t *testing.T) {
	s := newStage(t)
	check := func(claim string, wantCode int, want string, args ...string) {
		t.Helper()
		if !slices.Contains(args, "--node") {
			args = append(args, "--seed", "1")
		}
		out, errs, code := understudy(t.Context(), append([]string{"chaos", "--socket", s.socket}, args...)...)
		if code != wantCode || !strings.Contains(out+errs, want) {
			t.Errorf("%s: got %d, want %d with %q\n%s%s", claim, code, wantCode, want, out, errs)
		}
	}
	check("dry run", 0, "nothing speaks against destroying it; nothing was changed", "--dry-run")
	if got := s.ordered(); len(got) != 1 || !got[0].DryRun {
		t.Errorf("ordered %+v, want a dry run", got)
	}
	s.boot()
	const thin = "refused, and nothing was changed: the cluster is not redundant: lb: 1 of 2 serve: lb2 is booting"
	check("not redundant", 3, "picked with seed 1: lb2 (lb), machine 1002\n"+thin)
	check("dry run, not redundant", 3, thin, "--dry-run")
	check("JSON", 3, `"refused": "the cluster is not redundant: lb: 1 of 2 serve: lb2 is booting"`, "--json")
	s.serve()
	s.refuse = admin.Refusal("web1 is being replaced")
	check("the sidecar refuses", 3, "refused, and nothing was changed: web1 is being replaced")
	s.refuse = errors.New("the provider is away")
	check("nobody knows", 1, "lb2 may be destroyed or not, see understudy status: the provider is away")
	check("a dry run that fails", 1, "the provider is away", "--dry-run")
	check("itself", 1, "lb1 is the node that is asked, and what follows the recovery must outlive it", "--node", "lb1")
	check("nobody", 1, "no node is called web9; there are lb1, lb2", "--node", "web9")
	if got := s.ordered(); len(got) != 1 {
		t.Errorf("ordered %+v", got[1:])
	}
}
