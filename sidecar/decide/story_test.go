package decide

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

const head = `
cluster: c
domain: c.example
provider: {local: {region: x, size: s, image: i}}
roles:
`

const three = head + `
  lb: {nodes: "lb[1-3]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
`

const eight = head + `
  lb: {nodes: "lb[1-2]", address: {reserved_ip: 203.0.113.10, names: [www]}}
  web: {nodes: "web[1-2]", names: [web]}
  mail: {nodes: "mail[1-2]", address: {vip: 10.0.0.25/24, interface: eth0, names: [mail]}, data: [{path: /var/vmail}]}
  repo: {nodes: "repo[1-2]", names: [apt], data: [{path: /srv/apt}]}
`

const two = head + `
  lb: {nodes: "lb[1-2]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
`

func started(t *testing.T, yaml string) *rig {
	g := newRig(t, yaml)
	g.run(2 * time.Second)
	return g
}

func TestFirstNodeOfTheRosterBegins(t *testing.T) {
	started(t, three).check("lb", "lb1")
}

func TestStandbyTakesOverFromADeadPrimary(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].dead = true
	g.run(700 * time.Millisecond)
	g.check("lb", "lb2")
}

func TestOldPrimaryReturningDoesNotTakeTheDutyBack(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].dead = true
	g.run(2 * time.Second)
	g.start("lb1", 0)
	g.run(5 * time.Second)
	g.check("lb", "lb2")
}

func TestNextFailureAfterAFailoverIsCoveredAtOnce(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].dead = true
	g.run(time.Second)
	g.start("lb1", 0)
	g.run(time.Second)
	g.nodes["lb2"].dead = true
	g.run(800 * time.Millisecond)
	g.check("lb", "lb1")
}

func TestIsolatedPrimaryStepsDownAndStaysDown(t *testing.T) {
	g := started(t, three)
	g.isolate("lb1")
	g.run(2 * time.Second)
	g.check("lb", "lb2")
	clear(g.cut)
	g.run(2 * time.Second)
	g.check("lb", "lb2")
}

func TestPrimaryThatIsHeardButHearsNobodyStepsDown(t *testing.T) {
	g := started(t, three)
	g.cut[[2]string{"lb2", "lb1"}], g.cut[[2]string{"lb3", "lb1"}] = true, true
	g.run(3 * time.Second)
	g.check("lb", "lb2")
}

func TestPrimaryThatHearsButIsNotHeardStepsDown(t *testing.T) {
	g := started(t, three)
	g.cut[[2]string{"lb1", "lb2"}], g.cut[[2]string{"lb1", "lb3"}] = true, true
	g.run(3 * time.Second)
	g.check("lb", "lb2")
}

func TestBrokenLinkBetweenTwoMovesNothing(t *testing.T) {
	g := started(t, three)
	g.cut[[2]string{"lb1", "lb2"}], g.cut[[2]string{"lb2", "lb1"}] = true, true
	g.run(5 * time.Second)
	g.check("lb", "lb1")
	if got := g.nodes["lb2"].m.Verdicts["lb1"].State; got != Broken {
		t.Errorf("lb2 judges lb1 %v, want %v", got, Broken)
	}
}

func TestPrimaryStoppedFor400msKeepsTheDuty(t *testing.T) {
	for offset := time.Duration(0); offset < 100*time.Millisecond; offset += 7 * time.Millisecond {
		g := started(t, three)
		g.run(offset)
		g.nodes["lb1"].stopped = true
		g.run(400 * time.Millisecond)
		g.nodes["lb1"].stopped = false
		g.run(2 * time.Second)
		g.check("lb", "lb1")
		if got := strings.Join(g.opened["lb"], " "); got != "lb1" {
			t.Errorf("stopped %v after a turn: the gate was open at %s one after the other, want lb1 only", offset, got)
		}
	}
}

func TestPrimaryStoppedFor3sComesBackAsStandby(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].stopped = true
	g.run(3 * time.Second)
	g.nodes["lb1"].stopped = false
	g.run(2 * time.Second)
	g.check("lb", "lb2")
}

