package sim

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

var (
	seed     = flag.Int64("seed", -1, "play this one episode and print its history")
	episodes = flag.Int("episodes", 50_000, "how many episodes to play; the default also ends after 100 seconds")
	first    = flag.Int64("first", 1, "seed of the first episode")
	shaped   = flag.String("shape", "", "play this shape of a cluster only")
	only     = flag.String("only", "", "let only these kinds of faults happen, separated by commas")
)

// patience bounds a run whose length nobody has asked for.
const patience = 100 * time.Second

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
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if !asked("episodes") {
		time.AfterFunc(patience, cancel)
	}
	sum := Sweep{Options: options(), Seed: uint64(*first), Count: *episodes, Workers: runtime.GOMAXPROCS(0)}.Run(ctx)
	for _, v := range sum.Violations {
		t.Errorf("%s\nreplay: go test ./tests/sim -seed=N", v)
	}
	n := max(1, float64(sum.Played))
	t.Logf("%d episodes in %v of CPU; of each %.0f turns, %.0f leaps, %.1f takeovers, %.2f leases, %.2f new machines", sum.Played, sum.CPU.Round(time.Millisecond),
		float64(sum.Turns)/n, float64(sum.Leaps)/n, float64(sum.Takeovers)/n, float64(sum.Leases)/n, float64(sum.Created)/n)
}

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(1600) // little lives long here
	os.Exit(m.Run())
}

// A history of months is played like an hour, with trouble again and again.
func TestALongHistoryHoldsTheLawsToo(t *testing.T) {
	long := Sweep{Options: Options{Length: 20 * 24 * time.Hour, Every: 24 * time.Hour}, Seed: 1, Count: 5, Workers: 2}
	sum := long.Run(t.Context())
	for _, v := range sum.Violations {
		t.Error(v)
	}
	if sum.Faults < 5*20 || sum.Simulated != 5*20*24*time.Hour || len(sum.Healed) < 20 {
		t.Errorf("%d faults in %v, %d losses healed", sum.Faults, sum.Simulated, len(sum.Healed))
	}
	long.Workers = 1
	if again := long.Run(t.Context()); again.Trace != sum.Trace {
		t.Errorf("traces %x and %x of the same seeds", sum.Trace, again.Trace)
	}
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
