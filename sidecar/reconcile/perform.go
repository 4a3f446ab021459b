package reconcile

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// perform does one slow action and puts what it learned on the board. Whatever the action assumes is read again here.
func (l *Loop) perform(ctx context.Context, a decide.Action) error {
	switch a := a.(type) {
	case decide.LinkAddress:
		return l.linkAddress(a)
	case decide.AssignReserved:
		return l.assignReserved(ctx, a)
	case decide.ReadHolder:
		_, err := l.readHolder(ctx, a.Role, a.Address)
		return err
	case decide.ReadMachine:
		return l.readMachine(ctx, a)
	case decide.PrimaryUnits:
		return l.primaryUnits(ctx, a)
	case decide.StartDrain:
		if l.world.Drain == nil {
			return nil // the role has no program to tell; its new connections are refused by the gate
		}
		return l.world.Drain(ctx, a.Role)
	case decide.CountSockets:
		return l.countSockets(ctx, a)
	case decide.Settle:
		return l.settle(ctx, a)
	case decide.Rehearse:
		return l.rehearse(ctx, a)
	case decide.Apply:
		return l.apply(ctx, a)
	case decide.Restart:
		if l.world.Restart == nil {
			return ErrMissing
		}
		l.world.Restart()
		return nil
	case decide.ReadLedger:
		return l.readLedger(ctx)
	case decide.WriteDuty:
		return l.writeDuty(ctx, a)
	case decide.ClaimTie:
		return l.claimTie(ctx, a)
	case decide.ReadList:
		return l.readList(ctx)
	case decide.OpenIntent:
		return l.openIntent(ctx, a)
	case decide.Tombstone:
		return l.tombstone(ctx, a)
	case decide.Release:
		return l.release(ctx, a)
	case decide.PowerOff:
		return l.powerOff(ctx, a)
	case decide.Create:
		return l.create(ctx, a)
	case decide.Delete:
		return l.deleteMachine(ctx, a)
	case decide.CloseIntent:
		return l.closeIntent(ctx, a)
	case decide.ReadZone:
		return l.readZone(ctx, a.Zone)
	case decide.UpdateZone:
		return l.updateZone(ctx, a)
	}
	panic(fmt.Sprintf("reconcile: nobody carries out %T", a))
}

func (l *Loop) linkAddress(a decide.LinkAddress) error {
	var err error
	if a.Add {
		if err := l.holds(a.Expect); err != nil {
			return err
		}
		err = l.world.Addresses.Add(a.Role)
	} else {
		err = l.world.Addresses.Drop(a.Role)
	}
	if err != nil {
		return err
	}
	return l.readPresence(a.Role)
}

// readPresence asks the kernel whether a link address is there.
func (l *Loop) readPresence(role string) error {
	there, err := l.world.Addresses.Present(role)
	if err != nil {
		return err
	}
	if v, _ := l.board.look(); v.Gates[role].Added == there {
		return nil // no news, so nobody need wake
	}
	l.board.put(func(v *decide.View) {
		g := v.Gates[role]
		g.Added = there
		set(&v.Gates, role, g)
	})
	return nil
}

func (l *Loop) assignReserved(ctx context.Context, a decide.AssignReserved) error {
	if l.world.Provider == nil {
		return ErrMissing
	}
	if a.Expect.Reads {
		holder, err := l.readHolder(ctx, a.Role, a.Address)
		if err != nil {
			return err
		}
		if holder.Pending || holder.Machine != a.Expect.Holder {
			return fmt.Errorf("%w: %s is at machine %q, pending %v", errStale, a.Address, holder.Machine, holder.Pending)
		}
	}
	if err := l.holds(a.Expect); err != nil { // last, because the reading took time
		return err
	}
	if err := l.world.Provider.AssignAddress(ctx, a.Address, a.Machine); err != nil {
		return fmt.Errorf("assign %s to machine %s: %w", a.Address, a.Machine, err)
	}
	_, err := l.readHolder(ctx, a.Role, a.Address)
	return err
}

