package decide

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
)

// rig runs nodes over a network of delays and cuts in steps of a millisecond. It is the smallest world in which decisions meet
// each other; tests/sim has the large one.
type rig struct {
	t     *testing.T
	now   cluster.Instant
	nodes map[string]*rigNode
	names []string
	cut   map[[2]string]bool // from, to
	mail  []rigBeat
	loss  func() bool // nil: none
	log   []string
	// shared ledger
	ledger     map[string]cluster.DutyRecord
	tie        cluster.Tie
	claims     map[string]cluster.Claim
	ledgerAway bool
	gone       map[string]bool
	cloud      *rigCloud      // nil: machines are only asked about
	data       *rigData       // nil: nothing mirrors
	puppet     *rigPuppet     // nil: nobody follows the control repo
	worst      map[string]int // role → most open gates at one instant
	holderOf   map[string]string
	opened     map[string][]string // role → who had its gate open, one after the other
}

type rigNode struct {
	name     string
	p        Policy
	m        Memory
	v        View
	dead     bool
	stopped  bool
	due      cluster.Instant
	lastRun  cluster.Instant
	beatDue  cluster.Instant
	said     cluster.Announcement
	session  int
	seq      uint64
	sent     map[uint64]cluster.Instant
	heard    map[string]rigHeard
	gate     map[string]cluster.Instant
	drain    map[string]cluster.Instant
	out      Decision
	unitsDue cluster.Instant
}

type rigHeard struct {
	session int
	seq     uint64
	at      cluster.Instant
}

type rigBeat struct {
	at       cluster.Instant
	from, to string
	session  int
	seq      uint64
	said     cluster.Announcement
	heard    map[string]rigHeard
	hears    map[string]time.Duration
}

func newRig(t *testing.T, yaml string) *rig {
	t.Helper()
	r, err := role.Parse("roles.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, now: 1_000_000_000, nodes: map[string]*rigNode{}, cut: map[[2]string]bool{}, ledger: map[string]cluster.DutyRecord{},
		claims: map[string]cluster.Claim{}, gone: map[string]bool{}, worst: map[string]int{}, names: r.Nodes(), holderOf: map[string]string{}, opened: map[string][]string{}}
	for i, n := range r.Nodes() {
		p, err := New(n, r)
		if err != nil {
			t.Fatal(err)
		}
		p.Hire = nil // see withCloud
		g.nodes[n] = &rigNode{name: n, p: p}
		g.start(n, i)
	}
	return g
}

func (g *rig) start(name string, skew int) {
	n := g.nodes[name]
	n.dead, n.stopped = false, false
	n.session++
	n.drain = map[string]cluster.Instant{}
	n.seq, n.sent, n.heard, n.gate = 0, map[uint64]cluster.Instant{}, map[string]rigHeard{}, map[string]cluster.Instant{}
	n.m = Memory{Lasting: n.m.Lasting}
	n.v = View{Started: g.now, Machine: "m-" + name, Private: netip.AddrFrom4([4]byte{10, 0, 0, byte(len(name) + skew)}), Phase: cluster.Applied,
		Health: cluster.Healthy, StandbyHealth: cluster.Healthy, Peers: map[string]cluster.Peer{}}
	n.due, n.beatDue = g.now, g.now+cluster.Instant(skew)*7_000_000
}

func (g *rig) run(d time.Duration) {
	g.t.Helper()
	for end := g.now.Add(d); g.now < end; g.now += 1_000_000 {
		g.step()
	}
}

func (g *rig) step() {
	var later []rigBeat
	for _, b := range g.mail {
		n := g.nodes[b.to]
		if b.at > g.now || n.stopped {
			later = append(later, b)
			continue
		}
		if !n.dead && !g.cut[[2]string{b.from, b.to}] && (g.loss == nil || !g.loss()) {
			g.receive(n, b)
		}
	}
	g.mail = later
	for _, name := range g.names {
		n := g.nodes[name]
		if n.dead || n.stopped {
			continue
		}
		if n.lastRun != 0 && g.now.Sub(max(n.lastRun, n.due)) > n.p.Timings.Gate {
			n.v.Started, n.v.Peers = g.now, map[string]cluster.Peer{}
			n.heard = map[string]rigHeard{}
			n.gate = map[string]cluster.Instant{}
		}
		if g.now >= n.due {
			g.turn(n)
		}
		if g.now >= n.beatDue {
			g.beat(n)
			n.beatDue = g.now.Add(g.pace(n))
		}
	}
	if g.cloud != nil {
		g.cloud.step()
	}
	if g.data != nil {
		g.data.step()
	}
	if g.puppet != nil {
		g.puppet.step()
	}
	g.watch()
}

