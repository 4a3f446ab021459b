//go:build linux

package units

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var mail = []string{"postfix.service", "dovecot.service"}

func rig() (*Fake, *Units) {
	f := &Fake{}
	for _, name := range mail {
		f.Add(name, "mail")
	}
	return f, New(slog.New(slog.DiscardHandler), f, Timeouts{})
}

func state(t *testing.T, u *Units, names []string) State {
	t.Helper()
	s, err := u.State(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnitsRunFromStartToStop(t *testing.T) {
	_, u := rig()
	if s := state(t, u, mail); s.Running || s.All {
		t.Errorf("before: got %+v, want nothing to run", s)
	}
	for range 2 { // the second time nothing is to be done
		if err := u.Start(t.Context(), "mail", mail); err != nil {
			t.Fatal(err)
		}
	}
	if s := state(t, u, mail); !s.Running || !s.All {
		t.Errorf("started: got %+v, want all to run", s)
	}
	for range 2 {
		if err := u.Stop(t.Context(), "mail", mail); err != nil {
			t.Fatal(err)
		}
	}
	if s := state(t, u, append(mail, Target("mail"))); s.Running {
		t.Errorf("stopped: got %+v, want nothing to run", s)
	}
}

func TestTheTargetIsActiveBeforeWhatIsBoundToIt(t *testing.T) {
	f, u := rig()
	if got, _ := f.Start(t.Context(), mail[0]); got != "dependency" {
		t.Errorf("started without the duty: got %q, want dependency", got)
	}
	before := len(f.Calls())
	if err := u.Start(t.Context(), "mail", mail); err != nil {
		t.Fatal(err)
	}
	if got := f.Calls()[before]; got != "start understudy-primary@mail.target" {
		t.Errorf("first call: got %q, want the target's start", got)
	}
}

func TestOneThatDoesNotStartIsNamedAndTheOthersRun(t *testing.T) {
	f, u := rig()
	f.FailStarts("postfix.service", "failed")
	err := u.Start(t.Context(), "mail", mail)
	failed, ok := errors.AsType[*FailedError](err)
	if !ok || failed.Unit != "postfix.service" || failed.Result != "failed" {
		t.Fatalf("got %v, want a *FailedError of postfix.service", err)
	}
	if got, want := err.Error(), "start postfix.service: failed (it is failed, failed)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if s := state(t, u, mail); s.All || !s.Running {
		t.Errorf("got %+v, want only dovecot to run", s)
	}
	f.FailStarts("postfix.service", "done")
	if err := u.Start(t.Context(), "mail", mail); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestAMissingUnitIsAnErrorToStartAndNoneToStop(t *testing.T) {
	_, u := rig()
	names := append(mail, "gone.service")
	if err := u.Start(t.Context(), "mail", names); !errors.Is(err, ErrNoUnit) {
		t.Errorf("start: got %v, want ErrNoUnit", err)
	}
	if s := state(t, u, names); s.All {
		t.Error("state: a missing unit counts as running")
	}
	if err := u.Stop(t.Context(), "mail", names); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestWhatDoesNotStopIsKilledAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, u := rig()
		f.Stubborn("postfix.service")
		if err := u.Start(t.Context(), "mail", mail); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := u.Stop(t.Context(), "mail", mail); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != u.wait.Grace {
			t.Errorf("took %v, want %v", took, u.wait.Grace)
		}
		if !slices.Contains(f.Calls(), "kill postfix.service") || slices.Contains(f.Calls(), "kill dovecot.service") {
			t.Errorf("got %q, want only postfix to be killed", f.Calls())
		}
		if s := state(t, u, mail); s.Running {
			t.Errorf("got %+v, want nothing to run", s)
		}
	})
}

func TestStopSaysWhatStillRuns(t *testing.T) {
	f, u := rig()
	if err := u.Start(t.Context(), "mail", mail); err != nil {
		t.Fatal(err)
	}
	u.bus = unstoppable{f}
	err := u.Stop(t.Context(), "mail", mail)
	failed, ok := errors.AsType[*FailedError](err)
	if !ok || failed.Verb != "stop" || !strings.Contains(err.Error(), "dovecot.service: still running") {
		t.Errorf("got %v, want that both still run", err)
	}
}

// unstoppable answers "done" to every stop and stops nothing, as a unit does that something else starts again at once.
type unstoppable struct{ *Fake }

func (unstoppable) Stop(context.Context, string) (string, error) { return "done", nil }

func TestEveryStateThatMayWriteCountsAsRunning(t *testing.T) {
	for active, want := range map[string]struct{ running, up bool }{
		"active": {true, true}, "reloading": {true, true}, "refreshing": {true, true},
		"activating": {true, false}, "deactivating": {true, false}, "maintenance": {true, false}, "unheard-of": {true, false},
		"inactive": {false, false}, "failed": {false, false},
	} {
		u := Unit{Active: active}
		if u.Running() != want.running || u.Up() != want.up {
			t.Errorf("%s: got %v, %v, want %v, %v", active, u.Running(), u.Up(), want.running, want.up)
		}
	}
}

func TestNoUnitsIsNotAllUnits(t *testing.T) {
	_, u := rig()
	if s := state(t, u, nil); s.All || s.Running {
		t.Errorf("got %+v, want neither", s)
	}
}
