package decide

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
)

// rigRemoval is a commit, newCommit, whose roles.yaml lacks nodes.
type rigRemoval struct {
	*rigPuppet
	old, next role.Roster
	gone      []string
}

// removing is a cluster at rest to which a commit is pushed that has fewer nodes, when that begins. Its machines are known to a provider.
func removing(t *testing.T, yaml, from, to string, gone ...string) (*rigRemoval, *rigCloud) {
	t.Helper()
	g := newRig(t, quick+yaml)
	c := g.withCloud()
	x := &rigRemoval{rigPuppet: g.withPuppet(oldCommit), gone: gone}
	x.removal = x
	for _, r := range []struct {
		to   *role.Roster
		text string
	}{{&x.old, yaml}, {&x.next, strings.Replace(yaml, from, to, 1)}} {
		var err error
		if *r.to, err = role.Parse("roles.yaml", []byte(quick+r.text)); err != nil {
			t.Fatal(err)
		}
	}
	g.run(3 * time.Second)
	return x, c
}

func (x *rigRemoval) of(commit string) uint64 {
	if commit == newCommit {
		return RosterOf(x.next)
	}
	return RosterOf(x.old)
}

// remove pushes the commit.
func (x *rigRemoval) remove() {
	x.push(newCommit)
	for _, n := range x.g.nodes {
		x.look(n)
	}
}

// look fills in what a node makes of the newest commit's roles.yaml.
func (x *rigRemoval) look(n *rigNode) {
	n.v.Rollout.Next, n.v.Rollout.Leave = 0, nil
	if next := x.of(n.v.Rollout.Head); next != n.p.Roster {
		n.v.Rollout.Next = next
		if n.v.Rollout.Head == newCommit {
			n.v.Rollout.Leave = x.gone
		}
	}
}

// restart starts a node's sidecar anew, with the roles.yaml of what is applied there. It talks to those alone whom that has.
func (x *rigRemoval) restart(n *rigNode) {
	was, r := n.v, x.old
	if n.v.Commit == newCommit {
		r = x.next
	}
	p, err := New(n.name, r)
	if err != nil {
		x.g.t.Fatal(err)
	}
	for _, k := range x.gone {
		cut := !slices.Contains(r.Nodes(), k)
		x.g.cut[[2]string{n.name, k}], x.g.cut[[2]string{k, n.name}] = cut, cut
	}
	x.g.start(n.name, 0)
	n.p = p
	n.v.Ledger, n.v.Claim, n.v.Commit, n.v.Rollout = was.Ledger, was.Claim, was.Commit, was.Rollout
	n.v.Rollout.Stale = false
	x.look(n)
}

// wantGone fails the test unless the nodes have left, are deleted, and all others are at the new commit and have their machines.
func (x *rigRemoval) wantGone(c *rigCloud) {
	x.g.t.Helper()
	stay := slices.DeleteFunc(slices.Clone(x.g.names), func(k string) bool { return slices.Contains(x.gone, k) })
	for _, k := range x.gone {
		if c.machines["m-"+k] != nil || !x.g.claims[k].Left {
			x.fatalf("%s has not gone: %+v, %v", k, x.g.claims[k], c.did)
		}
	}
	x.want(newCommit, stay...)
	for _, k := range stay {
		if c.machines["m-"+k] == nil || c.creations() > 0 {
			x.fatalf("%s lost its machine: %v", k, c.did)
		}
	}
}

// lawful runs on, and fails the test once a node leaves that holds a duty or that others of its role have not let go.
func (x *rigRemoval) lawful(c *rigCloud, d time.Duration) {
	x.g.t.Helper()
	c.after = func(what string) {
		node, left := strings.CutSuffix(what, " leaves")
		id, deleted := strings.CutPrefix(what, "delete m-")
		switch {
		case left && strings.Contains(x.g.holder("lb")+x.g.holder(cluster.Coordinator), node):
			x.fatalf("%s leaves while it holds a duty", node)
		case left && x.g.nodes[node].said.Phase == cluster.Serving:
			x.fatalf("%s leaves while it serves", node)
		case deleted && !x.g.claims[id].Left:
			x.fatalf("%s is deleted and has not left", id)
		}
	}
	for end := x.g.now.Add(d); x.g.now < end; {
		x.watched(time.Millisecond)
		for _, n := range x.g.nodes {
			if n.v.Rollout.Head == "" { // a new machine
				n.v.Commit, n.v.Rollout.Head, x.at[n.name] = oldCommit, newCommit, oldCommit
				x.look(n)
			}
		}
	}
}

