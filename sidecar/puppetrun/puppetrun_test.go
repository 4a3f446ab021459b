//go:build linux

package puppetrun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/applied"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	commit = strings.Repeat("a", 40)
	newer  = strings.Repeat("b", 40)
	roll   = Job{Commit: commit, Why: Rollout}
)

// good is what a run writes that went well, bad what one writes that did not.
func good(commit string) *applied.Result {
	return &applied.Result{Commit: commit, Boot: "boot-1", Took: "3s", Kind: "changed", Phase: "puppet", Resources: applied.Resources{Total: 9, Changed: 1}}
}

func bad(commit string) *applied.Result {
	return &applied.Result{Commit: commit, Boot: "boot-1", Took: "3s", Kind: "failed", Phase: "puppet", Code: 32, Message: "nginx is broken", Fault: applied.Commit}
}

func newBus(t *testing.T) *fakeBus { return &fakeBus{t: t, dir: t.TempDir()} }

// sidecar is a Runner as a start of the sidecar makes it.
func sidecar(t *testing.T, f *fakeBus, boot string) *Runner {
	t.Helper()
	r, err := New(Config{Bus: f, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Dir: f.dir, Boot: boot, Limit: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t *testing.T, r *Runner, job Job) Result {
	t.Helper()
	res, err := r.Run(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// leave makes r begin a run and goes away from it after a second, as a sidecar does that is stopped.
func leave(t *testing.T, r *Runner, job Job) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if res, err := r.Run(ctx, job); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v; want the end of the context", res, err)
	}
}

func TestARunTellsHowItWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		if err := os.WriteFile(filepath.Join(f.dir, resultFile), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		f.will(plan{lasts: 3 * time.Second, tells: good(commit)})
		began := time.Now()
		res := run(t, r, roll)
		if took := time.Since(began); took < 3*time.Second || took > 3*time.Second+pollEvery {
			t.Errorf("came back after %v, want when it had ended", took)
		}
		if !res.Good() || res.Kind != "changed" || res.Why != Rollout {
			t.Errorf("got %+v, want what the run told", res)
		}
		f.will(plan{lasts: time.Second, tells: bad(newer), outcome: "exit-code"})
		if res := run(t, r, Job{Commit: newer, Why: Rollout}); res.Good() || res.Message != "nginx is broken" || res.Interrupted {
			t.Errorf("got %+v, want what the run told", res)
		}
		if f.unit != nil {
			t.Error("systemd still knows the failed run")
		}
		if h := r.History(); len(h) != 2 || h[0].Commit != newer || h[1].Commit != commit {
			t.Errorf("got %+v, want both, the newest first", h)
		}
		if c, ok := r.UnderWay(); ok {
			t.Errorf("got %+v under way, want none", c)
		}
	})
}

func TestTheUnitEndsWithEverythingInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		f.will(plan{})
		run(t, r, roll)
		run(t, r, Job{Commit: commit, Noop: true, Why: Drift})
		real, noop := f.starts[0], f.starts[1]
		for name, want := range map[string]any{
			"Type": "exec", "KillMode": "control-group", "SendSIGKILL": true, "RuntimeMaxUSec": uint64(600_000_000), "TimeoutStopUSec": uint64(60_000_000),
			"StandardOutput": "journal", "CollectMode": "inactive",
		} {
			if real[name] != want || noop[name] != want {
				t.Errorf("%s: got %v and %v without effects, want %v", name, real[name], noop[name], want)
			}
		}
		for _, name := range []string{"CPUWeight", "IOWeight", "TemporaryFileSystem", "PrivateTmp"} {
			if real[name] != nil || noop[name] == nil {
				t.Errorf("%s: got %v and %v without effects, want it only there", name, real[name], noop[name])
			}
		}
		file := filepath.Join(f.dir, resultFile)
		want := fmt.Sprint([]string{defaultProgram, "-apply", commit, "-result", file, "-noop"})
		if got := fmt.Sprint(noop["ExecStart"]); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := fmt.Sprint(real["ExecStart"]); strings.Contains(got, "-noop") {
			t.Errorf("got %s, want no -noop", got)
		}
	})
}