func TestStandbyStoppedFor3sTakesNothingOver(t *testing.T) {
	g := started(t, three)
	g.nodes["lb2"].stopped = true
	g.run(3 * time.Second)
	g.nodes["lb2"].stopped = false
	g.run(2 * time.Second)
	g.check("lb", "lb1")
}

func TestLossOfAFifthOfAllBeatsMovesNothing(t *testing.T) {
	for seed := range uint64(4) {
		g := started(t, three)
		r := rand.New(rand.NewPCG(seed, 0))
		g.loss = func() bool { return r.IntN(5) == 0 }
		g.run(60 * time.Second)
		g.check("lb", "lb1")
		if got := strings.Join(g.opened["lb"], " "); got != "lb1" {
			t.Errorf("seed %d: the gate was open at %s one after the other, want lb1 only", seed, got)
		}
	}
}

// A sidecar that is killed leaves its gate to close by itself; restarted at once it has forgotten that it was primary.
func TestSidecarKilledAndRestartedAtOnceNeverMakesTwo(t *testing.T) {
	for after := 50 * time.Millisecond; after < 900*time.Millisecond; after += 50 * time.Millisecond {
		g := started(t, three)
		old := g.nodes["lb1"].gate["lb"]
		g.nodes["lb1"].dead = true
		g.run(after)
		g.start("lb1", 0)
		g.nodes["lb1"].gate["lb"] = old // the kernel's, in the worst case
		g.run(3 * time.Second)
		if g.holder("lb") == "" || strings.Contains(g.holder("lb"), "+") {
			t.Errorf("restarted after %v: lb is with %q, want one", after, g.holder("lb"))
		}
		g.check("lb", g.holder("lb"))
	}
}

func TestLeavingPrimaryHandsOverWithoutAGapOfNote(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].v.Sockets = map[string]SocketReading{"lb": {At: 1 << 60}}
	g.nodes["lb1"].v.Orders.Leave = true
	from := g.now
	for g.holder("lb") != "lb2" && g.now.Sub(from) < time.Second {
		g.step()
		g.now += 1_000_000
	}
	if took := g.now.Sub(from); took > 50*time.Millisecond {
		t.Errorf("the duty was with lb2 %v after lb1 began to leave, want at most 50ms", took)
	}
	g.run(time.Second)
	g.check("lb", "lb2")
}

func TestMoveGoesWhereItWasAskedToGo(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].v.Sockets = map[string]SocketReading{"lb": {At: 1 << 60}}
	// Asked for at a node that does not have the duty: it is passed on.
	g.nodes["lb2"].v.Orders.Moves = []cluster.Move{{Duty: "lb", From: 1, To: "lb3"}}
	g.run(time.Second)
	g.check("lb", "lb3")
	g.run(5 * time.Second) // the wish stands, but is meant for epoch 1
	g.check("lb", "lb3")
}

func TestUnhealthyPrimaryHandsOver(t *testing.T) {
	g := started(t, three)
	g.nodes["lb1"].v.Sockets = map[string]SocketReading{"lb": {At: 1 << 60}}
	g.nodes["lb1"].v.Health, g.nodes["lb1"].v.StandbyHealth = cluster.Unhealthy, cluster.Unhealthy
	g.nodes["lb2"].v.Health, g.nodes["lb2"].v.StandbyHealth = cluster.Unhealthy, cluster.Unhealthy
	g.run(2 * time.Second)
	g.check("lb", "lb3")
}

func TestUnhealthyPrimaryKeepsTheDutyWhileNobodyIsHealthier(t *testing.T) {
	g := started(t, three)
	for _, n := range g.nodes {
		n.v.Health, n.v.StandbyHealth = cluster.Unhealthy, cluster.Unhealthy
	}
	g.run(3 * time.Second)
	g.check("lb", "lb1")
}

