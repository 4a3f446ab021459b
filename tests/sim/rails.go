package sim

import (
	"fmt"
	"strings"
	"time"

	"understudy/sidecar/decide"
)

const (
	minute = time.Minute
	second = time.Second
	ms     = time.Millisecond
)

// Rail is one mechanism of decide with the circumstances in which it is needed, and the harm that is seen without it. The seeds
// vary all that the circumstances leave open.
type Rail struct {
	Name  string
	off   decide.Rails
	where Options
	seeds uint64
	harm  string
}

// Without plays without the rail until its harm is seen. Empty: it was not, with any of the seeds.
func (r Rail) Without() string {
	r.where.Off = r.off
	return r.play()
}

// With plays the same with the rail. Empty: the harm was never seen.
func (r Rail) With() string { return r.play() }

func (r Rail) play() string {
	for seed := range r.seeds {
		for _, v := range Run(seed, r.where).Violations {
			if strings.Contains(v, r.harm) {
				return fmt.Sprintf("seed %d: %s", seed, v)
			}
		}
	}
	return ""
}

// Rails are all there are.
func Rails() []Rail { return rails }

// unheard: lb1 offers lb to lb2, and does not hear that lb2 takes it.
var unheard = Options{Shape: "three", Script: []Step{{3600 * ms, "clock off", "lb1", 20 * second}, {4 * second, "one way", "lb2+lb1", 20 * second}}}

// leftBehind: db2 does not hear db1 for a while, which writes on, and is switched off then.
var leftBehind = Options{Shape: "four", Script: []Step{{15 * second, "pair", "db1+db2", 30 * second}, {40 * second, "reboot", "db1", minute}}}

var rails = []Rail{
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
	// What lb2 was about to do when it lost the duty lands seconds later.
	{"recheck", decide.Rails{Recheck: true}, Options{Shape: "eight", Script: []Step{{4 * second, "provider slow", "", 60 * second},
		{5 * second, "crash", "lb1", 3 * second}, {8 * second, "isolate", "lb2", 5 * second}}}, 60, "moves the address of lb away from lb1"},
	{"sticky", decide.Rails{Sticky: true}, Options{}, 400, "no fault near"},
	{"absent", decide.Rails{Absent: true}, Options{}, 5, "without having read it"},

	// lb1 and lb2 do not hear db2, lb3 and db1 do.
	{"verdicts", decide.Rails{Verdicts: true}, Options{Shape: "five", Script: []Step{{5 * second, "pair", "lb1+db2", 3 * minute},
		{5 * second, "pair", "lb2+db2", 3 * minute}, {5 * second, "pair", "lb1+lb3", 3 * minute}}}, 20, "which a majority hears"},
	{"hold time", decide.Rails{HoldTime: true}, Options{Shape: "five", Script: []Step{{5 * second, "crash", "lb3", 20 * second}}}, 20, "after having heard it"},
	{"one in flight", decide.Rails{OneInFlight: true}, Options{Shape: "eight", Script: []Step{{5 * second, "crash", "web1", 10 * minute},
		{5 * second, "crash", "mail2", 10 * minute}}}, 20, "is being replaced"},
	{"budget", decide.Rails{Budget: true}, Options{Shape: "five", Script: []Step{{4 * second, "machines never come", "", 50 * minute},
		{5 * second, "destroy", "lb3", second}}}, 5, "within an hour"},
	{"ceiling", decide.Rails{Ceiling: true}, Options{Shape: "three", Script: []Step{{4 * second, "stray", "", second}, {4 * second, "stray", "", second},
		{5 * second, "destroy", "lb3", second}}}, 20, "is asked for beside"},
	{"tombstone", decide.Rails{Tombstone: true}, Options{Shape: "five", Script: []Step{{5 * second, "crash", "lb3", 10 * minute}}}, 20, "after the last fault"},
	{"fence", decide.Rails{Fence: true}, Options{Shape: "five", Script: []Step{{5 * second, "freeze", "lb3", 10 * minute}}}, 20, "and so believes"},
	// lb1 is alone, and lb2 is switched on again when its claim has just ended.
	{"minority", decide.Rails{Minority: true}, Options{Shape: "three", Script: []Step{{5 * second, "part", "lb1", minute},
		{5 * second, "reboot", "lb2", 5300 * ms}, {5 * second, "reboot", "lb3", 20 * second}}}, 300, "and hears 1 of 3"},
	{"ours", decide.Rails{Ours: true}, Options{Shape: "five", Script: []Step{{5 * second, "taken away", "lb3", 10 * minute}}}, 20, "which is not the cluster's"},
	{"list", decide.Rails{List: true}, Options{Shape: "five", Script: []Step{{5 * second, "lists are empty", "", 50 * minute},
		{5 * second, "machines dawdle", "", 50 * minute}, {6 * second, "destroy", "lb3", second}}}, 20, "of at most"},
	{"collect", decide.Rails{Collect: true}, Options{Shape: "five", Script: []Step{{5 * second, "reboot", "lb3", 40 * second},
		{5 * second, "machines dawdle", "", 2 * minute}}}, 100, "which may still join"},
	{"newest data", decide.Rails{Newest: true}, leftBehind, 20, "without what was written"},
	{"deserted primary", decide.Rails{Deserted: true}, leftBehind, 20, "without what was written"},
	{"only copy", decide.Rails{Needed: true}, Options{Shape: "four", Script: []Step{{15 * second, "pair", "db1+db2", 40 * second},
		{40 * second, "crash", "db1", 10 * minute}}}, 20, "which alone has"},
	{"settle", decide.Rails{Settle: true}, Options{Shape: "four", Script: []Step{{4 * second, "copies are slow", "", 5 * minute},
		{40 * second, "move", "db1", 20 * second}}}, 20, "is handed"},
	{"call once", decide.Rails{CallOnce: true}, Options{Shape: "five", Script: []Step{{5 * second, "provider deceives", "", 2 * minute},
		{5 * second, "destroy", "lb3", second}}}, 20, "a second machine"},
}
