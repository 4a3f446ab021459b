package decide

import (
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// pushed lets a node be at oldCommit, know newCommit, and have seen what that would change; the others know it as well.
func pushed(v *View) {
	v.Commit = oldCommit
	v.Rollout = RolloutReading{Head: newCommit, Rehearsed: RunReading{ID: "1", Commit: newCommit, At: v.Now, Good: true, Judged: true, Changes: 3}}
	for _, k := range []string{"lb1", "lb2", "lb3"} {
		if _, ok := v.Peers[k]; ok {
			saying(v, k, func(a *cluster.Announcement) {
				a.Commit, a.Rollout.Head, a.Phase = oldCommit, newCommit, cluster.Serving
			})
		}
	}
}

// trying lets lb2 be in the middle of it.
func trying(v *View, m *Memory, run RunReading) {
	pushed(v)
	m.Rollout.Try = Try{Commit: newCommit, From: oldCommit, After: "2"}
	v.Rollout.Applied = run
}

// changed lets lb2 have applied a commit with another roles.yaml.
func changed(v *View, m *Memory) {
	trying(v, m, RunReading{ID: "3", Commit: newCommit, At: v.Now, Good: true, Judged: true})
	v.Commit, v.Rollout.Stale = newCommit, true
}

func rolloutCases() []decisionCase {
	return []decisionCase{
		{"S10", "a commit that is new is rehearsed first", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			v.Rollout.Rehearsed = RunReading{}
		}},
		{"S10", "the first standby asks for leave", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) { pushed(v) }},
		{"S10", "the second standby waits for the first", "lb3", three, false, func(g *rig, v *View, m *Memory, p *Policy) { pushed(v) }},
		{"S10", "a node gives leave to who asks", "lb3", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			saying(v, "lb2", func(a *cluster.Announcement) { a.Rollout.Ask = newCommit })
		}},
		{"S10", "all give leave", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			for _, k := range []string{"lb1", "lb3"} {
				saying(v, k, func(a *cluster.Announcement) { a.Rollout.Yield = "lb2" })
			}
		}},
		{"S10", "one is missing", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			after(g, v, 2*time.Second, "lb3")
		}},
		{"S10", "the primary's services would restart", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			v.Rollout.Rehearsed.Restarts = []string{"haproxy.service"}
			for _, k := range []string{"lb2", "lb3"} {
				saying(v, k, func(a *cluster.Announcement) { a.Commit = newCommit })
			}
		}},
		{"S10", "Puppet failed", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			trying(v, m, RunReading{ID: "3", Commit: newCommit, At: v.Now, Judged: true, Why: "1 of 40 resources failed: Service[haproxy]: exit 1"})
		}},
		{"S10", "the node is not healthy after the run", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			trying(v, m, RunReading{ID: "3", Commit: newCommit, At: v.Now, Good: true, Judged: true})
			after(g, v, patience)
			v.Health, v.StandbyHealth = cluster.Unhealthy, cluster.Unhealthy
		}},
		{"S10", "the commit changes roles.yaml", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) { changed(v, m) }},
		{"S10", "all have heard that the sidecar restarts", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			changed(v, m)
			m.Restarting = v.Now.Add(-p.Timings.Detection - 1)
		}},
		{"S10", "another sidecar restarts first", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			changed(v, m)
			m.Restarting = v.Now.Add(-p.Timings.Detection - 1)
			saying(v, "lb1", func(a *cluster.Announcement) { a.Rollout.Restarts = true })
		}},
		{"S10", "too few would go on voting", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			changed(v, m)
			m.Restarting = v.Now.Add(-p.Timings.Detection - 1)
			saying(v, "lb3", func(a *cluster.Announcement) { a.Voting = false })
		}},
		{"S10", "the node is healthy after the run", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			trying(v, m, RunReading{ID: "3", Commit: newCommit, At: v.Now.Add(-bake), Good: true, Judged: true})
			v.Commit = newCommit
		}},
		{"S10", "somebody else failed with it", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			saying(v, "lb3", func(a *cluster.Announcement) {
				a.Rollout.Bad = []cluster.BadCommit{{Commit: newCommit, Node: "lb3", Why: "Service[haproxy] failed"}}
			})
		}},
		{"S10", "the tip is refused", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			pushed(v)
			v.Commit, v.Rollout.Head = oldCommit, oldCommit
			v.Rollout.Refused = "commit 33333333 is not signed; push a signed commit (git commit -S)"
		}},
		{"S10", "the way back failed, too", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			trying(v, m, RunReading{ID: "4", Commit: oldCommit, At: v.Now, Judged: true, Why: "the disk is full"})
			m.Rollout.Try.Back, m.Rollout.Try.After = true, "3"
			m.Rollout.Bad = slices.Concat(m.Rollout.Bad, []Bad{{Commit: newCommit, Node: "lb2", Why: "Service[haproxy] failed"}})
		}},
	}
}
