package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

const five = head + `
  lb: {nodes: "lb[1-5]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
`

const quick = "timings: {replacement_hold: 3s}\n"

func healing(t *testing.T, yaml string) (*rig, *rigCloud) {
	g := newRig(t, quick+yaml)
	c := g.withCloud()
	g.run(3 * time.Second)
	return g, c
}

func TestALostNodeGetsOneNewMachineAfterTheOldOneIsOff(t *testing.T) {
	g, c := healing(t, eight)
	g.nodes["web1"].dead = true // its machine hangs: the provider says that it runs
	g.run(30 * time.Second)
	c.whole(t)
	want := []string{"intent 1 for web1 by lb1", "tombstone web1", "power off m-web1", "create new1-web1", "claim web1 by new1-web1", "delete m-web1", "done web1"}
	if !slices.Equal(c.did, want) {
		t.Errorf("got %q,\nwant %q", c.did, want)
	}
}

func TestNobodyIsReplacedBeforeTheHoldTime(t *testing.T) {
	g, c := healing(t, eight)
	g.nodes["web1"].dead = true
	g.run(3200 * time.Millisecond)
	if len(c.did) > 0 {
		t.Errorf("did %q", c.did)
	}
	g.start("web1", 3)
	g.giveLedger("web1")
	g.run(20 * time.Second)
	if len(c.did) > 0 {
		t.Errorf("after its return: did %q", c.did)
	}
}

func TestAMachineThatTheProviderCallsGoneIsReplacedAtOnce(t *testing.T) {
	g, c := healing(t, eight)
	c.destroy("web1")
	g.run(2900 * time.Millisecond) // less than the hold time
	if c.creations() != 1 {
		t.Errorf("%d machines were created; did %q", c.creations(), c.did)
	}
	g.run(10 * time.Second)
	c.whole(t)
}

func TestALoneSurvivorRebuildsWhatIsGoneSideBySide(t *testing.T) {
	for _, survivor := range []string{"lb2", "web1", "mail2", "repo1"} {
		g, c := healing(t, eight)
		for _, n := range g.names {
			if n != survivor {
				c.destroy(n)
			}
		}
		g.run(40 * time.Second)
		c.whole(t)
		if c.creations() != 7 {
			t.Errorf("%s: %d machines were created, want 7", survivor, c.creations())
		}
	}
}

func TestALoneSurvivorTouchesNothingThatRuns(t *testing.T) {
	g, c := healing(t, eight)
	g.isolate("mail2")
	g.run(60 * time.Second)
	want := []string{"intent 1 for mail2 by lb1", "tombstone mail2", "power off m-mail2", "create new1-mail2", "claim mail2 by new1-mail2"}
	if !slices.Equal(c.did, want) { // the cut is the network's, so the new machine is not heard either
		t.Errorf("got %q, want %q", c.did, want)
	}
}

// Wherever the acting node is lost, another one goes on, and there is one machine for each node in the end.
func TestTheActingNodeMayBeLostAfterEveryStep(t *testing.T) {
	steps := []string{"intent", "tombstone", "power off", "create", "claim", "delete", "done"}
	for _, at := range steps {
		for _, gone := range []bool{false, true} {
			t.Run(at, func(t *testing.T) {
				g, c := healing(t, five)
				hit := false
				c.after = func(what string) {
					if !hit && strings.HasPrefix(what, at) {
						hit = true
						if gone {
							c.destroy("lb1")
						} else {
							g.nodes["lb1"].dead = true
						}
					}
				}
				g.nodes["lb5"].dead = true
				for i := 0; !hit && i < 200; i++ {
					g.run(time.Second)
				}
				c.heals(t, 100*time.Second)
				if c.creations() != 2 || !hit {
					t.Errorf("%d machines were created, want 2; did %q", c.creations(), c.did)
				}
			})
		}
	}
}

func TestOneAtATimeUnlessGone(t *testing.T) {
	g, c := healing(t, eight)
	open := 0
	c.after = func(string) {
		n := 0
		for _, in := range c.intents {
			if in.Open() {
				n++
			}
		}
		open = max(open, n)
	}
	g.nodes["web1"].dead, g.nodes["web2"].dead, g.nodes["repo2"].dead = true, true, true
	g.run(60 * time.Second)
	c.whole(t)
	if open != 1 {
		t.Errorf("%d replacements were under way at once", open)
	}
}

func TestAMachineThatNeverComesIsGivenUpAndTriedAgainLater(t *testing.T) {
	g, c := healing(t, three)
	c.wrong = true
	c.destroy("lb3")
	g.run(time.Minute)
	waits := func(b Blocked) bool {
		return b.What == "new machine of lb3" && strings.Contains(b.Why, "has not joined yet")
	}
	if got := g.nodes["lb1"].out.Blocked; !slices.ContainsFunc(got, waits) {
		t.Errorf("nobody says what is waited for: %v", got)
	}
	g.run(5 * time.Minute)
	if c.creations() != 1 || c.intents["lb3"].Closed.Outcome != cluster.Failed {
		t.Fatalf("%d creations, intent %+v; did %q", c.creations(), c.intents["lb3"], c.did)
	}
	c.wrong = false
	g.run(3 * time.Minute)
	c.whole(t)
	if c.creations() != 2 {
		t.Errorf("%d creations", c.creations())
	}
}

func TestAfterThreeFailedTriesAPersonIsAsked(t *testing.T) {
	g, c := healing(t, three)
	c.wrong = true
	c.destroy("lb3")
	g.run(40 * time.Minute)
	if c.creations() != 3 {
		t.Errorf("%d creations; did %q", c.creations(), c.did)
	}
	says(t, g, "lb1", "3 tries have failed")
}

