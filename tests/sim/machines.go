package sim

import (
	"slices"
	"strconv"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// machine is one of the provider's, ours or not.
type machine struct {
	id, name string
	tags     []string
	power    cluster.Power
	born     moment // when it was asked for
	shows    moment // lists have it from then on
	foreign  bool   // it is, or has become, somebody else's
	boots    int    // how often its power has changed
	began    moment // when it was switched on again
	// asks: its sidecar runs, waits until the identity is free, and does nothing else.
	asks bool
	disk decide.Lasting // of a machine that was a node once
	tree *tree          // what lies there of the role's data; nil: nothing
	lied uint32         // those whose newest question for it by its ID may have been answered wrongly, as bits
}

const (
	tag = "c" // the cluster's
	// ticketLife is how long a new machine may join, as in the sidecar.
	ticketLife = 15 * time.Minute
)

// made lets a machine exist.
func (w *world) made(name string, tags ...string) *machine {
	w.cloud.made++
	m := &machine{id: strconv.Itoa(1000 + w.cloud.made), name: name, tags: tags, power: cluster.PowerOn, born: w.now, shows: w.now}
	w.cloud.machines = append(w.cloud.machines, m)
	w.cloud.version++
	return m
}

// machine is the machine with an ID; nil: it does not exist any more.
func (w *world) machine(id string) *machine {
	for _, m := range w.cloud.machines {
		if m.id == id {
			return m
		}
	}
	return nil
}

// power is what is true of a machine.
func (w *world) power(id string) cluster.Power {
	if m := w.machine(id); m != nil {
		return m.power
	}
	return cluster.PowerGone
}

// embodied is the node that runs, or ran last, on a machine; nil: none.
func (w *world) embodied(m *machine) *node {
	for _, n := range w.nodes {
		if n.machine == m.id {
			return n
		}
	}
	return nil
}

// switchOff takes a machine's power: kernel, gate and process are gone at once.
func (w *world) switchOff(m *machine) {
	if n := w.embodied(m); n != nil {
		w.off(n)
		return
	}
	m.power, m.asks = cluster.PowerOff, false
	m.boots++
	w.cloud.version++
	w.note("cloud", "machine "+m.id+" is off")
}

// switchOn gives a machine its power back. One that was a node starts as that; another asks for the identity.
func (w *world) switchOn(m *machine) {
	if m.power != cluster.PowerOff {
		return
	}
	m.power, m.began = cluster.PowerOn, w.now
	m.boots++
	w.cloud.version++
	w.note("cloud", "machine "+m.id+" is on")
	if n := w.embodied(m); n != nil {
		n.booted = true
		w.restart(n)
	} else if m.disk.Epochs != nil {
		w.ask(m)
	}
}

// remove makes a machine gone.
func (w *world) remove(m *machine) {
	if m.power != cluster.PowerOff {
		w.switchOff(m)
	}
	m.power = cluster.PowerGone
	w.cloud.machines = slices.DeleteFunc(w.cloud.machines, func(other *machine) bool { return other == m })
	w.cloud.version++
}

// boot lets a new machine come up, join and start its sidecar.
func (w *world) boot(m *machine) {
	takes := w.between(5*time.Second, 40*time.Second)
	if w.cloud.dawdles > 0 {
		takes = w.between(time.Minute, 30*time.Minute)
	}
	boots := m.boots
	w.after(takes/2, func() {
		if m.power == cluster.PowerNew {
			m.power = cluster.PowerOn
			w.cloud.version++
		}
	})
	w.after(takes+w.between(5*time.Second, 20*time.Second), func() {
		if m.boots == boots && m.power == cluster.PowerOn && w.now.sub(m.born) < ticketLife {
			w.ask(m)
		}
	})
}

// ask asks for the identity of the machine's name, now and whenever it becomes free.
func (w *world) ask(m *machine) {
	m.asks = true
	boots := m.boots
	w.after(w.between(50*time.Millisecond, 400*time.Millisecond), func() {
		if m.boots != boots || m.power != cluster.PowerOn || !m.asks {
			return
		}
		if w.ledger.away > 0 {
			w.after(w.between(2*time.Second, 5*time.Second), func() {
				if m.boots == boots && m.asks {
					w.ask(m)
				}
			})
			return
		}
		if c := w.ledger.claims[m.name]; c.Epoch == 0 || c.Tombstoned {
			w.claimed(cluster.Claim{Node: m.name, Epoch: c.Epoch + 1, Machine: m.id})
			w.embody(m)
		}
	})
}

// claimed writes a claim, which is free to be written.
func (w *world) claimed(c cluster.Claim) {
	w.ledger.claims[c.Node] = c
	w.ledger.claimants[c.Machine] = c.Epoch
	w.ledger.version++
	w.note("ledger", "machine "+c.Machine+" is "+c.Node)
}

// freed wakes the machines that wait for an identity.
func (w *world) freed(name string) {
	for _, m := range w.cloud.machines {
		if m.asks && m.name == name {
			w.after(w.between(0, 2*time.Second), func() {
				if m.asks {
					w.ask(m)
				}
			})
		}
	}
}

// embody makes a machine that has claimed the identity its node's.
func (w *world) embody(m *machine) {
	n := w.named(m.name)
	if old := w.machine(n.machine); old != nil && old != m && n.up {
		if n.view.Claim.Mine {
			w.violated("machine %s is %s now, and so believes machine %s, which runs", m.id, n.name, old.id)
		}
		w.kill(n)
		old.disk, old.asks = n.disk, true // its sidecar goes on, and asks
	}
	m.asks = false
	w.flow()
	n.machine, n.booted, n.fresh, n.disk, n.units, n.gate, n.memory = m.id, true, true, m.disk, decide.UnitReading{}, gate{}, decide.Memory{}
	w.start(n)
}

// named is the node of a name.
func (w *world) named(name string) *node {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == name })]
}
