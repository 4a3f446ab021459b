package model

// apply does a to s. It reports false where a cannot be done there, and then leaves s in no defined state.
func (sc Scope) apply(s *state, a action) bool {
	i, n := int(a.i), &s.n[a.i]
	switch a.kind {
	case tick:
		sc.tick(s)
		for i := range sc.Members {
			sc.act(s, i)
		}
		return true
	case send:
		return sc.send(s, a)
	case hold1, hold2, arrive, lose:
		return sc.late(s, a)
	case bid, bidBy:
		idle := n.state == none || n.state == bidding || n.state == released
		return n.up && idle && sc.ask(s, i, a.kind == bidBy)
	case write:
		return sc.write(s, i)
	case read:
		return sc.read(s, i)
	case offer, release:
		return sc.move(s, a)
	case shut:
		if !sc.Without.SelfClose || !n.up || n.gate == 0 {
			return false
		}
		n.gate = 0
		return true
	}
	return sc.fault(s, a)
}

func (sc Scope) send(s *state, a action) bool {
	if !s.n[a.i].up || !s.n[a.j].up {
		return false
	}
	sc.hear(s, beat{from: a.i, to: a.j, on: true, n: sc.announce(s.n[a.i])})
	return true
}

// late holds a beat back, or lets go of one.
func (sc Scope) late(s *state, a action) bool {
	switch a.kind {
	case arrive, lose:
		b := s.late[a.i]
		if !b.on {
			return false
		}
		s.late[a.i] = beat{}
		if a.kind == arrive {
			sc.hear(s, b)
		}
		return true
	}
	p := int(a.kind - hold1)
	if s.late[p].on || s.left.Late == 0 || !s.n[a.i].up || !s.n[a.j].up {
		return false
	}
	s.left.Late--
	s.late[p] = beat{from: a.i, to: a.j, on: true, n: sc.announce(s.n[a.i])}
	return true
}

// write puts i's epoch into the ledger, if it is one that may act: by a majority's word, or because no majority can exist
// without those who promised it.
func (sc Scope) write(s *state, i int) bool {
	n := &s.n[i]
	if !sc.Ledger || !n.up || n.wrote || n.state == none || n.state == released || s.ledger[n.hold].by != 0 {
		return false
	}
	if n.state == bidding {
		if !n.byLease || !sc.blocking(s, i) {
			return false
		}
		sc.win(s, i)
	}
	s.ledger[n.hold] = record{by: uint8(i) + 1, lease: n.byLease}
	n.wrote, n.wait = true, sc.LeaseWait
	if sc.Without.LeaseWait || sc.free(s, i) {
		n.wait = 0
	}
	sc.act(s, i)
	return true
}

// free tells whether nobody can be acting under an epoch before i's, so that no lease needs to be waited for: everybody else
// is gone, or has promised this epoch and says that it acts under none.
func (sc Scope) free(s *state, i int) bool {
	n := &s.n[i]
	if sc.Without.SkipSafely {
		return n.lastEpoch > 0 && n.gaveUp
	}
	for m := range sc.Members {
		if m != i && !s.n[m].gone && n.stood&(1<<m) == 0 {
			return false
		}
	}
	return true
}

// read is a look at the ledger, whose answer is there at once. A later answer would give the same lease for a shorter time.
func (sc Scope) read(s *state, i int) bool {
	n := &s.n[i]
	if sc.Ledger && n.up && n.fresh {
		sc.see(s, i)
		return true
	}
	if !sc.Ledger || !n.up || n.state != waiting && n.state != held && n.state != offered || !n.wrote {
		return false
	}
	for epoch := n.hold + 1; epoch <= sc.Epochs; epoch++ {
		if s.ledger[epoch].by != 0 {
			sc.release(s, i)
			return true
		}
	}
	mine := n.epoch == n.hold && int(n.holder) == i
	if !n.byLease || n.wait > 0 || !mine && !sc.Without.StepDown {
		return false
	}
	if n.state == waiting {
		n.promised &^= n.stale
		if n.stale = 0; !sc.blocking(s, i) {
			return false
		}
	}
	n.read = sc.LeaseFor
	sc.holds(s, i)
	return true
}

// see is the reading after a boot.
func (sc Scope) see(s *state, i int) {
	n := &s.n[i]
	n.fresh = false
	for epoch := sc.Epochs; epoch > 0; epoch-- {
		if r := s.ledger[epoch]; r.by != 0 {
			if int(r.by-1) != i {
				n.seen, n.seenBy, n.seenOn = epoch, r.by-1, r.lease
			}
			return
		}
	}
}

// move is what happens on request, and stepping down.
func (sc Scope) move(s *state, a action) bool {
	n := &s.n[a.i]
	if !n.up || n.state != waiting && n.state != held && n.state != offered {
		return false
	}
	if a.kind == offer {
		if n.state != held || a.i == a.j || s.left.Moves == 0 {
			return false
		}
		s.left.Moves--
		n.state, n.to = offered, a.j
		if n.epoch == n.hold && n.holder == a.i {
			n.says = toward + a.j
		}
		return true
	}
	if s.open(int(a.i)) || n.state == waiting {
		if s.left.Moves == 0 {
			return false
		}
		s.left.Moves--
	}
	sc.release(s, int(a.i))
	return true
}

// fault is what the adversary does to processes and machines.
func (sc Scope) fault(s *state, a action) bool {
	i, n := int(a.i), &s.n[a.i]
	switch a.kind {
	case crash:
		if !n.up || s.left.Crashes == 0 {
			return false
		}
		s.left.Crashes--
		gate, read := n.gate, n.read
		*n = node{learns: n.learns, knows: n.knows, fresh: n.fresh, seen: n.seen, seenBy: n.seenBy, seenOn: n.seenOn, epoch: n.epoch, hold: n.hold, disk: n.disk, lease: n.lease, afterLease: n.afterLease, diskLease: n.diskLease}
		n.disk, n.diskLease = max(n.epoch, n.disk, n.hold), n.lease || n.afterLease || n.diskLease
		n.epoch, n.hold, n.lease, n.afterLease = 0, 0, false, false
		sc.blank(n)
		n.gate, n.read = gate, read
	case start:
		if n.up || n.gone {
			return false
		}
		sc.start(s, i, sc.Detection)
	case off:
		if n.gone || s.left.Offs == 0 {
			return false
		}
		s.left.Offs--
		sc.switchOff(s, i)
	case on:
		if !n.gone || n.lost {
			return false
		}
		sc.switchOn(s, i)
	case destroy:
		if n.gone || s.left.Losses == 0 {
			return false
		}
		s.left.Losses--
		sc.destroy(s, i)
	case replace:
		if !n.lost {
			return false
		}
		sc.replace(s, i)
	}
	return true
}
