package decide

import (
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// rigPuppet is Puppet on every node, and the control repo they follow.
type rigPuppet struct {
	g    *rig
	runs map[string]*rigRun // by node: what is under way
	ids  int
	// bad says what becomes of a node with a commit: "compile", "fail", "sick" (it runs, and the node is unhealthy then), "mute" (it is healthy, but
	// others do not reach it), "cut" or "lock".
	bad      map[string]func(node string) string
	restarts map[string]bool // by commit
	changes  map[string]int  // by node: what a run of the commit that is there would correct
	takes    time.Duration
	tried    map[string][]string // commit → nodes on which a real run of it began
	at       map[string]string   // node → commit that it is made of, in the middle of a run empty
	removal  *rigRemoval         // nil: no commit changes the members
}

type rigRun struct {
	commit string
	noop   bool
	ends   cluster.Instant
}

func (g *rig) withPuppet(commit string) *rigPuppet {
	x := &rigPuppet{
		g: g, runs: map[string]*rigRun{}, bad: map[string]func(string) string{}, restarts: map[string]bool{}, changes: map[string]int{},
		takes: 500 * time.Millisecond, tried: map[string][]string{}, at: map[string]string{},
	}
	g.puppet = x
	for _, n := range g.nodes {
		n.v.Commit, n.v.Rollout.Head, x.at[n.name] = commit, commit, commit
	}
	return x
}

// push makes a commit known to some nodes; none: to all.
func (x *rigPuppet) push(commit string, nodes ...string) {
	for _, name := range x.g.names {
		if n := x.g.nodes[name]; len(nodes) == 0 || slices.Contains(nodes, name) {
			n.v.Rollout.Head, n.due = commit, x.g.now
		}
	}
}

func (x *rigPuppet) fate(commit, node string) string {
	if f := x.bad[commit]; f != nil {
		return f(node)
	}
	return ""
}

// act begins what is asked for, unless Puppet runs already.
func (x *rigPuppet) act(n *rigNode, a Action) {
	if x.runs[n.name] != nil {
		return
	}
	switch a := a.(type) {
	case Rehearse:
		x.runs[n.name] = &rigRun{a.Commit, true, x.g.now.Add(x.takes / 2)}
	case Restart:
		x.removal.restart(n)
	case Apply:
		if a.After != n.v.Rollout.Applied.ID {
			return
		}
		if !a.Back {
			x.tried[a.Commit] = append(x.tried[a.Commit], n.name)
		}
		x.runs[n.name] = &rigRun{a.Commit, false, x.g.now.Add(x.takes)}
		x.at[n.name] = ""
	}
}

// step ends what is over. A node that is dead does not run anything.
func (x *rigPuppet) step() {
	for _, name := range x.g.names {
		n, run := x.g.nodes[name], x.runs[name]
		if run == nil || x.g.now < run.ends || n.stopped {
			continue
		}
		delete(x.runs, name)
		if n.dead {
			continue
		}
		x.ids++
		x.end(n, *run, RunReading{ID: fmt.Sprint(x.ids), Commit: run.commit, At: x.g.now, Changes: x.changes[name]})
		n.due = x.g.now
	}
}

func (x *rigPuppet) end(n *rigNode, run rigRun, r RunReading) {
	fate := x.fate(run.commit, n.name)
	r.Good, r.Why = fate == "" || fate == "sick" || fate == "mute", fate
	r.Judged, r.Cut = fate != "lock" && fate != "cut", fate == "cut"
	if run.noop {
		if r.Good = fate != "compile"; r.Good && x.restarts[run.commit] {
			r.Restarts = []string{"nginx.service"}
		}
		n.v.Rollout.Rehearsed, n.v.Rollout.Drifted = r, false
		return
	}
	n.v.Rollout.Applied = r
	if r.Good {
		n.v.Commit, x.at[n.name] = run.commit, run.commit
		n.v.Rollout.Stale = x.removal != nil && x.removal.of(run.commit) != n.p.Roster
	}
	n.v.Health = cluster.Healthy
	if fate == "sick" {
		n.v.Health = cluster.Unhealthy
	}
	n.v.StandbyHealth = n.v.Health
	x.changes[n.name] = 0
	for _, other := range x.g.nodes {
		if role := other.p.role(); fate == "mute" && other != n && slices.Contains(role.Nodes, n.name) {
			other.v.Rollout.Unreached = n.name
		} else if other.v.Rollout.Unreached == n.name {
			other.v.Rollout.Unreached = ""
		}
	}
}

// busy are the nodes of a role that have begun with a commit and have not ended.
func (x *rigPuppet) busy(role Role) (busy []string) {
	for _, k := range role.Nodes {
		if n := x.g.nodes[k]; !n.dead && n.m.Rollout.Try.Commit != "" {
			busy = append(busy, k)
		}
	}
	return busy
}