// stays fails the test unless nobody has left, and the nodes that were to leave serve.
func (x *rigRemoval) stays(c *rigCloud) {
	x.g.t.Helper()
	for _, k := range x.gone {
		if n := x.g.nodes[k]; len(c.did) > 0 || n.said.Phase != cluster.Serving || n.said.Rollout.Leaves {
			x.fatalf("%s says %+v; did %q", k, n.said, c.did)
		}
	}
}

func TestANodeLeavesByItselfAndIsDeleted(t *testing.T) {
	x, c := removing(t, lbAndWeb, "web[1-3]", "web[1-2]", "web3")
	x.remove()
	x.lawful(c, 2*time.Minute)
	x.wantGone(c)
	if want := []string{"web3 leaves", "power off m-web3", "delete m-web3"}; !slices.Equal(c.did, want) {
		t.Errorf("did %q, want %q", c.did, want)
	}
}

func TestThePrimaryHandsOverBeforeItLeaves(t *testing.T) {
	x, c := removing(t, threeLbs, "lb[1-3]", "lb[2-3]", "lb1")
	x.remove()
	x.lawful(c, 2*time.Minute)
	x.wantGone(c)
	if x.g.worst["lb"] > 1 || x.g.holder("lb") == "lb1" || x.g.holder(cluster.Coordinator) == "lb1" {
		x.fatalf("lb is with %s, coordination with %s", x.g.holder("lb"), x.g.holder(cluster.Coordinator))
	}
}

const threeLbs = head + `
  lb: {nodes: "lb[1-3]", address: {vip: 10.0.0.10/24, interface: eth0}}
  web: {nodes: "web[1-2]", names: [web]}
`

func TestOfTwoThatLeaveOneServesUntilTheOtherIsOut(t *testing.T) {
	x, c := removing(t, strings.Replace(lbAndWeb, "web[1-3]", "web[1-4]", 1), "web[1-4]", "web[1-2]", "web3", "web4")
	x.remove()
	x.lawful(c, 5*time.Second)
	if first, second := x.g.nodes["web3"].said.Phase, x.g.nodes["web4"].said.Phase; first != cluster.Applied || second != cluster.Serving {
		x.fatalf("web3 is %s, web4 is %s", first, second)
	}
	x.g.wantBlocked("web4", "leaving of web4", "web3 leaves first")
	x.g.wantBlocked("lb2", "commit 22222222", "web3 leaves first")
	x.lawful(c, 2*time.Minute)
	x.wantGone(c)
}

