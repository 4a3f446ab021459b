package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// What the executor does of a replacement, as in reconcile: every step reads again what it assumes.

// intent is the ledger's objects of one replacement.
type intent struct {
	cluster.Intent
	written, called, ended moment // called and ended: zero until then
}

var errRefused = errors.New("the provider says no")

// told is the intent as a reading of the ledger tells it.
func (in *intent) told(at moment) cluster.Intent {
	c := in.Intent
	c.Age = at.sub(in.written)
	if in.called != 0 {
		c.Called = max(1, at.sub(in.called))
	}
	if in.ended != 0 {
		c.Closed.Age = at.sub(in.ended)
	}
	return c
}

// intents are the newest of each node, and the ages of all of the last day, as a reading tells them.
func (w *world) intents(at moment) (newest map[string]cluster.Intent, hired []time.Duration) {
	if len(w.ledger.intents) == 0 {
		return nil, nil
	}
	newest = make(map[string]cluster.Intent, len(w.ledger.intents))
	for k, in := range w.ledger.intents {
		newest[k] = in.told(at)
	}
	for _, written := range w.ledger.hired {
		if age := at.sub(written); age < 24*time.Hour {
			hired = append(hired, age)
		}
	}
	return newest, hired
}

func (w *world) readList(n *node, done func(error, func(*decide.View))) {
	sent := n.clock.at(w.now)
	var got []decide.Listed
	var version uint64
	w.call(func() error { got, version = w.list(), w.cloud.version; return nil }, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		done(nil, func(v *decide.View) { w.tookList(n, v, got, sent, version) })
	})
}

// list is what the provider answers, with what the ledger knows of each machine.
func (w *world) list() []decide.Listed {
	all := make([]decide.Listed, 0, len(w.cloud.machines))
	for _, m := range w.cloud.machines {
		if w.now < m.shows || w.cloud.strange > 0 || w.cloud.partial > 0 && w.chance(0.3) || !slices.Contains(m.tags, tag) {
			continue
		}
		l := decide.Listed{Machine: cluster.Machine{ID: m.id, Name: m.name, Tags: m.tags, Power: m.power}, Claimed: w.ledger.claimants[m.id]}
		l.Known = l.Claimed > 0 || slices.ContainsFunc(m.tags, func(t string) bool {
			return w.ledger.nonces[strings.TrimPrefix(t, cluster.IntentTag)] == m.name
		})
		all = append(all, l)
	}
	return all
}

func (w *world) tookList(n *node, v *decide.View, got []decide.Listed, sent cluster.Instant, version uint64) {
	first, agree := make(map[string]cluster.Instant, len(got)), 1
	for i := range got {
		id := got[i].ID
		if first[id] = n.first[id]; first[id] == 0 {
			first[id] = sent
		}
		got[i].First = first[id]
	}
	if slices.EqualFunc(got, v.List.Machines, func(a, b decide.Listed) bool { return a.ID == b.ID && a.Name == b.Name && a.Power == b.Power }) {
		agree = v.List.Agree + 1
	}
	n.first, n.listVersion = first, version
	v.List = decide.ListReading{Machines: got, At: sent, Agree: agree}
}

// still checks by a reading of the ledger that nobody has coordinated since, that this machine is still its node, and what else
// must hold of the ledger.
func (w *world) still(n *node, e decide.Expect, also func() bool, then func(error)) {
	ok := false
	w.request(n, func() {
		d, c := w.ledger.duties[e.Duty], w.ledger.claims[n.name]
		ok = d.Epoch < e.Epoch || d.Epoch == e.Epoch && d.Holder == n.name
		ok = ok && c.Machine == n.machine && !c.Tombstoned && also()
	}, func(err error) {
		switch {
		case err != nil:
		case w.o.Off.Recheck:
		case !ok || !n.up || n.frozen:
			err = errStale
		default:
			err = w.holds(n, e)
		}
		then(err)
	})
}

// step is one deed of a replacement at the ledger: what it assumes is read there and seen here, it is written, and the ledger is
// read again.
func (w *world) step(n *node, e decide.Expect, also, here func() bool, write func(), done func(error, func(*decide.View))) {
	w.still(n, e, also, func(err error) {
		if err == nil && !w.o.Off.Recheck && !here() {
			err = errStale
		}
		if err != nil {
			done(err, nil)
			return
		}
		w.request(n, func() {
			if also() || w.o.Off.Recheck { // the store's create-if-absent
				write()
			}
		}, func(err error) {
			if err != nil {
				done(err, nil)
				return
			}
			w.readLedger(n, done)
		})
	})
}

