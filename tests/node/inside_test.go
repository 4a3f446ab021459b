//go:build linux

package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/health"
	"understudy/sidecar/units"
)

// onMachine are the claims that need a systemd to talk to.
var onMachine = map[string]func(*testing.T){
	"units start and stop":           startStopAndState,
	"failures have reasons":          failuresHaveReasons,
	"what does not stop is killed":   whatDoesNotStopIsKilled,
	"an exec of systemd is survived": anExecOfSystemdIsSurvived,
	"health follows units":           healthFollowsUnits,
	"a look is cheap":                aLookIsCheap,
}

// TestUnitsAndHealthWithARealSystemd copies this program to the machine and runs itself there, where it checks the claims.
func TestUnitsAndHealthWithARealSystemd(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		for name, f := range onMachine {
			t.Run(name, f)
		}
		return
	}
	m := boot(t)
	program := m.installSelf(t)
	for name, text := range map[string]string{
		"good":     "ExecStart=/usr/bin/sleep infinity",
		"bad":      "ExecStart=/usr/bin/false\nType=oneshot",
		"short":    "ExecStart=/usr/bin/sleep infinity\nRestart=no",
		"stubborn": "ExecStart=/usr/bin/sleep infinity\nExecStop=/usr/bin/sleep infinity\nTimeoutStopSec=1min",
	} {
		m.write(t, "/run/systemd/system/"+name+".service", bound+"[Service]\n"+text+"\n", "0644")
	}
	m.must(t, "systemctl", "daemon-reload")
	out, err := m.run(t.Context(), nil, "env", insideVariable+"=1", program, "-test.run=^TestUnitsAndHealthWithARealSystemd$", "-test.v", "-test.timeout=90s")
	t.Logf("on the machine:\n%s", out)
	if err != nil || strings.Count(out, "--- PASS: TestUnitsAndHealthWithARealSystemd/") != len(onMachine) {
		t.Errorf("got %v, want all %d claims to hold", err, len(onMachine))
	}
}

// manager speaks to the systemd of the machine that this runs on.
func manager(t *testing.T, wait units.Timeouts) *units.Units {
	t.Helper()
	bus := &units.Systemd{}
	u := units.New(slog.New(slog.NewTextHandler(t.Output(), nil)), bus, wait)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := u.Stop(ctx, "app", []string{"good.service", "bad.service", "short.service", "stubborn.service"}); err != nil {
			t.Error(err)
		}
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func startStopAndState(t *testing.T) {
	u := manager(t, units.Timeouts{})
	good := []string{"good.service"}
	if err := u.Start(t.Context(), "app", good); err != nil {
		t.Fatal(err)
	}
	if s, err := u.State(t.Context(), good); err != nil || !s.All || s.Units[0].Sub != "running" {
		t.Errorf("got %+v, %v, want it to run", s, err)
	}
	if err := u.Stop(t.Context(), "app", good); err != nil {
		t.Fatal(err)
	}
	if s, err := u.State(t.Context(), append(good, units.Target("app"))); err != nil || s.Running {
		t.Errorf("got %+v, %v, want nothing to run", s, err)
	}
}

func failuresHaveReasons(t *testing.T) {
	u := manager(t, units.Timeouts{})
	err := u.Start(t.Context(), "app", []string{"good.service", "bad.service"})
	failed, ok := errors.AsType[*units.FailedError](err)
	if !ok || failed.Unit != "bad.service" || failed.Result != "failed" || failed.State.Active != "failed" {
		t.Errorf("got %v, want that bad.service has failed", err)
	}
	if err := u.Start(t.Context(), "app", []string{"missing.service"}); !errors.Is(err, units.ErrNoUnit) {
		t.Errorf("a missing unit: got %v, want ErrNoUnit", err)
	}
	if s, err := u.State(t.Context(), []string{"missing.service"}); err != nil || s.Running || s.Units[0].Load != "not-found" {
		t.Errorf("a missing unit: got %+v, %v", s, err)
	}
	// Six starts within ten seconds are more than systemd allows by default; a takeover must not wait for that.
	for range 6 {
		if err := u.Start(t.Context(), "app", []string{"bad.service"}); err == nil || strings.Contains(err.Error(), "start-limit-hit") {
			t.Fatalf("got %v, want a failure of its own", err)
		}
	}
}

func whatDoesNotStopIsKilled(t *testing.T) {
	u := manager(t, units.Timeouts{Grace: time.Second})
	if err := u.Start(t.Context(), "app", []string{"stubborn.service"}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := u.Stop(t.Context(), "app", []string{"stubborn.service"}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < time.Second || took > 10*time.Second {
		t.Errorf("took %v, want little more than the grace of a second", took)
	}
}

// `systemctl daemon-reexec`, as an upgrade of systemd does it, closes all connections.
func anExecOfSystemdIsSurvived(t *testing.T) {
	u := manager(t, units.Timeouts{})
	if err := u.Start(t.Context(), "app", []string{"good.service"}); err != nil {
		t.Fatal(err)
	}
	reexec(t)
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := u.State(t.Context(), []string{"good.service"})
		if err == nil && s.All {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v, %v, want it to run still", s, err)
		}
		pause(t.Context(), 50*time.Millisecond)
	}
}

func healthFollowsUnits(t *testing.T) {
	u := manager(t, units.Timeouts{})
	if err := u.Start(t.Context(), "app", []string{"short.service"}); err != nil {
		t.Fatal(err)
	}
	c := health.New(role.Health{Units: []string{"short.service"}},
		health.Options{Units: u, Every: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	verdict := func(want cluster.Health) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			got, checks := c.Result()
			if got == want {
				return
			}
			select {
			case <-c.Changed():
			case <-deadline:
				t.Fatalf("got %v (%+v), want %v", got, checks, want)
			}
		}
	}
	verdict(cluster.Healthy)
	kill(t, "short.service")
	verdict(cluster.Unhealthy)
	_, checks := c.Result()
	if got, want := checks[0].Why, "is failed (failed)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What looking costs decides that it is done by asking and not by subscribing.
func aLookIsCheap(t *testing.T) {
	u := manager(t, units.Timeouts{})
	look := func() time.Duration {
		const looks = 200
		began := time.Now()
		for range looks {
			if _, err := u.Look(t.Context(), []string{"good.service", "short.service"}); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(began) / looks
	}
	stopped := look() // nothing refers to them, so systemd reads their files each time
	if err := u.Start(t.Context(), "app", []string{"good.service", "short.service"}); err != nil {
		t.Fatal(err)
	}
	running := look()
	t.Logf("a look at two units takes %v, %v while they are stopped", running, stopped)
	if limit := 20 * time.Millisecond; running > limit || stopped > limit {
		t.Errorf("a look at two units takes %v, %v while they are stopped; want well below %v", running, stopped, limit)
	}
}

func reexec(t *testing.T) {
	t.Helper()
	systemctl(t, "daemon-reexec")
}

func kill(t *testing.T, unit string) {
	t.Helper()
	systemctl(t, "kill", "--signal=KILL", unit)
}

func systemctl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("/usr/bin/systemctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("systemctl %q: %v\n%s", args, err, out)
	}
}
