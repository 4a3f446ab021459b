package localcloud

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Memory is a Backend whose machines are entries in a map. It is for tests and for the simulator of anything that
// talks to the API: it takes as long as it is told to, and fails when it is told to. The zero value is ready to use.
type Memory struct {
	// BootTime, PowerOffTime and ShutdownTime are how long these take. They must not be changed once the backend is
	// in use.
	BootTime, PowerOffTime, ShutdownTime time.Duration
	// Stubborn machines do not shut down when asked to.
	Stubborn bool

	mu       sync.Mutex
	machines map[int]*memoryMachine
	disks    map[string]bool
	routes   map[netip.Addr]netip.Addr
	fail     map[string]error
}

type memoryMachine struct {
	Machine
	running bool
	boots   int
}

var (
	_ Backend    = (*Memory)(nil)
	_ Shutdowner = (*Memory)(nil)
	_ Imager     = (*Memory)(nil)
)

// FailNext lets the next call of the named method ("Boot", "PowerOff", "Erase", "Route", "Shutdown", "MakeImage")
// return err instead of doing anything.
func (b *Memory) FailNext(method string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail == nil {
		b.fail = map[string]error{}
	}
	b.fail[method] = err
}

// Kill takes the power from a machine behind the server's back, as a crash of its host does.
func (b *Memory) Kill(id int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m, ok := b.machines[id]; ok {
		m.running = false
	}
}

// Disks returns the machines that have a disk and how often each was booted.
func (b *Memory) Disks() map[int]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	boots := make(map[int]int, len(b.machines))
	for id, m := range b.machines {
		boots[id] = m.boots
	}
	return boots
}

// RouteOf returns the anchor address that gets the traffic for reserved, the zero Addr for nobody.
func (b *Memory) RouteOf(reserved netip.Addr) netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.routes[reserved]
}

// begin waits for d and hands out the failure that was ordered for method, if any.
func (b *Memory) begin(ctx context.Context, method string, d time.Duration) error {
	if !pause(ctx, d) {
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.fail[method]
	delete(b.fail, method)
	return err
}

// Boot implements Backend.
func (b *Memory) Boot(ctx context.Context, m Machine) error {
	if err := b.begin(ctx, "Boot", b.BootTime); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines == nil {
		b.machines = map[int]*memoryMachine{}
	}
	known, ok := b.machines[m.ID]
	if !ok {
		known = &memoryMachine{}
		b.machines[m.ID] = known
	}
	known.Machine = m
	if !known.running {
		known.running = true
		known.boots++
	}
	return nil
}

// PowerOff implements Backend.
func (b *Memory) PowerOff(ctx context.Context, id int) error {
	if err := b.begin(ctx, "PowerOff", b.PowerOffTime); err != nil {
		return err
	}
	b.Kill(id)
	return nil
}

// Shutdown implements Shutdowner.
func (b *Memory) Shutdown(ctx context.Context, id int) error {
	if err := b.begin(ctx, "Shutdown", b.ShutdownTime); err != nil {
		return err
	}
	if b.Stubborn {
		<-ctx.Done()
		return fmt.Errorf("machine %d ignores the request: %w", id, context.Cause(ctx))
	}
	b.Kill(id)
	return nil
}

// Erase implements Backend.
func (b *Memory) Erase(ctx context.Context, id int) error {
	if err := b.begin(ctx, "Erase", b.PowerOffTime); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.machines, id)
	return nil
}

// Running implements Backend.
func (b *Memory) Running(id int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.machines[id]
	return ok && m.running
}

// Route implements Backend.
func (b *Memory) Route(ctx context.Context, reserved, anchor netip.Addr) error {
	if err := b.begin(ctx, "Route", 0); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.routes == nil {
		b.routes = map[netip.Addr]netip.Addr{}
	}
	if anchor.IsValid() {
		b.routes[reserved] = anchor
	} else {
		delete(b.routes, reserved)
	}
	return nil
}

// MakeImage implements Imager.
func (b *Memory) MakeImage(ctx context.Context, id int, name string) error {
	if err := b.begin(ctx, "MakeImage", 0); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.machines[id]; !ok {
		return fmt.Errorf("make image %s: machine %d has no disk", name, id)
	}
	if b.disks == nil {
		b.disks = map[string]bool{}
	}
	b.disks[name] = true
	return nil
}
