//go:build linux

package keepalive

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"understudy/bootstrap/secrets"
)

// Config is what does not change while a mesh runs.
type Config struct {
	Self string         // this node's name, 1 to 255 bytes
	Key  secrets.Secret // the cluster's
	// Beat is the pause between two beats, at least 1 ms. MissedBeats of them, at least 3, are the detection time.
	Beat        time.Duration
	MissedBeats int
	// Fast is the pause between beats to a peer that has missed two of ours, or we of its, for at most ten detection times.
	// Zero: 20 ms. Above Beat is invalid.
	Fast time.Duration
	// Roles are the roles of the nodes that have one, by node.
	Roles map[string]string
	// FullMesh is the number of members, this node included, up to which everybody sends to everybody at full rate. Above
	// it, only nodes of one role do, and those who hold a duty or bid for one, and those who send to such; the others send
	// every fifth beat. Zero: 20.
	FullMesh int
	// Log may be nil.
	Log *slog.Logger
}

const (
	defaultFast     = 20 * time.Millisecond
	defaultFullMesh = 20
	slower          = 5                    // so many beats are one between members that need no more, see FullMesh
	apart           = 2 * time.Millisecond // between two beats that say something new
	fastFor         = 10                   // detection times, see Fast
)

// detection is the silence that counts as failure.
func (c Config) detection() time.Duration { return c.Beat * time.Duration(c.MissedBeats) }

// withDefaults fills in what zero stands for.
func (c Config) withDefaults() Config {
	if c.Fast == 0 {
		c.Fast = min(defaultFast, c.Beat)
	}
	if c.FullMesh == 0 {
		c.FullMesh = defaultFullMesh
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs []error
	if len(c.Self) == 0 || len(c.Self) > 255 {
		errs = append(errs, fmt.Errorf("name of this node %q: must have 1 to 255 bytes", c.Self))
	}
	if c.Key.IsZero() {
		errs = append(errs, errors.New("there is no cluster key"))
	}
	if c.Beat < time.Millisecond {
		errs = append(errs, fmt.Errorf("beat %v: must be at least 1ms", c.Beat))
	}
	if c.MissedBeats < 3 {
		errs = append(errs, fmt.Errorf("missed beats %d: must be at least 3, so that two lost ones can be made good", c.MissedBeats))
	}
	if c.Fast < 0 || c.Fast > c.Beat {
		errs = append(errs, fmt.Errorf("fast beat %v: must be between 0 and the beat %v", c.Fast, c.Beat))
	}
	if c.FullMesh < 0 {
		errs = append(errs, fmt.Errorf("full mesh of %d: must not be negative", c.FullMesh))
	}
	return errors.Join(errs...)
}
