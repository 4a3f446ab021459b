package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

func withData(t *testing.T, yaml string) (*rig, *rigData) {
	t.Helper()
	g := newRig(t, yaml)
	x := g.withData()
	g.run(3 * time.Second)
	return g, x
}

// blocked is what a node says keeps it from something.
func (g *rig) blocked(node, what string) string {
	for _, b := range g.nodes[node].out.Blocked {
		if b.What == what {
			return b.Why
		}
	}
	return ""
}

func (g *rig) wantBlocked(node, what, part string) {
	g.t.Helper()
	if got := g.blocked(node, what); !strings.Contains(got, part) {
		g.t.Errorf("%s: %s is blocked by %q, want %q in it\nhistory:\n%s", node, what, got, part, strings.Join(g.log, "\n"))
	}
}

func TestACopyThatKeepsUpTakesOver(t *testing.T) {
	g, x := withData(t, eight)
	g.check("mail", "mail1")
	if s := g.nodes["mail2"].said; s.Phase != cluster.Serving || s.Mirrors[0].Synced != 1 {
		t.Fatalf("mail2 is %s with %+v, want serving and synced 1", s.Phase, s.Mirrors)
	}
	had := x.of("mail1").items
	g.stop("mail1")
	g.run(800 * time.Millisecond)
	g.check("mail", "mail2")
	if got := x.of("mail2").items; got < had-1 {
		t.Errorf("mail2 has %d items, mail1 had %d", got, had)
	}
}

func TestACopyThatWasLeftBehindDoesNotTakeOver(t *testing.T) {
	g, _ := withData(t, eight)
	g.isolate("mail2")
	g.run(4 * time.Second) // mail1 writes on
	g.stop("mail1")
	clear(g.cut)
	g.run(20 * time.Second)
	g.check("mail", "")
	g.wantBlocked("mail2", "takeover of mail", "whose machine m-mail1 is silent: bring it back, or `understudy discard mail1`")
	g.start("mail1", 0)
	g.run(2 * time.Second)
	g.check("mail", "mail1")
	g.run(2 * time.Second)
	g.stop("mail1") // by now mail2 has it all
	g.run(time.Second)
	g.check("mail", "mail2")
}

// All that knows of the newer data is a member's promise.
func TestAMajorityKnowsThatThereAreNewerData(t *testing.T) {
	g, _ := withData(t, eight)
	g.stop("mail2")
	g.run(4 * time.Second)
	g.stop("mail1")
	g.run(time.Second)
	g.start("mail2", 0) // has heard nobody since
	g.run(10 * time.Second)
	g.check("mail", "")
	g.wantBlocked("mail2", "takeover of mail", "mail2's copy is older than mail1's")
}

func TestAPrimaryWithoutACopyGoesOnUnderANewEpoch(t *testing.T) {
	g, _ := withData(t, eight)
	g.stop("mail2")
	g.run(5 * time.Second)
	s := g.nodes["mail1"].m.Duties["mail"]
	if s.Hold.State != cluster.Held || s.Hold.Epoch != 2 || s.Writes != 1 {
		t.Errorf("mail1 holds epoch %d, %s, and writes under %d; want 2, held, and 1", s.Hold.Epoch, s.Hold.State, s.Writes)
	}
}

func TestTheOldPrimaryWithNewerDataComesFirst(t *testing.T) {
	g, _ := withData(t, eight)
	g.isolate("mail2")
	g.run(4 * time.Second)
	g.stop("mail1")
	clear(g.cut)
	g.run(4 * time.Second)
	g.start("mail1", 0)
	g.nodes["mail1"].v.StandbyHealth, g.nodes["mail1"].v.Health = cluster.Unknown, cluster.Unknown
	g.run(2 * time.Second)
	g.check("mail", "mail1")
}

