package sim

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// job is the executor's state of one key, as in reconcile.
type job struct {
	running  decide.Action
	token    int // of what runs, so that the answer of something cut off is not taken
	finished uint64
	again    moment
	tries    int
}

var (
	errStale = errors.New("what this assumed no longer holds")
	errAway  = errors.New("no answer")
)

// put changes the readings and wakes the loop.
func (w *world) put(n *node, change func(v *decide.View)) {
	change(&n.view)
	n.version++
	n.wake(w.now)
}

// want hands over the slow actions of a decision.
func (w *world) want(n *node, actions []decide.Action) {
	for _, a := range actions {
		key := a.Key()
		j := n.jobs[key]
		if j == nil {
			j = &job{}
			n.jobs[key] = j
		}
		switch {
		case j.running != nil && !sameAction(j.running, a):
			j.running, j.again = nil, w.now
			j.token++
			n.wake(w.now)
		case j.running != nil:
		case j.again > w.now:
			n.due = min(n.due, j.again)
		case n.version >= j.finished:
			j.running = a
			j.token++
			w.perform(n, j, a)
		}
	}
}

// finish returns what ends a job, whatever has become of its node.
func (w *world) finish(n *node, j *job, a decide.Action) func(error, func(*decide.View)) {
	starts, token := n.starts, j.token
	return func(err error, change func(*decide.View)) {
		if n.starts != starts || j.token != token {
			return
		}
		w.thawed(n, func() {
			if n.starts != starts || j.token != token {
				return
			}
			w.finished(n, j, a, err, change)
		})
	}
}