func (g *rig) receive(n *rigNode, b rigBeat) {
	old := n.heard[b.from]
	if b.session < old.session || b.session == old.session && b.seq <= old.seq {
		return
	}
	n.heard[b.from] = rigHeard{b.session, b.seq, g.now}
	p := cluster.Peer{Heard: g.now, Said: b.said, Hears: b.hears}
	if h := b.heard[n.name]; h.session == n.session {
		p.Confirmed = n.sent[h.seq]
	}
	n.v.Peers[b.from] = p
	n.due = min(n.due, g.now+2_000_000)
}

func (g *rig) beat(n *rigNode) {
	n.seq++
	n.sent[n.seq] = g.now
	hears := map[string]time.Duration{}
	for k, h := range n.heard {
		hears[k] = g.now.Sub(h.at)
	}
	for _, to := range g.names {
		if to != n.name && !g.cut[[2]string{n.name, to}] {
			g.mail = append(g.mail, rigBeat{at: g.now + 1_000_000, from: n.name, to: to, session: n.session, seq: n.seq, said: n.said,
				heard: maps.Clone(n.heard), hears: hears})
		}
	}
}

func (g *rig) turn(n *rigNode) {
	n.lastRun = g.now
	n.v.Now = g.now
	n.v.Gates = map[string]GateReading{}
	for _, r := range n.p.Roles {
		if r.Primary {
			n.v.Gates[r.Name] = GateReading{Until: n.gate[r.Name], Drain: n.drain[r.Name], Added: true}
		}
	}
	n.v.Nonce = fmt.Sprintf("%032x", g.now)
	if g.data != nil {
		g.data.read(n)
	}
	d := Next(n.v, n.m, n.p)
	n.m, n.out = d.Memory, d
	for _, note := range d.Notes {
		g.log = append(g.log, fmt.Sprintf("%6dms %s: %s", g.now/1_000_000-1000, n.name, note.Text))
	}
	for _, a := range d.Actions {
		if gate, ok := a.(Gate); ok {
			n.gate[gate.Role] = gate.Until
			if !gate.Drain {
				n.drain[gate.Role] = 0
			} else if n.drain[gate.Role] == 0 {
				n.drain[gate.Role] = g.now
			}
		}
		g.ledgerAct(n, a)
		if u, ok := a.(PrimaryUnits); ok {
			g.units(n, u)
		}
		if s, ok := a.(Settle); ok {
			g.data.settle(n, s)
		}
		if g.cloud != nil && !g.ledgerAway {
			g.cloud.act(n, a)
		}
		if g.puppet != nil {
			g.puppet.act(n, a)
		}
	}
	if !sameSay(d.Say, n.said) {
		n.said = d.Say
		g.beat(n)
	}
	n.due = d.LookAgain
}

// units starts and stops a role's programs, which takes 300 ms either way.
func (g *rig) units(n *rigNode, a PrimaryUnits) {
	if n.unitsDue == 0 {
		n.unitsDue = g.now.Add(300 * time.Millisecond)
	}
	if g.now < n.unitsDue {
		return
	}
	n.unitsDue = 0
	n.v.Units = map[string]UnitReading{a.Role: {Running: a.Start, All: a.Start}}
	n.due = min(n.due, g.now+1_000_000)
}

func (g *rig) ledgerAct(n *rigNode, a Action) {
	if g.ledgerAway {
		if _, ok := a.(ReadLedger); ok {
			n.v.Ledger.Failing = true
		}
		return
	}
	switch a := a.(type) {
	case ReadLedger:
		n.v.Ledger.ReadSent, n.v.Ledger.Failing = g.now, false
		n.v.Ledger.Duties, n.v.Ledger.Tie, n.v.Ledger.Claims = maps.Clone(g.ledger), g.tie, maps.Clone(g.claims)
		if g.cloud != nil {
			g.cloud.read(n)
		}
	case WriteDuty:
		was := g.ledger[a.Record.Duty]
		w := WroteReading{Epoch: a.Record.Epoch, At: g.now, Lost: was.Epoch >= a.Record.Epoch && was != a.Record}
		if !w.Lost {
			g.ledger[a.Record.Duty] = a.Record
		}
		n.v.Ledger.Wrote = maps.Clone(n.v.Ledger.Wrote)
		if n.v.Ledger.Wrote == nil {
			n.v.Ledger.Wrote = map[string]WroteReading{}
		}
		n.v.Ledger.Wrote[a.Record.Duty] = w
	case ClaimTie:
		if g.tie.N < a.Tie.N {
			g.tie = a.Tie
		}
	case ReadMachine:
		m := n.v.Machines[a.Node]
		now := MachineReading{ID: a.Machine, Power: cluster.PowerOn}
		if g.gone[a.Node] {
			now.Power = cluster.PowerGone
		}
		if g.cloud != nil {
			now = g.cloud.machine(a.Machine)
		}
		if m.Power != now.Power || m.ID != now.ID {
			m.Same = 0
		}
		now.At, now.Same = g.now, m.Same+1
		n.v.Machines = maps.Clone(n.v.Machines)
		if n.v.Machines == nil {
			n.v.Machines = map[string]MachineReading{}
		}
		n.v.Machines[a.Node] = now
	}
}