// What systemd knows of an end that the run did not tell.
func TestARunThatDoesNotTellHasAResultAllTheSame(t *testing.T) {
	stopped := &applied.Result{Commit: commit, Boot: "boot-1", Code: 1, Message: "stopped before the end", Interrupted: true, Fault: applied.Machine, Took: "10m", Phase: "puppet"}
	for _, c := range []struct {
		name    string
		plan    plan
		message string
		fault   applied.Fault
	}{
		{"too long", plan{lasts: time.Hour}, "the run had not ended after 10m0s and was ended with all its processes", applied.Commit},
		{"too long, and it noticed", plan{lasts: time.Hour, tells: stopped}, "the run had not ended after 10m0s and was ended with all its processes", applied.Commit},
		{"killed by an operator", plan{lasts: time.Second, outcome: "signal"}, "the run ended without telling how it went (signal)", applied.Machine},
		{"stopped by an operator", plan{lasts: time.Second, tells: stopped, outcome: "exit-code"}, "stopped before the end", applied.Machine},
		{"no memory", plan{lasts: time.Second, outcome: "oom-kill"}, "the run was ended by the kernel for want of memory", applied.Machine},
		{"silent", plan{lasts: time.Second}, "the run has not told how it went, if it has begun at all", applied.Machine},
		{"tells of another commit", plan{lasts: time.Second, tells: good(newer)}, "the run has not told how it went, if it has begun at all", applied.Machine},
		{"systemd does not end it", plan{lasts: time.Hour, stuck: true}, "the run ended without telling how it went (signal)", applied.Machine},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newBus(t)
				r := sidecar(t, f, "boot-1")
				f.will(c.plan)
				res := run(t, r, roll)
				if res.Message != c.message || res.Fault != c.fault || res.Code == 0 || !res.Interrupted || res.Commit != commit || res.Took == "" {
					t.Errorf("got %+v, want %q, the %s's fault", res, c.message, c.fault)
				}
				if killed := f.kills > 0; killed != c.plan.stuck {
					t.Errorf("killed: got %v, want %v", killed, c.plan.stuck)
				}
				if _, ok := r.UnderWay(); ok || len(r.History()) != 1 {
					t.Errorf("got %+v, want one result and nothing under way", r.History())
				}
			})
		})
	}
}

// A result that was complete when the limit struck is a result.
func TestALimitAfterTheEndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		f.will(plan{lasts: time.Hour, tells: good(commit)})
		if res := run(t, sidecar(t, f, "boot-1"), roll); !res.Good() {
			t.Errorf("got %+v, want what the run told", res)
		}
	})
}

func TestTheNextSidecarFindsTheRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		job    Job
		starts int
	}{
		{"same job", Job{Commit: commit, Why: Drift}, 1},
		{"another commit", Job{Commit: newer, Why: Rollout}, 2},
		{"the same for real", Job{Commit: commit, Noop: true, Why: Rollout}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newBus(t)
				f.will(plan{lasts: time.Minute, tells: good(commit)})
				leave(t, sidecar(t, f, "boot-1"), roll)
				second := sidecar(t, f, "boot-1")
				got, ok := second.UnderWay()
				if !ok || got.Job != roll || got.ID == "" || time.Since(got.Since) != time.Second {
					t.Errorf("got %+v, %v under way, want %+v since a second", got, ok, roll)
				}
				told := good(c.job.Commit)
				told.Noop = c.job.Noop
				f.will(plan{lasts: time.Second, tells: told})
				began := time.Now()
				res := run(t, second, c.job)
				if took := time.Since(began); took < 59*time.Second {
					t.Errorf("came back after %v, want the first run to have ended before", took)
				}
				if c.starts == 1 && res.ID != got.ID {
					t.Errorf("got ID %q, want that of the run: %q", res.ID, got.ID)
				}
				if !res.Good() || res.Commit != c.job.Commit || res.Noop != c.job.Noop || f.started() != c.starts || len(second.History()) != c.starts {
					t.Errorf("got %+v, %d starts, want %d", res, f.started(), c.starts)
				}
			})
		})
	}
}

func TestARunThatEndedWhileNobodyLookedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		f.will(plan{lasts: time.Minute, tells: bad(commit), outcome: "exit-code"})
		leave(t, sidecar(t, f, "boot-1"), roll)
		time.Sleep(time.Hour)
		second := sidecar(t, f, "boot-1")
		if err := second.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h := second.History(); len(h) != 1 || h[0].Message != "nginx is broken" {
			t.Errorf("got %+v, want what the run told", h)
		}
		if err := second.Resume(t.Context()); err != nil || len(second.History()) != 1 {
			t.Errorf("with nothing under way: got %v, %+v", err, second.History())
		}
	})
}

// The sidecar may be killed between the note that a run begins and its beginning.
func TestARunThatNeverBeganIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		first := sidecar(t, f, "boot-1")
		if err := first.set(&Current{Job: roll, Since: time.Now(), Boot: "boot-1"}); err != nil {
			t.Fatal(err)
		}
		f.will(plan{lasts: time.Second, tells: good(commit)})
		second := sidecar(t, f, "boot-1")
		if res := run(t, second, roll); !res.Good() {
			t.Errorf("got %+v, want a good run", res)
		}
		if h := second.History(); len(h) != 2 || h[1].Good() {
			t.Errorf("got %+v, want the one that never began among them", h)
		}
	})
}

func TestARebootInTheMiddleIsSaid(t *testing.T) {
	stopped := &applied.Result{Commit: commit, Boot: "boot-1", Code: 1, Message: "stopped before the end", Interrupted: true, Phase: "puppet"}
	for _, c := range []struct {
		name    string
		tells   *applied.Result // before the machine went down
		message string
	}{
		{"power failure", nil, "the run was interrupted by a reboot"},
		{"shutdown", stopped, "the run was interrupted by a reboot"},
		{"it had ended", good(commit), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newBus(t)
				f.will(plan{lasts: time.Minute, tells: c.tells})
				leave(t, sidecar(t, f, "boot-1"), roll)
				if c.tells != nil {
					f.mu.Lock()
					f.unit.end(f)
					f.mu.Unlock()
				}
				f.reboots()
				second := sidecar(t, f, "boot-2")
				if got, ok := second.UnderWay(); ok {
					t.Errorf("got %+v under way, want none", got)
				}
				h := second.History()
				if len(h) != 1 || h[0].Message != c.message || h[0].Good() != (c.message == "") || h[0].Why != Rollout {
					t.Errorf("got %+v, want %q", h, c.message)
				}
				if h := sidecar(t, f, "boot-2").History(); len(h) != 1 {
					t.Errorf("the next sidecar: got %+v, want it once", h)
				}
			})
		})
	}
}

func TestAStartThatFailsLeavesNothingUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		f.will(plan{refused: "failed"})
		_, err := r.Run(t.Context(), roll)
		if err == nil || !strings.Contains(err.Error(), "systemd says failed (exit-code)") {
			t.Errorf("got %v, want what systemd says", err)
		}
		if _, ok := r.UnderWay(); ok || len(r.History()) != 0 {
			t.Error("a run that could not be started is under way, or among the results")
		}
		if _, err := r.Run(t.Context(), Job{Commit: "../../etc", Why: Rollout}); err == nil {
			t.Error("a path was taken for a commit")
		}
		f.will(plan{lasts: time.Second, tells: good(commit)})
		if res := run(t, r, roll); !res.Good() {
			t.Errorf("after that: got %+v, want a good run", res)
		}
	})
}

func TestAStartWhoseAnswerGetsLostIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		f.will(plan{lasts: time.Minute, tells: good(commit), lost: true})
		if res := run(t, sidecar(t, f, "boot-1"), roll); !res.Good() || f.started() != 1 {
			t.Errorf("got %+v after %d starts, want the one run's result", res, f.started())
		}
	})
}