func TestWhatIsLeftTakesOverWhenEverythingNewerIsGone(t *testing.T) {
	g := newRig(t, quick+eight)
	x := g.withData()
	c := g.withCloud()
	g.run(3 * time.Second)
	g.isolate("mail2")
	g.run(2 * time.Second)
	c.destroy("mail1")
	clear(g.cut)
	g.run(4 * time.Second)
	g.check("mail", "mail2")
	if log := strings.Join(g.log, "\n"); !strings.Contains(log, "mail2 takes over mail with all data up to epoch 1; what was written under epoch 2 may be missing: mail1's machine is gone") {
		t.Errorf("no note of what is missing in\n%s", log)
	}
	c.heals(t, 30*time.Second)
	if a, b := x.of("mail1"), x.of("mail2"); a.items < b.items-1 {
		t.Errorf("the new mail1 has %d items of %d", a.items, b.items)
	}
}

func TestANodeWithTheOnlyNewestDataIsNotFenced(t *testing.T) {
	g := newRig(t, quick+eight)
	g.withData()
	c := g.withCloud()
	g.run(3 * time.Second)
	g.isolate("mail2")
	g.run(1500 * time.Millisecond)
	g.stop("mail1")
	clear(g.cut)
	g.run(20 * time.Second)
	if len(c.did) > 0 {
		t.Errorf("did %q", c.did)
	}
	g.wantBlocked("lb1", "replacement of mail1", "nobody has taken over mail, so its machine m-mail1 may have data that no other has")
	g.start("mail1", 0)
	g.giveLedger("mail1")
	g.run(3 * time.Second)
	g.check("mail", "mail1")
}

func TestBothNodesLostOneAfterTheOtherKeepTheData(t *testing.T) {
	g := newRig(t, quick+eight)
	x := g.withData()
	c := g.withCloud()
	g.run(3 * time.Second)
	had := x.of("mail1").items
	for _, victim := range []string{"mail1", "mail2"} {
		c.destroy(victim)
		c.heals(t, 60*time.Second)
		g.run(time.Second)
	}
	g.check("mail", "mail1")
	if got := x.of("mail1").items; got < had-1 {
		t.Errorf("%d items are left of %d", got, had)
	}
}

// A new machine serves when it has the data, and takes as long for it as it takes.
func TestAReplacementServesWhenItHasTheData(t *testing.T) {
	g := newRig(t, "timings: {replacement_hold: 3s, startup_timeout: 1m}\n"+eight)
	x := g.withData()
	c := g.withCloud()
	g.run(3 * time.Second)
	x.slow = 3 * time.Minute
	c.destroy("mail2")
	g.run(2 * time.Minute)
	if c.creations() != 1 || !c.intents["mail2"].Open() || g.nodes["mail2"].said.Phase != cluster.Applied {
		t.Errorf("%d machines, intent %+v, mail2 is %s", c.creations(), c.intents["mail2"], g.nodes["mail2"].said.Phase)
	}
	g.wantBlocked("lb1", "new machine of mail2", "mail2 is copying: 120 MB behind")
	x.slow = 0
	g.run(5 * time.Second)
	if c.intents["mail2"].Open() || g.nodes["mail2"].said.Phase != cluster.Serving {
		t.Errorf("intent %+v, mail2 is %s", c.intents["mail2"], g.nodes["mail2"].said.Phase)
	}
}

func TestAPlannedMoveLosesNothing(t *testing.T) {
	g := newRig(t, writers)
	x := g.withData()
	for _, n := range []string{"mail1", "mail2"} {
		g.nodes[n].v.Units = map[string]UnitReading{"mail": {}}
		g.nodes[n].v.Sockets = map[string]SocketReading{"mail": {At: 1 << 60}}
	}
	g.run(3 * time.Second)
	g.nodes["mail1"].v.Orders.Moves = []cluster.Move{{Duty: "mail", From: 1}}
	had := 0
	for range 3000 {
		g.step()
		g.now += 1_000_000
		if g.holder("mail") == "mail1" {
			had = x.of("mail1").items
		}
	}
	g.check("mail", "mail2")
	if got := x.of("mail2").items; got < had || had == 0 {
		t.Errorf("mail2 has %d items, mail1 had %d", got, had)
	}
}

