// Command table reads the output of the benchmarks, as often repeated as it likes, and prints what
// was promised beside what was measured: medians, their ratio, the target, and whether it is met.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is one promise of the design's figures.
type row struct {
	what         string
	ours, theirs string  // benchmark names
	unit         string  // of the metric
	ratio        float64 // at most this times theirs; 0: no such promise
	limit        float64 // at most this; 0: no such promise
}

var rows = []row{
	{"boot → serving, against a shell script", "Boot/network=prompt/understudy", "Boot/network=prompt/shell", "s/boot", 1.05, 0},
	{"the same, network 3 s late", "Boot/network=late=3s/understudy", "Boot/network=late=3s/shell", "s/boot", 0.75, 0},
	{"eight nodes of four roles serving, against eight bare ones", "Cluster/understudy", "Cluster/floor", "s/cluster", 0, 40},
	{"memory of understudy-bootstrap, against Puppet's", "Boot/network=prompt/understudy bootstrap-MB", "Boot/network=prompt/understudy puppet-MB", "", 0, 0},
	{"CPU of understudy-bootstrap, against Puppet's", "Boot/network=prompt/understudy bootstrap-cpu-s", "Boot/network=prompt/understudy puppet-cpu-s", "", 0, 0},
}

func main() {
	measured, err := read(os.Stdin)
	if err == nil {
		err = print(os.Stdout, measured)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// read collects every metric under "name unit".
func read(r io.Reader) (map[string][]float64, error) {
	all := map[string][]float64{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 { // the -2 of GOMAXPROCS
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Text(), err)
			}
			key := name + " " + fields[i+1]
			all[key] = append(all[key], v)
		}
	}
	return all, s.Err()
}

func median(v []float64) float64 {
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func print(w io.Writer, measured map[string][]float64) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tours\ttheirs\tratio\ttarget\tmet\truns")
	for _, r := range rows {
		ours, theirs := measured[strings.TrimSpace(r.ours+" "+r.unit)], measured[strings.TrimSpace(r.theirs+" "+r.unit)]
		if len(ours) == 0 || len(theirs) == 0 {
			fmt.Fprintf(t, "%s\t\t\t\t\tnot measured\t\n", r.what)
			continue
		}
		a, b := median(ours), median(theirs)
		target, met := "", ""
		if r.ratio > 0 {
			target, met = fmt.Sprintf("≤ %.2f×", r.ratio), yes(a <= r.ratio*b)
		}
		if r.limit > 0 {
			target, met = fmt.Sprintf("≤ %.3g", r.limit), yes(a <= r.limit)
		}
		fmt.Fprintf(t, "%s\t%.3g\t%.3g\t%.2f×\t%s\t%s\t%d\n", r.what, a, b, a/b, target, met, min(len(ours), len(theirs)))
	}
	return t.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