func (w *world) finished(n *node, j *job, a decide.Action, err error, change func(*decide.View)) {
	j.running, j.again = nil, w.now.add(pause(a))
	n.calm = false // until a turn has seen it
	switch {
	case err == nil:
		j.tries = 0
	case !errors.Is(err, errStale):
		j.tries++
		wait := min(15*time.Second, 250*time.Millisecond<<min(j.tries-1, 10))
		j.again = w.now.add(wait/2 + w.between(0, wait/2))
	}
	if change != nil {
		w.put(n, change)
	} else {
		n.wake(w.now)
	}
	j.finished = n.version
	if !isReading(a) {
		w.note(n.name, "done: "+a.Key()+" "+errText(err))
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return "(" + err.Error() + ")"
}

// thawed does something when the node has time, which is now unless it is frozen.
func (w *world) thawed(n *node, f func()) {
	if n.up && n.frozen {
		w.after(10*time.Millisecond, func() { w.thawed(n, f) })
		return
	}
	f()
}

// holds checks an expectation again, right before the deed.
func (w *world) holds(n *node, e decide.Expect) error {
	if w.o.Off.Recheck || e.Duty == "" {
		return nil
	}
	h := n.memory.Duties[e.Duty].Hold
	if w.now.sub(n.last) > n.policy.Timings.Gate && n.frozen || h.Epoch != e.Epoch || h.State != cluster.Held && h.State != cluster.Offered {
		return errStale
	}
	return nil
}

// asks is the same for an epoch that is asked for or held.
func (w *world) asks(n *node, duty string, epoch uint64) error {
	if d := n.memory.Duties[duty]; d.Bid != epoch && d.Hold.Epoch != epoch {
		return errStale
	}
	return nil
}

// perform begins an action, which ends by an event.
func (w *world) perform(n *node, j *job, a decide.Action) {
	done := w.finish(n, j, a)
	switch a := a.(type) {
	case decide.ReadLedger:
		w.readLedger(n, done)
	case decide.WriteDuty:
		w.writeDuty(n, a, done)
	case decide.ClaimTie:
		w.claimTie(n, a, done)
	case decide.ReadMachine:
		w.readMachine(n, a, done)
	case decide.ReadHolder:
		w.readHolder(n, a.Role, done)
	case decide.AssignReserved:
		w.assign(n, a, done)
	case decide.LinkAddress:
		w.after(w.between(time.Millisecond, 5*time.Millisecond), func() {
			if err := w.holds(n, a.Expect); err != nil && a.Add {
				done(err, nil)
				return
			}
			done(nil, func(*decide.View) { n.gate.added = a.Add })
		})
	case decide.PrimaryUnits:
		w.switchUnits(n, a, done)
	case decide.StartDrain:
		w.after(5*time.Millisecond, func() { done(nil, nil) })
	case decide.CountSockets:
		w.countSockets(n, a, done)
	case decide.Settle:
		w.settle(n, a, done)
	case decide.ReadList:
		w.readList(n, done)
	case decide.OpenIntent:
		w.openIntent(n, a, done)
	case decide.Tombstone:
		w.tombstone(n, a, done)
	case decide.PowerOff:
		w.powerOff(n, a, done)
	case decide.Create:
		w.create(n, a, done)
	case decide.Delete:
		w.deleteMachine(n, a, done)
	case decide.CloseIntent:
		w.closeIntent(n, a, done)
	case decide.ReadZone:
		w.readZone(n, a, done)
	case decide.UpdateZone:
		w.updateZone(n, a, done)
	default:
		panic(fmt.Sprintf("nobody carries out %T", a))
	}
}

func (w *world) switchUnits(n *node, a decide.PrimaryUnits, done func(error, func(*decide.View))) {
	if err := w.holds(n, a.Expect); err != nil && a.Start {
		w.after(time.Millisecond, func() { done(err, nil) })
		return
	}
	if a.Start {
		n.units.Running = true
		w.after(w.between(100*time.Millisecond, time.Second), func() {
			done(nil, func(*decide.View) { n.units = decide.UnitReading{Running: true, All: true} })
		})
		return
	}
	n.units.All = false
	w.after(w.between(50*time.Millisecond, 800*time.Millisecond), func() {
		done(nil, func(*decide.View) { n.units = decide.UnitReading{} })
	})
}

func (w *world) countSockets(n *node, a decide.CountSockets, done func(error, func(*decide.View))) {
	at := n.clock.at(w.now)
	if n.drained < w.now.add(-time.Minute) {
		n.drained = w.now.add(w.between(0, 3*time.Second))
	}
	open := 0
	if w.now < n.drained {
		open = 3
	}
	w.after(time.Millisecond, func() {
		done(nil, func(v *decide.View) {
			v.Sockets = with(v.Sockets, a.Role, decide.SocketReading{Established: open, At: at})
		})
	})
}

// with is a copy of m in which key has value.
func with[V any](m map[string]V, key string, value V) map[string]V {
	next := make(map[string]V, len(m)+1)
	maps.Copy(next, m)
	next[key] = value
	return next
}

func isReading(a decide.Action) bool {
	switch a.(type) {
	case decide.ReadHolder, decide.ReadMachine, decide.ReadLedger, decide.ReadList, decide.ReadZone, decide.CountSockets, decide.Settle:
		return true
	}
	return false
}

// pause is reconcile's: between the end of an action and the next one of its key.
func pause(a decide.Action) time.Duration {
	switch a.(type) {
	case decide.LinkAddress, decide.CountSockets, decide.Settle:
		return 20 * time.Millisecond
	case decide.ReadMachine, decide.ReadList, decide.PowerOff, decide.Create, decide.Delete, decide.AssignReserved, decide.UpdateZone, decide.StartDrain:
		return time.Second
	case decide.ReadHolder, decide.ReadZone:
		return 250 * time.Millisecond
	}
	return 100 * time.Millisecond
}

// sameAction is reconcile's: what is under way may go on.
func sameAction(a, b decide.Action) bool {
	switch a := a.(type) {
	case decide.LinkAddress:
		b, ok := b.(decide.LinkAddress)
		return ok && a.Add == b.Add && a.Expect == b.Expect
	case decide.AssignReserved:
		b, ok := b.(decide.AssignReserved)
		return ok && a.Machine == b.Machine && a.Expect == b.Expect
	case decide.PrimaryUnits:
		b, ok := b.(decide.PrimaryUnits)
		return ok && a.Start == b.Start && a.Expect == b.Expect
	case decide.UpdateZone:
		b, ok := b.(decide.UpdateZone)
		return ok && a.Epoch == b.Epoch && sameRecords(a.Own, b.Own, a.Want, b.Want)
	case decide.WriteDuty:
		b, ok := b.(decide.WriteDuty)
		return ok && a.Record == b.Record
	case decide.ReadMachine:
		b, ok := b.(decide.ReadMachine)
		return ok && a.Machine == b.Machine
	}
	return true
}
