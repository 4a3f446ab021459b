package decide

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

var update = flag.Bool("update", false, "write testdata/decisions.golden anew; review it as code")

// A case is one situation: a node's view and memory at rest, changed by what the rule is about. The golden has what it decides.
type decisionCase struct {
	rule, name string
	node       string
	yaml       string
	ledger     bool
	change     func(g *rig, v *View, m *Memory, p *Policy)
}

// after lets d pass without anything new being heard of the named nodes; of the others beats go on.
func after(g *rig, v *View, d time.Duration, silent ...string) {
	v.Now = v.Now.Add(d)
	v.Peers = maps.Clone(v.Peers)
	for k, p := range v.Peers {
		p.Hears = maps.Clone(p.Hears)
		if slices.Contains(silent, k) {
			continue
		}
		p.Heard, p.Confirmed = v.Now.Add(-20*time.Millisecond), v.Now.Add(-40*time.Millisecond)
		for _, other := range silent {
			p.Hears[other] = d
		}
		v.Peers[k] = p
	}
	v.Ledger.ReadSent = v.Now.Add(-time.Second)
}

func saying(v *View, node string, f func(*cluster.Announcement)) {
	v.Peers = maps.Clone(v.Peers)
	p := v.Peers[node]
	p.Said.Promises, p.Said.Bids, p.Said.Holds = slices.Clone(p.Said.Promises), slices.Clone(p.Said.Bids), slices.Clone(p.Said.Holds)
	f(&p.Said)
	v.Peers[node] = p
}

