package model

import "math/bits"

// next is the epoch that i would bid for: above all that it has promised, asked for or held. A majority gives out the odd ones,
// the ledger the even ones, so that neither can give out the other's.
func (sc Scope) next(s *state, i int, byLease bool) uint8 {
	n := &s.n[i]
	next := max(n.epoch, n.disk, n.hold) + 1
	if !sc.Without.Parity && byLease == (next%2 == 1) {
		next++
	}
	return next
}

// begin is the state where the search begins.
func (sc Scope) begin() state {
	s := state{left: sc.Budget}
	for i := range sc.Members {
		n := &s.n[i]
		n.up, n.heard, n.sent = true, sc.Detection, sc.never()
		for j := range n.conf {
			n.conf[j] = sc.never()
		}
		if sc.Begin != Cold {
			n.epoch, n.heard, n.sent = 1, 0, 0
		}
	}
	if sc.Begin == Cold {
		return s
	}
	n := &s.n[0]
	n.state, n.hold, n.promised, n.gate = held, 1, 1<<sc.Members-1, sc.Gate
	for j := 1; j < sc.Members; j++ {
		n.conf[j] = 0
	}
	s.won[1], s.acted = 1, 1
	if sc.Ledger {
		s.ledger[1], n.wrote = record{by: 1}, true
	}
	if sc.Begin == Leased || sc.Begin == Alone {
		sc.lease(&s)
	}
	return s
}

// lease gives a the next epoch by lease.
func (sc Scope) lease(s *state) {
	for range sc.Detection {
		sc.tick(s)
	}
	know := sc.Members - sc.majority() + 1
	if sc.Begin == Alone {
		know--
		sc.switchOff(s, sc.Members-1)
	}
	for i := range sc.Members {
		n := &s.n[i]
		if i < know {
			n.epoch, n.disk, n.lease, n.heard = 2, 0, true, 0
		}
	}
	n := &s.n[0]
	n.hold, n.byLease, n.promised, n.read, n.wrote = 2, true, 1<<know-1, sc.LeaseFor, true
	s.ledger[2], s.won[2], s.acted = record{by: 1, lease: true}, 1, 2
}

// tick lets time pass.
func (sc Scope) tick(s *state) {
	for i := range sc.Members {
		n := &s.n[i]
		if n.heard = min(n.heard+1, sc.Detection); n.epoch > 0 && int(n.holder) == i {
			n.heard, n.says = 0, said(*n, n.epoch) // nobody is silent to himself
		}
		n.sent = min(n.sent+1, sc.never())
		for j := range sc.Members {
			n.conf[j] = min(n.conf[j]+1, sc.never())
		}
		for _, left := range [...]*uint8{&n.mute, &n.clearLast, &n.clearOlder} {
			*left -= min(*left, 1)
		}
		if !sc.Without.LeaseRead {
			n.read -= min(n.read, 1)
		}
		if n.wait > 0 && n.up {
			n.wait--
		}
		if sc.idles(s, i) {
			sc.release(s, i)
		}
		if n.gate > 1 || n.gate == 1 && !sc.Without.SelfClose {
			n.gate--
		}
	}
	for p := range s.late {
		if s.late[p].on {
			s.late[p].age = min(s.late[p].age+1, sc.never())
		}
	}
}

// idles counts the time in which i holds an epoch and cannot act, and tells whether it must give it up for good: a lease that was
// given meanwhile is waited for longer than that.
func (sc Scope) idles(s *state, i int) bool {
	n := &s.n[i]
	switch {
	case n.state != waiting && n.state != held && n.state != offered || s.open(i) || n.byLease && n.state == waiting && n.wait > 0:
		n.idle = 0
	case !sc.Without.GiveUp:
		n.idle++
	}
	return n.idle > sc.Detection
}