func (w *world) openIntent(n *node, a decide.OpenIntent, done func(error, func(*decide.View))) {
	in := a.Intent
	free := func() bool {
		was := w.ledger.intents[in.Node]
		return was == nil && in.N == 1 || was != nil && was.N+1 == in.N && !was.Open()
	}
	n.view.Nonce = w.nonce()
	w.step(n, a.Expect, func() bool {
		c := w.ledger.claims[in.Node]
		return free() && c.Epoch == in.Replaces && c.Machine == in.Machine
	}, always, func() {
		w.lawOfIntent(n, in)
		w.ledger.intents[in.Node] = &intent{Intent: in, written: w.now}
		w.ledger.nonces[in.Nonce] = in.Node
		w.ledger.hired = append(w.ledger.hired, w.now)
		w.ledger.version++
		w.note("ledger", fmt.Sprintf("intent %d for %s by %s: %s", in.N, in.Node, n.name, in.Why))
	}, done)
}

func always() bool { return true }

// nonce is one of a kind; its last digits are the decision's to set.
func (w *world) nonce() string {
	w.cloud.nonces++
	return fmt.Sprintf("%032x", w.cloud.nonces<<16)
}

// silent says that a node has not been heard by n since the decision.
func (w *world) silent(n *node, node string) bool {
	p := n.peers[w.named(node).i]
	return p.heard == 0 || n.clock.at(w.now).Sub(p.heard) >= n.policy.Timings.Detection
}

func (w *world) tombstone(n *node, a decide.Tombstone, done func(error, func(*decide.View))) {
	if !a.Off || w.o.Off.Recheck {
		w.bury(n, a, done)
		return
	}
	var power cluster.Power
	w.call(func() error { power = w.power(a.Machine); return nil }, func(err error) {
		if err == nil && power != cluster.PowerOff && power != cluster.PowerGone {
			err = errStale
		}
		if err != nil {
			done(err, nil)
			return
		}
		w.bury(n, a, done)
	})
}

func (w *world) bury(n *node, a decide.Tombstone, done func(error, func(*decide.View))) {
	w.step(n, a.Expect, func() bool { return w.ledger.claims[a.Node].Epoch == a.Epoch }, func() bool {
		silent := w.silent(n, a.Node)
		if c := w.ledger.claims[a.Node]; silent && !c.Tombstoned && !a.Off {
			w.lawOfLoss(n, a.Node, c.Machine)
		}
		return silent
	}, func() {
		c := w.ledger.claims[a.Node]
		if c.Tombstoned {
			return
		}
		c.Tombstoned = true
		w.ledger.claims[a.Node] = c
		w.ledger.version++
		w.note("ledger", "tombstone of "+a.Node+" by "+n.name)
		w.freed(a.Node)
	}, done)
}

// notTheNode says that a machine is not its node's incarnation.
func (w *world) notTheNode(n *node, name, machine string, claim uint64) bool {
	c := w.ledger.claims[name]
	if w.o.Off.Tombstone {
		return machine != n.machine
	}
	return (c.Machine != machine || c.Tombstoned) && (claim == 0 || c.Epoch == claim && c.Machine == machine) && machine != n.machine
}

// ours says that the provider, asked by ID, calls the machine by the node's name and the cluster's tag.
func (w *world) ours(m *machine, name string) bool {
	return w.o.Off.Ours || m.name == name && slices.Contains(m.tags, tag)
}

func (w *world) powerOff(n *node, a decide.PowerOff, done func(error, func(*decide.View))) {
	w.still(n, a.Expect, func() bool { return w.notTheNode(n, a.Node, a.Machine, a.Claim) }, func(err error) {
		if err == nil && a.Claim != 0 && !w.silent(n, a.Node) && !w.o.Off.Recheck {
			err = errStale
		}
		if err != nil {
			done(err, nil)
			return
		}
		if a.Claim != 0 && w.power(a.Machine) == cluster.PowerOn {
			w.lawOfLoss(n, a.Node, a.Machine)
			w.lawOfMinority(n, a.Node)
		}
		w.call(func() error {
			m := w.machine(a.Machine)
			switch {
			case m == nil:
				return nil
			case !w.ours(m, a.Node):
				return errStale
			}
			w.lawOfTouch(n, m, "switches off")
			if m.power == cluster.PowerOn || m.power == cluster.PowerNew {
				w.lawOfOnlyCopy(n, m, "switches off")
				w.switchOff(m)
			}
			return nil
		}, func(err error) {
			if err != nil {
				done(err, nil)
				return
			}
			w.readMachine(n, decide.ReadMachine{Node: a.Node, Machine: a.Machine}, done)
		})
	})
}