func TestRemovalsInTrouble(t *testing.T) {
	begin := func(t *testing.T) (*rigRemoval, *rigCloud) {
		x, c := removing(t, lbAndWeb, "web[1-3]", "web[1-2]", "web3")
		return x, c
	}
	t.Run("messages are lost", func(t *testing.T) {
		x, c := begin(t)
		r := rand.New(rand.NewPCG(1, 2))
		x.g.loss = func() bool { return r.Float64() < 0.1 }
		x.remove()
		x.lawful(c, 3*time.Minute)
		x.wantGone(c)
	})
	t.Run("the ledger is away", func(t *testing.T) {
		x, c := begin(t)
		x.g.ledgerAway = true
		x.remove()
		x.lawful(c, time.Minute)
		x.want(newCommit, "lb1", "lb2", "web1", "web2") // nothing of that needs the ledger
		if len(c.did) > 0 {
			x.fatalf("did %q", c.did)
		}
		x.g.wantBlocked("web3", "leaving of web3", "the ledger has not answered lately")
		x.g.ledgerAway = false
		x.lawful(c, time.Minute)
		x.wantGone(c)
	})
	t.Run("the commit is bad", func(t *testing.T) {
		x, c := begin(t)
		x.bad[newCommit] = func(string) string { return "fail" }
		x.remove()
		x.lawful(c, time.Minute)
		x.want(oldCommit, x.g.names...)
		x.stays(c)
	})
	t.Run("a newer commit has a place for it", func(t *testing.T) {
		x, c := begin(t)
		x.remove()
		x.lawful(c, 5*time.Second)
		if said := x.g.nodes["web3"].said; said.Phase != cluster.Applied || !said.Rollout.Leaves {
			x.fatalf("web3 does not leave: %+v", said)
		}
		x.push(nextCommit)
		for _, n := range x.g.nodes {
			x.look(n)
		}
		x.lawful(c, time.Minute)
		x.want(nextCommit, x.g.names...)
		x.stays(c)
	})
	t.Run("its sidecar starts anew when the others have gone over", func(t *testing.T) {
		x, c := begin(t)
		x.g.ledgerAway = true
		x.remove()
		x.lawful(c, time.Minute)
		x.restart(x.g.nodes["web3"])
		x.g.ledgerAway = false
		x.lawful(c, time.Minute)
		x.wantGone(c)
	})
	t.Run("one that has not accepted the commit is lost", func(t *testing.T) {
		x, c := begin(t)
		c.boot = time.Hour
		x.push(newCommit, "lb1", "lb2", "web2", "web3")
		for _, n := range x.g.nodes {
			x.look(n)
		}
		x.g.nodes["web1"].dead = true
		x.lawful(c, time.Minute)
		if x.g.claims["web3"].Left {
			x.fatalf("web3 has left; did %q", c.did)
		}
		x.g.wantBlocked("web3", "leaving of web3", "web1 has not accepted the commit")
	})
	t.Run("nobody can take its duty", func(t *testing.T) {
		x, c := removing(t, threeLbs, "lb[1-3]", "lb[2-3]", "lb1")
		for _, k := range []string{"lb2", "lb3"} {
			x.g.nodes[k].v.Orders.Pause = true
		}
		x.remove()
		x.lawful(c, time.Minute)
		if said := x.g.nodes["lb1"].said; said.Phase != cluster.Serving || said.Rollout.Drained || len(c.did) > 0 {
			x.fatalf("lb1 says %+v; did %q", said, c.did)
		}
		x.g.wantBlocked("lb1", "leaving of lb1", "lb moves to another node first")
		x.g.check("lb", "lb1")
	})
	t.Run("it is lost on its way", func(t *testing.T) {
		x, c := begin(t)
		x.remove()
		x.lawful(c, 5*time.Second)
		c.destroy("web3")
		x.lawful(c, 3*time.Minute)
		if c.creations() != 1 || len(c.machines) != 4 || !x.g.claims["web3"].Left {
			x.fatalf("got %d machines, claim %+v; did %q", len(c.machines), x.g.claims["web3"], c.did)
		}
		x.want(newCommit, "lb1", "lb2", "web1", "web2")
	})
}

func TestAMachineOutsideTheRosterThatHasNotLeftStays(t *testing.T) {
	x, c := removing(t, lbAndWeb, "web[1-3]", "web[1-2]", "web3")
	for _, k := range []string{"lb1", "lb2", "web1", "web2"} { // as if somebody had put another roles.yaml there by hand
		n := x.g.nodes[k]
		n.v.Commit, n.v.Rollout.Head, x.at[k] = newCommit, newCommit, newCommit
		x.restart(n)
		n.p.Hire = []string{"lb", "web"}
	}
	x.g.nodes["web3"].dead = true
	x.g.run(collectAfter + time.Minute)
	if len(c.did) > 0 {
		x.fatalf("did %q", c.did)
	}
	x.g.wantBlocked(x.g.holder(cluster.Coordinator), "machine m-web3", "has not left by itself")
}
