//go:build linux

package units

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Fake is a Bus for tests that behaves as systemd does towards its caller, as far as targets and the units bound
// to them go: a bound unit is refused while its target is not active and stopped with it. The zero value has no
// units; targets of this package exist always.
type Fake struct {
	mu    sync.Mutex
	units map[string]*fakeUnit
	calls []string
}

type fakeUnit struct {
	state    Unit
	bound    string // target
	result   string // of the next starts; empty: done
	stubborn bool   // stops only when killed
	killed   chan struct{}
}

// Add makes a unit exist, bound to a role's target, or to none if role is empty. It does not run.
func (f *Fake) Add(name, role string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.unit(name)
	u.state = Unit{Name: name, Loaded: true, Load: "loaded", Active: "inactive", Sub: "dead"}
	if role != "" {
		u.bound = Target(role)
	}
}

// Set puts a unit into a state, as if something had happened to it.
func (f *Fake) Set(name, active, sub string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.unit(name)
	u.state.Active, u.state.Sub = active, sub
}

// FailStarts makes every start of the unit end with a result other than "done". "done" makes them succeed again.
func (f *Fake) FailStarts(name, result string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unit(name).result = result
}

// Stubborn makes a unit stop only when it is killed.
func (f *Fake) Stubborn(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.unit(name)
	u.stubborn, u.killed = true, make(chan struct{})
}

// Calls are the starts, stops and kills that were asked for, such as "start postfix.service", in order.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// unit returns a unit, making it. The caller holds mu.
func (f *Fake) unit(name string) *fakeUnit {
	if f.units == nil {
		f.units = map[string]*fakeUnit{}
	}
	if f.units[name] == nil {
		f.units[name] = &fakeUnit{state: Unit{Name: name, Loaded: true, Load: "loaded", Active: "inactive", Sub: "dead"}}
	}
	return f.units[name]
}

// known returns a unit that exists, or nil. The caller holds mu.
func (f *Fake) known(name string) *fakeUnit {
	if strings.HasPrefix(name, "understudy-primary@") {
		return f.unit(name)
	}
	return f.units[name]
}

// Start implements Bus.
func (f *Fake) Start(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "start "+name)
	u := f.known(name)
	if u == nil {
		return "", fmt.Errorf("%w: %s", ErrNoUnit, name)
	}
	if u.bound != "" && !f.unit(u.bound).state.Up() {
		return "dependency", nil
	}
	if u.result != "" && u.result != "done" {
		u.state.Active, u.state.Sub = "failed", "failed"
		return u.result, nil
	}
	u.state.Active, u.state.Sub = "active", "running"
	return "done", nil
}

// Stop implements Bus.
func (f *Fake) Stop(ctx context.Context, name string) (string, error) {
	f.mu.Lock()
	f.calls = append(f.calls, "stop "+name)
	u := f.known(name)
	if u == nil {
		f.mu.Unlock()
		return "", fmt.Errorf("%w: %s", ErrNoUnit, name)
	}
	killed := u.killed
	if u.stubborn && u.state.Running() {
		u.state.Active, u.state.Sub = "deactivating", "stop-sigterm"
		f.mu.Unlock()
		select {
		case <-killed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	if u.state.Running() {
		u.state.Active, u.state.Sub = "inactive", "dead"
	}
	for _, other := range f.units {
		if other.bound == name && other.state.Running() && !other.stubborn {
			other.state.Active, other.state.Sub = "inactive", "dead"
		}
	}
	return "done", nil
}

// Kill implements Bus.
func (f *Fake) Kill(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "kill "+name)
	u := f.known(name)
	if u == nil {
		return fmt.Errorf("%w: %s", ErrNoUnit, name)
	}
	u.state.Active, u.state.Sub = "failed", "failed"
	if u.killed != nil {
		close(u.killed)
		u.killed = nil
	}
	return nil
}

// ResetFailed implements Bus.
func (f *Fake) ResetFailed(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.known(name)
	if u == nil {
		return fmt.Errorf("%w: %s", ErrNoUnit, name)
	}
	if u.state.Active == "failed" {
		u.state.Active, u.state.Sub = "inactive", "dead"
	}
	return nil
}

// List implements Bus.
func (f *Fake) List(ctx context.Context, names []string) ([]Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Unit, len(names))
	for i, name := range names {
		list[i] = Unit{Name: name, Load: "not-found", Active: "inactive", Sub: "dead"}
		if u := f.known(name); u != nil {
			list[i] = u.state
			list[i].Name = name
		}
	}
	return list, nil
}