func TestAPlannedMoveToACopyThatIsBehindIsRefused(t *testing.T) {
	g, _ := withData(t, eight)
	g.cut[[2]string{"mail1", "mail2"}], g.cut[[2]string{"mail2", "mail1"}] = true, true
	g.run(4 * time.Second)
	g.nodes["mail1"].v.Orders.Moves = []cluster.Move{{Duty: "mail", From: g.nodes["mail1"].m.Duties["mail"].Hold.Epoch}}
	g.run(2 * time.Second)
	g.check("mail", "mail1")
	g.wantBlocked("mail1", "move of mail", "no node it may go to can take it")
}

// The last data do not arrive: an ordered move is given up, and the programs run again; a node that goes down lets go.
func TestAMoveThatCannotSettleEnds(t *testing.T) {
	for name, leave := range map[string]bool{"ordered": false, "at shutdown": true} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, writers)
			g.withData()
			for _, n := range []string{"mail1", "mail2"} {
				g.nodes[n].v.Units = map[string]UnitReading{"mail": {}}
				g.nodes[n].v.Sockets = map[string]SocketReading{"mail": {At: 1 << 60}}
			}
			g.run(3 * time.Second)
			if leave {
				g.nodes["mail1"].v.Orders.Leave = true
			} else {
				g.nodes["mail1"].v.Orders.Moves = []cluster.Move{{Duty: "mail", From: 1}}
			}
			g.data.stuck = true
			g.run(10500 * time.Millisecond)
			log := strings.Join(g.log, "\n")
			switch s := g.nodes["mail1"].m.Duties["mail"].Hold.State; {
			case leave && (g.holder("mail") != "mail2" || !strings.Contains(log, "mail1 is going down, and mail2 did not get all its data within 10s")):
				t.Errorf("mail1 is %s\n%s", s, log)
			case !leave && (s != cluster.Held || !strings.Contains(log, "mail stays with mail1: mail2 did not get all its data within 10s")):
				t.Errorf("mail1 is %s\n%s", s, log)
			}
			g.run(600 * time.Millisecond)
			if got := g.nodes["mail1"].v.Units["mail"].All; got == leave {
				t.Errorf("the units of mail1 run: %v", got)
			}
		})
	}
}

func TestBlankNodesBeginAtOnce(t *testing.T) {
	g := newRig(t, writers)
	g.withData()
	g.run(1200 * time.Millisecond)
	g.check("mail", "mail1")
}

// What only a node has that goes down in good order, it keeps, and the other one waits for it.
func TestWhoGoesDownWithNewerDataIsWaitedFor(t *testing.T) {
	g, _ := withData(t, writers)
	g.nodes["mail1"].v.Sockets = map[string]SocketReading{"mail": {At: 1 << 60}}
	g.cut[[2]string{"mail1", "mail2"}], g.cut[[2]string{"mail2", "mail1"}] = true, true
	g.run(2 * time.Second)
	g.nodes["mail1"].v.Orders.Leave = true
	g.run(5 * time.Second)
	g.check("mail", "")
	g.stop("mail1")
	clear(g.cut)
	g.run(5 * time.Second)
	g.check("mail", "")
	g.start("mail1", 0)
	g.run(2 * time.Second)
	g.check("mail", "mail1")
}

// hung loses a node whose machine goes on, and runs until it has another and all is well, whatever becomes of the old one.
func hung(t *testing.T, node string) (*rig, *rigCloud) {
	g := newRig(t, quick+eight)
	g.withData()
	c := g.withCloud()
	g.run(3 * time.Second)
	g.stop(node)
	g.run(20 * time.Second)
	if c.intents[node].Open() || c.creations() != 1 {
		t.Fatalf("%s is not replaced: did %q", node, c.did)
	}
	return g, c
}

