package decide

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

const (
	oldCommit  = "1111111111111111111111111111111111111111"
	newCommit  = "2222222222222222222222222222222222222222"
	nextCommit = "3333333333333333333333333333333333333333"
)

const lbAndWeb = head + `
  lb: {nodes: "lb[1-2]", address: {vip: 10.0.0.10/24, interface: eth0}}
  web: {nodes: "web[1-3]", names: [web]}
`

// rollout is a cluster at rest at oldCommit.
func rollout(t *testing.T) (*rig, *rigPuppet) {
	g := newRig(t, lbAndWeb)
	x := g.withPuppet(oldCommit)
	g.run(3 * time.Second)
	return g, x
}

// watched runs the cluster and fails the test once two nodes of a role are at it together.
func (x *rigPuppet) watched(d time.Duration) {
	x.g.t.Helper()
	for end := x.g.now.Add(d); x.g.now < end; x.g.now += 1_000_000 {
		x.g.step()
		for _, r := range x.g.nodes["lb1"].p.Roles {
			if busy := x.busy(r); len(busy) > 1 {
				x.fatalf("%v run Puppet together", busy)
			}
		}
	}
}

func (x *rigPuppet) fatalf(format string, args ...any) {
	x.g.t.Helper()
	for _, name := range x.g.names {
		n := x.g.nodes[name]
		x.g.logf("%s is at %.4s, says %+v, try %+v, blocked: %v", name, n.v.Commit, n.out.Say.Rollout, n.m.Rollout, n.out.Blocked)
	}
	x.g.t.Fatalf(format+"\nhistory:\n"+strings.Join(x.g.log, "\n"), args...)
}

// want fails the test unless the named nodes are made of a commit.
func (x *rigPuppet) want(commit string, nodes ...string) {
	x.g.t.Helper()
	for _, k := range nodes {
		if x.at[k] != commit || x.g.nodes[k].v.Commit != commit {
			x.fatalf("%s is at %.4s, want %.4s", k, x.at[k], commit)
		}
	}
}

func TestACommitComesToEveryNodeOneOfARoleAtATimeThePrimaryLast(t *testing.T) {
	g, x := rollout(t)
	x.push(newCommit)
	x.watched(30 * time.Second)
	x.want(newCommit, g.names...)
	if got := x.tried[newCommit]; !slices.Equal(slices.DeleteFunc(slices.Clone(got), func(k string) bool { return k[0] == 'w' }), []string{"lb2", "lb1"}) ||
		!slices.Equal(slices.DeleteFunc(slices.Clone(got), func(k string) bool { return k[0] == 'l' }), []string{"web1", "web2", "web3"}) {
		x.fatalf("the order was %v", got)
	}
	g.check("lb", "lb1")
}

func TestWhatRestartsThePrimarysServicesComesAfterTheDutyMoved(t *testing.T) {
	g, x := rollout(t)
	x.restarts[newCommit] = true
	x.push(newCommit)
	x.watched(40 * time.Second)
	x.want(newCommit, g.names...)
	g.check("lb", "lb2")
}

func TestACommitThatBreaksOneNodeIsTriedOnNoOther(t *testing.T) {
	for _, fate := range []string{"fail", "sick", "mute", "compile", "cut"} {
		t.Run(fate, func(t *testing.T) {
			g, x := rollout(t)
			x.bad[newCommit] = func(node string) string {
				if strings.HasPrefix(node, "web") {
					return fate
				}
				return ""
			}
			x.push(newCommit)
			x.watched(100 * time.Second)
			x.want(oldCommit, "web1", "web2", "web3")
			var web []string
			for _, k := range x.tried[newCommit] {
				if k[0] == 'w' {
					web = append(web, k)
				}
			}
			want := map[string]int{"fail": 1, "sick": 1, "mute": 1, "compile": 0, "cut": mostCut}[fate]
			if len(web) != want || slices.ContainsFunc(web, func(k string) bool { return k != "web1" }) {
				x.fatalf("it was tried on %v, want web1 %d times", web, want)
			}
			for _, k := range g.names {
				n := g.nodes[k]
				if n.v.Health != cluster.Healthy || !slices.ContainsFunc(n.m.Rollout.Bad, func(b Bad) bool { return b.Commit == newCommit }) {
					x.fatalf("%s does not know that it is bad, or is not healthy", k)
				}
			}
			if why := g.nodes["web1"].m.Rollout.Bad[0].Why; fate == "mute" && !strings.Contains(why, "did not reach them again") {
				x.fatalf("the reason is %q", why)
			}
			x.push(nextCommit)
			x.watched(40 * time.Second)
			x.want(nextCommit, g.names...)
		})
	}
}

func TestALockIsNoFaultOfTheCommit(t *testing.T) {
	g, x := rollout(t)
	locked := true
	x.bad[newCommit] = func(node string) string {
		if node == "web1" && locked {
			return "lock"
		}
		return ""
	}
	x.push(newCommit)
	x.watched(10 * time.Second)
	x.want(oldCommit, "web2", "web3")
	locked = false
	x.watched(2 * time.Minute)
	x.want(newCommit, g.names...)
}

func TestARoleThatLacksANodeDoesNotChangeUntilToldSo(t *testing.T) {
	g, x := rollout(t)
	g.nodes["web3"].dead = true
	g.run(2 * time.Second)
	x.push(newCommit)
	x.watched(30 * time.Second)
	x.want(oldCommit, "web1", "web2")
	x.want(newCommit, "lb1", "lb2")
	if b := g.nodes["web1"].out.Blocked; len(b) != 1 || !strings.Contains(b[0].Why, "web3 is missing") {
		x.fatalf("web1 is blocked by %v", b)
	}
	for _, k := range []string{"web1", "web2"} {
		g.nodes[k].v.Orders.Without = newCommit
	}
	x.watched(30 * time.Second)
	x.want(newCommit, "web1", "web2")
}

