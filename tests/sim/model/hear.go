package model

// announce is what a beat of n says, so that two beats that say the same are the same.
func (sc Scope) announce(n node) node {
	a := node{
		up: true, disk: n.disk, diskLease: n.diskLease, epoch: n.epoch, holder: n.holder, lease: n.lease, afterLease: n.afterLease,
		sent: n.sent, clearLast: min(max(n.clearLast, n.clearOlder), 1),
		mute: 1,
	}
	if n.votes() {
		a.mute = 0
	}
	if sc.Without.OnePromise {
		a.lastEpoch, a.lastHolder = n.lastEpoch, n.lastHolder
	}
	if n.state != none {
		a.state, a.hold, a.byLease, a.to = n.state, n.hold, n.byLease, n.to
	}
	return a
}

// hear is what a beat that has arrived does to its receiver.
func (sc Scope) hear(s *state, b beat) {
	j := int(b.to)
	if !s.n[j].up {
		return
	}
	if !sc.Without.Sequence {
		for p := range s.late { // anything older is not taken any more
			if l := &s.late[p]; l.on && l.from == b.from && l.to == b.to && l.age >= b.age {
				*l = beat{}
			}
		}
	}
	sc.learn(&s.n[j], b)
	sc.asMember(s, b)
	sc.asHolder(s, b)
	sc.act(s, j)
}

// asMember is the receiver's part as one whose promise is asked for, or given.
func (sc Scope) asMember(s *state, b beat) {
	i, j, n := int(b.from), int(b.to), &s.n[b.to]
	holds := b.n.state == waiting || b.n.state == held || b.n.state == offered
	wants := b.n.state == bidding && sc.willing(s, j, i, b.n.hold)
	joins := holds && n.votes() && b.n.hold > n.epoch && b.n.hold >= n.disk && (b.n.hold > n.seen || n.seenBy == b.from || sc.Without.LedgerFloor)
	if wants || joins {
		sc.promise(s, j, i, b.n.hold, b.n.byLease)
		if n.state == bidding {
			n.state = none
			sc.resign(n)
		}
	}
	if n.epoch > 0 && int(n.holder) == i {
		n.heard, n.sent = 0, b.age
		n.says = said(b.n, n.epoch)
		if b.n.hold == n.epoch && (b.n.state == held || b.n.state == offered) {
			n.afterLease, n.seenOn = false, false // whoever acts has waited for what was before it
		}
	}
	if n.lastEpoch > 0 && int(n.lastHolder) == i && said(b.n, n.lastEpoch) == gaveUp {
		n.clearLast, n.gaveUp = 0, true
	}
}

// said is what a beat says of the sender's own epoch.
func said(n node, epoch uint8) uint8 {
	switch {
	case n.hold != epoch || n.state == none || n.state == released:
		return gaveUp
	case n.state == offered:
		return toward + n.to
	}
	return silent
}

func (sc Scope) resign(n *node) {
	n.hold, n.byLease, n.to, n.promised, n.after, n.stale, n.stood, n.wrote, n.wait, n.idle = 0, false, 0, 0, 0, 0, 0, false, 0, 0
	for m := range n.conf {
		n.conf[m] = sc.never()
	}
}

// asHolder is the receiver's part as one who asks for promises, or has them.
func (sc Scope) asHolder(s *state, b beat) {
	n, bit := &s.n[b.to], uint8(1)<<b.from
	if n.state == none || n.state == released {
		return
	}
	mine := b.n.mute == 0 && b.n.epoch == n.hold && b.n.holder == b.to
	n.promised, n.after, n.stale, n.stood = n.promised&^bit, n.after&^bit, n.stale&^bit, n.stood&^bit
	n.conf[b.from] = sc.never()
	if mine {
		n.promised |= bit
		if b.n.state == none || b.n.state == bidding || b.n.state == released {
			n.stood |= bit
		}
		if b.n.afterLease {
			n.after |= bit
		}
		if sc.clear(&b.n) {
			n.conf[b.from] = min(b.n.sent+b.age, sc.never())
		}
	}
	if sc.Without.OnePromise && b.n.lastEpoch == n.hold && b.n.lastHolder == b.to && b.n.mute == 0 {
		n.conf[b.from] = b.age
	}
	if n.state == offered && b.from == n.to && b.n.hold > n.hold && (b.n.state == waiting || b.n.state == held) {
		sc.release(s, int(b.to))
	}
}

func (sc Scope) release(s *state, i int) {
	n := &s.n[i]
	epoch := n.hold
	n.gate, n.read = 0, 0
	sc.resign(n)
	n.state, n.hold = released, epoch
	if n.epoch == epoch && int(n.holder) == i {
		n.says = gaveUp
	}
}