func TestTheOldMachineOfWhoOnlyCopiedIsDeleted(t *testing.T) {
	_, c := hung(t, "mail2")
	if m := c.machines["m-mail2"]; m != nil {
		t.Errorf("it is there: %+v; did %q", m, c.did)
	}
}

func TestTheOldMachineOfAPrimaryIsKept(t *testing.T) {
	g, c := hung(t, "mail1")
	if m := c.machines["m-mail1"]; m == nil || m.Power != cluster.PowerOff || !c.intents["mail1"].Unseen {
		t.Errorf("it is %+v; did %q", m, c.did)
	}
	g.run(2 * time.Minute) // until it is listed again
	g.wantBlocked("lb1", "machine m-mail1", "it was mail1, is off, and may have data that no other machine has")
}

func TestWhatBecomesOfAMachineThatWasANode(t *testing.T) {
	closed := func(unseen bool, age time.Duration) cluster.Intent {
		return cluster.Intent{Node: "mail1", N: 3, Machine: "77", Replaces: 4, Unseen: unseen, Age: age, Closed: cluster.Closing{Outcome: cluster.Done}}
	}
	open := cluster.Intent{Node: "mail1", N: 3, Machine: "77", Replaces: 4, Unseen: true}
	day := 24 * time.Hour
	is := cluster.Claim{Node: "mail1", Epoch: 5, Machine: "78"}
	buried := cluster.Claim{Node: "mail1", Epoch: 4, Machine: "77", Tombstoned: true}
	for _, c := range []struct {
		name     string
		power    cluster.Power
		in       cluster.Intent
		claim    cluster.Claim
		wish     cluster.Wish
		unwanted string // part of why; empty: it stays
		blocked  string // part of what is said of it; empty: nothing
	}{
		{"it only copied", cluster.PowerOff, closed(false, time.Hour), is, cluster.Wish{}, "mail1 is machine 78", ""},
		{"it was primary", cluster.PowerOff, closed(true, 7*day-time.Hour), is, cluster.Wish{}, "",
			"it is deleted 7 days after its replacement, or at once by `understudy discard mail1`, or not, after `understudy recover mail1`"},
		{"a week ago", cluster.PowerOff, closed(true, 7*day), is, cluster.Wish{}, "mail1 is machine 78", ""},
		{"it is one before", cluster.PowerOff, cluster.Intent{Node: "mail1", N: 4, Machine: "76", Age: day}, is, cluster.Wish{}, "", "may have data"},
		{"it was switched on again", cluster.PowerOn, closed(true, time.Hour), is, cluster.Wish{}, "mail1 is machine 78", ""},
		{"a person wants its data", cluster.PowerOff, closed(true, 30*day), is, cluster.Wish{Keep: []string{"77"}}, "", "is kept for the data on it, as was asked"},
		{"and has switched it on", cluster.PowerOn, closed(true, time.Hour), is, cluster.Wish{Keep: []string{"77"}}, "", "is kept for the data on it, as was asked"},
		{"nobody wants its data", cluster.PowerOff, closed(true, time.Hour), is, cluster.Wish{Discard: []string{"77"}}, "discarded", ""},
		{"another one's are not wanted", cluster.PowerOff, closed(true, time.Hour), is, cluster.Wish{Discard: []string{"76"}}, "", "may have data"},
		{"it is being replaced", cluster.PowerOff, open, buried, cluster.Wish{}, "", ""},
		{"nobody wants its data, and the replacement waits", cluster.PowerOff, open, buried, cluster.Wish{Discard: []string{"77"}}, "discarded", ""},
		{"nobody wants its data, but it is the node", cluster.PowerOff, cluster.Intent{}, cluster.Claim{Node: "mail1", Epoch: 4, Machine: "77"},
			cluster.Wish{Discard: []string{"77"}}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, eight)
			p := g.nodes["lb1"].p
			p.Hire = []string{"mail"}
			v := View{Now: g.now, Ledger: Ledger{ReadSent: g.now, Intents: map[string]cluster.Intent{"mail1": c.in},
				Claims: map[string]cluster.Claim{"mail1": c.claim}, Wishes: map[string]cluster.Wish{"mail1": c.wish}}}
			h := &hiring{turn: &turn{View: v, p: p}}
			why := h.unwanted(Listed{Machine: cluster.Machine{ID: "77", Name: "mail1", Power: c.power}, Claimed: 4, Known: true})
			if (why == "") != (c.unwanted == "") || !strings.Contains(why, c.unwanted) {
				t.Errorf("unwanted: %q, want %q", why, c.unwanted)
			}
			said := ""
			for _, b := range h.out.Blocked {
				said += b.Why
			}
			if (said == "") != (c.blocked == "") || !strings.Contains(said, c.blocked) {
				t.Errorf("blocked: %q, want %q", said, c.blocked)
			}
		})
	}
}