func TestPausedStandbyTakesNothingOver(t *testing.T) {
	g := started(t, three)
	g.nodes["lb2"].v.Orders.Pause = true
	g.run(time.Second)
	g.nodes["lb1"].dead = true
	g.run(2 * time.Second)
	g.check("lb", "lb3")
}

func TestMinorityWithoutALedgerHoldsNothing(t *testing.T) {
	g := started(t, three)
	g.nodes["lb2"].dead, g.nodes["lb3"].dead = true, true
	g.run(3 * time.Second)
	g.check("lb", "")
	if b := g.nodes["lb1"].out.Blocked; len(b) == 0 {
		t.Error("lb1 does not say what is blocked")
	}
}

// The provider's register is single, so the holder of a reserved address without data serves on alone.
func TestStatelessReservedAddressSurvivesAloneWithoutALedger(t *testing.T) {
	g := started(t, eight)
	for _, n := range g.names {
		if n != "lb1" {
			g.nodes[n].dead = true
		}
	}
	for range 10 {
		g.nodes["lb1"].v.Holders = map[string]HolderReading{"lb": {
			AddressHolder: cluster.AddressHolder{Machine: "m-lb1"}, At: g.now, Here: true, HereAt: g.now,
		}}
		g.run(time.Second)
	}
	g.check("lb", "lb1")
	if got := g.holder("mail"); got != "" {
		t.Errorf("mail is with %q, want nobody", got)
	}
}

func TestLoneSurvivorTakesOverWhatIsGone(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	g.check("mail", "mail1")
	for _, n := range g.names {
		if n != "mail2" {
			g.nodes[n].dead, g.gone[n] = true, true
		}
	}
	g.run(8 * time.Second)
	g.check("mail", "mail2")
	g.check(cluster.Coordinator, "mail2")
}

func TestLoneSurvivorTakesNothingWhileTheProviderSaysTheOthersRun(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	for _, n := range g.names {
		if n != "mail2" {
			g.nodes[n].dead = true
		}
	}
	g.run(60 * time.Second)
	g.check("mail", "")
}

func TestExactHalfActsAfterWinningTheTieAndWaiting(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	for _, n := range []string{"lb1", "web1", "mail1", "repo1"} {
		g.nodes[n].dead = true
	}
	g.run(9 * time.Second)
	g.check("mail", "")
	g.run(6 * time.Second)
	g.check("mail", "mail2")
	if g.tie.N != 1 {
		t.Errorf("tie number is %d, want 1", g.tie.N)
	}
}

func TestTwoHalvesNeverBothAct(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	for _, a := range []string{"lb1", "web1", "mail1", "repo1"} {
		for _, b := range []string{"lb2", "web2", "mail2", "repo2"} {
			g.cut[[2]string{a, b}], g.cut[[2]string{b, a}] = true, true
		}
	}
	g.run(30 * time.Second)
	if h := g.holder("mail"); h != "mail1" && h != "mail2" {
		t.Errorf("mail is with %q, want one of its nodes", h)
	}
	held := g.holder("mail")
	clear(g.cut)
	g.run(10 * time.Second)
	g.check("mail", held)
	if g.nodes[held].m.Duties["mail"].Lease {
		t.Error("the duty still hangs on the ledger although everybody is back")
	}
}

func TestTwoHalvesWithoutALedgerDoNothing(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	g.ledgerAway = true
	for _, n := range []string{"lb1", "web1", "mail1", "repo1"} {
		g.nodes[n].dead = true
	}
	g.run(60 * time.Second)
	g.check("mail", "")
}

func TestMajorityMovesADutyWithoutTheLedger(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	g.ledgerAway = true
	g.run(20 * time.Second)
	g.nodes["mail1"].dead = true
	g.run(800 * time.Millisecond)
	g.check("mail", "mail2")
}

func TestFirstNodesOfANewClusterBeginBeforeTheRestIsThere(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	for _, n := range g.names {
		if n != "repo1" && n != "repo2" {
			g.nodes[n].dead = true
			delete(g.claims, n)
		}
	}
	g.run(4 * time.Second)
	g.check("repo", "repo1")
	for i, n := range g.names {
		if g.nodes[n].dead {
			g.start(n, i)
			g.giveLedger(n)
		}
	}
	g.run(5 * time.Second)
	g.check("repo", "repo1")
	g.check("mail", "mail1")
}

