package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// fault begins something bad, and returns what ends it (nil: nothing does) and whom it is near.
type fault struct {
	kind    string
	weight  int
	longest time.Duration
	begin   func(w *world) (end func(), near []*node)
}

// faults are all kinds. Those that keep the network busy are short, because every beat of them is played.
var faults = []fault{
	{"crash", 10, time.Minute, (*world).crash},
	{"reboot", 6, 2 * time.Minute, (*world).reboot},
	{"stays off", 2, time.Minute, (*world).stayOff},
	{"destroy", 6, 5 * time.Minute, (*world).destroy},
	{"freeze", 10, 20 * time.Second, (*world).freeze},
	{"isolate", 8, time.Minute, func(w *world) (func(), []*node) { return w.cutAround(true, true) }},
	{"deaf", 6, time.Minute, func(w *world) (func(), []*node) { return w.cutAround(true, false) }},
	{"mute", 6, time.Minute, func(w *world) (func(), []*node) { return w.cutAround(false, true) }},
	{"split", 8, time.Minute, (*world).split},
	{"part", 0, 0, (*world).part},
	{"one way", 0, 0, (*world).oneWay},
	{"pair", 6, time.Minute, (*world).pair},
	{"ragged", 5, 10 * time.Second, (*world).ragged},
	{"loss", 4, 5 * time.Second, (*world).loss},
	{"late", 4, 5 * time.Second, (*world).late},
	{"hang", 6, 20 * time.Minute, (*world).crash},
	{"half dies", 4, 2 * time.Minute, (*world).halfDies},
	{"ledger away", 6, 2 * time.Minute, counter(func(w *world) *int { return &w.ledger.away })},
	{"ledger away for some", 4, 2 * time.Minute, (*world).ledgerForSome},
	{"ledger slow", 4, time.Minute, counter(func(w *world) *int { return &w.ledger.slow })},
	{"ledger deceives", 4, time.Minute, counter(func(w *world) *int { return &w.ledger.deceives })},
	{"provider away", 4, 2 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.away })},
	{"provider slow", 4, time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.slow })},
	{"provider deceives", 4, time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.deceives })},
	{"register lags", 4, time.Minute, counter(func(w *world) *int { return &w.cloud.lagging })},
	{"no room", 4, 10 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.full })},
	{"machines never come", 3, 10 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.forgets })},
	{"machines dawdle", 3, 10 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.dawdles })},
	{"lists are partial", 3, 10 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.partial })},
	{"lists are empty", 3, 10 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.strange })},
	{"machines seem gone", 3, 2 * time.Minute, counter(func(w *world) *int { w.cloud.failed = true; return &w.cloud.lies })},
	{"taken away", 2, time.Minute, (*world).takenAway},
	{"stray", 2, time.Minute, (*world).stray},
	{"zone away", 3, 2 * time.Minute, counter(func(w *world) *int { return &w.zone.away })},
	{"unhealthy", 5, time.Minute, (*world).unhealthy},
	{"clock off", 3, time.Minute, (*world).clockOff},
	{"copies are slow", 3, time.Minute, counter(func(w *world) *int { return &w.copiesSlow })},
	{"move", 8, 20 * time.Second, (*world).move},
	{"leave", 6, 30 * time.Second, (*world).leave},
	{"pause", 2, time.Minute, (*world).pause},
}

// warm is how long the cluster has to itself before the first fault, in most episodes.
const warm = 4 * time.Second

// plan chooses the faults: one to four, that overlap as chance will have it.
func (w *world) plan() {
	if len(w.o.Script) > 0 {
		w.follow(w.o.Script)
		return
	}
	first := warm + w.between(0, time.Second)
	if w.chance(0.15) {
		first = w.between(0, warm) // while everything begins
	}
	w.schedule(first)
}

