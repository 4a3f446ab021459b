package reconcile

import (
	"errors"
	"fmt"
	"log/slog"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// gates knows how each role's gate was set. It belongs to the loop.
type gates struct {
	roles []string        // those with an address, in the policy's order
	set   map[string]gate // as far as known; what is missing must be set anew
}

type gate struct {
	until cluster.Instant // zero: closed
	drain bool
}

func (g *gates) init(p *decide.Policy) {
	g.set = map[string]gate{}
	for _, r := range p.Roles {
		if r.Reserved.IsValid() || r.Link.IsValid() {
			g.roles = append(g.roles, r.Name)
		}
	}
}

// fill adds the gates to the view, in which the addresses' presence lies already. One that has closed by itself is closed.
func (g *gates) fill(v *decide.View) {
	for _, r := range g.roles {
		reading := v.Gates[r]
		if reading.Until = g.set[r].until; reading.Until <= v.Now {
			reading.Until = 0
		}
		set(&v.Gates, r, reading)
	}
}

// apply sets a gate, if it is not so already.
func (g *gates) apply(addresses Addresses, log *slog.Logger, a decide.Gate) error {
	before, known := g.set[a.Role]
	want := gate{until: a.Until, drain: a.Drain && a.Until != 0}
	if known && before == want {
		return nil
	}
	if err := addresses.Gate(a.Role, a.Until, a.Drain); err != nil {
		// What it left is not known, so the next turn sets it whatever is wanted.
		delete(g.set, a.Role)
		return fmt.Errorf("set the gate of %s: %w", a.Role, err)
	}
	g.set[a.Role] = want
	if (before.until == 0) != (want.until == 0) || before.drain != want.drain {
		log.Info("gate", "role", a.Role, "state", want.String(), "reason", a.Text())
	}
	return nil
}

func (g gate) String() string {
	switch {
	case g.until == 0:
		return "closed"
	case g.drain:
		return "draining"
	}
	return "open"
}

// closeAll closes every gate, also those that should be closed already.
func (l *Loop) closeAll(why string) error {
	var errs []error
	for _, r := range l.gates.roles {
		delete(l.gates.set, r)
		if err := l.world.Addresses.Gate(r, 0, false); err != nil {
			errs = append(errs, fmt.Errorf("close the gate of %s: %w", r, err))
			continue
		}
		l.gates.set[r] = gate{}
		l.log.Debug("gate", "role", r, "state", "closed", "reason", why)
	}
	return errors.Join(errs...)
}