func TestAnExecOfSystemdIsSurvivedAndItsSilenceIsNot(t *testing.T) {
	for pause, survived := range map[time.Duration]bool{silence / 2: true, 2 * silence: false} {
		synctest.Test(t, func(t *testing.T) {
			f := newBus(t)
			r := sidecar(t, f, "boot-1")
			f.will(plan{lasts: 5 * time.Minute, tells: good(commit)})
			down := time.AfterFunc(time.Minute, func() { f.breaks(errors.New("connection reset")) })
			up := time.AfterFunc(time.Minute+pause, func() { f.breaks(nil) })
			defer down.Stop()
			defer up.Stop()
			res, err := r.Run(t.Context(), roll)
			if survived != (err == nil && res.Good()) {
				t.Fatalf("silence of %v: got %+v, %v; want it to be survived: %v", pause, res, err, survived)
			}
			if _, ok := r.UnderWay(); ok == survived {
				t.Errorf("silence of %v: under way: got %v, want %v", pause, ok, !survived)
			}
			if res := run(t, r, roll); !res.Good() || f.started() != map[bool]int{true: 2, false: 1}[survived] {
				t.Errorf("silence of %v, then: got %+v after %d starts", pause, res, f.started())
			}
		})
	}
}

func TestTwoThatWantARunGetOneEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		f.will(plan{lasts: time.Minute, tells: good(commit)})
		var g errgroup.Group
		for range 2 {
			g.Go(func() error {
				_, err := r.Run(t.Context(), roll)
				return err
			})
		}
		if err := g.Wait(); err != nil || f.started() != 2 {
			t.Errorf("got %v and %d starts, want two, one after the other", err, f.started())
		}
	})
}

func TestTheNewestResultsAreKeptOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		for i := range Kept + 3 {
			c := fmt.Sprintf("%040x", i)
			f.will(plan{tells: good(c)})
			run(t, r, Job{Commit: c, Why: Drift})
		}
		h := sidecar(t, f, "boot-1").History()
		if len(h) != Kept || h[0].Commit != fmt.Sprintf("%040x", Kept+2) || h[0].Why != Drift {
			t.Errorf("got %d, the first %+v; want the newest %d", len(h), h[0], Kept)
		}
		if !slices.EqualFunc(h, r.History(), func(a, b Result) bool { return a.Commit == b.Commit }) {
			t.Error("the next sidecar knows others than the first")
		}
	})
}

func TestTheNewestOfEachKindIsNeverForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		if got, ok := r.Newest(false); ok {
			t.Errorf("before the first: got %+v", got)
		}
		f.will(plan{tells: good(commit)})
		real := run(t, r, roll)
		tells := good(newer)
		tells.Noop = true
		f.will(plan{tells: tells})
		ids := map[string]bool{real.ID: true}
		for range Kept + 3 {
			ids[run(t, r, Job{Commit: newer, Noop: true, Why: Drift}).ID] = true
		}
		if len(ids) != Kept+4 || ids[""] {
			t.Errorf("got %d IDs, want one for each run", len(ids))
		}
		second := sidecar(t, f, "boot-1")
		if got, ok := second.Newest(false); !ok || got.ID != real.ID || len(second.History()) != Kept {
			t.Errorf("got %+v, %v of %d, want the one with effects", got, ok, len(second.History()))
		}
		if got, ok := second.Newest(true); !ok || got.ID != second.History()[0].ID {
			t.Errorf("got %+v, %v, want the newest without effects", got, ok)
		}
	})
}

func TestUnreadableResultsArePutAside(t *testing.T) {
	f := newBus(t)
	path := filepath.Join(f.dir, runsFile)
	if err := os.WriteFile(path, []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if h := sidecar(t, f, "boot-1").History(); len(h) != 0 {
		t.Errorf("got %+v, want none", h)
	}
	if _, err := os.Stat(path + ".unreadable"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsLeftOfAnEarlierRunIsNotTakenForThisOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBus(t)
		r := sidecar(t, f, "boot-1")
		f.will(plan{tells: good(commit)})
		run(t, r, roll)
		f.will(plan{outcome: "signal"})
		if res := run(t, r, roll); res.Good() {
			t.Errorf("got %+v, which is the first run's result", res)
		}
		f.unit = &fakeUnit{ended: true, failed: true, plan: plan{outcome: "signal"}} // nobody was there to have it forgotten
		f.will(plan{lasts: time.Second, tells: good(commit)})
		if res := run(t, r, roll); !res.Good() {
			t.Errorf("beside a failed unit: got %+v, want a good run", res)
		}
	})
}
