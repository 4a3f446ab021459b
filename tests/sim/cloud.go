package sim

import (
	"slices"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// cloud is the provider: machines by ID, and the register of reserved addresses.
type cloud struct {
	power    map[string]cluster.Power
	register map[string]*assignment // by role
	away     int                    // faults that keep everybody from the API
	slow     int                    // faults by which calls take seconds
	deceives int                    // faults by which an answer is lost after the deed
	lagging  int                    // faults by which the register is answered from a while ago
	machines int                    // made so far
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
	var power cluster.Power
	w.call(func() error { power = w.cloud.power[a.Machine]; return nil }, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		done(nil, func(v *decide.View) {
			r := decide.MachineReading{ID: a.Machine, Power: power, At: sent, Same: 1}
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
