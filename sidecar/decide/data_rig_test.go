package decide

import (
	"maps"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// rigData are the data of the roles that have some: what is written is a number that grows.
type rigData struct {
	g     *rig
	disks map[string]*rigDisk // by machine ID
	// slow is how long a first copy takes.
	slow time.Duration
	// stuck lets no barrier pass.
	stuck bool
}

type rigDisk struct {
	epoch    uint64
	source   bool
	complete bool
	items    int
	begun    cluster.Instant // when the copy began
	full     cluster.Instant // when it was last known to lack nothing; zero: never
}

func (g *rig) withData() *rigData {
	g.data = &rigData{g: g, disks: map[string]*rigDisk{}, slow: 200 * time.Millisecond}
	return g.data
}

func (x *rigData) disk(n *rigNode) *rigDisk {
	id := n.v.Machine
	if x.disks[id] == nil {
		x.disks[id] = &rigDisk{}
	}
	return x.disks[id]
}

// of is a node's disk.
func (x *rigData) of(node string) *rigDisk { return x.disk(x.g.nodes[node]) }

// step lets every primary write, and every copy follow that can.
func (x *rigData) step() {
	for _, name := range x.g.names {
		n := x.g.nodes[name]
		r := n.p.role()
		if r == nil || !r.Data || n.dead || n.stopped {
			continue
		}
		writes := n.m.Duties[r.Name].Writes
		if writes == 0 {
			continue
		}
		src := x.disk(n)
		if src.epoch != writes {
			src.epoch, src.source, src.complete, src.full = writes, true, true, 0
		}
		if u, ok := n.v.Units[r.Name]; (!ok || u.Running) && x.g.now%20_000_000 == 0 {
			src.items++
		}
		for _, k := range r.Nodes {
			if other := x.g.nodes[k]; k != name && !other.dead && !other.stopped && !x.g.cut[[2]string{name, k}] && !x.g.cut[[2]string{k, name}] {
				x.follow(x.disk(other), src)
			}
		}
	}
}

func (x *rigData) follow(c, src *rigDisk) {
	if c.epoch > src.epoch {
		return // a source of long ago
	}
	if c.epoch != src.epoch {
		*c = rigDisk{epoch: src.epoch, items: c.items, begun: x.g.now}
	}
	if x.g.now.Sub(c.begun) >= x.slow {
		c.complete = true
	}
	if c.complete && x.g.now%5_000_000 == 0 {
		c.items, c.full, src.full = src.items, x.g.now, x.g.now
	}
}

// read fills in what a node knows of its own data.
func (x *rigData) read(n *rigNode) {
	r := n.p.role()
	if r == nil || !r.Data {
		return
	}
	d := x.disk(n)
	m := cluster.Mirror{Role: r.Name, Epoch: d.epoch, Source: d.source, Complete: d.complete, Lag: cluster.Forever}
	if d.full != 0 {
		m.Lag = x.g.now.Sub(d.full)
	}
	if m.Lag <= 10*time.Millisecond {
		m.CaughtUp, m.Lag = true, 0
	} else {
		m.Behind = uint64(120_000_000)
	}
	n.v.Mirrors = []cluster.Mirror{m}
}

// settle passes a barrier if that can be.
func (x *rigData) settle(n *rigNode, a Settle) {
	d := x.disk(n)
	for _, k := range n.p.role().Nodes {
		if c := x.of(k); !x.stuck && k != n.name && c.complete && c.epoch == d.epoch && c.items == d.items {
			n.v.Settled = maps.Clone(n.v.Settled)
			if n.v.Settled == nil {
				n.v.Settled = map[string]cluster.Instant{}
			}
			n.v.Settled[a.Role] = x.g.now
		}
	}
}

// stop ends a node's process; its machine and its disk stay.
func (g *rig) stop(nodes ...string) {
	for _, n := range g.names {
		g.nodes[n].dead = g.nodes[n].dead || slices.Contains(nodes, n)
	}
}