func TestPausesBetweenTriesFollowTheStartupTimeoutDownwards(t *testing.T) {
	for startup, want := range map[time.Duration][]time.Duration{
		30 * time.Second: {15 * time.Second, 30 * time.Second, time.Minute, 90 * time.Second},
		10 * time.Minute: {5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute},
		time.Hour:        {5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute},
	} {
		p := Policy{Timings: Timings{Startup: startup}}
		for i, want := range want {
			if got := p.retryAfter(i + 2); got != want {
				t.Errorf("startup %v, try %d: after %v, want %v", startup, i+2, got, want)
			}
		}
	}
}

func says(t *testing.T, g *rig, node, text string) {
	t.Helper()
	if !slices.ContainsFunc(g.nodes[node].out.Blocked, func(b Blocked) bool { return strings.Contains(b.Why, text) }) {
		t.Errorf("%s does not say %q: %v", node, text, g.nodes[node].out.Blocked)
	}
}

func TestAMachineThatIsNotOursIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*cluster.Machine){
		"called otherwise": func(m *cluster.Machine) { m.Name = "www" },
		"without the tag":  func(m *cluster.Machine) { m.Tags = nil },
	} {
		g, c := healing(t, three)
		change(c.machines["m-lb3"])
		g.nodes["lb3"].dead = true
		g.run(30 * time.Second)
		if len(c.did) != 1 || c.machines["m-lb3"].Power != cluster.PowerOn {
			t.Errorf("%s: did %q", name, c.did)
		}
		says(t, g, "lb1", "not marked as the cluster's")
	}
}

func TestNothingIsReplacedWithoutTheLedgerOrWhilePaused(t *testing.T) {
	for name, hinder := range map[string]func(*rig){
		"ledger away": func(g *rig) { g.ledgerAway = true },
		"paused":      func(g *rig) { g.nodes["lb1"].v.Orders.Pause = true },
		"list of somebody else": func(g *rig) {
			for _, n := range g.names {
				g.nodes[n].v.Machine += "x"
			}
		},
	} {
		g, c := healing(t, three)
		hinder(g)
		c.destroy("lb3")
		g.run(30 * time.Second)
		if len(c.did) > 0 {
			t.Errorf("%s: did %q", name, c.did)
		}
		if blocked := g.nodes["lb1"].out.Blocked; len(blocked) == 0 {
			t.Errorf("%s: nobody says why", name)
		}
	}
}

func TestAReplacementThatCannotGoOnSaysWhy(t *testing.T) {
	g, c := healing(t, three)
	c.after = func(what string) { g.ledgerAway = g.ledgerAway || what == "tombstone lb3" }
	g.nodes["lb3"].dead = true
	g.run(30 * time.Second)
	if last := c.did[len(c.did)-1]; last != "tombstone lb3" {
		t.Errorf("without the ledger: did %q", c.did)
	}
	if !slices.ContainsFunc(g.nodes["lb1"].out.Blocked, func(b Blocked) bool { return b.What == "replacement of lb3" }) {
		t.Errorf("nobody says why it does not go on: %v", g.nodes["lb1"].out.Blocked)
	}
	g.ledgerAway = false
	c.heals(t, time.Minute)
}

// A node that was given up and comes back before it was fenced keeps its machine, if it is the first to claim.
func TestAnOldMachineThatClaimsAgainEndsTheReplacement(t *testing.T) {
	g, c := healing(t, three)
	c.after = func(what string) {
		if what == "tombstone lb3" {
			g.start("lb3", 2)
			g.claims["lb3"] = cluster.Claim{Node: "lb3", Epoch: 2, Machine: "m-lb3"}
			n := g.nodes["lb3"]
			n.v.Ledger = Ledger{Configured: true, Sound: true}
			n.v.Claim = ClaimReading{Needed: true, Mine: true, Epoch: 2}
		}
	}
	g.nodes["lb3"].dead = true
	g.run(30 * time.Second)
	c.whole(t)
	if want := []string{"intent 1 for lb3 by lb1", "tombstone lb3", "aborted lb3"}; !slices.Equal(c.did, want) {
		t.Errorf("got %q, want %q", c.did, want)
	}
}

func TestAMachineTooManyIsCollectedSlowly(t *testing.T) {
	g, c := healing(t, three)
	c.nonces["00"] = "lb2"
	c.machines["stray"] = &cluster.Machine{ID: "stray", Name: "lb2", Tags: []string{"c", "intent-00"}, Power: cluster.PowerOn}
	c.machines["foreign"] = &cluster.Machine{ID: "foreign", Name: "lb2", Tags: []string{"c"}, Power: cluster.PowerOn}
	g.run(19 * time.Minute)
	if len(c.did) > 0 {
		t.Errorf("too soon: did %q", c.did)
	}
	g.run(3 * time.Minute)
	if want := []string{"power off stray", "delete stray"}; !slices.Equal(c.did, want) {
		t.Errorf("got %q, want %q", c.did, want)
	}
	says(t, g, "lb1", "nothing in the ledger says that it is ours")
}

// TestTheCoordinatorClosesItsOwnReplacement is about a cluster's first machine, and a newcomer that has come to coordinate meanwhile.
func TestTheCoordinatorClosesItsOwnReplacement(t *testing.T) {
	g, c := healing(t, eight)
	c.intents["lb1"] = cluster.Intent{Node: "lb1", N: 1, Nonce: strings.Repeat("0", 32), By: "lb1", Try: 1, Why: "the cluster is launched"}
	c.written["intent lb11"], c.written["call lb11"] = g.now, g.now
	g.run(15 * time.Second) // an idle ledger is read every 10 s
	if in := c.intents["lb1"]; in.Closed.Outcome != cluster.Done || c.creations() != 0 {
		t.Errorf("got %+v after %q, want it done, and nothing else", in, c.did)
	}
}