// schedule chooses the faults of one time of trouble, and plans the next such time if there is one.
func (w *world) schedule(at time.Duration) {
	count := 1 + w.rng.IntN(4)
	for i := range count {
		if i > 0 {
			at += w.logarithmic(time.Millisecond, 20*time.Second)
		}
		f := w.choose()
		lasts := w.logarithmic(30*time.Millisecond, f.longest)
		w.lastFault = max(w.lastFault, moment(at+lasts))
		w.events.push(moment(at), func() { w.strike(f, lasts) })
	}
	w.events.push(w.lastFault.add(settle), w.checkSettled)
	if w.o.Every == 0 {
		return
	}
	next := w.lastFault.add(Hour + time.Duration(w.rng.ExpFloat64()*float64(w.o.Every)))
	w.events.push(next, func() {
		w.checkEnd()
		if w.report_.Lost = w.extinct(); w.report_.Lost {
			w.end = w.now
			return
		}
		w.schedule(time.Duration(next))
	})
}

// follow plans what a script says.
func (w *world) follow(script []Step) {
	for _, step := range script {
		at := slices.IndexFunc(faults, func(f fault) bool { return f.kind == step.Kind })
		var on []*node
		for name := range strings.SplitSeq(step.On, "+") {
			for _, n := range w.nodes {
				if n.name == name {
					on = append(on, n)
				}
			}
		}
		if at < 0 || on == nil && step.On != "" {
			panic(fmt.Sprintf("no such step: %+v", step))
		}
		w.lastFault = max(w.lastFault, moment(step.At+step.Lasts))
		w.events.push(moment(step.At), func() {
			w.struck = on
			w.strike(faults[at], step.Lasts)
			w.struck = nil
		})
	}
	w.events.push(w.lastFault.add(settle), w.checkSettled)
}

// strike lets a fault happen for a while.
func (w *world) strike(f fault, lasts time.Duration) {
	w.leap, w.slept = firstLeap, 0
	if w.firstFault == 0 {
		w.firstFault = w.now
	}
	w.note("FAULT", f.kind+" for "+lasts.Round(time.Millisecond).String())
	w.flow()
	w.active++
	w.report_.Faults++
	end, near := f.begin(w)
	w.cloud.version++ // lists may be wrong from now on
	for _, n := range near {
		n.calm = false
		n.faults++
		w.note("FAULT", "  near "+n.name)
	}
	w.after(lasts, func() {
		w.leap, w.slept = firstLeap, 0
		w.note("FAULT", "end of "+f.kind)
		w.flow()
		w.active--
		if end != nil {
			end()
		}
		w.cloud.version++
		for _, n := range near {
			n.calm = false
			n.faults--
			n.trouble = max(n.trouble, w.now.add(3*time.Second))
		}
	})
}

func (w *world) choose() fault {
	total := 0
	for _, f := range faults {
		if w.allowed(f) {
			total += f.weight
		}
	}
	at := w.rng.IntN(total)
	for _, f := range faults {
		if !w.allowed(f) {
			continue
		}
		if at -= f.weight; at < 0 {
			return f
		}
	}
	panic("no fault")
}

func (w *world) allowed(f fault) bool { return len(w.o.Only) == 0 || slices.Contains(w.o.Only, f.kind) }

// logarithmic is a duration from a to b whose logarithm is evenly spread.
func (w *world) logarithmic(a, b time.Duration) time.Duration {
	return time.Duration(float64(a) * math.Pow(float64(b)/float64(a), w.rng.Float64()))
}

func counter(of func(w *world) *int) func(*world) (func(), []*node) {
	return func(w *world) (func(), []*node) {
		*of(w)++
		return func() { *of(w)-- }, nil
	}
}

// victim is any node, the ones that hold something a little more often.
func (w *world) victim() *node {
	if w.struck != nil {
		return w.struck[0]
	}
	var holders []*node
	for _, n := range w.nodes {
		for _, d := range n.memory.Duties {
			if d.Hold.State == cluster.Held {
				holders = append(holders, n)
				break
			}
		}
	}
	if len(holders) > 0 && w.chance(0.6) {
		return pick(w, holders)
	}
	return pick(w, w.nodes)
}

func (w *world) crash() (func(), []*node) {
	n := w.victim()
	if n.up {
		w.kill(n)
	}
	return func() { w.restart(n) }, []*node{n}
}

