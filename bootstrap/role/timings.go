package role

import "time"

// Timings are the waits a cluster may choose for itself. Whatever else takes time is derived from
// them or fixed by the protocols.
type Timings struct {
	// Beat is how often a node tells its peers that it is there: 20ms to 10s. The lower end is the
	// pace both sides fall into once beats are missing.
	Beat time.Duration
	// MissedBeats is how many of them may be missed in a row before a peer is silent: 3 to 20. Three,
	// because less makes a failure out of ordinary packet loss.
	MissedBeats int
	// ReplacementHold is how long a node must have been silent before its machine is replaced.
	ReplacementHold time.Duration
	// StartupTimeout is how long a new machine may take until it serves.
	StartupTimeout time.Duration
	// BeachheadWait is how long everything must look lost before the beachhead rebuilds it.
	BeachheadWait time.Duration
}

// DefaultTimings are in force where roles.yaml says nothing else.
func DefaultTimings() Timings {
	return Timings{
		Beat:            100 * time.Millisecond,
		MissedBeats:     5,
		ReplacementHold: 30 * time.Second,
		StartupTimeout:  10 * time.Minute,
		BeachheadWait:   15 * time.Minute,
	}
}

// Detection is how long a peer is silent before it counts as failed.
func (t Timings) Detection() time.Duration { return t.Beat * time.Duration(t.MissedBeats) }

// maxDetection is as long as a claim outside a majority waits for the old holder's lease to run out.
// Peers that took longer to notice each other's silence would be overtaken by it.
const maxDetection = 10 * time.Second

const (
	minBeat, maxBeat     = 20 * time.Millisecond, 10 * time.Second
	minMissed, maxMissed = 3, 20
	maxWait              = 24 * time.Hour
)

func (p *parser) timings(v value) Timings {
	t := DefaultTimings()
	at := p.mapping(v,
		field{"beat", optional, func(v value) { t.Beat = p.duration(v, minBeat, maxBeat) }},
		field{"missed_beats", optional, func(v value) { t.MissedBeats = p.number(v, minMissed, maxMissed) }},
		field{"replacement_hold", optional, func(v value) { t.ReplacementHold = p.duration(v, time.Second, maxWait) }},
		field{"startup_timeout", optional, func(v value) { t.StartupTimeout = p.duration(v, time.Second, maxWait) }},
		field{"beachhead_wait", optional, func(v value) { t.BeachheadWait = p.duration(v, time.Second, maxWait) }},
	)
	// A wait that was refused is zero by now, and stays out of the comparisons.
	detection := t.Detection()
	if detection > maxDetection {
		p.failf(at.of("beat"), "beat × missed_beats is %v: at most %v, the time a lease is waited out", detection, maxDetection)
	}
	if hold := t.ReplacementHold; hold > 0 && hold < 2*detection {
		p.failf(at.of("replacement_hold"), "%v: at least 2 × beat × missed_beats (%v), so that a failover is over before a machine is fenced",
			hold, 2*detection)
	}
	if start := t.StartupTimeout; start > 0 && start < t.ReplacementHold {
		p.failf(at.of("startup_timeout"), "%v: at least replacement_hold (%v), or a slow start looks like the next loss", start, t.ReplacementHold)
	}
	if wait := t.BeachheadWait; wait > 0 && wait <= t.StartupTimeout {
		p.failf(at.of("beachhead_wait"), "%v: more than startup_timeout (%v), or it rebuilds beside machines that are starting", wait, t.StartupTimeout)
	}
	return t
}
