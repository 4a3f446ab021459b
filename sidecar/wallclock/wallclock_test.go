package wallclock

import (
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

// bench is a machine with a wall clock that can be set and one that cannot.
type bench struct {
	wall time.Time
	boot cluster.Instant
	c    *Clock
}

func newBench() *bench {
	b := &bench{wall: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), boot: 1000}
	b.c = &Clock{local: func() time.Time { return b.wall }, boot: func() cluster.Instant { return b.boot }}
	return b
}

func (b *bench) pass(d time.Duration) { b.wall, b.boot = b.wall.Add(d), b.boot.Add(d) }

func TestTheMedianOfTheOthersCounts(t *testing.T) {
	for name, c := range map[string]struct {
		others []time.Duration // how far ahead each is
		want   time.Duration
	}{
		"nobody":                          {nil, 0},
		"one, within tolerance":           {[]time.Duration{-Tolerance}, 0},
		"one, ahead":                      {[]time.Duration{time.Hour}, time.Hour},
		"one, behind":                     {[]time.Duration{-time.Hour}, -time.Hour},
		"two agree with each other":       {[]time.Duration{time.Hour, time.Hour + time.Second}, time.Hour},
		"one of two agrees with us":       {[]time.Duration{time.Hour, time.Second}, 0},
		"one of two agrees, other behind": {[]time.Duration{-time.Hour, -time.Second}, 0},
		"two of three are far off":        {[]time.Duration{0, 2 * time.Hour, time.Hour}, time.Hour},
		"one of three is far off":         {[]time.Duration{0, -time.Second, time.Hour}, 0},
		"two disagree about the sign":     {[]time.Duration{-2 * time.Hour, time.Hour}, time.Hour},
	} {
		b := newBench()
		for i, ahead := range c.others {
			b.c.Hear(string(rune('a'+i)), b.wall.Add(ahead))
		}
		if got := b.c.Ahead(); got != c.want {
			t.Errorf("%s: ahead by %v, want %v", name, got, c.want)
		}
		if got := b.c.Now().Sub(b.wall); got != c.want {
			t.Errorf("%s: Now is %v ahead, want %v", name, got, c.want)
		}
	}
}

func TestAStepOfTheWallClockShowsAtOnce(t *testing.T) {
	b := newBench()
	b.c.Hear("store", b.wall)
	b.pass(time.Hour)
	if got := b.c.Ahead(); got != 0 {
		t.Errorf("after a quiet hour: %v", got)
	}
	right := b.wall
	b.wall = b.wall.Add(-2 * time.Hour)
	if got := b.c.Ahead(); got != 2*time.Hour || !b.c.Now().Equal(right) {
		t.Errorf("after a step back: %v, now %v", got, b.c.Now())
	}
	b.wall = right
	if got := b.c.Ahead(); got != 0 {
		t.Errorf("set right: %v", got)
	}
}

func TestTheNewestWordOfASourceCountsAndNoOldOne(t *testing.T) {
	b := newBench()
	b.c.Hear("store", b.wall.Add(time.Hour))
	b.c.Hear("store", time.Time{})
	if got := b.c.Ahead(); got != time.Hour {
		t.Errorf("an answer without a date has changed it to %v", got)
	}
	b.c.Hear("store", b.wall)
	if got := b.c.Ahead(); got != 0 {
		t.Errorf("got %v, want the newest", got)
	}
	b.c.Hear("store", b.wall.Add(time.Hour))
	b.pass(forgetAfter)
	if got := b.c.Ahead(); got != 0 {
		t.Errorf("after %v: %v", forgetAfter, got)
	}
}

func TestNoClockIsTheMachines(t *testing.T) {
	var none *Clock
	none.Hear("store", time.Unix(0, 0))
	if got := none.Ahead(); got != 0 || time.Since(none.Now()).Abs() > Tolerance {
		t.Errorf("ahead %v, now %v", got, none.Now())
	}
	var zero Clock
	zero.Hear("store", time.Now().Add(2*time.Hour))
	if got := zero.Ahead().Round(time.Minute); got != 2*time.Hour {
		t.Errorf("zero value: %v", got)
	}
}