// start is a process that begins: nothing is remembered but what is on the disk, and the gate is closed.
func (sc Scope) start(s *state, i int, quiet uint8) {
	old := s.n[i]
	n := node{up: true, mute: quiet, learns: old.learns, knows: old.knows, fresh: old.fresh, disk: max(old.epoch, old.disk, old.hold), diskLease: old.lease || old.afterLease || old.diskLease}
	if !sc.Without.DiskSeen {
		n.seen, n.seenBy, n.seenOn = old.seen, old.seenBy, old.seenOn
	}
	if sc.Without.DiskEpoch {
		n.disk = 0
	}
	if sc.Without.DiskLease {
		n.diskLease = false
	}
	if sc.Without.StartQuiet {
		n.mute = 0
	}
	sc.blank(&n)
	s.n[i] = n
}

func (sc Scope) blank(n *node) {
	n.heard, n.sent = sc.Detection, sc.never()
	for j := range n.conf {
		n.conf[j] = sc.never()
	}
}

// replace is a new machine under an old name, with nothing on its disk. Where there is a ledger it has claimed the name
// there, and reads it after that: whoever counted on the old machine's absence or promise has written before, and is read of
// now, or counts again later. What the old one promised it learns from the others.
func (sc Scope) replace(s *state, i int) {
	n := node{up: true, mute: sc.Detection, learns: !sc.Without.Learning, fresh: sc.Ledger && !sc.Without.FreshRead}
	if sc.Without.StartQuiet {
		n.mute = 0
	}
	sc.blank(&n)
	s.n[i] = n
	for j := range sc.Members {
		s.n[j].stale |= s.n[j].promised & (1 << i)
	}
}

// switchOff ends the process and the kernel with it; the provider says so. switchOn is the boot.
func (sc Scope) switchOff(s *state, i int) {
	sc.start(s, i, 0)
	n := &s.n[i]
	n.up, n.gone, n.mute = false, true, 0
}

func (sc Scope) switchOn(s *state, i int) {
	sc.start(s, i, sc.Detection)
	s.n[i].fresh = sc.Ledger && !sc.Without.FreshRead
}

// destroy takes i's machine away, and all it was doing.
func (sc Scope) destroy(s *state, i int) {
	n := node{gone: true, lost: true}
	sc.blank(&n)
	s.n[i] = n
}

// ask makes i bid. Its own promise follows the rule that holds for everybody.
func (sc Scope) ask(s *state, i int, byLease bool) bool {
	n := &s.n[i]
	epoch := sc.next(s, i, byLease)
	if epoch > sc.Epochs || !sc.willing(s, i, i, epoch) {
		return false
	}
	sc.promise(s, i, i, epoch, byLease)
	n.state, n.hold, n.byLease, n.to = bidding, epoch, byLease, 0
	n.promised, n.after, n.stale, n.stood, n.wrote, n.wait = 1<<i, 0, 0, 0, false, 0
	for j := range n.conf {
		n.conf[j] = sc.never()
	}
	if n.afterLease {
		n.after = 1 << i
	}
	sc.act(s, i)
	return true
}

// votes tells whether n grants and confirms.
func (n *node) votes() bool { return n.up && n.mute == 0 && !n.learns && !n.fresh }

// learn takes note of what another member has promised or held, at a new machine.
func (sc Scope) learn(n *node, b beat) {
	if !n.learns {
		return
	}
	n.knows |= 1 << b.from
	n.disk = max(n.disk, b.n.epoch, b.n.hold, b.n.disk)
	n.diskLease = n.diskLease || b.n.lease || b.n.afterLease || b.n.diskLease
	if bits.OnesCount8(n.knows) > sc.Members-sc.majority() {
		n.learns, n.knows = false, 0
	}
}

// willing is the rule by which m promises epoch to the bidder.
func (sc Scope) willing(s *state, m, bidder int, epoch uint8) bool {
	n := &s.n[m]
	if !n.votes() || epoch <= n.epoch || epoch <= n.disk {
		return false
	}
	if epoch <= n.seen && int(n.seenBy) != bidder && !sc.Without.LedgerFloor {
		return false
	}
	return n.epoch == 0 || int(n.holder) == bidder || n.heard >= sc.Detection || n.says == gaveUp ||
		n.says == toward+uint8(bidder) || s.n[n.holder].gone
}