// readHolder asks the provider who has an address.
func (l *Loop) readHolder(ctx context.Context, role string, address netip.Addr) (cluster.AddressHolder, error) {
	if l.world.Provider == nil {
		return cluster.AddressHolder{}, ErrMissing
	}
	sent := l.cfg.Now()
	holder, err := l.world.Provider.Holder(ctx, address)
	if err != nil {
		return cluster.AddressHolder{}, fmt.Errorf("ask who has %s: %w", address, err)
	}
	l.board.put(func(v *decide.View) {
		h := v.Holders[role]
		h.AddressHolder, h.At = holder, sent
		set(&v.Holders, role, h)
	})
	return holder, nil
}

func (l *Loop) readMachine(ctx context.Context, a decide.ReadMachine) error {
	if l.world.Provider == nil {
		return ErrMissing
	}
	sent := l.cfg.Now()
	m, err := l.world.Provider.Get(ctx, a.Machine)
	if err != nil {
		l.board.put(func(v *decide.View) { // answers that agree must follow each other
			r := v.Machines[a.Node]
			r.Same = 0
			set(&v.Machines, a.Node, r)
		})
		return fmt.Errorf("ask for machine %s of %s: %w", a.Machine, a.Node, err)
	}
	l.board.put(func(v *decide.View) {
		r := decide.MachineReading{ID: a.Machine, Power: m.Power, At: sent, Same: 1, Name: m.Name, Ours: slices.Contains(m.Tags, l.cfg.Tag)}
		if was := v.Machines[a.Node]; was.ID == r.ID && was.Power == r.Power {
			r.Same = was.Same + 1 // pause keeps them a second apart
		}
		set(&v.Machines, a.Node, r)
	})
	return nil
}

func (l *Loop) primaryUnits(ctx context.Context, a decide.PrimaryUnits) error {
	if l.world.Units == nil {
		return ErrMissing
	}
	var err error
	if a.Start {
		if err := l.holds(a.Expect); err != nil {
			return err
		}
		err = l.world.Units.Start(ctx, a.Role, a.Expect.Epoch)
	} else {
		err = l.world.Units.Stop(ctx, a.Role)
	}
	if err != nil {
		return err
	}
	return l.readUnits(ctx, a.Role)
}

// readUnits asks the service manager what runs of a role's primary units.
func (l *Loop) readUnits(ctx context.Context, role string) error {
	state, err := l.world.Units.State(ctx, role)
	if err != nil {
		return err
	}
	if v, _ := l.board.look(); v.Units[role] == state && v.Units != nil {
		if _, known := v.Units[role]; known {
			return nil // no news
		}
	}
	l.board.put(func(v *decide.View) { set(&v.Units, role, state) })
	return nil
}

// settle waits until everything written so far is on the other node's disk.
func (l *Loop) settle(ctx context.Context, a decide.Settle) error {
	if l.world.Data == nil {
		return ErrMissing
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Policy.Timings.Settle)
	defer cancel()
	asked := l.cfg.Now()
	if err := l.world.Data.Barrier(ctx); err != nil {
		return err
	}
	l.board.put(func(v *decide.View) { set(&v.Settled, a.Role, asked) })
	return nil
}

func (l *Loop) countSockets(ctx context.Context, a decide.CountSockets) error {
	at := l.cfg.Now()
	n, err := l.world.Addresses.Sockets(ctx, a.Role)
	if err != nil {
		return err
	}
	l.board.put(func(v *decide.View) { set(&v.Sockets, a.Role, decide.SocketReading{Established: n, At: at}) })
	return nil
}

func (l *Loop) readZone(ctx context.Context, key string) error {
	zone := l.world.Zones[key]
	if zone == nil {
		return ErrMissing
	}
	sent := l.cfg.Now()
	records, epoch, err := zone.Read(ctx)
	if err != nil {
		return err
	}
	l.board.put(func(v *decide.View) { set(&v.Zones, key, decide.ZoneReading{Records: records, Epoch: epoch, At: sent}) })
	return nil
}

func (l *Loop) updateZone(ctx context.Context, a decide.UpdateZone) error {
	zone := l.world.Zones[a.Zone]
	if zone == nil {
		return ErrMissing
	}
	if err := l.holds(a.Expect); err != nil {
		return err
	}
	if err := zone.Update(ctx, a.Epoch, a.Own, a.Want); err != nil {
		return err
	}
	return l.readZone(ctx, a.Zone)
}