func (w *world) deleteMachine(n *node, a decide.Delete, done func(error, func(*decide.View))) {
	w.still(n, a.Expect, func() bool { return w.notTheNode(n, a.Node, a.Machine, 0) }, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		w.call(func() error {
			m := w.machine(a.Machine)
			switch {
			case m == nil:
				return nil
			case !w.ours(m, a.Node) || m.power != cluster.PowerOff:
				return errStale
			}
			w.lawOfTouch(n, m, "deletes")
			w.lawOfOnlyCopy(n, m, "deletes")
			w.remove(m)
			return nil
		}, func(err error) {
			if err != nil {
				done(err, nil)
				return
			}
			w.readList(n, done)
		})
	})
}

func (w *world) closeIntent(n *node, a decide.CloseIntent, done func(error, func(*decide.View))) {
	w.step(n, a.Expect, func() bool { return w.isOpen(a.Closing.Node, a.Closing.N) }, always, func() { w.closing(a.Closing) }, done)
}

func (w *world) isOpen(node string, number uint64) bool {
	in := w.ledger.intents[node]
	return in != nil && in.N == number && in.Open()
}

func (w *world) closing(c cluster.Closing) {
	in := w.ledger.intents[c.Node]
	in.Closed, in.ended = c, w.now
	w.ledger.version++
	w.note("ledger", fmt.Sprintf("intent %d for %s is %s: %s", c.N, c.Node, c.Outcome, c.Why))
}

// create asks for a machine: old machine, list, ledger, the call's object, and then the provider, once.
func (w *world) create(n *node, a decide.Create, done func(error, func(*decide.View))) {
	in := a.Intent
	w.mayCreate(n, a, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		w.still(n, a.Expect, func() bool { return w.intentReady(in) }, func(err error) {
			if err != nil {
				done(err, nil)
				return
			}
			won := false
			w.request(n, func() {
				if is := w.ledger.intents[in.Node]; is.N == in.N && is.called == 0 {
					is.called, won = w.now, true
					w.ledger.version++
				}
			}, func(err error) {
				if err == nil && !won {
					err = errStale
				}
				if err == nil && !w.o.Off.Recheck {
					err = w.holds(n, a.Expect)
				}
				if err != nil {
					done(err, nil)
					return
				}
				w.hire(n, in, done)
			})
		})
	})
}

// mayCreate checks that the old machine is off or gone, and that the list is ours and has room.
func (w *world) mayCreate(n *node, a decide.Create, then func(error)) {
	var power cluster.Power
	var got []decide.Listed
	w.call(func() error { power = w.power(a.Intent.Machine); return nil }, func(err error) {
		if err != nil || !w.o.Off.Fence && power != cluster.PowerOff && power != cluster.PowerGone && a.Intent.Machine != "" {
			then(errors.Join(err, errStale))
			return
		}
		sent := n.clock.at(w.now)
		w.call(func() error { got = w.list(); return nil }, func(err error) {
			if err != nil {
				then(err)
				return
			}
			if why := (decide.ListReading{Machines: got, At: sent}).NoRoom(n.policy, n.machine, a.Intent, a.Most); why != "" {
				err = fmt.Errorf("%w: %s", errStale, why)
			}
			then(err)
		})
	})
}

func (w *world) intentReady(in cluster.Intent) bool {
	is, c := w.ledger.intents[in.Node], w.ledger.claims[in.Node]
	return is != nil && is.Nonce == in.Nonce && is.Open() && is.called == 0 && c.Epoch == in.Replaces && (in.Replaces == 0 || c.Tombstoned || w.o.Off.Tombstone)
}

// hire is the provider's part. Without the rail, a call whose answer was lost is made again.
func (w *world) hire(n *node, in cluster.Intent, done func(error, func(*decide.View))) {
	w.call(func() error {
		if w.cloud.full > 0 {
			return errRefused
		}
		w.lawOfCreate(in)
		if w.cloud.forgets > 0 {
			w.note("cloud", "accepts a machine for "+in.Node+", which never comes to be")
			return nil
		}
		w.report_.Created++
		m := w.made(in.Node, tag, in.Tag())
		m.power, m.shows = cluster.PowerNew, w.now.add(w.between(0, 5*time.Second))
		w.after(m.shows.sub(w.now), func() { w.cloud.version++ })
		w.note("cloud", "makes machine "+m.id+" for "+in.Node)
		w.boot(m)
		return nil
	}, func(err error) {
		switch {
		case errors.Is(err, errRefused):
			w.request(n, func() {
				if w.isOpen(in.Node, in.N) {
					w.closing(cluster.Closing{Node: in.Node, N: in.N, Outcome: cluster.Failed, Why: err.Error()})
				}
			}, func(error) { w.readLedger(n, done) })
		case err != nil && w.o.Off.CallOnce:
			w.hire(n, in, done)
		default:
			w.readLedger(n, func(_ error, change func(*decide.View)) { done(err, change) })
		}
	})
}
