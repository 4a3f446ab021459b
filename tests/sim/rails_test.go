package sim

import (
	"fmt"
	"testing"
	"time"

	"understudy/sidecar/decide"
)

const second, ms = time.Second, time.Millisecond

func TestProbeRails(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"quiet wait", Options{Off: decide.Rails{QuietWait: true}, Shape: "three", Only: []string{"mute", "deaf", "move", "clock off", "unhealthy"}}},
		{"quiet wait2", Options{Off: decide.Rails{QuietWait: true}, Shape: "three", Script: []Step{{4 * second, "clock off", "lb1", 20 * second}, {4030 * ms, "deaf", "lb1", 20 * second}}}},
		{"lease wait", Options{Off: decide.Rails{LeaseWait: true}, Shape: "four", Script: []Step{{5 * second, "part", "lb1+db1", 40 * second}, {40 * second, "part", "lb1", 30 * second}}}},
		{"start quiet", Options{Off: decide.Rails{StartQuiet: true}, Shape: "three", Script: []Step{{5 * second, "pair", "lb1+lb2", 10 * second}, {8 * second, "crash", "lb3", 20 * ms}, {8 * second, "pair", "lb1+lb3", 5 * second}}}},
		{"recheck", Options{Off: decide.Rails{Recheck: true}, Shape: "four", Only: []string{"freeze", "isolate", "mute", "deaf", "provider deceives", "crash", "provider slow"}}},
		{"freeze", Options{Shape: "four", Script: []Step{{5 * second, "freeze", "db1", 4800 * ms}}}},
	} {
		bad := 0
		example := ""
		leases := 0
		begin := time.Now()
		for s := range uint64(150) {
			r := Run(s, c.o)
			leases += r.Leases
			if len(r.Violations) > 0 {
				bad++
				if len(example) < 500 {
					example += fmt.Sprintf("\n  %d %s", s, r.Violations[0])
				}
			}
		}
		t.Logf("%s: %d of 150 bad %d, %v %s", c.name, bad, leases, time.Since(begin).Round(time.Millisecond), example)
	}
}