// While a half holds its duties by the ledger's word, a majority that forms without the holder must not take them at once.
func TestMajorityWaitsOutALease(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	g.run(3 * time.Second)
	for _, n := range []string{"lb1", "web1", "mail1", "repo1"} {
		g.nodes[n].dead = true
	}
	g.run(16 * time.Second)
	g.check("mail", "mail2")
	// The others return; at the same moment mail2 loses all but the ledger.
	for i, n := range []string{"lb1", "web1", "mail1", "repo1"} {
		g.start(n, i)
		g.giveLedger(n)
	}
	g.isolate("mail2")
	g.run(4 * time.Second)
	if h := g.holder("mail"); h == "mail1" {
		t.Error("mail1 acts although mail2 may still hold the lease")
	}
	g.run(16 * time.Second)
	g.check("mail", "mail1")
}

func TestMemberWithAStrayPromiseIsWonBack(t *testing.T) {
	g := started(t, three)
	n := g.nodes["lb3"]
	s := n.m.Duties["lb"]
	s.Promise.Epoch, s.Promise.Holder = 7, "lb2" // a bid that came to nothing
	n.m.Duties["lb"] = s
	n.m.Promised["lb"] = 7
	g.run(time.Second)
	g.check("lb", "lb1")
	if got := g.nodes["lb1"].m.Duties["lb"].Hold.Epoch; got != 9 {
		t.Errorf("lb1 holds under epoch %d, want 9 (8 is the ledger's to give), so that lb3 can confirm it", got)
	}
	if got := strings.Join(g.opened["lb"], " "); got != "lb1" {
		t.Errorf("the gate was open at %s one after the other, want lb1 only", got)
	}
}

func TestRosterOfTwoFailsOverByTheTie(t *testing.T) {
	g := newRig(t, two)
	g.withLedger()
	g.run(3 * time.Second)
	g.check("lb", "lb1")
	g.nodes["lb1"].dead = true
	g.run(15 * time.Second)
	g.check("lb", "lb2")
}

func TestSuccessorDoesNotWaitForWhoHasJustGivenUp(t *testing.T) {
	g := started(t, three)
	g.cut[[2]string{"lb2", "lb1"}], g.cut[[2]string{"lb3", "lb1"}] = true, true
	g.run(time.Second)
	g.check("lb", "lb2")
}

func TestMoveToANodeOfAnotherRoleIsRefused(t *testing.T) {
	g := started(t, eight)
	g.nodes["mail1"].v.Orders.Moves = []cluster.Move{{Duty: "mail", From: 1, To: "lb1"}}
	g.run(time.Second)
	g.check("mail", "mail1")
	b := g.nodes["mail1"].out.Blocked
	if len(b) == 0 || !strings.Contains(b[0].Why, "lb1") {
		t.Errorf("blocked: %v, want a sentence about lb1", b)
	}
	if strings.Contains(strings.Join(g.log, "\n"), "moves from mail1") {
		t.Error("mail1 began to move")
	}
}

const writers = head + `
  mail: {nodes: "mail[1-2]", address: {vip: 10.0.0.25/24, interface: eth0, names: [mail]}, data: [{path: /var/vmail}], primary_units: [postfix.service]}
  web: {nodes: "web[1-2]", names: [web]}
`

