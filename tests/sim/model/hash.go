package model

// set is a hash set of 64-bit values, none of which is zero.
type set struct {
	slots []uint64
	used  int
}

func newSet() *set { return &set{slots: make([]uint64, 1<<16)} }

// add reports whether h is new.
func (t *set) add(h uint64) bool {
	if t.used*3 > len(t.slots)*2 {
		old := t.slots
		*t = set{slots: make([]uint64, 2*len(old))}
		for _, h := range old {
			if h != 0 {
				t.add(h)
			}
		}
	}
	mask := uint64(len(t.slots) - 1)
	for at := h & mask; ; at = (at + 1) & mask {
		switch t.slots[at] {
		case 0:
			t.slots[at] = h
			t.used++
			return true
		case h:
			return false
		}
	}
}

// words packs values of few bits each.
type words struct {
	sum, at uint64
	free    int
}

func (w *words) put(value uint8, bits int) {
	if w.free < bits {
		w.flush()
	}
	w.at = w.at<<bits | uint64(value)
	w.free -= bits
}

func (w *words) flag(value bool) {
	if value {
		w.put(1, 1)
	} else {
		w.put(0, 1)
	}
}

// flush mixes a full word in, as splitmix64 does (Steele et al., OOPSLA 2014).
func (w *words) flush() {
	z := (w.sum ^ w.at) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	w.sum, w.at, w.free = z^z>>31, 0, 64
}

// hash is the same for states that differ only in the members' names.
func (sc Scope) hash(s *state) uint64 {
	var keys [maxMembers]uint64
	for i := range sc.Members {
		keys[i] = sc.key(s, i)
	}
	if !s.late[0].on && s.late[1].on {
		swapped := *s // which place a late beat is kept in means nothing
		swapped.late[0], swapped.late[1] = s.late[1], s.late[0]
		s = &swapped
	}
	smallest := ^uint64(0)
	for p := range orders[sc.Members] {
		x := &orders[sc.Members][p]
		sorted := true
		for at := 1; at < sc.Members && sorted; at++ {
			sorted = keys[x.old[at-1]] <= keys[x.old[at]]
		}
		if sorted {
			smallest = min(smallest, sc.hashAs(s, x))
		}
	}
	return max(smallest, 1)
}

// key is a part of a member's state that does not depend on names. Only namings in its order are tried, which are few.
func (sc Scope) key(s *state, i int) uint64 {
	n := &s.n[i]
	w := words{free: 64}
	sc.hashPlain(&w, n)
	w.flag(n.epoch > 0 && int(n.holder) == i)
	w.flush()
	return w.sum
}

// naming is one way to rename members: new is what a member is called, old who is called that.
type naming struct{ new, old [maxMembers]uint8 }

var orders = func() (all [maxMembers + 1][]naming) {
	for n := 1; n <= maxMembers; n++ {
		all[n] = namings(n)
	}
	return all
}()

func namings(n int) (all []naming) {
	var extend func(taken uint8, done int, x naming)
	extend = func(taken uint8, done int, x naming) {
		if done == n {
			all = append(all, x)
			return
		}
		for m := range n {
			if taken&(1<<m) == 0 {
				y := x
				y.new[m], y.old[done] = uint8(done), uint8(m)
				extend(taken|1<<m, done+1, y)
			}
		}
	}
	extend(0, 0, naming{})
	return all
}

func (x *naming) set(members uint8, n int) (renamed uint8) {
	for m := range n {
		renamed |= members >> m & 1 << x.new[m]
	}
	return renamed
}

func (sc Scope) hashAs(s *state, x *naming) uint64 {
	w := words{free: 64}
	for at := range sc.Members {
		sc.hashNode(&w, &s.n[x.old[at]], x)
	}
	for p := range min(int(sc.Budget.Late), len(s.late)) {
		b := &s.late[p]
		w.flag(b.on)
		if b.on {
			w.put(x.new[b.from], 2)
			w.put(x.new[b.to], 2)
			w.put(b.age, 4)
			sc.hashNode(&w, &b.n, x)
		}
	}
	for epoch := uint8(1); epoch <= sc.Epochs; epoch++ {
		rec, won := s.ledger[epoch], s.won[epoch]
		if rec.by != 0 {
			rec.by = x.new[rec.by-1] + 1
		}
		if won != 0 {
			won = x.new[won-1] + 1
		}
		w.put(rec.by, 3)
		w.flag(rec.lease)
		w.put(won, 3)
	}
	w.put(s.acted, 3)
	w.put(s.left.Crashes, 3)
	w.put(s.left.Losses, 3)
	w.put(s.left.Offs, 3)
	w.put(s.left.Late, 3)
	w.put(s.left.Moves, 3)
	w.flush()
	return w.sum
}

func (sc Scope) hashNode(w *words, n *node, x *naming) {
	sc.hashPlain(w, n)
	says := n.says
	if says >= toward {
		says = toward + x.new[says-toward]
	}
	w.put(says, 3)
	w.put(renamed(x, n.holder, n.epoch > 0), 2)
	w.put(renamed(x, n.lastHolder, n.lastEpoch > 0), 2)
	w.put(renamed(x, n.to, n.state == offered), 2)
	w.put(renamed(x, n.seenBy, n.seen > 0), 2)
	for _, members := range [...]uint8{n.promised, n.after, n.stale, n.stood, n.knows} {
		w.put(x.set(members, sc.Members), 4)
	}
	for at := range sc.Members {
		w.put(n.conf[x.old[at]], 3)
	}
}

// hashPlain takes what names nobody.
func (sc Scope) hashPlain(w *words, n *node) {
	for _, f := range [...]bool{n.up, n.gone, n.diskLease, n.lease, n.afterLease, n.byLease, n.wrote, n.gaveUp, n.learns, n.lost, n.fresh, n.seenOn} {
		w.flag(f)
	}
	for _, v := range [...]uint8{
		n.disk, n.epoch, n.lastEpoch, n.seen, uint8(n.state), n.hold, n.clearLast, n.clearOlder, n.heard, n.sent, n.gate, n.read,
	} {
		w.put(v, 3)
	}
	w.put(n.mute, 4)
	w.put(n.wait, 4)
	w.put(n.idle, 3)
}

func renamed(x *naming, member uint8, matters bool) uint8 {
	if !matters {
		return 0
	}
	return x.new[member]
}
