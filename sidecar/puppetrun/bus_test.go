//go:build linux

package puppetrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"understudy/bootstrap/applied"
	"understudy/sidecar/units"
)

// fakeBus is a systemd that knows one transient unit and treats it as systemd does: a failed one stays until it is
// forgotten, one that ended well is gone, and what lasts too long is ended.
type fakeBus struct {
	t   *testing.T
	dir string

	mu     sync.Mutex
	plan   plan // of the next start
	unit   *fakeUnit
	starts []map[string]any // properties of each start
	kills  int
	down   error // what every call fails with
}

// plan is how a run goes.
type plan struct {
	lasts   time.Duration
	tells   *applied.Result // written at its end; nil: nothing
	outcome string          // systemd's word; empty: success
	refused string          // result of the start job; empty: done
	lost    bool            // the answer to the start gets lost
	stuck   bool            // systemd cannot end it
}

type fakeUnit struct {
	plan
	ends   time.Time
	ended  bool
	failed bool
}

// turn lets the unit's time pass. The caller holds mu.
func (f *fakeBus) turn() error {
	if u := f.unit; u != nil && !u.ended && !time.Now().Before(u.ends) {
		u.end(f)
	}
	return f.down
}

func (u *fakeUnit) end(f *fakeBus) {
	u.ended = true
	if u.tells != nil {
		data, err := u.tells.Encode()
		if err != nil {
			f.t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, resultFile), data, 0o644); err != nil {
			f.t.Error(err)
		}
	}
	if u.failed = u.outcome != ""; !u.failed {
		f.unit = nil
	}
}

func (f *fakeBus) StartTransient(_ context.Context, name string, properties []dbus.Property) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.turn(); err != nil {
		return "", err
	}
	if f.unit != nil {
		return "", fmt.Errorf("%w: %s", units.ErrUnitExists, name)
	}
	got := map[string]any{}
	for _, p := range properties {
		got[p.Name] = p.Value.Value()
	}
	f.starts = append(f.starts, got)
	u := &fakeUnit{plan: f.plan, ends: time.Now().Add(f.plan.lasts)}
	if limit := time.Duration(got["RuntimeMaxUSec"].(uint64)) * time.Microsecond; u.lasts > limit && !u.stuck {
		u.ends, u.outcome = time.Now().Add(limit), "timeout"
	}
	f.unit = u
	switch {
	case u.refused != "":
		u.outcome = "exit-code"
		u.end(f)
		return u.refused, nil
	case u.lost:
		return "", errors.New("systemd closed the connection")
	}
	return "done", nil
}

func (f *fakeBus) List(_ context.Context, names []string) ([]units.Unit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.turn(); err != nil {
		return nil, err
	}
	u := units.Unit{Name: names[0], Load: "not-found", Active: "inactive", Sub: "dead"}
	switch {
	case f.unit == nil:
	case f.unit.failed:
		u.Loaded, u.Load, u.Active, u.Sub = true, "loaded", "failed", "failed"
	default:
		u.Loaded, u.Load, u.Active, u.Sub = true, "loaded", "active", "running"
	}
	return []units.Unit{u}, nil
}

func (f *fakeBus) Outcome(context.Context, string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.turn(); err != nil || f.unit == nil || f.unit.outcome == "" {
		return "success", err
	}
	return f.unit.outcome, nil
}

func (f *fakeBus) Kill(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kills++
	if err := f.turn(); err != nil || f.unit == nil {
		return errors.Join(err, units.ErrNoUnit)
	}
	f.unit.outcome, f.unit.tells = "signal", nil
	f.unit.end(f)
	return nil
}

func (f *fakeBus) ResetFailed(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.turn(); err != nil {
		return err
	}
	if f.unit == nil {
		return units.ErrNoUnit
	}
	if f.unit.failed {
		f.unit = nil
	}
	return nil
}

// will says how the next run goes.
func (f *fakeBus) will(p plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = p
}

func (f *fakeBus) breaks(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

// reboots makes the bus forget everything, as a new boot does.
func (f *fakeBus) reboots() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unit = nil
}

func (f *fakeBus) started() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.starts)
}
