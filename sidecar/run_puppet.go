package main

import (
	"slices"
	"strings"

	"understudy/bootstrap/applied"
	"understudy/bootstrap/converge"
	"understudy/sidecar/decide"
	"understudy/sidecar/puppetrun"
	"understudy/sidecar/units"
)

// puppetRunner makes what has this node converged on a release. Whoever makes it calls Resume once, for the run that the last
// sidecar may have begun.
func (n *node) puppetRunner(bus *units.Systemd) (*puppetrun.Runner, error) {
	return puppetrun.New(puppetrun.Config{Bus: bus, Log: n.log, Dir: n.cfg.State, Boot: bootID()})
}

// reading is what decisions need to know of a run.
func reading(r puppetrun.Result) decide.RunReading {
	n := decide.RunReading{
		ID: r.ID, Commit: r.Commit, Good: r.Good(), Judged: r.Fault == applied.Commit, Cut: r.Interrupted || r.Kind == converge.Killed.String(),
		Why: r.Message, Changes: r.Resources.Changed,
	}
	if r.Noop {
		n.Changes = r.Resources.OutOfSync
	}
	// A reload keeps connections, and no role is served by systemd's own daemons.
	for _, s := range r.Restarts {
		if r.Disturbs(s.Unit) && !strings.HasPrefix(s.Unit, "systemd-") && !slices.Contains(n.Restarts, s.Unit) {
			n.Restarts = append(n.Restarts, s.Unit)
		}
	}
	return n
}
