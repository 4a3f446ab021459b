//go:build linux

package health

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/units"
)

// sideBySide is how many probes run at once.
const sideBySide = 8

// Lister reads the state of systemd units, in the order of the names. *units.Units is one.
type Lister interface {
	Look(ctx context.Context, names []string) ([]units.Unit, error)
}

// Options are what a Checker needs besides what to check. The zero value of each but Log stands for its default.
type Options struct {
	Every   time.Duration  // between the starts of two rounds; default 1s
	Timeout time.Duration  // of one probe; default 2s
	Bad     int            // bad looks in a row that make a check unhealthy; default 3
	Good    int            // good looks in a row that make it healthy again; default 2
	Units   Lister         // required where units are checked
	Runner  command.Runner // default command.Exec
	Log     *slog.Logger   // told when a check changes
}

// Check is the state of one check, for people.
type Check struct {
	Name     string         `json:"name"` // such as "unit nginx.service" or "tcp 127.0.0.1:25"
	Health   cluster.Health `json:"health"`
	OK       bool           `json:"ok"`            // Health is Healthy
	Why      string         `json:"why,omitempty"` // in a few words: why not, or that it flaps
	Since    time.Time      `json:"since,omitzero"`
	Flapping bool           `json:"flapping,omitempty"`
}

// Checker checks one list of checks for as long as Run runs. Result and Restart may be called at any time, by anybody.
type Checker struct {
	every  time.Duration
	lim    limits
	log    *slog.Logger
	probes []probe

	changed chan struct{}
	wake    chan struct{}

	mu       sync.Mutex
	verdicts []verdict // one a probe
	turn     int       // grows with every Restart: what an older round finds is thrown away
	lenient  time.Time // until then bad looks do not make anything unhealthy
}

// New prepares the checks that want asks for. Nothing is looked at before Run.
func New(want role.Health, o Options) *Checker {
	def := func(v, d int) int {
		if v == 0 {
			return d
		}
		return v
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Runner == nil {
		o.Runner = command.Exec{}
	}
	probes := newProbes(want, o)
	return &Checker{
		every: o.Every, lim: limits{good: def(o.Good, 2), bad: def(o.Bad, 3)}, log: o.Log, probes: probes,
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1), verdicts: make([]verdict, len(probes)),
	}
}

// Run checks until ctx ends, and returns nil then. It is to be called once.
func (c *Checker) Run(ctx context.Context) error {
	if len(c.probes) == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		c.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			tick.Reset(c.every)
		case <-tick.C:
		}
	}
}

// Restart forgets all looks and begins anew at once: what is checked has just been started, or the node's duty has
// changed. For so long as grace a bad look makes the check unknown and never unhealthy: what was there before may still be
// stopping, and what comes is still starting.
func (c *Checker) Restart(grace time.Duration) {
	c.mu.Lock()
	c.turn++
	c.verdicts = make([]verdict, len(c.probes))
	c.lenient = time.Now().Add(grace)
	c.mu.Unlock()
	signal(c.wake)
	signal(c.changed)
}

// Changed gives a value after the verdict of a check has changed. It holds at most one.
func (c *Checker) Changed() <-chan struct{} { return c.changed }

// Result is the verdict of all checks together, and each. One unhealthy check makes it Unhealthy; else one without a
// verdict makes it Unknown. Where nothing is to be checked, it is Healthy.
func (c *Checker) Result() (cluster.Health, []Check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := cluster.Healthy
	var checks []Check
	for i, v := range c.verdicts {
		checks = append(checks, Check{
			Name: c.probes[i].name, Health: v.health, OK: v.health == cluster.Healthy,
			Why: v.sentence(c.lim), Since: v.since, Flapping: v.flapping(),
		})
		switch {
		case v.health == cluster.Unhealthy:
			sum = cluster.Unhealthy
		case v.health == cluster.Unknown && sum == cluster.Healthy:
			sum = cluster.Unknown
		}
	}
	return sum, checks
}

// round looks at everything once. It takes as long as the slowest probe, which its own time limit bounds.
func (c *Checker) round(ctx context.Context) {
	c.mu.Lock()
	turn := c.turn
	c.mu.Unlock()
	looks := make([]look, len(c.probes))
	var g errgroup.Group
	g.SetLimit(sideBySide)
	for i, p := range c.probes {
		g.Go(func() error {
			looks[i] = p.look(ctx)
			return nil
		})
	}
	_ = g.Wait() // a probe's error is its look
	if ctx.Err() != nil {
		return // what was found while stopping says nothing
	}
	c.take(looks, turn, time.Now())
}

// take turns a round's looks into verdicts.
func (c *Checker) take(looks []look, turn int, now time.Time) {
	c.mu.Lock()
	if turn != c.turn {
		c.mu.Unlock()
		return
	}
	before := slices.Clone(c.verdicts)
	for i, l := range looks {
		if !l.ok && now.Before(c.lenient) {
			c.verdicts[i] = verdict{why: l.why}
			continue
		}
		c.verdicts[i] = c.verdicts[i].after(l, now, c.lim)
	}
	after := slices.Clone(c.verdicts)
	c.mu.Unlock()
	for i := range after {
		if after[i].health != before[i].health {
			c.tell(c.probes[i].name, before[i], after[i])
		}
	}
}

// tell passes a change on.
func (c *Checker) tell(name string, before, after verdict) {
	signal(c.changed)
	if after.health == cluster.Unhealthy {
		c.log.Warn("check fails", "check", name, "reason", after.sentence(c.lim))
		return
	}
	if before.health == cluster.Unhealthy {
		c.log.Info("check is well again", "check", name, "took", after.since.Sub(before.since))
	}
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}
