//go:build linux

package health

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/units"
)

var quiet = slog.New(slog.DiscardHandler)

// program is a command check whose answer the test chooses.
type program struct {
	code atomic.Int32
	hang atomic.Bool
}

func (p *program) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	if p.hang.Load() {
		select {
		case <-ctx.Done():
			return command.Result{ExitCode: -1}, ctx.Err()
		case <-time.After(c.Timeout):
			return command.Result{ExitCode: -1}, &command.TimeoutError{Path: c.Path, After: c.Timeout}
		}
	}
	return command.Result{ExitCode: int(p.code.Load()), Stderr: []byte("some\nthe last word\n")}, nil
}

// watch runs a checker for the test's duration, in the test's bubble.
func watch(t *testing.T, want role.Health, o Options) *Checker {
	o.Log = quiet
	c := New(want, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// after lets time pass in the bubble and compares the verdict.
func after(t *testing.T, c *Checker, d time.Duration, want cluster.Health) []Check {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	got, checks := c.Result()
	if got != want {
		t.Errorf("after %v: got %v (%+v), want %v", d, got, checks, want)
	}
	return checks
}

var byCommand = role.Health{Command: []string{"/usr/bin/check"}}

func TestHealthFollowsTheChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		c := watch(t, byCommand, Options{Runner: p})
		after(t, c, 0, cluster.Healthy) // the first round is at once
		p.code.Store(3)
		after(t, c, 2500*time.Millisecond, cluster.Healthy)
		checks := after(t, c, time.Second, cluster.Unhealthy)
		if got, want := checks[0].Why, "exits 3: the last word"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := time.Since(checks[0].Since); got > time.Second {
			t.Errorf("unhealthy for %v, want less than a second", got)
		}
		p.code.Store(0)
		after(t, c, time.Second, cluster.Unhealthy)
		after(t, c, time.Second, cluster.Healthy)
	})
}

func TestChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		c := watch(t, byCommand, Options{Runner: p})
		<-c.Changed() // Unknown → Healthy
		p.code.Store(1)
		began := time.Now()
		<-c.Changed()
		if got := time.Since(began); got != 3*time.Second {
			t.Errorf("told after %v, want 3s", got)
		}
		after(t, c, 10*time.Second, cluster.Unhealthy)
		select {
		case <-c.Changed():
			t.Error("told without a change")
		default:
		}
	})
}

func TestACheckThatHangsIsBadInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		c := watch(t, byCommand, Options{Runner: p})
		after(t, c, 500*time.Millisecond, cluster.Healthy)
		p.hang.Store(true)
		checks := after(t, c, 7*time.Second, cluster.Unhealthy) // three times its limit of two seconds
		if got, want := checks[0].Why, "does not answer within 2s"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestRestartForgetsAndIsLenientOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		c := watch(t, byCommand, Options{Runner: p})
		p.code.Store(1)
		after(t, c, 5*time.Second, cluster.Unhealthy)
		c.Restart(10 * time.Second)
		after(t, c, 9500*time.Millisecond, cluster.Unknown) // services are being started
		after(t, c, 4*time.Second, cluster.Unhealthy)       // the grace is over
		c.Restart(10 * time.Second)
		p.code.Store(0)
		after(t, c, 1100*time.Millisecond, cluster.Healthy) // it is the old one, which is still stopping
		p.code.Store(1)
		after(t, c, 5*time.Second, cluster.Unknown)
		p.code.Store(0)
		after(t, c, 2*time.Second, cluster.Healthy)
		p.code.Store(1)
		after(t, c, 8*time.Second, cluster.Unhealthy)
	})
}

// A round that began before Restart speaks of what was before it.
func TestRestartDropsTheRoundUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		c := watch(t, byCommand, Options{Runner: p, Bad: 1})
		after(t, c, 500*time.Millisecond, cluster.Healthy)
		p.hang.Store(true)
		time.Sleep(time.Second) // a look hangs now
		c.Restart(0)
		p.hang.Store(false)
		after(t, c, 2*time.Second, cluster.Healthy)
		_, checks := c.Result()
		if checks[0].Why != "" {
			t.Errorf("got %q from before the restart", checks[0].Why)
		}
	})
}

func TestNothingToCheckIsHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := watch(t, role.Health{}, Options{})
		if checks := after(t, c, time.Minute, cluster.Healthy); len(checks) != 0 {
			t.Errorf("got %+v, want no checks", checks)
		}
	})
}

func TestUnitsAreJudgedByTheirState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &units.Fake{}
		bus.Add("nginx.service", "")
		bus.Set("nginx.service", "active", "running")
		c := watch(t, role.Health{Units: []string{"nginx.service", "gone.service"}},
			Options{Units: units.New(quiet, bus, units.Timeouts{})})
		checks := after(t, c, 3*time.Second, cluster.Unhealthy)
		if !checks[0].OK || checks[0].Name != "unit nginx.service" || checks[1].Why != "is not installed" {
			t.Errorf("got %+v", checks)
		}
		bus.Set("nginx.service", "activating", "auto-restart")
		checks = after(t, c, 3*time.Second, cluster.Unhealthy)
		if got, want := checks[0].Why, "is activating (auto-restart)"; got != want || checks[0].OK {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

type silent struct{}

func (silent) Look(context.Context, []string) ([]units.Unit, error) {
	return nil, errors.New("no answer")
}

func TestSystemdsSilenceIsNotTheServicesFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(role.Health{Units: []string{"a.service"}}, Options{Units: silent{}, Log: quiet})
		c.verdicts[0].health = cluster.Healthy
		for range unsureLooks - 1 {
			c.round(t.Context())
		}
		if got, checks := c.Result(); got != cluster.Healthy || checks[0].Why != "no answer" {
			t.Errorf("got %v, %+v, want healthy with a remark", got, checks)
		}
		for range usual.bad {
			c.round(t.Context())
		}
		if got, _ := c.Result(); got != cluster.Unhealthy {
			t.Errorf("got %v, want unhealthy in the end", got)
		}
	})
}

func TestAllProbesOfARoundRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		p.hang.Store(true)
		c := New(role.Health{Command: []string{"/bin/a"}}, Options{Runner: p, Log: quiet})
		for range sideBySide - 1 {
			c.probes = append(c.probes, c.probes[0])
		}
		c.verdicts = make([]verdict, len(c.probes))
		began := time.Now()
		c.round(t.Context())
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("took %v, want 2s", took)
		}
	})
}

func TestChecksHaveNamesForPeople(t *testing.T) {
	c := New(role.Health{
		Units: []string{"a.service"}, HTTP: []string{"http://127.0.0.1/"}, TCP: []string{"[::1]:25"}, Command: []string{"/bin/x", "-y"},
	}, Options{Log: quiet})
	_, checks := c.Result()
	var names []string
	for _, check := range checks {
		names = append(names, check.Name)
	}
	want := []string{"unit a.service", "http http://127.0.0.1/", "tcp [::1]:25", "command /bin/x"}
	if !slices.Equal(names, want) {
		t.Errorf("got %s, want %s", strings.Join(names, ", "), strings.Join(want, ", "))
	}
}