// promise makes m promise epoch to holder, and remember whose confirmations have to run out.
func (sc Scope) promise(s *state, m, holder int, epoch uint8, lease bool) {
	n := &s.n[m]
	if n.epoch > 0 && int(n.holder) != holder {
		if n.lease && n.says != gaveUp && !s.n[n.holder].gone {
			n.afterLease = true
		}
		n.clearOlder = max(n.clearOlder, n.clearLast)
		if sc.Without.ChainedWait {
			n.clearOlder = 0
		}
		n.clearLast, n.lastEpoch, n.lastHolder = 0, n.epoch, n.holder
		if n.gaveUp = n.says == gaveUp || s.n[n.holder].gone; !n.gaveUp {
			n.clearLast = sc.Gate - min(sc.Gate, n.heard)
		}
	} else if n.epoch == 0 {
		n.afterLease = n.diskLease
	}
	if n.seenOn && int(n.seenBy) != holder && !s.n[n.seenBy].gone {
		n.afterLease = true
	}
	n.epoch, n.holder, n.lease, n.disk, n.diskLease = epoch, uint8(holder), lease, 0, false
	n.heard, n.sent, n.says = 0, sc.never(), silent
}

// blocking tells whether no majority can exist without those who promised i.
func (sc Scope) blocking(s *state, i int) bool {
	if sc.Without.Blocking {
		return true
	}
	n := &s.n[i]
	if n.epoch != n.hold || int(n.holder) != i {
		return false
	}
	others := 0
	for m := range sc.Members {
		if n.promised&(1<<m) == 0 && !s.n[m].gone {
			others++
		}
	}
	return others < sc.majority()
}

// act opens i's gate for as long as its confirmations allow, and says so if it has won.
func (sc Scope) act(s *state, i int) {
	n := &s.n[i]
	need := sc.majority()
	if sc.Without.Majority {
		need = 1
	}
	if n.state == bidding && (!n.byLease || sc.Without.Parity) && bits.OnesCount8(n.promised) >= need {
		sc.win(s, i)
	}
	if n.state != waiting && n.state != held && n.state != offered {
		return
	}
	age := sc.confirmed(s, i, need)
	if age >= sc.Gate {
		return
	}
	n.gate = max(n.gate, sc.Gate-age)
	sc.holds(s, i)
}

func (sc Scope) win(s *state, i int) {
	n := &s.n[i]
	n.state = waiting
	if s.won[n.hold] == 0 {
		s.won[n.hold] = uint8(i) + 1
	}
}

func (sc Scope) holds(s *state, i int) {
	n := &s.n[i]
	if n.state == waiting {
		n.state = held
	}
	n.idle, s.acted = 0, max(s.acted, n.hold)
}

// confirmed is the age of i's need-newest confirmed beat, its own word counting as now.
func (sc Scope) confirmed(s *state, i, need int) uint8 {
	n := &s.n[i]
	ledgerDone := n.wrote && n.wait == 0
	counted := 0
	for age := range sc.never() {
		for m := range sc.Members {
			at := n.conf[m]
			behind := n.after&(1<<m) != 0
			if m == i {
				at, behind = sc.own(n, i), n.afterLease
			}
			if at == age && (!behind || ledgerDone || sc.Without.AfterLease) {
				counted++
			}
		}
		if counted >= need {
			return age
		}
	}
	return sc.never()
}

func (sc Scope) own(n *node, i int) uint8 {
	if n.epoch == n.hold && int(n.holder) == i && n.votes() && sc.clear(n) {
		return 0
	}
	return sc.never()
}

func (sc Scope) clear(n *node) bool {
	return n.clearLast == 0 && n.clearOlder == 0 || sc.Without.QuietWait
}
