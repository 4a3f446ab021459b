package decide

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

// rigCloud is the provider, and that part of the ledger which replacement writes.
type rigCloud struct {
	g        *rig
	machines map[string]*cluster.Machine // by ID
	intents  map[string]cluster.Intent
	written  map[string]cluster.Instant // of intents, calls and closings: "intent web1 2"
	nonces   map[string]string          // node, by nonce
	first    map[string]cluster.Instant // when a list first had a machine
	boots    []rigBoot
	count    int
	did      []string // what was done at the provider and in the ledger, in order
	boot     time.Duration
	// after is called when something was done.
	after func(what string)
	// wishes are a person's, by node.
	wishes map[string]cluster.Wish
	// wrong keeps a create from bringing a machine.
	wrong bool
}

type rigBoot struct {
	at       cluster.Instant
	node, id string
}

// withCloud gives every node a ledger, a machine and a provider that makes more of them.
func (g *rig) withCloud() *rigCloud {
	c := &rigCloud{g: g, machines: map[string]*cluster.Machine{}, intents: map[string]cluster.Intent{}, written: map[string]cluster.Instant{},
		nonces: map[string]string{}, first: map[string]cluster.Instant{}, boot: 5 * time.Second}
	g.cloud = c
	g.withLedger()
	for _, n := range g.names {
		c.machines["m-"+n] = &cluster.Machine{ID: "m-" + n, Name: n, Tags: []string{"c"}, Power: cluster.PowerOn}
		g.nodes[n].p.Hire = nil
		for _, r := range g.nodes[n].p.Roles {
			g.nodes[n].p.Hire = append(g.nodes[n].p.Hire, r.Name)
		}
	}
	return c
}

// destroy lets a node's machine vanish, as the provider sees it too.
func (c *rigCloud) destroy(node string) {
	c.g.nodes[node].dead = true
	delete(c.machines, c.g.nodes[node].v.Machine)
}

func (c *rigCloud) done(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	c.did = append(c.did, what)
	c.g.logf("%dms %s", c.g.now/1_000_000-1000, what)
	if c.after != nil {
		c.after(what)
	}
}

// step lets machines boot.
func (c *rigCloud) step() {
	for i := 0; i < len(c.boots); i++ {
		b := c.boots[i]
		if c.g.now < b.at {
			continue
		}
		c.boots = slices.Delete(c.boots, i, i+1)
		i--
		m := c.machines[b.id]
		if m == nil {
			continue
		}
		m.Power = cluster.PowerOn
		if was := c.g.claims[b.node]; was.Epoch == 0 || was.Tombstoned {
			c.g.claims[b.node] = cluster.Claim{Node: b.node, Epoch: was.Epoch + 1, Machine: b.id}
			c.done("claim %s by %s", b.node, b.id)
			c.g.start(b.node, 0)
			n := c.g.nodes[b.node]
			n.m = Memory{}
			n.v.Machine, n.v.FreshBoot = b.id, true
			n.v.Ledger = Ledger{Configured: true, Sound: true}
			n.v.Claim = ClaimReading{Needed: true, Mine: true, Epoch: was.Epoch + 1, At: c.g.now}
		}
	}
}

// read fills in what a reading of the ledger says of replacements.
func (c *rigCloud) read(n *rigNode) {
	all := map[string]cluster.Intent{}
	var hired []time.Duration
	for k, in := range c.intents {
		in.Age = c.g.now.Sub(c.written[fmt.Sprint("intent ", k, in.N)])
		if at, ok := c.written[fmt.Sprint("call ", k, in.N)]; ok {
			in.Called = max(1, c.g.now.Sub(at))
		}
		if in.Closed.Outcome != "" {
			in.Closed.Age = c.g.now.Sub(c.written[fmt.Sprint("closing ", k, in.N)])
		}
		all[k] = in
	}
	for what, at := range c.written {
		if strings.HasPrefix(what, "intent ") {
			hired = append(hired, c.g.now.Sub(at))
		}
	}
	n.v.Ledger.Intents, n.v.Ledger.Hired, n.v.Ledger.Wishes = all, hired, c.wishes
	own := c.g.claims[n.name]
	n.v.Claim.Mine = own.Machine == n.v.Machine && !own.Tombstoned
}

