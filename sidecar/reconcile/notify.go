package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// watchdogEvery is how often the service manager is told that the loop turns. The unit's WatchdogSec= must be several times that.
const watchdogEvery = time.Second

// notifier remembers what the service manager was told. It belongs to the loop.
type notifier struct {
	status string
	alive  cluster.Instant
	failed bool // the warning is out
}

// notify tells the service manager that we are ready, after the first turn, that we are alive, and in one line what we do.
// Its errors are told once: they change nothing of what we do.
func (l *Loop) notify() {
	if l.world.Notify == nil {
		return
	}
	var lines []string
	if !l.ready {
		lines = append(lines, "READY=1")
		l.ready = true
	}
	if l.began.Since(l.said.alive) >= watchdogEvery {
		lines = append(lines, "WATCHDOG=1")
		l.said.alive = l.began
	}
	if s := l.status(); s != l.said.status {
		lines = append(lines, "STATUS="+s)
		l.said.status = s
	}
	if len(lines) == 0 {
		return
	}
	if err := l.world.Notify(strings.Join(lines, "\n")); err != nil && !l.said.failed {
		l.said.failed = true
		l.log.Warn("the service manager cannot be told", "err", err)
	}
}

// status is one line for `systemctl status`.
func (l *Loop) status() string {
	s := l.look()
	var duties []string
	for name, d := range s.Decision.Memory.Duties {
		switch d.Hold.State {
		case cluster.Held, cluster.Offered:
			duties = append(duties, fmt.Sprintf("%s (epoch %d)", name, d.Hold.Epoch))
		}
	}
	slices.Sort(duties)
	text := "standby"
	if len(duties) > 0 {
		text = "holds " + strings.Join(duties, ", ")
	}
	if s.View.Orders.Leave {
		text = "stopping; " + text
	}
	if b := s.Decision.Blocked; len(b) > 0 {
		text += fmt.Sprintf("; %s is blocked", b[0].What)
	}
	return strings.ReplaceAll(text, "\n", " ")
}
