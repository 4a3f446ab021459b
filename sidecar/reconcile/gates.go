package reconcile

import (
	"errors"
	"fmt"
	"slices"

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
	drain cluster.Instant // since when new connections are dropped; zero: they are not
}

func (g *gates) init(p *decide.Policy) {
	g.set = map[string]gate{}
	for _, r := range p.Roles {
		if (r.Reserved.IsValid() || r.Link.IsValid()) && slices.Contains(r.Nodes, p.Self) {
			g.roles = append(g.roles, r.Name)
		}
	}
}

// fill adds the gates to the view, in which the addresses' presence lies already. One that has closed by itself is closed.
func (g *gates) fill(v *decide.View) {
	for _, r := range g.roles {
		reading := v.Gates[r]
		if reading.Until, reading.Drain = g.set[r].until, g.set[r].drain; reading.Until <= v.Now {
			reading.Until, reading.Drain = 0, 0
		}
		set(&v.Gates, r, reading)
	}
}

// setGate sets a gate, if it is not so already.
func (l *Loop) setGate(a decide.Gate) error {
	was, known := l.gates.set[a.Role]
	drain := a.Drain && a.Until != 0
	if known && was.until == a.Until && (was.drain != 0) == drain {
		return nil
	}
	if err := l.world.Addresses.Gate(a.Role, a.Until, drain); err != nil {
		// What it left is not known, so the next turn sets it whatever is wanted.
		delete(l.gates.set, a.Role)
		return fmt.Errorf("set the gate of %s: %w", a.Role, err)
	}
	is := gate{until: a.Until}
	if drain {
		if is.drain = was.drain; is.drain == 0 {
			is.drain = l.cfg.Now()
		}
	}
	l.gates.set[a.Role] = is
	if was.until < l.began {
		was.until = 0 // it has closed by itself
	}
	if was.String() != is.String() {
		l.log.Info("gate", "role", a.Role, "state", is.String(), "reason", a.Text())
	}
	return nil
}

func (g gate) String() string {
	switch {
	case g.until == 0:
		return "closed"
	case g.drain != 0:
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
