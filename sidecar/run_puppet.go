package main

import (
	"understudy/sidecar/puppetrun"
	"understudy/sidecar/units"
)

// puppetRunner makes what has this node converged on a release. Whoever makes it calls Resume once, for the run that the last
// sidecar may have begun.
func (n *node) puppetRunner(bus *units.Systemd) (*puppetrun.Runner, error) {
	return puppetrun.New(puppetrun.Config{Bus: bus, Log: n.log, Dir: n.cfg.State, Boot: bootID()})
}
