package reconcile

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Snapshot returns what the newest turn saw and decided. The caller must not change what its maps and slices hold.
func (l *Loop) Snapshot() (decide.Policy, decide.View, decide.Decision, time.Time) {
	s := l.look()
	return l.cfg.Policy, s.View, s.Decision, s.At
}

func (l *Loop) look() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// Order changes what the operator wants, and wakes the loop. What change leaves behind must not be changed afterwards.
func (l *Loop) Order(change func(o *decide.Orders)) {
	l.mu.Lock()
	change(&l.orders)
	l.mu.Unlock()
	l.board.poke()
}

// publish lets others see the turn, and drops the moves that have happened.
func (l *Loop) publish(v decide.View, d decide.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest = Snapshot{View: v, Decision: d, At: time.Now(), Done: l.cfg.Now()}
	var open []cluster.Move
	for _, m := range l.orders.Moves {
		if m.From == 0 || d.Memory.Epochs[m.Duty] <= m.From {
			open = append(open, m)
		}
	}
	l.orders.Moves = open
}

// holds checks an expectation about a duty against the newest turn, which must be fresh: a process that has just gone on after
// standing still knows nothing.
func (l *Loop) holds(e decide.Expect) error {
	if e.Duty == "" || e.Epoch == 0 {
		return nil
	}
	s := l.look()
	if age := l.cfg.Now().Since(s.Done); age > l.cfg.Policy.Timings.Gate {
		return fmt.Errorf("%w: the newest turn is %v old", errStale, age)
	}
	h := s.Decision.Memory.Duties[e.Duty].Hold
	if h.Epoch != e.Epoch || h.State != cluster.Held && h.State != cluster.Offered {
		return fmt.Errorf("%w: epoch %d of %s is not ours to act on", errStale, e.Epoch, e.Duty)
	}
	return nil
}

// hasLeft reports whether nothing is held and no writer runs any more.
func (l *Loop) hasLeft() bool {
	s := l.look()
	for _, d := range s.Decision.Memory.Duties {
		switch d.Hold.State {
		case cluster.Waiting, cluster.Held, cluster.Offered:
			return false
		}
	}
	for _, u := range s.View.Units {
		if u.Running {
			return false
		}
	}
	return s.View.Orders.Leave
}