func decisionCases() []decisionCase {
	return append(append(dataCases(), rolloutCases()...), []decisionCase{
		{"rest", "primary at rest", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {}},
		{"rest", "standby at rest", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {}},
		{"S1", "another machine has our name", "lb1", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Claim = ClaimReading{Needed: true, Taken: "which machine 77 has since epoch 2"}
		}},
		{"S1", "no claim yet", "lb2", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Claim = ClaimReading{Needed: true}
			after(g, v, 600*time.Millisecond, "lb1")
		}},
		{"S2", "primary whom nobody confirms lets the gate close", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 450*time.Millisecond, "lb2", "lb3")
		}},
		{"S2", "primary whom nobody confirms steps down", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 700*time.Millisecond, "lb2", "lb3")
		}},
		{"S2", "standby asks when the primary has failed", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 560*time.Millisecond, "lb1")
		}},
		{"S2", "standby does not ask while another hears the primary", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 900*time.Millisecond, "lb1")
			p3 := v.Peers["lb3"]
			p3.Hears["lb1"] = 30 * time.Millisecond
		}},
		{"S2", "member refuses a bid while it hears the primary", "lb3", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			saying(v, "lb2", func(a *cluster.Announcement) { a.Bids = []cluster.Bid{{Duty: "lb", Epoch: 2}} })
		}},
		{"S2", "member promises a bid when it does not", "lb3", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 560*time.Millisecond, "lb1")
			saying(v, "lb2", func(a *cluster.Announcement) { a.Bids = []cluster.Bid{{Duty: "lb", Epoch: 2}} })
		}},
		{"S2", "member promises nothing twice", "lb3", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 560*time.Millisecond, "lb1")
			m.Promised["lb"] = 2
			saying(v, "lb2", func(a *cluster.Announcement) { a.Bids = []cluster.Bid{{Duty: "lb", Epoch: 2}} })
		}},
		{"S2", "member that has just started promises nothing", "lb3", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 560*time.Millisecond, "lb1")
			v.Started = v.Now.Add(-300 * time.Millisecond)
			saying(v, "lb2", func(a *cluster.Announcement) { a.Bids = []cluster.Bid{{Duty: "lb", Epoch: 2}} })
		}},
		{"S2", "winner waits until the others are sure of the old primary", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			winning(v, m, false)
		}},
		{"S2", "winner acts when a majority is sure", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			winning(v, m, true)
		}},
		{"S2", "primary that hears of a later epoch steps down", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			saying(v, "lb2", func(a *cluster.Announcement) {
				a.Holds = []cluster.Hold{{Duty: "lb", Epoch: 4, State: cluster.Waiting}}
			})
		}},
		{"S2", "primary steps down when the ledger has a later epoch", "lb1", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Ledger.Duties = map[string]cluster.DutyRecord{"lb": {Duty: "lb", Epoch: 9, Holder: "lb3", Lease: true}}
		}},
		{"S2", "provider's register names another machine", "lb1", eight, false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Holders = map[string]HolderReading{"lb": {AddressHolder: cluster.AddressHolder{Machine: "m-lb2"}, At: v.Now.Add(-time.Millisecond)}}
		}},
		{"S2", "provider is still working on the address", "lb1", eight, false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Holders = map[string]HolderReading{"lb": {AddressHolder: cluster.AddressHolder{Machine: "m-lb2", Pending: true}, At: v.Now.Add(-time.Millisecond)}}
		}},
		{"S2", "standby gets ready when the holder of a reserved address is suspect", "lb2", eight, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 400*time.Millisecond, "lb1")
		}},
		{"S2", "nobody moves a reserved address before its holder was silent for long enough", "lb2", eight, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 1100*time.Millisecond, "lb1")
		}},
		{"S6", "zone not read yet", "lb1", three + "dns: [{digitalocean: {zone: c.example}}]\n", false, func(g *rig, v *View, m *Memory, p *Policy) {}},
		{"S6", "zone without our names", "lb1", three + "dns: [{digitalocean: {zone: c.example}}]\n", false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Zones = map[string]ZoneReading{"digitalocean c.example": {At: v.Now}}
		}},
		{"S6", "names of a role of which nobody serves stay", "lb1", eight + "dns: [{digitalocean: {zone: c.example}}]\n", false, func(g *rig, v *View, m *Memory, p *Policy) {
			for _, k := range []string{"web1", "web2"} {
				saying(v, k, func(a *cluster.Announcement) { a.Phase = cluster.Applied })
			}
			v.Zones = map[string]ZoneReading{"digitalocean c.example": {At: v.Now, Records: []cluster.Record{{Name: "web", Type: "A", Value: "10.0.0.6"}}}}
		}},
		{"S6", "records of others are nobody's business", "lb1", three + "dns: [{digitalocean: {zone: c.example}}]\n", false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Zones = map[string]ZoneReading{"digitalocean c.example": {At: v.Now, Records: []cluster.Record{
				{Name: "www", Type: "A", Value: "10.0.0.10"}, {Name: "shop", Type: "A", Value: "192.0.2.1"},
			}}}
		}},
		{"S7", "minority without a ledger", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 3*time.Second, "lb1", "lb3")
			m.Short = v.Now.Add(-2 * time.Second)
		}},
		{"S7", "minority whose ledger does not honour the condition", "lb2", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 3*time.Second, "lb1", "lb3")
			m.Short = v.Now.Add(-2 * time.Second)
			v.Ledger.Sound, v.Ledger.Unsound = false, "two writers created the same object"
		}},
		{"S7", "minority while the provider says that the others run", "lb2", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 3*time.Second, "lb1", "lb3")
			m.Short = v.Now.Add(-2 * time.Second)
			v.Machines = machines(v, cluster.PowerOn, 2, "lb1", "lb3")
		}},
		{"S7", "survivor asks the provider a second time", "lb2", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 3*time.Second, "lb1", "lb3")
			m.Short = v.Now.Add(-2 * time.Second)
			v.Machines = machines(v, cluster.PowerGone, 1, "lb1", "lb3")
		}},
		{"S7", "survivor of machines that are gone", "lb2", three, true, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 3*time.Second, "lb1", "lb3")
			m.Short = v.Now.Add(-2 * time.Second)
			v.Machines = machines(v, cluster.PowerGone, 2, "lb1", "lb3")
		}},
		{"S7", "exactly half claims the tie", "lb2", two, true, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 3*time.Second, "lb1")
			m.Short = v.Now.Add(-2 * time.Second)
		}},
		{"L2", "unhealthy primary without a better standby", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Health = cluster.Unhealthy
			for _, k := range []string{"lb2", "lb3"} {
				saying(v, k, func(a *cluster.Announcement) { a.Health = cluster.Unhealthy })
			}
		}},
		{"L2", "move that nobody can take", "lb1", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Orders.Moves = []cluster.Move{{Duty: "lb", From: 1}}
			for _, k := range []string{"lb2", "lb3"} {
				saying(v, k, func(a *cluster.Announcement) { a.Paused = true })
			}
		}},
		{"L2", "paused node sees a failure", "lb2", three, false, func(g *rig, v *View, m *Memory, p *Policy) {
			after(g, v, 560*time.Millisecond, "lb1")
			v.Orders.Pause = true
		}},
	}...)
}

// winning puts lb2 where lb3 has promised it the next epoch.
func winning(v *View, m *Memory, clear bool) {
	s := m.Duties["lb"]
	s.Bid, s.Since = 2, v.Now.Add(-10*time.Millisecond)
	s.Promise = cluster.Promise{Duty: "lb", Epoch: 2, Holder: "lb2"}
	s.Before = []Before{{Holder: "lb1", Epoch: 1, Heard: v.Now.Add(-500 * time.Millisecond)}}
	m.Duties = maps.Clone(m.Duties)
	m.Duties["lb"] = s
	m.Promised["lb"], m.Epochs["lb"] = 2, 2
	p := v.Peers["lb1"]
	p.Heard = v.Now.Add(-600 * time.Millisecond)
	v.Peers["lb1"] = p
	saying(v, "lb3", func(a *cluster.Announcement) {
		a.Promises = []cluster.Promise{{Duty: "lb", Epoch: 2, Holder: "lb2", Clear: clear}}
	})
}

