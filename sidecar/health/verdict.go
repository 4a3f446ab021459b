//go:build linux

package health

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
)

const (
	// unsureLooks is how many looks in a row may fail to tell before that is as bad as bad.
	unsureLooks = 10
	// flapWindow is how long a fall is remembered; flapFalls so many of them in it are flapping.
	flapWindow = 10 * time.Minute
	flapFalls  = 3
	// mostGood bounds how many good looks coming back may take.
	mostGood = 60
)

// look is the result of one probe.
type look struct {
	ok     bool
	unsure bool   // the probe itself failed: nothing is known
	why    string // of what is not ok
}

// verdict is what the looks at one check amount to. It is a value; the zero one has seen nothing.
type verdict struct {
	health cluster.Health
	since  time.Time // of health; zero while Unknown
	why    string    // of the newest look that was not good; empty after a good one
	good   int       // good looks in a row
	bad    int       // bad looks in a row
	unsure int       // looks in a row that could not tell
	falls  []time.Time
}

// limits are how many looks in a row decide.
type limits struct{ good, bad int }

// after returns the verdict after one more look.
func (v verdict) after(l look, now time.Time, lim limits) verdict {
	if l.unsure {
		v.unsure++
		v.why = l.why
		if v.unsure < unsureLooks {
			return v
		}
		l.ok = false // it has been long enough
	} else {
		v.unsure = 0
	}
	v.falls = recent(v.falls, now)
	if l.ok {
		v.good, v.bad, v.why = v.good+1, 0, ""
		if v.health == cluster.Unknown || v.health == cluster.Unhealthy && v.good >= v.needed(lim) {
			v.health, v.since = cluster.Healthy, now
		}
		return v
	}
	v.good, v.bad, v.why = 0, v.bad+1, l.why
	if v.health != cluster.Unhealthy && v.bad >= lim.bad {
		if v.health == cluster.Healthy {
			v.falls = append(v.falls, now)
		}
		v.health, v.since = cluster.Unhealthy, now
	}
	return v
}

// needed is how many good looks in a row it takes to come back.
func (v verdict) needed(lim limits) int {
	n := lim.good
	for range max(0, len(v.falls)-1) {
		n = min(2*n, max(lim.good, mostGood))
	}
	return n
}

// flapping reports whether the check keeps falling.
func (v verdict) flapping() bool { return len(v.falls) >= flapFalls }

// sentence says why the check is not healthy, or what is worth knowing of one that is. Empty: nothing.
func (v verdict) sentence(lim limits) string {
	text := v.why
	if v.health == cluster.Unhealthy && v.why == "" {
		text = fmt.Sprintf("well again for %d looks of %d", v.good, v.needed(lim))
	}
	if v.flapping() {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("failed %d times within %d minutes", len(v.falls), int(flapWindow.Minutes()))
	}
	return text
}

// recent returns a copy of those falls that still count.
func recent(falls []time.Time, now time.Time) []time.Time {
	var kept []time.Time
	for _, at := range falls {
		if now.Sub(at) < flapWindow {
			kept = append(kept, at)
		}
	}
	return kept
}