// act does an action of n's as the executor does: with what it assumes read afresh.
func (c *rigCloud) act(n *rigNode, a Action) {
	g, before := c.g, len(c.did)
	defer func() {
		if len(c.did) > before && !g.ledgerAway {
			g.ledgerAct(n, ReadLedger{})
		}
	}()
	ours := func(e Expect) bool {
		return g.ledger[e.Duty].Epoch <= e.Epoch && n.m.Duties[e.Duty].Hold.Epoch == e.Epoch
	}
	switch a := a.(type) {
	case ReadList:
		c.list(n)
	case OpenIntent:
		if was := c.intents[a.Intent.Node]; ours(a.Expect) && was.N+1 == a.Intent.N && !was.Open() {
			c.intents[a.Intent.Node], c.nonces[a.Intent.Nonce] = a.Intent, a.Intent.Node
			c.written[fmt.Sprint("intent ", a.Intent.Node, a.Intent.N)] = g.now
			c.done("intent %d for %s by %s", a.Intent.N, a.Intent.Node, n.name)
		}
	case Tombstone:
		if m := c.machines[a.Machine]; a.Off && m != nil && m.Power != cluster.PowerOff {
			return
		}
		if claim := g.claims[a.Node]; ours(a.Expect) && claim.Epoch == a.Epoch && !claim.Tombstoned {
			claim.Tombstoned = true
			g.claims[a.Node] = claim
			c.done("tombstone %s", a.Node)
		}
	case Release:
		if claim := g.claims[a.Node]; claim.Epoch == a.Epoch && claim.Machine == n.v.Machine {
			claim.Tombstoned, claim.Left = true, true
			g.claims[a.Node] = claim
			c.done("%s leaves", a.Node)
		}
	case PowerOff:
		m, claim := c.machines[a.Machine], g.claims[a.Node]
		if ours(a.Expect) && m != nil && m.Power == cluster.PowerOn && (claim.Machine != a.Machine || claim.Tombstoned) {
			m.Power = cluster.PowerOff
			if k := g.nodes[a.Node]; k.v.Machine == a.Machine {
				k.dead = true
			}
			c.done("power off %s", a.Machine)
		}
	case Create:
		c.create(n, a, ours(a.Expect))
	case Delete:
		if m := c.machines[a.Machine]; ours(a.Expect) && m != nil && m.Power == cluster.PowerOff && (g.claims[a.Node].Machine != a.Machine || g.claims[a.Node].Tombstoned) {
			delete(c.machines, a.Machine)
			c.done("delete %s", a.Machine)
		}
	case CloseIntent:
		if in := c.intents[a.Closing.Node]; ours(a.Expect) && in.N == a.Closing.N && in.Open() {
			in.Closed = a.Closing
			c.intents[in.Node] = in
			c.written[fmt.Sprint("closing ", in.Node, in.N)] = g.now
			c.done("%s %s", a.Closing.Outcome, in.Node)
		}
	}
}

func (c *rigCloud) create(n *rigNode, a Create, ours bool) {
	in, key := a.Intent, fmt.Sprint("call ", a.Intent.Node, a.Intent.N)
	c.list(n)
	claim := c.g.claims[in.Node]
	_, called := c.written[key]
	if !ours || called || c.intents[in.Node].N != in.N || claim.Epoch != in.Replaces || in.Replaces > 0 && !claim.Tombstoned ||
		n.v.List.NoRoom(n.p, n.v.Machine, in, a.Most) != "" {
		return
	}
	c.written[key] = c.g.now
	c.count++
	id := fmt.Sprintf("new%d-%s", c.count, in.Node)
	c.done("create %s", id)
	if c.wrong {
		return
	}
	c.machines[id] = &cluster.Machine{ID: id, Name: in.Node, Tags: []string{"c", in.Tag()}, Power: cluster.PowerNew}
	c.boots = append(c.boots, rigBoot{c.g.now.Add(c.boot), in.Node, id})
}

func (c *rigCloud) list(n *rigNode) {
	var all []Listed
	for _, id := range slices.Sorted(maps.Keys(c.machines)) {
		m := *c.machines[id]
		if c.first[id] == 0 {
			c.first[id] = c.g.now
		}
		l := Listed{Machine: m, First: max(c.first[id], n.v.Started)}
		if claim := c.g.claims[m.Name]; claim.Machine == id {
			l.Claimed, l.Known = claim.Epoch, true
		} else if id == "m-"+m.Name {
			l.Claimed, l.Known = 1, true
		}
		l.Known = l.Known || slices.ContainsFunc(m.Tags, func(t string) bool {
			return c.nonces[strings.TrimPrefix(t, cluster.IntentTag)] == m.Name
		})
		all = append(all, l)
	}
	n.v.List = ListReading{Machines: all, At: c.g.now, Agree: n.v.List.Agree + 1}
}

// machine is what asking by ID gives.
func (c *rigCloud) machine(id string) MachineReading {
	r := MachineReading{ID: id, Power: cluster.PowerGone}
	if m := c.machines[id]; m != nil {
		r.Power, r.Name, r.Ours = m.Power, m.Name, slices.Contains(m.Tags, "c")
	}
	return r
}

// heals runs until every node has exactly one machine, which is its own and serves, and fails if that is not so in time.
func (c *rigCloud) heals(t *testing.T, within time.Duration) {
	t.Helper()
	for end := c.g.now.Add(within); c.g.now < end && len(c.amiss()) > 0; {
		c.g.run(time.Second)
	}
	c.whole(t)
}

// whole fails unless it is so now.
func (c *rigCloud) whole(t *testing.T) {
	t.Helper()
	if wrong := c.amiss(); len(wrong) > 0 {
		for _, k := range c.g.names {
			c.g.logf("%s blocked: %v", k, c.g.nodes[k].out.Blocked)
		}
		t.Fatalf("%s\nhistory:\n%s", strings.Join(wrong, "\n"), strings.Join(c.g.log, "\n"))
	}
}

// amiss says what is missing to that.
func (c *rigCloud) amiss() (wrong []string) {
	for _, k := range c.g.names {
		var have []string
		for id, m := range c.machines {
			if m.Name == k && (m.Power != cluster.PowerOff || !c.g.nodes[c.g.names[0]].p.hasData(k)) {
				have = append(have, id)
			}
		}
		claim := c.g.claims[k]
		if len(have) != 1 || claim.Machine != have[0] || claim.Tombstoned || c.g.nodes[k].dead {
			wrong = append(wrong, fmt.Sprintf("%s has the machines %v, claim %+v, dead %v, intent %+v", k, have, claim, c.g.nodes[k].dead, c.intents[k]))
		}
		if c.intents[k].Open() {
			wrong = append(wrong, fmt.Sprintf("the intent for %s is open: %+v", k, c.intents[k]))
		}
	}
	return wrong
}

// creations is how many machines were asked for.
func (c *rigCloud) creations() int { return c.count }