// The writers of the old primary are stopped before the new one begins, and the first try succeeds.
func TestPlannedMoveStopsTheWritersFirst(t *testing.T) {
	g := newRig(t, writers)
	for _, n := range []string{"mail1", "mail2"} {
		g.nodes[n].v.Units = map[string]UnitReading{"mail": {}}
		g.nodes[n].v.Sockets = map[string]SocketReading{"mail": {At: 1 << 60}}
	}
	g.run(3 * time.Second)
	g.check("mail", "mail1")
	if !g.nodes["mail1"].v.Units["mail"].All {
		t.Fatal("the units of mail1 do not run: the test shows nothing")
	}
	g.nodes["mail1"].v.Orders.Moves = []cluster.Move{{Duty: "mail", From: 1}}
	for range 2000 {
		g.step()
		g.now += 1_000_000
		if g.nodes["mail1"].v.Units["mail"].Running && g.holder("mail") == "mail2" {
			t.Error("mail2 acts while the units of mail1 run")
		}
	}
	g.check("mail", "mail2")
	if got := g.nodes["mail2"].m.Duties["mail"].Hold.Epoch; got != 2 {
		t.Errorf("mail2 holds under epoch %d, want 2: the first try", got)
	}
	if !g.nodes["mail2"].v.Units["mail"].All {
		t.Error("the units of mail2 do not run")
	}
}

func TestResumedPrimaryTouchesNothingThatIsAnothersNow(t *testing.T) {
	g := started(t, eight)
	g.nodes["lb1"].stopped = true
	g.run(3 * time.Second)
	g.check(cluster.Coordinator, "lb1+lb2")
	g.nodes["lb1"].v.Holders = map[string]HolderReading{"lb": {AddressHolder: cluster.AddressHolder{Machine: "m-lb2"}, At: g.now + 1}}
	g.nodes["lb1"].stopped = false
	for range 1000 {
		g.step()
		g.now += 1_000_000
		for _, a := range g.nodes["lb1"].out.Actions {
			if _, ok := a.(AssignReserved); ok {
				t.Fatalf("lb1 wants the address back: %s", a.Text())
			}
		}
	}
}

func TestTieIsVoidOnceAMajorityWasThere(t *testing.T) {
	g := newRig(t, two)
	g.withLedger()
	g.run(3 * time.Second)
	for _, n := range g.nodes { // won last month, by the half that is lost now
		n.v.Ledger.Tie = cluster.Tie{N: 1, Winner: "lb1", Members: []string{"lb1"}}
	}
	g.tie = g.nodes["lb1"].v.Ledger.Tie
	g.nodes["lb1"].dead = true
	g.run(15 * time.Second)
	g.check("lb", "lb2")
}

// What members last read of the ledger may be a lease that its holder has long exchanged for a majority's word. With the ledger
// away it must not keep the duty from moving.
func TestLeaseThatIsOverKeepsNoDutyFromMovingWithoutTheLedger(t *testing.T) {
	g := newRig(t, eight)
	g.withLedger()
	for _, n := range g.names {
		if n != "repo1" && n != "repo2" {
			g.nodes[n].dead = true
			delete(g.claims, n)
		}
	}
	g.run(4 * time.Second)
	g.check("repo", "repo1")
	for i, n := range g.names {
		if g.nodes[n].dead {
			g.start(n, i)
			g.giveLedger(n)
		}
	}
	for i := 0; i < 10000 && (g.nodes["repo1"].m.Duties["repo"].Lease || g.nodes["repo1"].m.Duties["repo"].Hold.Epoch < 2); i++ {
		g.run(time.Millisecond)
	}
	g.ledgerAway = true
	for _, n := range g.names { // read before epoch 2 was written
		g.nodes[n].v.Ledger.Duties = map[string]cluster.DutyRecord{"repo": {Duty: "repo", Epoch: 1, Holder: "repo1", Lease: true}}
	}
	g.run(2 * time.Second)
	g.check("repo", "repo1")
	epoch := g.nodes["repo1"].m.Duties["repo"].Hold.Epoch
	g.nodes["repo1"].v.Orders.Moves = []cluster.Move{{Duty: "repo", From: epoch, To: "repo2"}}
	g.run(time.Second)
	g.check("repo", "repo2")
	g.run(5 * time.Second)
	g.check("repo", "repo2")
}

const one = head + `
  lb: {nodes: [lb1], understudy: none, address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
`

func TestRosterOfOneNeedsNobody(t *testing.T) {
	started(t, one).check("lb", "lb1")
}
