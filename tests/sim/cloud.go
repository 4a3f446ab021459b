package sim

import (
	"slices"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// cloud is the provider: machines by ID, and the register of reserved addresses.
type cloud struct {
	machines []*machine
	made     int                    // machines so far
	nonces   uint64                 // given out
	version  uint64                 // grows with every change of machines
	asked    []moment               // when machines were asked for
	register map[string]*assignment // by role
	failed   bool                   // it has had faults that cost tries
	// Faults of these kinds that are under way.
	away     int // nobody reaches the API
	slow     int // calls take seconds
	deceives int // an answer is lost after the deed
	lagging  int // the register is answered from a while ago
	full     int // no machine can be had
	forgets  int // one that was accepted never comes to be
	dawdles  int // new machines take minutes, or half an hour
	partial  int // lists lack some machines
	strange  int // lists are empty
	lies     int // a machine that is there is called gone, but not twice in a row
}

// assignment is the register's entry of one address.
type assignment struct {
	machine string
	was     string // before that
	changed moment
	pending moment // until then an action is in progress
}

// call is one call of the API.
func (w *world) call(deed func() error, answer func(error)) {
	took := w.between(50*time.Millisecond, 600*time.Millisecond)
	if w.cloud.slow > 0 {
		took = w.between(500*time.Millisecond, 8*time.Second)
	}
	w.after(took, func() {
		if w.cloud.away > 0 {
			w.after(w.between(0, 4*time.Second), func() { answer(errAway) })
			return
		}
		err := deed()
		if w.cloud.deceives > 0 && w.chance(0.5) {
			err = errAway
		}
		answer(err)
	})
}

func (w *world) readMachine(n *node, a decide.ReadMachine, done func(error, func(*decide.View))) {
	sent := n.clock.at(w.now)
	r := decide.MachineReading{ID: a.Machine, At: sent, Same: 1, Power: cluster.PowerGone}
	w.call(func() error {
		m := w.machine(a.Machine)
		if m == nil {
			return nil
		}
		if m.lied ^= 1 << n.i; w.cloud.lies == 0 || m.lied&(1<<n.i) == 0 {
			r.Power, r.Name, r.Ours = m.power, m.name, slices.Contains(m.tags, tag)
		}
		return nil
	}, func(err error) {
		if err != nil {
			done(err, func(v *decide.View) { // two answers in a row agree
				was := v.Machines[a.Node]
				was.Same = 0
				v.Machines = with(v.Machines, a.Node, was)
			})
			return
		}
		done(nil, func(v *decide.View) {
			if was := v.Machines[a.Node]; was.ID == r.ID && was.Power == r.Power {
				r.Same = was.Same + 1
			}
			v.Machines = with(v.Machines, a.Node, r)
		})
	})
}

// answer is what the register says of an address now.
func (w *world) holder(role string) cluster.AddressHolder {
	r := w.cloud.register[role]
	if w.cloud.lagging > 0 && w.now.sub(r.changed) < 5*time.Second {
		return cluster.AddressHolder{Machine: r.was}
	}
	return cluster.AddressHolder{Machine: r.machine, Pending: w.now < r.pending}
}

func (w *world) readHolder(n *node, role string, done func(error, func(*decide.View))) {
	sent := n.clock.at(w.now)
	var got cluster.AddressHolder
	w.call(func() error { got = w.holder(role); return nil }, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		done(nil, func(v *decide.View) {
			h := v.Holders[role]
			h.AddressHolder, h.At = got, sent
			v.Holders = with(v.Holders, role, h)
		})
	})
}

// assign reads again what it assumes, and then gives the address to the node's machine.
func (w *world) assign(n *node, a decide.AssignReserved, done func(error, func(*decide.View))) {
	var got cluster.AddressHolder
	w.call(func() error { got = w.holder(a.Role); return nil }, func(err error) {
		switch {
		case w.o.Off.Recheck:
		case err != nil:
			done(err, nil)
			return
		case got.Pending || got.Machine != a.Expect.Holder || w.holds(n, a.Expect) != nil || !n.up || n.frozen:
			done(errStale, nil)
			return
		}
		w.lawOfRegister(n, a.Role, w.cloud.register[a.Role].machine, a.Machine) // what is under way nobody calls back
		w.call(func() error {
			r := w.cloud.register[a.Role]
			if w.now < r.pending {
				return errAway // the provider refuses while an action is in progress
			}
			w.note("cloud", "moves the address of "+a.Role+" to "+n.name)
			*r = assignment{machine: a.Machine, was: r.machine, changed: w.now, pending: w.now.add(w.between(time.Second, 4*time.Second))}
			return nil
		}, func(err error) {
			if err != nil {
				done(err, nil)
				return
			}
			w.readHolder(n, a.Role, done)
		})
	})
}

// readMetadata is what the machine knows of itself without a token, looked at every second.
func (w *world) readMetadata(n *node, now cluster.Instant) {
	if !n.own.Reserved.IsValid() {
		return
	}
	r := w.cloud.register[n.own.Name]
	here, at := r.machine == n.machine && w.now >= r.pending, now-(now-n.clock.base)%cluster.Instant(time.Second)
	if h := n.view.Holders[n.own.Name]; h.Here != here || h.HereAt != at {
		h.Here, h.HereAt = here, at
		n.view.Holders = with(n.view.Holders, n.own.Name, h)
	}
}

// zone is a place where names are published, guarded by an epoch.
type zone struct {
	records []cluster.Record
	epoch   uint64
	away    int
	version uint64
}

func (w *world) zoneCall(deed func() error, answer func(error)) {
	w.after(w.between(5*time.Millisecond, 80*time.Millisecond), func() {
		if w.zone.away > 0 {
			answer(errAway)
			return
		}
		answer(deed())
	})
}

func (w *world) readZone(n *node, a decide.ReadZone, done func(error, func(*decide.View))) {
	sent := n.clock.at(w.now)
	var got decide.ZoneReading
	var version uint64
	w.zoneCall(func() error {
		version = w.zone.version
		got = decide.ZoneReading{Records: slices.Clone(w.zone.records), Epoch: w.zone.epoch, At: sent}
		return nil
	}, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		done(nil, func(v *decide.View) {
			v.Zones = with(v.Zones, a.Zone, got)
			n.zoneVersion = version
		})
	})
}

func (w *world) updateZone(n *node, a decide.UpdateZone, done func(error, func(*decide.View))) {
	if err := w.holds(n, a.Expect); err != nil {
		w.after(0, func() { done(err, nil) })
		return
	}
	w.lawOfZone(n, a)
	w.zoneCall(func() error {
		if a.Epoch < w.zone.epoch {
			return errStale
		}
		var kept []cluster.Record
		for _, r := range w.zone.records {
			if !slices.Contains(a.Own, r.Name) {
				kept = append(kept, r)
			}
		}
		w.zone.records, w.zone.epoch = append(kept, a.Want...), a.Epoch
		w.zone.version++
		w.note("zone", "published by "+n.name)
		return nil
	}, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		w.readZone(n, decide.ReadZone{Zone: a.Zone}, done)
	})
}

func sameRecords(ownA, ownB []string, wantA, wantB []cluster.Record) bool {
	return slices.Equal(ownA, ownB) && slices.Equal(wantA, wantB)
}
