package sim

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	seed     = flag.Int64("seed", -1, "play this one episode and print its history")
	episodes = flag.Int("episodes", 2000, "how many episodes to play; the default also ends after 40 s")
	first    = flag.Int64("first", 1, "seed of the first episode")
	shaped   = flag.String("shape", "", "play this shape of a cluster only")
	only     = flag.String("only", "", "let only these kinds of faults happen, separated by commas")
)

// patience bounds a run whose length nobody has asked for.
const patience = 40 * time.Second

func options() Options {
	o := Options{Shape: *shaped, History: *seed >= 0}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	return o
}

func asked(name string) (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

func TestEveryLawHoldsInEveryEpisode(t *testing.T) {
	if *seed >= 0 {
		r := Run(uint64(*seed), options())
		fmt.Println(strings.Join(r.History, "\n"))
		if len(r.Violations) > 0 {
			t.Error(strings.Join(r.Violations, "\n"))
		}
		return
	}
	var sum Report
	begin, played := time.Now(), 0
	for ; played < *episodes && (asked("episodes") || time.Since(begin) < patience); played++ {
		s := uint64(*first) + uint64(played)
		r := Run(s, options())
		sum.Turns, sum.Leaps, sum.Takeovers, sum.Leases = sum.Turns+r.Turns, sum.Leaps+r.Leaps, sum.Takeovers+r.Takeovers, sum.Leases+r.Leases
		sum.Created += r.Created
		if len(r.Violations) > 0 {
			t.Errorf("seed %d: %s\nreplay: go test ./tests/sim -seed=%d", s, strings.Join(r.Violations, "\n  "), s)
		}
	}
	n := max(1, float64(played))
	t.Logf("%d episodes in %v; of each %.0f turns, %.0f leaps, %.1f takeovers, %.2f leases, %.2f new machines", played, time.Since(begin).Round(time.Millisecond),
		float64(sum.Turns)/n, float64(sum.Leaps)/n, float64(sum.Takeovers)/n, float64(sum.Leases)/n, float64(sum.Created)/n)
}

func TestTheSameSeedGivesTheSameEpisode(t *testing.T) {
	seen := map[uint64]bool{}
	for s := range uint64(20) {
		a, b := Run(s, Options{}), Run(s, Options{History: true})
		if a.Trace != b.Trace || a.Turns != b.Turns {
			t.Errorf("seed %d: traces %x and %x, %d and %d turns", s, a.Trace, b.Trace, a.Turns, b.Turns)
		}
		seen[a.Trace] = true
	}
	if len(seen) < 20 {
		t.Errorf("20 seeds gave %d different episodes", len(seen))
	}
}