// Nobody has the newest data but a machine that hangs; a person gives them up.
func TestDiscardedDataAreWaitedForNoLonger(t *testing.T) {
	g := newRig(t, quick+eight)
	g.withData()
	c := g.withCloud()
	g.run(3 * time.Second)
	g.isolate("mail2")
	g.run(1500 * time.Millisecond)
	g.stop("mail1")
	clear(g.cut)
	g.run(10 * time.Second)
	g.check("mail", "")
	c.wishes = map[string]cluster.Wish{"mail1": {Node: "mail1", N: 1, Discard: []string{"m-mail1"}}}
	c.heals(t, time.Minute)
	g.check("mail", "mail2")
	if want := "delete m-mail1"; !slices.Contains(c.did, want) {
		t.Errorf("did %q, want %q in it", c.did, want)
	}
}

// Nobody remembers to whom what was promised, and the disks know who has what.
func TestAfterAFullRestartTheNewestDataAreFound(t *testing.T) {
	for _, without := range []string{"", "mail1", "mail2"} {
		g, _ := withData(t, eight)
		g.isolate("mail2")
		g.run(4 * time.Second)
		clear(g.cut)
		g.stop(g.names...)
		g.run(time.Second)
		for i, n := range g.names {
			if n != without {
				g.start(n, i)
			}
		}
		g.run(5 * time.Second)
		if without == "mail1" {
			g.check("mail", "")
			g.wantBlocked("mail2", "takeover of mail", "or `understudy discard mail1`")
			continue
		}
		g.check("mail", "mail1")
	}
}

// What a node has asked for and not got was not written under; it must not keep the node from asking again.
func TestABidThatCameToNothingIsNoWriting(t *testing.T) {
	g, _ := withData(t, eight)
	g.stop("mail1")
	for g.nodes["mail2"].m.Duties["mail"].Bid == 0 {
		g.run(time.Millisecond)
	}
	g.start("mail2", 0) // its sidecar alone: it knows its own promise, and no more to whom
	for _, n := range g.names[:4] {
		g.start(n, 0)
	}
	g.run(3 * time.Second)
	g.check("mail", "mail2")
}

func TestWhatIsWrongWithTheDataIsSaid(t *testing.T) {
	g, _ := withData(t, eight)
	n := g.nodes["mail1"]
	n.v.Woes = map[string]string{"/var/vmail": "they are not mirrored: the source is empty", "/srv/a": "3 files have rotted"}
	out := Next(n.v, n.m, n.p)
	want := []Blocked{{"data in /srv/a", "3 files have rotted"}, {"data in /var/vmail", "they are not mirrored: the source is empty"}}
	got := slices.DeleteFunc(out.Blocked, func(b Blocked) bool { return !strings.HasPrefix(b.What, "data in ") })
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