func machines(v *View, power cluster.Power, same int, nodes ...string) map[string]MachineReading {
	all := map[string]MachineReading{}
	for _, n := range nodes {
		all[n] = MachineReading{ID: "m-" + n, Power: power, At: v.Now.Add(-2 * time.Second), Same: same}
	}
	return all
}

func TestDecisions(t *testing.T) {
	var out bytes.Buffer
	for _, c := range decisionCases() {
		g := newRig(t, c.yaml)
		if c.ledger {
			g.withLedger()
		}
		g.run(3 * time.Second)
		n := g.nodes[c.node]
		v, m, p := n.v, n.m, n.p
		v.Now, v.Gates = g.now, map[string]GateReading{}
		for _, r := range p.Roles {
			if r.Primary {
				v.Gates[r.Name] = GateReading{Until: n.gate[r.Name], Added: r.Link.IsValid() && n.gate[r.Name] > 0}
			}
		}
		m.Lasting = m.Lasting.clone()
		c.change(g, &v, &m, &p)
		fmt.Fprintf(&out, "=== %s: %s (at %s)\n%s\n", c.rule, c.name, c.node, render(v, Next(v, m, p)))
	}
	path := filepath.Join("testdata", "decisions.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(out.String(), "\n=== ")
	for i, w := range strings.Split(string(want), "\n=== ") {
		if i >= len(got) || got[i] != w {
			t.Errorf("decision differs, got:\n%s\nwant:\n%s", at(got, i), w)
		}
	}
}

func at(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return ""
}

// render writes a decision for the golden: what is done, what is blocked, what is noted and what is said about duties.
func render(v View, d Decision) string {
	var b strings.Builder
	for _, a := range d.Actions {
		fmt.Fprintf(&b, "do      %s%s: %s\n", a.Key(), detail(v, a), a.Text())
	}
	for _, x := range d.Blocked {
		fmt.Fprintf(&b, "blocked %s: %s\n", x.What, x.Why)
	}
	for _, x := range d.Notes {
		fmt.Fprintf(&b, "note    %s: %s\n", x.Kind, x.Text)
	}
	fmt.Fprintf(&b, "say     %s, voting %v", d.Say.Phase, d.Say.Voting)
	if x := d.Say.Rollout; x.Busy {
		fmt.Fprintf(&b, "; tries %.8s", x.Ask)
	} else if x.Ask != "" {
		fmt.Fprintf(&b, "; asks for %.8s", x.Ask)
	} else if x.Yield != "" {
		fmt.Fprintf(&b, "; gives leave to %s", x.Yield)
	}
	for _, x := range d.Say.Rollout.Bad {
		fmt.Fprintf(&b, "; %.8s is bad (%s)", x.Commit, x.Node)
	}
	for _, x := range d.Say.Promises {
		fmt.Fprintf(&b, "; promise %s %d to %s", x.Duty, x.Epoch, x.Holder)
		if !x.Clear {
			b.WriteString(", not clear")
		}
		if x.Lease || x.AfterLease {
			fmt.Fprintf(&b, ", lease %v after lease %v", x.Lease, x.AfterLease)
		}
	}
	for _, x := range d.Say.Bids {
		fmt.Fprintf(&b, "; bid %s %d", x.Duty, x.Epoch)
		if x.Last {
			b.WriteString(", the last")
		}
	}
	for _, x := range d.Say.Holds {
		fmt.Fprintf(&b, "; %s %s %d %s", x.State, x.Duty, x.Epoch, x.To)
	}
	for _, x := range d.Say.Mirrors {
		fmt.Fprintf(&b, "; data of %s of epoch %d, synced %d, from %d", x.Role, x.Epoch, x.Synced, x.From)
	}
	fmt.Fprintf(&b, "\nagain   in %s\n", d.LookAgain.Sub(v.Now).Round(time.Millisecond))
	return b.String()
}

func detail(v View, a Action) string {
	switch a := a.(type) {
	case Gate:
		if a.Until == 0 {
			return " closed"
		}
		return fmt.Sprintf(" open for %s", a.Until.Sub(v.Now).Round(time.Millisecond))
	case AssignReserved:
		return fmt.Sprintf(" %s to %s, expecting %+v", a.Address, a.Machine, a.Expect)
	case LinkAddress:
		return fmt.Sprintf(" add %v", a.Add)
	case WriteDuty:
		return fmt.Sprintf(" %+v", a.Record)
	case ClaimTie:
		return fmt.Sprintf(" %+v", a.Tie)
	case UpdateZone:
		return fmt.Sprintf(" own %v want %v", a.Own, a.Want)
	}
	return ""
}

// clone copies the maps, so that a test may change them.
func (l Lasting) clone() Lasting {
	c := Lasting{Voted: l.Voted, Epochs: map[string]uint64{}, Promised: map[string]uint64{}, Leases: map[string][]Lease{}}
	maps.Copy(c.Epochs, l.Epochs)
	maps.Copy(c.Promised, l.Promised)
	maps.Copy(c.Leases, l.Leases)
	c.Data = maps.Clone(l.Data)
	return c
}
