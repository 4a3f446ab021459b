package sim

import (
	"strings"
	"testing"
	"time"

	"understudy/sidecar/decide"
)

const (
	second = time.Second
	ms     = time.Millisecond
)

// rail is one mechanism of decide with the circumstances in which it is needed, and the harm that must be seen without it. The
// seeds vary all that the circumstances leave open.
type rail struct {
	name  string
	off   decide.Rails
	where Options
	seeds uint64
	harm  string
}

// unheard: lb1 offers lb to lb2, and does not hear that lb2 takes it.
var unheard = Options{Shape: "three", Script: []Step{{3600 * ms, "clock off", "lb1", 20 * second}, {4 * second, "one way", "lb2+lb1", 20 * second}}}

var rails = []rail{
	{"majority", decide.Rails{Majority: true}, Options{Shape: "three", Only: []string{"split", "isolate"}}, 40, "opens the gate of lb while that of"},
	{"quiet wait", decide.Rails{QuietWait: true}, unheard, 100, "opens the gate of lb while that of lb1 is open"},
	{"one promise", decide.Rails{OnePromise: true}, unheard, 100, "opens the gate of lb while that of lb1 is open"},
	// lb1 has a lease with db1, until db1 joins the others.
	{"lease wait", decide.Rails{LeaseWait: true}, Options{Shape: "four", Script: []Step{{5 * second, "part", "lb1+db1", 40 * second},
		{40 * second, "part", "lb1", 30 * second}}}, 40, "opens the gate of lb while that of lb1 is open"},
	// lb3 confirms lb1, forgets it, and hears lb2 first.
	{"start quiet", decide.Rails{StartQuiet: true}, Options{Shape: "three", Script: []Step{{5 * second, "pair", "lb1+lb2", 10 * second},
		{8 * second, "crash", "lb3", 20 * ms}, {8 * second, "pair", "lb1+lb3", 5 * second}}}, 40, "opens the gate of lb while that of lb1 is open"},
	{"self-closing gate", decide.Rails{SelfClose: true}, Options{Shape: "three", Script: []Step{{5 * second, "crash", "lb1", 20 * second}}}, 5,
		"opens the gate of lb while that of lb1 is open"},
	// What db2 was about to do when it lost the duty lands seconds later.
	{"recheck", decide.Rails{Recheck: true}, Options{Shape: "four", Script: []Step{{4 * second, "provider slow", "", 60 * second},
		{5 * second, "crash", "db1", 3 * second}, {8 * second, "isolate", "db2", 5 * second}}}, 60, "moves the address of db away from db1"},
	{"sticky", decide.Rails{Sticky: true}, Options{}, 400, "no fault near"},
	{"absent", decide.Rails{Absent: true}, Options{}, 5, "without having read it"},
}

func TestWithoutAnyOneRailHarmIsSeen(t *testing.T) {
	for _, r := range rails {
		t.Run(r.name, func(t *testing.T) {
			o := r.where
			if o.Off = r.off; !harmed(t, o, r) {
				t.Fatalf("no harm in %d episodes without this rail; then what is it for?", r.seeds)
			}
			if o.Off = (decide.Rails{}); harmed(t, o, r) {
				t.Error("and the rail does not prevent it")
			}
		})
	}
}

// harmed plays until the harm is seen, or the seeds are used up.
func harmed(t *testing.T, o Options, r rail) bool {
	for s := range r.seeds {
		for _, v := range Run(s, o).Violations {
			if strings.Contains(v, r.harm) {
				t.Logf("seed %d: %s", s, v)
				return true
			}
		}
	}
	return false
}
