package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/health"
)

// startGrace is how long services that have just been started may take until their checks count.
const startGrace = 30 * time.Second

// dutyHealth keeps the checks that apply: those of a primary run only while the node is one, since most of what they ask for
// does not run before.
type dutyHealth struct {
	ctx     context.Context // of newDutyHealth: what it starts in g ends with it
	g       *errgroup.Group
	make    func(role.Health) *health.Checker
	wanted  role.Health
	standby *health.Checker
	both    bool // one list of checks for both

	mu      sync.Mutex
	primary *health.Checker // nil: this node is standby
	end     context.CancelFunc
}

func newDutyHealth(ctx context.Context, g *errgroup.Group, log *slog.Logger, r role.Role, look health.Lister) *dutyHealth {
	primary, standby := checked(r)
	d := &dutyHealth{
		ctx: ctx, g: g, wanted: primary, both: len(r.PrimaryUnits) == 0 && r.StandbyHealth.IsZero(),
		make: func(h role.Health) *health.Checker { return health.New(h, health.Options{Units: look, Log: log}) },
	}
	d.standby = d.make(standby)
	g.Go(func() error { return d.standby.Run(ctx) })
	return d
}

// duty begins or ends the checks of a primary.
func (d *dutyHealth) duty(acts bool) {
	if d.both {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.end != nil {
		d.end()
		d.primary, d.end = nil, nil
	}
	if acts {
		ctx, end := context.WithCancel(d.ctx)
		c := d.make(d.wanted)
		c.Restart(startGrace)
		d.primary, d.end = c, end
		d.g.Go(func() error { defer end(); return c.Run(ctx) })
	}
}

// result is the verdict as primary, which is unknown on a standby, and as standby.
func (d *dutyHealth) result() (primary, standby cluster.Health) {
	standby, _ = d.standby.Result()
	if d.both {
		return standby, standby
	}
	d.mu.Lock()
	c := d.primary
	d.mu.Unlock()
	if c == nil {
		return cluster.Unknown, standby
	}
	primary, _ = c.Result()
	return primary, standby
}