func (g *rig) withLedger() {
	for _, n := range g.names {
		g.giveLedger(n)
	}
}

// giveLedger gives one node the ledger, and its claim in it.
func (g *rig) giveLedger(name string) {
	n := g.nodes[name]
	n.v.Ledger = Ledger{Configured: true, Sound: true}
	n.v.Claim = ClaimReading{Needed: true, Mine: true, Epoch: 1}
	g.claims[name] = cluster.Claim{Node: name, Epoch: 1, Machine: "m-" + name}
}

func sameSay(a, b cluster.Announcement) bool { return reflect.DeepEqual(a, b) }

// watch counts open gates: a gate that nobody touches closes by itself.
func (g *rig) watch() {
	open := map[string][]string{}
	for _, name := range g.names {
		for r, until := range g.nodes[name].gate {
			if until > g.now {
				open[r] = append(open[r], name)
			}
		}
	}
	for _, r := range slices.Sorted(maps.Keys(open)) {
		who := strings.Join(open[r], "+")
		g.worst[r] = max(g.worst[r], len(open[r]))
		if g.holderOf[r] != who {
			if all := g.opened[r]; len(all) == 0 || all[len(all)-1] != who {
				g.opened[r] = append(all, who)
			}
			g.holderOf[r] = who
			g.log = append(g.log, fmt.Sprintf("%6dms gate of %s open at %s", g.now/1_000_000-1000, r, who))
		}
	}
	for r, was := range g.holderOf {
		if was != "" && len(open[r]) == 0 {
			g.holderOf[r] = ""
			g.log = append(g.log, fmt.Sprintf("%6dms gate of %s open nowhere", g.now/1_000_000-1000, r))
		}
	}
}

func (g *rig) isolate(name string) {
	for _, k := range g.names {
		g.cut[[2]string{k, name}], g.cut[[2]string{name, k}] = true, true
	}
}

// pace is what keepalive does: once beats are missing, one goes out every 20 ms.
func (g *rig) pace(n *rigNode) time.Duration {
	for _, h := range n.heard {
		if silent := g.now.Sub(h.at); silent > 2*n.p.Timings.Beat && silent < 10*n.p.Timings.Detection {
			return 20 * time.Millisecond
		}
	}
	return n.p.Timings.Beat
}

func (g *rig) logf(format string, args ...any) {
	g.log = append(g.log, "--- "+fmt.Sprintf(format, args...))
}

// holder is who acts under a duty; more than one are joined.
func (g *rig) holder(duty string) string {
	var all []string
	for _, name := range g.names {
		n := g.nodes[name]
		if s := n.m.Duties[duty].Hold.State; !n.dead && (s == cluster.Held || s == cluster.Offered) {
			all = append(all, name)
		}
	}
	return strings.Join(all, "+")
}

// check fails the test, with the history, unless the duty is with want and no gate was ever open twice.
func (g *rig) check(duty, want string) {
	g.t.Helper()
	if got := g.holder(duty); got != want {
		g.t.Errorf("%s is with %q, want %q", duty, got, want)
	}
	if g.worst[duty] > 1 {
		g.t.Errorf("the gate of %s was open on %d nodes at once", duty, g.worst[duty])
	}
	if g.t.Failed() {
		for _, name := range g.names {
			g.logf("%s says %+v, blocked: %v", name, g.nodes[name].out.Say, g.nodes[name].out.Blocked)
		}
		g.t.Fatal("history:\n" + strings.Join(g.log, "\n"))
	}
}
