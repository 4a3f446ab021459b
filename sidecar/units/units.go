//go:build linux

package units

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Bus is systemd, as this package needs it. Systemd is the real one.
type Bus interface {
	// Start and Stop make a job and wait until it has ended. The result is systemd's word for that: "done",
	// "failed", "dependency", "canceled", "timeout", "skipped". An error means that there is none: the context
	// ended (the job goes on), systemd did not answer, or it refused (ErrNoUnit).
	Start(ctx context.Context, unit string) (result string, err error)
	Stop(ctx context.Context, unit string) (result string, err error)
	// Kill sends SIGKILL to every process of the unit.
	Kill(ctx context.Context, unit string) error
	// ResetFailed forgets that the unit has failed, and how often it was started.
	ResetFailed(ctx context.Context, unit string) error
	// List returns the state of each unit in the order of the names. A unit that does not exist is not an
	// error but has Loaded false.
	List(ctx context.Context, names []string) ([]Unit, error)
}

// ErrNoUnit is what a Bus returns for a unit that is not installed.
var ErrNoUnit = errors.New("there is no such unit")

// Unit is the state of one unit, in systemd's words.
type Unit struct {
	Name   string
	Loaded bool   // there is such a unit, and systemd could read it
	Load   string // "loaded", "not-found", "bad-setting", "masked", …
	Active string // "active", "reloading", "inactive", "failed", "activating", "deactivating", …
	Sub    string // the finer state, such as "running", "auto-restart" or "exited"
}

// Up reports whether the unit is active and nothing else: one that is being started is not yet.
func (u Unit) Up() bool {
	switch u.Active {
	case "active", "reloading", "refreshing":
		return true
	}
	return false
}

// Running reports whether processes of the unit may be at work. One that is being started, stopped or
// restarted counts, and so does a state this package does not know: what matters is that nobody writes.
func (u Unit) Running() bool { return u.Active != "inactive" && u.Active != "failed" }

// State is that of a role's primary units together.
type State struct {
	Running bool // any of them may be at work
	All     bool // each of them is up, and there is at least one
	Units   []Unit
}

// FailedError says of one unit that it is not as it should be after a job of ours has ended.
type FailedError struct {
	Unit   string
	Verb   string // "start" or "stop"
	Result string // of the job; "done" where the unit stopped being what it was right after it
	State  Unit   // afterwards; zero if it could not be read
}

// Error reads like "start postfix.service: failed (it is failed, exit-code)".
func (e *FailedError) Error() string {
	text := fmt.Sprintf("%s %s: %s", e.Verb, e.Unit, e.Result)
	if e.State.Active != "" {
		text += fmt.Sprintf(" (it is %s, %s)", e.State.Active, e.State.Sub)
	}
	return text
}

// Timeouts bound what is asked of systemd. The zero value of each stands for its default.
type Timeouts struct {
	Call  time.Duration // one question; default 2s
	Start time.Duration // from the first start to the last one's end; default 60s
	Grace time.Duration // after so long, a unit that was told to stop is killed; default 5s
	Stop  time.Duration // from the first stop to the last one's end; default 15s
}

func (t Timeouts) orDefaults() Timeouts {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&t.Call, 2*time.Second)
	set(&t.Start, 60*time.Second)
	set(&t.Grace, 5*time.Second)
	set(&t.Stop, 15*time.Second)
	return t
}

// Units starts, stops and reads. It keeps nothing but the connection, so it may be used by several
// goroutines; two that start and stop the same role at once get what systemd makes of it.
type Units struct {
	log  *slog.Logger
	bus  Bus
	wait Timeouts
}

// New uses bus, which stays the caller's to close.
func New(log *slog.Logger, bus Bus, wait Timeouts) *Units {
	return &Units{log: log, bus: bus, wait: wait.orDefaults()}
}

// Target is the unit that a role's primary units are bound to.
func Target(role string) string { return "understudy-primary@" + role + ".target" }

