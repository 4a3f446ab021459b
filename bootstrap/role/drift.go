package role

import "time"

// Drift is what nodes do about not being as their commit wants them any more.
type Drift struct {
	// Every is the mean pause between two looks of a node.
	Every time.Duration
	// LookOnly: what has changed is shown and not corrected.
	LookOnly bool
}

// DefaultDrift is in force where roles.yaml says nothing else.
func DefaultDrift() Drift { return Drift{Every: 30 * time.Minute} }

// A look is a run of Puppet without effects, which costs seconds of a core.
const minDrift, maxDrift = time.Minute, 7 * 24 * time.Hour

func (p *parser) drift(v value) Drift {
	d := DefaultDrift()
	p.mapping(v,
		field{"every", optional, func(v value) { d.Every = p.duration(v, minDrift, maxDrift) }},
		field{"correct", optional, func(v value) { d.LookOnly = !p.flag(v, true) }},
	)
	return d
}