func (w *world) restart(n *node) {
	if n.booted && !n.up {
		w.start(n)
	}
}

// off takes the machine's power: kernel, gate and process are gone at once.
func (w *world) off(n *node) {
	if n.up {
		w.kill(n)
	}
	n.booted, n.fresh, n.gate = false, true, gate{}
	n.units.Running, n.units.All = false, false
	if m := w.machine(n.machine); m != nil {
		m.power = cluster.PowerOff
		m.boots++
		w.cloud.version++
	}
	w.note(n.name, "is off")
}

func (w *world) reboot() (func(), []*node) {
	n := w.victim()
	m := w.machine(n.machine)
	w.off(n)
	return func() {
		if m != nil {
			w.switchOn(m)
		}
	}, []*node{n}
}

// stayOff is a machine that is off until a person switches it on, if it is not replaced before. Where nobody replaces machines, that is
// soon.
func (w *world) stayOff() (func(), []*node) {
	n := w.victim()
	m := w.machine(n.machine)
	w.off(n)
	if w.shape.ledger && n.own != nil || m == nil {
		return nil, []*node{n}
	}
	return func() { w.switchOn(m) }, []*node{n}
}

func (w *world) destroy() (func(), []*node) {
	n := w.victim()
	w.lose(n)
	return func() { w.replace(n) }, []*node{n}
}

func (w *world) lose(n *node) {
	if m := w.machine(n.machine); m != nil {
		w.remove(m)
	} else {
		w.off(n)
	}
}

// replace is what a person does where the cluster cannot: in one without a ledger, and for the beachhead.
func (w *world) replace(n *node) {
	if w.power(n.machine) != cluster.PowerGone || w.shape.ledger && n.own != nil {
		return
	}
	if c, ok := w.ledger.claims[n.name]; ok {
		c.Tombstoned = true
		w.ledger.claims[n.name] = c
		w.ledger.version++
	}
	w.newMachine(n)
	w.start(n)
}

// takenAway is a machine that a person uses for something else from now on. Nobody here may touch it.
func (w *world) takenAway() (func(), []*node) {
	n := w.victim()
	m := w.machine(n.machine)
	if m == nil || n.own == nil {
		return nil, nil
	}
	if n.up {
		w.kill(n)
	}
	w.cloud.failed = true
	m.foreign, m.name, n.booted = true, "www", false
	if w.chance(0.5) {
		m.name, m.tags = n.name, nil
	}
	w.cloud.version++
	return func() { w.lose(n) }, []*node{n}
}

// stray is a machine too many: of an intent that is long over, or of somebody who uses our tag and a node's name.
func (w *world) stray() (func(), []*node) {
	n := pick(w, w.nodes)
	if n.own == nil {
		return nil, nil
	}
	if w.chance(0.3) {
		m := w.made(n.name, tag)
		m.foreign, w.cloud.failed = true, true
		w.after(2*time.Hour, func() { w.remove(m) }) // by whoever it belongs to; until then it counts
		return nil, nil
	}
	nonce := w.nonce()
	w.ledger.nonces[nonce] = n.name
	w.made(n.name, tag, cluster.IntentTag+nonce).asks = true
	return nil, nil
}

func (w *world) freeze() (func(), []*node) {
	n := w.victim()
	if n.up && !n.frozen {
		n.frozen, n.dueBy = true, w.now.add(w.between(0, 100*time.Millisecond))
	}
	starts := n.starts
	return func() {
		if n.up && n.starts == starts {
			w.thaw(n)
		}
	}, []*node{n}
}

// thaw lets a frozen process go on. Its backlog and its late turn race.
func (w *world) thaw(n *node) {
	n.frozen = false
	n.due = w.now
	first := w.chance(0.5)
	if first {
		w.turn(n)
	}
	inbox := n.inbox
	n.inbox = nil
	for _, b := range inbox {
		w.receive(n, b)
	}
	if !first {
		w.turn(n)
	}
}