func TestANodeThatHasNotHeardOfTheCommitIsWaitedFor(t *testing.T) {
	g, x := rollout(t)
	x.push(newCommit, "web2", "web3")
	x.watched(20 * time.Second)
	x.want(oldCommit, g.names...)
	x.push(newCommit)
	x.watched(30 * time.Second)
	x.want(newCommit, g.names...)
}

func TestOneRoleAtATimeWhereTheCommitSaysSo(t *testing.T) {
	g, x := rollout(t)
	for _, n := range g.nodes {
		n.v.Rollout.InOrder, n.p.Hire = true, []string{"web", "lb"}
	}
	x.push(newCommit)
	x.watched(60 * time.Second)
	x.want(newCommit, g.names...)
	if got := strings.Join(x.tried[newCommit], " "); got != "web1 web2 web3 lb2 lb1" {
		x.fatalf("the order was %s", got)
	}
}

func TestDriftIsOnlyShownWhereThatIsWanted(t *testing.T) {
	g, x := rollout(t)
	g.nodes["web1"].p.LookOnly, g.nodes["web1"].v.Rollout.Drifted, x.changes["web1"] = true, true, 2
	x.watched(20 * time.Second)
	if len(x.tried[oldCommit]) > 0 {
		x.fatalf("corrected on %v", x.tried[oldCommit])
	}
	g.wantBlocked("web1", "correction of drift", "2 resources are not as commit 11111111 wants them")
}

func TestDriftIsCorrectedWithTheLeaveOfTheOthers(t *testing.T) {
	g, x := rollout(t)
	for _, k := range []string{"web1", "web2", "lb1"} {
		g.nodes[k].v.Rollout.Drifted = true
		x.changes[k] = 2
	}
	g.nodes["web3"].v.Rollout.Drifted = true // which is as it should be
	x.watched(20 * time.Second)
	if got := slices.Sorted(slices.Values(x.tried[oldCommit])); !slices.Equal(got, []string{"lb1", "web1", "web2"}) {
		x.fatalf("corrected on %v", got)
	}
	for _, k := range g.names {
		if n := g.nodes[k]; len(n.m.Rollout.Bad) > 0 || n.m.Rollout.Try.Commit != "" {
			x.fatalf("%s: %+v", k, n.m.Rollout)
		}
	}
}

func TestATryGoesOnAfterTheSidecarWasStartedAnew(t *testing.T) {
	g, x := rollout(t)
	x.takes = 4 * time.Second
	x.push(newCommit)
	for range 20_000 {
		g.run(time.Millisecond)
		if g.nodes["web1"].m.Rollout.Try.Commit != "" {
			break
		}
	}
	r := g.nodes["web1"].v.Rollout
	g.start("web1", 2)
	g.nodes["web1"].v.Rollout, g.nodes["web1"].v.Commit = r, oldCommit
	x.watched(90 * time.Second)
	x.want(newCommit, g.names...)
	if n := len(x.tried[newCommit]); n != len(g.names) {
		x.fatalf("tried on %v", x.tried[newCommit])
	}
}

// Whatever is pushed, lost, slow and dead: no two nodes of a role at once, a bad commit on one node of a role at most, and in the end all at the
// last commit.
func TestRolloutsInTrouble(t *testing.T) {
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 1))
		g, x := rollout(t)
		g.loss = func() bool { return r.IntN(10) == 0 }
		fates := []string{"fail", "sick", "compile"}
		for round := range 3 {
			commit := strings.Repeat(string(rune('a'+round)), 40)
			fate := fates[r.IntN(len(fates))]
			if r.IntN(2) == 0 {
				x.bad[commit] = func(string) string { return fate }
			}
			x.restarts[commit] = r.IntN(2) == 0
			for _, k := range g.names {
				x.push(commit, k)
				x.watched(time.Duration(r.IntN(700)) * time.Millisecond)
			}
			if k := g.names[r.IntN(len(g.names))]; r.IntN(2) == 0 {
				was := g.nodes[k].v
				g.nodes[k].dead = true
				x.watched(time.Duration(r.IntN(3000)) * time.Millisecond)
				g.start(k, 1)
				n := g.nodes[k]
				n.v.Rollout, n.v.Commit, n.v.Health, n.v.StandbyHealth = was.Rollout, was.Commit, was.Health, was.StandbyHealth
				n.v.Rollout.Applied.At, n.v.Rollout.Rehearsed.At = 0, 0
			}
			x.watched(time.Duration(r.IntN(20)) * time.Second)
		}
		g.loss = nil
		x.push(nextCommit)
		for range 60 {
			if x.watched(5 * time.Second); !slices.ContainsFunc(g.names, func(k string) bool { return x.at[k] != nextCommit }) {
				break
			}
		}
		x.want(nextCommit, g.names...)
		for commit := range x.bad {
			for _, role := range []string{"lb", "web"} {
				tried := map[string]bool{}
				for _, k := range x.tried[commit] {
					tried[k] = tried[k] || strings.HasPrefix(k, role)
				}
				for k, of := range tried {
					if !of {
						delete(tried, k)
					}
				}
				if len(tried) > 1 {
					x.fatalf("seed %d: the bad commit %.4s was tried on %v", seed, commit, x.tried[commit])
				}
			}
		}
	}
}
