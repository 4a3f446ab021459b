package sim

import (
	"maps"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// ledger is the store at another provider.
type ledger struct {
	objects map[string]map[uint64]cluster.DutyRecord
	duties  map[string]cluster.DutyRecord // the highest of each
	tie     cluster.Tie
	claims  map[string]cluster.Claim
	// claimants are the newest epochs under which machines have claimed, by ID.
	claimants map[string]uint64
	intents   map[string]*intent // the newest of each node
	nonces    map[string]string  // node, by nonce of any intent
	hired     []moment           // when intents were written
	beats     []moment           // by node: when its heartbeat object was last renewed; kept up lazily
	wishes    map[string]cluster.Wish
	version   uint64 // grows with every change

	away     int   // faults that keep everybody from it
	cut      []int // by node, the same for one
	slow     int
	deceives int // faults by which an answer is lost after the deed
}

func (w *world) reaches(n *node) bool { return w.ledger.away == 0 && w.ledger.cut[n.i] == 0 }

// request is one request: the deed happens at the store in the middle of it, and the answer may be lost.
func (w *world) request(n *node, deed func(), answer func(error)) {
	took := w.between(20*time.Millisecond, 200*time.Millisecond)
	if w.ledger.slow > 0 {
		took = w.between(300*time.Millisecond, 3*time.Second)
	}
	middle := w.between(0, took)
	w.after(middle, func() {
		if !w.reaches(n) {
			w.after(w.between(50*time.Millisecond, 5*time.Second), func() { answer(errAway) })
			return
		}
		deed()
		lost := w.ledger.deceives > 0 && w.chance(0.5)
		w.after(took-middle, func() {
			if lost || !w.reaches(n) {
				answer(errAway)
			} else {
				answer(nil)
			}
		})
	})
}

// testLedger is the proof at the start that create-if-absent is honoured, and after it the claim.
func (w *world) testLedger(n *node) {
	starts := n.starts
	w.request(n, func() {}, func(err error) {
		if n.starts != starts {
			return
		}
		if err != nil {
			w.after(15*time.Second, func() {
				if n.starts == starts {
					w.testLedger(n)
				}
			})
			return
		}
		w.put(n, func(v *decide.View) { v.Ledger.Sound = true })
		w.claim(n)
	})
}

// claim makes the machine the node's incarnation: only a tombstoned claim is superseded.
func (w *world) claim(n *node) {
	starts := n.starts
	var c cluster.Claim
	w.request(n, func() {
		c = w.ledger.claims[n.name]
		if (c.Epoch == 0 || c.Tombstoned) && !w.waitsToReturn(n, c) {
			c = cluster.Claim{Node: n.name, Epoch: c.Epoch + 1, Machine: n.machine}
			w.claimed(c)
		}
	}, func(err error) {
		if n.starts != starts {
			return
		}
		w.after(2*time.Second, func() { // a reading that was older may have said otherwise meanwhile
			if n.starts == starts && !n.view.Claim.Mine {
				w.claim(n)
			}
		})
		if err != nil {
			return
		}
		w.put(n, func(v *decide.View) {
			v.Ledger.Claims = with(v.Ledger.Claims, n.name, c)
			w.judgeClaim(n, v, c)
		})
	})
}

// waitsToReturn says that a machine whose claim has a tombstone must not claim again yet, as in reconcile: it hears no majority,
// and ten seconds have not gone by.
func (w *world) waitsToReturn(n *node, c cluster.Claim) bool {
	if !c.Tombstoned || c.Machine != n.machine {
		return false
	}
	if n.buried != c.Epoch {
		n.buried, n.buriedAt = c.Epoch, w.now
	}
	heard := 1
	for _, k := range w.nodes {
		if k != n && !w.silent(n, k.name) {
			heard++
		}
	}
	return w.now.sub(n.buriedAt) < 10*time.Second && 2*heard <= len(w.nodes)
}

func (w *world) judgeClaim(n *node, v *decide.View, c cluster.Claim) {
	was := v.Claim
	v.Claim = decide.ClaimReading{Needed: true}
	switch {
	case c.Epoch == 0 || c.Tombstoned:
		v.Claim.Taken = "nobody, it seems, but there is a tombstone"
		if starts := n.starts; was.Mine { // the loop asks every two seconds
			w.after(w.between(0, 2*time.Second), func() {
				if n.starts == starts && !n.view.Claim.Mine {
					w.claim(n)
				}
			})
		}
	case c.Machine != n.machine:
		v.Claim.Taken = "machine " + c.Machine
	default:
		v.Claim.Epoch, v.Claim.Mine = c.Epoch, true
		if v.Claim.At = was.At; was.At == 0 {
			v.Claim.At = n.clock.at(w.now)
		}
	}
}

func (w *world) readLedger(n *node, done func(error, func(*decide.View))) {
	sent := n.clock.at(w.now)
	var got decide.Ledger
	var version uint64
	w.request(n, func() {
		got = decide.Ledger{Duties: maps.Clone(w.ledger.duties), Tie: w.ledger.tie, Claims: maps.Clone(w.ledger.claims), Stale: w.stale(n)}
		got.Intents, got.Hired = w.intents(w.now)
		got.Wishes = maps.Clone(w.ledger.wishes)
		version = w.ledger.version
	}, func(err error) {
		if err != nil {
			done(err, func(v *decide.View) { v.Ledger.Failing = true })
			return
		}
		done(nil, func(v *decide.View) {
			g := &v.Ledger
			if got.Tie.N != g.Tie.N || got.Tie.Winner != g.Tie.Winner {
				g.WonTie = 0
				if got.Tie.Winner == n.name {
					g.WonTie = n.clock.at(w.now)
				}
			}
			g.ReadSent, g.Failing, g.Duties, g.Tie, g.Claims, g.Stale = sent, false, got.Duties, got.Tie, got.Claims, got.Stale
			g.Intents, g.Hired, g.Wishes = got.Intents, got.Hired, got.Wishes
			if n.readVersion = 0; sent > v.Claim.At { // an older reading says nothing of it, and will be made again
				n.readVersion = version
				w.judgeClaim(n, v, got.Claims[n.name])
			}
		})
	})
}

// stale says for how long each member's heartbeat object has not been seen to change. Objects are renewed every ten seconds by
// whoever runs, has time and reaches the ledger.
func (w *world) stale(n *node) map[string]time.Duration {
	all := map[string]time.Duration{}
	for k, other := range w.nodes {
		if other.up && !other.frozen && w.reaches(other) {
			w.ledger.beats[k] = max(w.ledger.beats[k], w.now-w.now%moment(10*time.Second))
		}
		since := max(w.ledger.beats[k], n.clock.when(n.view.Started))
		if k != n.i && w.ledger.beats[k] != 0 && w.now > since {
			all[other.name] = w.now.sub(since)
		}
	}
	return all
}

func (w *world) writeDuty(n *node, a decide.WriteDuty, done func(error, func(*decide.View))) {
	if err := w.asks(n, a.Record.Duty, a.Record.Epoch); err != nil {
		w.after(0, func() { done(err, nil) })
		return
	}
	lost := false
	w.request(n, func() {
		epochs := w.ledger.objects[a.Record.Duty]
		if epochs == nil {
			epochs = map[uint64]cluster.DutyRecord{}
			w.ledger.objects[a.Record.Duty] = epochs
		}
		if was, there := epochs[a.Record.Epoch]; there {
			lost = was != a.Record
			return
		}
		epochs[a.Record.Epoch] = a.Record
		w.ledger.version++
		w.note("ledger", "takes "+a.Key()+" of "+n.name)
		if a.Record.Epoch > w.ledger.duties[a.Record.Duty].Epoch {
			w.ledger.duties[a.Record.Duty] = a.Record
		}
	}, func(err error) {
		if err != nil {
			done(err, nil)
			return
		}
		at := n.clock.at(w.now)
		done(nil, func(v *decide.View) {
			v.Ledger.Wrote = with(v.Ledger.Wrote, a.Record.Duty, decide.WroteReading{Epoch: a.Record.Epoch, At: at, Lost: lost})
		})
	})
}

func (w *world) claimTie(n *node, a decide.ClaimTie, done func(error, func(*decide.View))) {
	won := false
	w.request(n, func() {
		if a.Tie.N == w.ledger.tie.N+1 {
			w.ledger.tie = a.Tie
			w.ledger.version++
			w.note("ledger", "gives the tie to "+a.Tie.Winner)
		}
		won = w.ledger.tie.N == a.Tie.N && w.ledger.tie.Winner == n.name
	}, func(err error) {
		if err == nil && !won {
			w.readLedger(n, done)
			return
		}
		done(err, func(v *decide.View) {
			if err == nil && a.Tie.N >= v.Ledger.Tie.N {
				v.Ledger.Tie, v.Ledger.WonTie = a.Tie, n.clock.at(w.now)
			}
		})
	})
}