func (w *world) cut(pairs [][2]int) func() {
	for _, p := range pairs {
		w.links[p[0]][p[1]].cut++
	}
	return func() {
		for _, p := range pairs {
			w.links[p[0]][p[1]].cut--
		}
	}
}

func (w *world) cutAround(in, out bool) (func(), []*node) {
	n := w.victim()
	var pairs [][2]int
	for k := range w.nodes {
		if k == n.i {
			continue
		}
		if in {
			pairs = append(pairs, [2]int{k, n.i})
		}
		if out {
			pairs = append(pairs, [2]int{n.i, k})
		}
	}
	return w.cut(pairs), []*node{n}
}

// split parts the nodes in two, sometimes in one direction only, sometimes with one that hears both sides.
func (w *world) split() (func(), []*node) {
	side := make([]int, len(w.nodes))
	for i := range side {
		side[i] = w.rng.IntN(2)
	}
	if w.chance(0.3) {
		side[w.rng.IntN(len(side))] = 2
	}
	oneWay := w.chance(0.2)
	var pairs [][2]int
	for i := range side {
		for k := range side {
			if side[i]+side[k] == 1 && (!oneWay || side[i] == 0) {
				pairs = append(pairs, [2]int{i, k})
			}
		}
	}
	return w.cut(pairs), w.nodes
}

// part cuts some nodes off from the rest, in both directions.
func (w *world) part() (func(), []*node) {
	var pairs [][2]int
	for _, n := range w.struck {
		for _, other := range w.nodes {
			if !slices.Contains(w.struck, other) {
				pairs = append(pairs, [2]int{n.i, other.i}, [2]int{other.i, n.i})
			}
		}
	}
	return w.cut(pairs), w.nodes
}

// oneWay keeps the first from being heard by the second.
func (w *world) oneWay() (func(), []*node) {
	a, b := w.struck[0], w.struck[1]
	return w.cut([][2]int{{a.i, b.i}}), []*node{a, b}
}

// pair cuts the link between two nodes, mostly in both directions.
func (w *world) pair() (func(), []*node) {
	a := w.victim()
	b := pick(w, w.nodes)
	if len(w.struck) == 2 {
		b = w.struck[1]
	} else if a == b {
		b = w.nodes[(a.i+1)%len(w.nodes)]
	}
	pairs := [][2]int{{a.i, b.i}}
	if w.chance(0.7) {
		pairs = append(pairs, [2]int{b.i, a.i})
	}
	return w.cut(pairs), []*node{a, b}
}

// ragged cuts every direction of every pair by itself.
func (w *world) ragged() (func(), []*node) {
	var pairs [][2]int
	p := 0.1 + 0.5*w.rng.Float64()
	for i := range w.nodes {
		for k := range w.nodes {
			if i != k && w.chance(p) {
				pairs = append(pairs, [2]int{i, k})
			}
		}
	}
	return w.cut(pairs), w.nodes
}

func (w *world) loss() (func(), []*node) {
	p := 0.05 + 0.35*w.rng.Float64()
	for i := range w.links {
		for k := range w.links[i] {
			w.links[i][k].loss = append(w.links[i][k].loss, p)
		}
	}
	near := w.nodes
	if p <= 0.2 {
		near = nil // what the design promises to bear
	}
	return func() {
		for i := range w.links {
			for k := range w.links[i] {
				l := &w.links[i][k]
				at := slices.Index(l.loss, p)
				l.loss = slices.Delete(slices.Clone(l.loss), at, at+1)
			}
		}
	}, near
}

// late delays what a node sends, hears, or both.
func (w *world) late() (func(), []*node) {
	n := w.victim()
	by := w.logarithmic(20*time.Millisecond, 2*time.Second)
	in, out := w.chance(0.7), w.chance(0.7)
	change := func(d time.Duration) {
		for k := range w.nodes {
			if in {
				w.links[k][n.i].slow += d
			}
			if out {
				w.links[n.i][k].slow += d
			}
		}
	}
	change(by)
	return func() { change(-by) }, []*node{n}
}