// Start makes the role's units run, and returns when all of them do. It is idempotent. An earlier failure of
// theirs does not count: a takeover must not wait for a start limit to pass. The error joins a *FailedError for
// each unit that did not start; the others run, and so does the target. After any other error they may.
func (u *Units) Start(ctx context.Context, role string, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, u.wait.Start)
	defer cancel()
	for _, name := range names {
		// One that never failed, or was not loaded yet, is refused; both are as good.
		_ = u.bus.ResetFailed(ctx, name)
	}
	if err := u.job(ctx, "start", Target(role), u.bus.Start); err != nil {
		return err
	}
	return u.each(names, func(name string) error { return u.job(ctx, "start", name, u.bus.Start) })
}

// Stop makes sure that none of the role's units runs, and returns when that is so. One that takes longer than
// Timeouts.Grace is killed: whoever stops writers has given up the right to write. It is idempotent. After an
// error some may still run; the error names them.
func (u *Units) Stop(ctx context.Context, role string, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, u.wait.Stop)
	defer cancel()
	all := append([]string{Target(role)}, names...)
	err := u.each(all, func(name string) error {
		if name == Target(role) { // ends after those bound to it, and has no process
			return u.job(ctx, "stop", name, u.bus.Stop)
		}
		return u.stop(ctx, name)
	})
	state, lookErr := u.State(context.WithoutCancel(ctx), names)
	if lookErr != nil {
		return errors.Join(err, lookErr)
	}
	if !state.Running {
		return nil // whatever a job's result was: none of them writes
	}
	for _, unit := range state.Units {
		if unit.Running() {
			err = errors.Join(err, &FailedError{Unit: unit.Name, Verb: "stop", Result: "still running", State: unit})
		}
	}
	return err
}

// stop ends one unit, in the end by force.
func (u *Units) stop(ctx context.Context, name string) error {
	var g errgroup.Group
	ended := make(chan struct{})
	g.Go(func() error {
		select {
		case <-ended:
			return nil
		case <-time.After(u.wait.Grace):
		}
		u.log.Warn("unit does not stop, killing it", "unit", name, "after", u.wait.Grace)
		return u.bus.Kill(ctx, name)
	})
	g.Go(func() error {
		defer close(ended)
		return u.job(ctx, "stop", name, u.bus.Stop)
	})
	err := g.Wait()
	if errors.Is(err, ErrNoUnit) {
		return nil // so it does not run
	}
	return err
}

// State reads the units' state. The order is that of names.
func (u *Units) State(ctx context.Context, names []string) (State, error) {
	list, err := u.Look(ctx, names)
	if err != nil {
		return State{}, err
	}
	s := State{All: len(list) > 0, Units: list}
	for _, unit := range list {
		s.Running = s.Running || unit.Running()
		s.All = s.All && unit.Up()
	}
	return s, nil
}

// Look reads the state of any units. The order is that of names.
func (u *Units) Look(ctx context.Context, names []string) ([]Unit, error) {
	if len(names) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, u.wait.Call)
	defer cancel()
	list, err := u.bus.List(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("ask systemd for %s: %w", strings.Join(names, ", "), err)
	}
	return list, nil
}

// job makes a unit start or stop and gives its result a meaning.
func (u *Units) job(ctx context.Context, verb, name string, do func(context.Context, string) (string, error)) error {
	began := time.Now()
	result, err := do(ctx, name)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	if result == "done" {
		u.log.Debug("unit job ended", "unit", name, "verb", verb, "took", time.Since(began))
		return nil
	}
	failed := &FailedError{Unit: name, Verb: verb, Result: result}
	if list, err := u.Look(ctx, []string{name}); err == nil { // otherwise the result must do
		failed.State = list[0]
	}
	return failed
}

// each does one thing for all names side by side, and returns all errors.
func (u *Units) each(names []string, do func(name string) error) error {
	errs := make([]error, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() error {
			errs[i] = do(name)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs, all of them
	return errors.Join(errs...)
}