// halfDies is the loss of exactly half of the nodes, or of all but one, at once.
func (w *world) halfDies() (func(), []*node) {
	lost := len(w.nodes) / 2
	if w.chance(0.25) {
		lost = len(w.nodes) - 1
	}
	manner := w.rng.IntN(3)
	var ends []func()
	victims := w.rng.Perm(len(w.nodes))[:lost]
	if !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.own != nil && !slices.Contains(victims, n.i) }) {
		victims = victims[1:] // a beachhead alone would be another story
	}
	for _, i := range victims {
		n := w.nodes[i]
		switch manner {
		case 0:
			if n.up {
				w.kill(n)
			}
			ends = append(ends, func() { w.restart(n) })
		case 1:
			m := w.machine(n.machine)
			w.off(n)
			ends = append(ends, func() {
				if m != nil {
					w.switchOn(m)
				}
			})
		case 2:
			w.lose(n)
			ends = append(ends, func() { w.replace(n) })
		}
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}, w.nodes
}

func (w *world) ledgerForSome() (func(), []*node) {
	var some []int
	for i := range w.nodes {
		if w.chance(0.5) {
			some = append(some, i)
			w.ledger.cut[i]++
		}
	}
	return func() {
		for _, i := range some {
			w.ledger.cut[i]--
		}
	}, nil
}

func (w *world) unhealthy() (func(), []*node) {
	n := w.victim()
	n.health = cluster.Unhealthy
	n.wake(w.now)
	return func() {
		n.health = cluster.Healthy
		n.wake(w.now)
	}, []*node{n}
}

func (w *world) clockOff() (func(), []*node) {
	n := w.victim()
	n.view.ClockOff = true
	n.wake(w.now)
	return func() {
		n.view.ClockOff = false
		n.wake(w.now)
	}, []*node{n}
}

// move orders a switchover at some node.
func (w *world) move() (func(), []*node) {
	n := w.victim()
	starts := n.starts
	var names []string
	for _, r := range n.policy.Roles {
		if r.Primary {
			names = append(names, r.Name)
		}
	}
	names = append(names, cluster.Coordinator)
	duty := pick(w, names)
	if len(w.struck) > 0 {
		duty = n.own.Name
	}
	to := ""
	if w.chance(0.3) && len(w.struck) == 0 {
		to = pick(w, w.nodes).name
	}
	n.orders.Moves = []cluster.Move{{Duty: duty, From: n.memory.Duties[duty].Promise.Epoch, To: to}}
	n.wake(w.now)
	return func() {
		if n.starts == starts {
			n.orders.Moves = nil
			n.wake(w.now)
		}
	}, w.nodes
}

// leave is a clean stop, and a start afterwards.
func (w *world) leave() (func(), []*node) {
	n := w.victim()
	if n.up {
		n.orders.Leave, n.view.Phase = true, cluster.Stopping
		n.wake(w.now)
		w.awaitLeft(n, n.starts, w.now.add(15*time.Second))
	}
	return func() {
		if n.up && n.orders.Leave {
			w.stop(n)
		}
		w.restart(n)
	}, w.nodes
}

func (w *world) awaitLeft(n *node, starts int, until moment) {
	w.after(50*time.Millisecond, func() {
		if n.starts != starts {
			return
		}
		for _, d := range n.memory.Duties {
			if acts(d.Hold.State) && w.now < until {
				w.awaitLeft(n, starts, until)
				return
			}
		}
		w.stop(n)
	})
}

// stop ends a process in order: it closes its gate and stops the writers.
func (w *world) stop(n *node) {
	n.gate.until, n.gate.shut = 0, min(n.gate.shut, w.now)
	n.units.Running, n.units.All = false, false
	w.kill(n)
}

func (w *world) pause() (func(), []*node) {
	n := w.victim()
	n.orders.Pause = true
	n.wake(w.now)
	return func() {
		n.orders.Pause = false
		n.wake(w.now)
	}, []*node{n}
}

func acts(s cluster.HoldState) bool {
	return s == cluster.Waiting || s == cluster.Held || s == cluster.Offered
}

func holds(s cluster.HoldState) bool { return s == cluster.Held || s == cluster.Offered }
