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
	ours, theirs string  // benchmark names; no theirs: there is nobody to compare with
	unit         string  // of the metric
	ratio        float64 // at most this times theirs; 0: no such promise
	limit        float64 // at most this; 0: no such promise
	never        bool    // 0, and not in the median only but in every run
}

var rows = []row{
	{"boot → serving, against a shell script", "Boot/network=prompt/understudy", "Boot/network=prompt/shell", "s/boot", 1.05, 0, false},
	{"the same, network 3 s late", "Boot/network=late=3s/understudy", "Boot/network=late=3s/shell", "s/boot", 0.75, 0, false},
	{"eight nodes of four roles serving, against eight bare ones", "Cluster/understudy", "Cluster/floor", "s/cluster", 0, 40, false},
	{"node lost → address answers, both at their defaults", "Failover/default/understudy", "Failover/default/keepalived", "s/failover", 0, 0.6, false},
	{"the same, equal interval and multiplier, 100 ms", "Failover/interval=100ms/understudy", "Failover/interval=100ms/keepalived", "s/failover", 1.1, 0, false},
	{"the same, equal interval and multiplier, 1 s", "Failover/interval=1s/understudy", "Failover/interval=1s/keepalived", "s/failover", 1.1, 0, false},
	{"clean stop, longest silence, both at their defaults", "CleanStop/default/understudy", "CleanStop/default/keepalived", "s/silence", 0, 0.05, false},
	{"the same, interval 100 ms", "CleanStop/interval=100ms/understudy", "CleanStop/interval=100ms/keepalived", "s/silence", 0, 0.05, false},
	{"moves in a minute of 20 % loss, equal, 100 ms", "Loss/interval=100ms/understudy", "Loss/interval=100ms/keepalived", "moves/min", 0, 0, false},
	{"the same, 100 ms, our default multiplier", "Loss/default,interval=100ms/understudy", "Loss/default,interval=100ms/keepalived", "moves/min", 0, 0, true},
	{"two holders after kill -9 of the daemon, of 10 s", "Kill/default/understudy", "Kill/default/keepalived", "s/two-holders", 0, 0, true},
	{"the same, interval 100 ms", "Kill/interval=100ms/understudy", "Kill/interval=100ms/keepalived", "s/two-holders", 0, 0, true},
	{"two holders after a silent partition, of 10 s", "Cut/default/understudy", "Cut/default/keepalived", "s/two-holders", 0, 0, true},
	{"the same, interval 100 ms", "Cut/interval=100ms/understudy", "Cut/interval=100ms/keepalived", "s/two-holders", 0, 0, true},
	{"one of eight lost → known to all, against memberlist", "Membership/one-of-8-lost/understudy", "Membership/one-of-8-lost/memberlist", "s/known", 0, 0.6, false},
	{"seven of eight lost → known to the survivor", "Membership/7-of-8-lost/understudy", "Membership/7-of-8-lost/memberlist", "s/known", 0, 1, false},
	{"living members called dead in a minute of 20 % loss and full load", "Membership/loss=20%/understudy", "Membership/loss=20%/memberlist", "deaths/min", 0, 0, true},
	{"one of eight members at rest, % of a core", "Membership/rest=8/understudy", "Membership/rest=8/memberlist", "%core/member", 0, 0, false},
	{"the same, packets a second", "Membership/rest=8/understudy", "Membership/rest=8/memberlist", "packets/s/member", 0, 0, false},
	{"one of 32 members at rest, % of a core", "Membership/rest=32/understudy", "Membership/rest=32/memberlist", "%core/member", 0, 0, false},
	{"the same, packets a second", "Membership/rest=32/understudy", "Membership/rest=32/memberlist", "packets/s/member", 0, 0, false},
	{"a planned move under 200 requests/s: requests failed", "Incident/switchover/understudy", "", "failed/move", 0, 0, true},
	{"the longest answer in it", "Incident/switchover/understudy", "", "s/longest", 0, 0, false},
	{"balancers' primary destroyed under 200 requests/s: requests failed", "Incident/lb-lost/understudy", "", "failed/loss", 0, 0, false},
	{"the longest gap in it", "Incident/lb-lost/understudy", "", "s/gap", 0, 0, false},
	{"of which the provider moved the address for", "Incident/lb-lost/understudy", "", "s/provider", 0, 0, false},
	{"half of the roster destroyed → every duty has moved", "Incident/half-lost/understudy", "", "s/moved", 0, 0, false},
	{"a balancer lost → it serves again, against boot and Puppet run of its machine", "Replacement/understudy s/whole-lb", "Replacement/understudy s/floor-lb", "", 1.3, 0, false},
	{"a web node lost → it serves again, against boot and Puppet run of its machine", "Replacement/understudy s/whole-web", "Replacement/understudy s/floor-web", "", 1.3, 0, false},
	{"a mail node lost → it serves again, against boot and Puppet run of its machine", "Replacement/understudy s/whole-mail", "Replacement/understudy s/floor-mail", "", 1.3, 0, false},
	{"a repository lost → it serves again, against boot and Puppet run of its machine", "Replacement/understudy s/whole-repo", "Replacement/understudy s/floor-repo", "", 1.3, 0, false},
	{"all but one lost → all serve again, against the first boot of eight", "Replacement/understudy s/whole-seven", "Replacement/understudy s/floor-seven", "", 1.3, 0, false},
	{"a small file closed → the same on the peer, ms p50, against lsyncd", "MirrorLatency/understudy", "MirrorLatency/lsyncd", "ms/p50", 0, 5, false},
	{"the same, p99", "MirrorLatency/understudy", "MirrorLatency/lsyncd", "ms/p99", 0, 20, false},
	{"the same, p50, against lsyncd with delay = 1", "MirrorLatency/understudy", "MirrorLatency/lsyncd,delay=1", "ms/p50", 0, 5, false},
	{"the same, p99", "MirrorLatency/understudy", "MirrorLatency/lsyncd,delay=1", "ms/p99", 0, 20, false},
	{"the same, p50, against syncthing", "MirrorLatency/understudy", "MirrorLatency/syncthing", "ms/p50", 0, 5, false},
	{"the same, p99", "MirrorLatency/understudy", "MirrorLatency/syncthing", "ms/p99", 0, 20, false},
	{"the same, p50, against syncthing with a delay of 1 s", "MirrorLatency/understudy", "MirrorLatency/syncthing,delay=1", "ms/p50", 0, 5, false},
	{"the same, p99", "MirrorLatency/understudy", "MirrorLatency/syncthing,delay=1", "ms/p99", 0, 20, false},
	{"burst of 1,000 files → all on the peer, against lsyncd", "MirrorBurst/understudy", "MirrorBurst/lsyncd", "s/burst", 0, 0.25, false},
	{"the same, against lsyncd with delay = 1", "MirrorBurst/understudy", "MirrorBurst/lsyncd,delay=1", "s/burst", 0, 0.25, false},
	{"the same, against syncthing", "MirrorBurst/understudy", "MirrorBurst/syncthing", "s/burst", 0, 0.25, false},
	{"the same, against syncthing with a delay of 1 s", "MirrorBurst/understudy", "MirrorBurst/syncthing,delay=1", "s/burst", 0, 0.25, false},
	{"first sync of 10,000 small files, against rsync -a --fsync", "MirrorFirst/understudy", "MirrorFirst/rsync-fsync", "s/sync", 0.5, 0, false},
	{"the same, against rsync -aHAX --fsync", "MirrorFirst/understudy", "MirrorFirst/rsync-fsync-HAX", "s/sync", 0, 0, false},
	{"the same, against rsync -a", "MirrorFirst/understudy", "MirrorFirst/rsync", "s/sync", 1.2, 0, false},
	{"the same, against rsync -aHAX", "MirrorFirst/understudy", "MirrorFirst/rsync-HAX", "s/sync", 0, 0, false},
	{"comparison of 10,000 unchanged files, against rsync -a", "MirrorUnchanged/understudy", "MirrorUnchanged/rsync", "s/sync", 0.6, 0, false},
	{"the same, against rsync -aHAX", "MirrorUnchanged/understudy", "MirrorUnchanged/rsync-HAX", "s/sync", 0, 0, false},
	{"1 GiB, first, against rsync -a over ssh", "MirrorGiB/understudy", "MirrorGiB/rsync-ssh", "s/sync", 1, 0, false},
	{"the same, against rsync -a unencrypted", "MirrorGiB/understudy", "MirrorGiB/rsync", "s/sync", 1.7, 0, false},
	{"after 1 % of it changed, against rsync -a unencrypted", "MirrorChanged/understudy", "MirrorChanged/rsync", "s/sync", 0.85, 0, false},
	{"20,000 changes over a full watch queue → equal, against lsyncd", "MirrorOverflow/understudy", "MirrorOverflow/lsyncd", "s/equal", 0, 2, false},
	{"the same, against lsyncd with delay = 1", "MirrorOverflow/understudy", "MirrorOverflow/lsyncd,delay=1", "s/equal", 0, 2, false},
	{"the same, against syncthing with a delay of 1 s (150: not within that)", "MirrorOverflow/understudy", "MirrorOverflow/syncthing,delay=1", "s/equal", 0, 2, false},
	{"100,000 mails, 500 changed while the mirror was away → equal, against rsync -a", "MirrorMaildir/understudy", "MirrorMaildir/rsync", "s/sync", 0, 0, false},
	{"watches of the kernel's for them", "MirrorMaildir/understudy", "", "watches", 0, 0, false},
	{"message accepted: own journal and a peer's, both synced on one disk, ms p50", "Accepted/senders=1", "", "p50-ms", 0, 2, false},
	{"the same, p99", "Accepted/senders=1", "", "p99-ms", 0, 5, false},
	{"sidecar at rest, mean of eight nodes, % of a core", "Incident/switchover/understudy", "", "%core/sidecar", 0, 1.5, false},
	{"the dearest of them", "Incident/switchover/understudy", "", "%core/dearest", 0, 1.5, false},
	{"memory of the largest, MB", "Incident/switchover/understudy", "", "MB/sidecar", 0, 50, false},
	{"memory of understudy-bootstrap, against Puppet's", "Boot/network=prompt/understudy bootstrap-MB", "Boot/network=prompt/understudy puppet-MB", "", 0, 0, false},
	{"CPU of understudy-bootstrap, against Puppet's", "Boot/network=prompt/understudy bootstrap-cpu-s", "Boot/network=prompt/understudy puppet-cpu-s", "", 0, 0, false},
}

// notes say what the figures mean.
const notes = `
CPU s and MB are ours : theirs, all processes of both ends: their CPU, and the peaks of resident memory of those that live at once.
A file or a tree counts as on the peer, for ours, when a barrier of its source says that it is durable there; it is then compared. For
lsyncd and syncthing it counts when it is there whole, and for rsync when it has ended: they promise no more (rsync --fsync does). rsync
-a is what its figures were promised against; only with -HAX does it keep hard links, access control lists and extended attributes, as ours does.
`

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
	fmt.Fprintln(t, "what\tours\ttheirs\tratio\ttarget\tmet\truns\tCPU s\tMB")
	costs := map[string]bool{} // of which pairs they have been printed
	for _, r := range rows {
		ours, theirs := measured[strings.TrimSpace(r.ours+" "+r.unit)], measured[strings.TrimSpace(r.theirs+" "+r.unit)]
		alone := r.theirs == ""
		if len(ours) == 0 || len(theirs) == 0 && !alone {
			fmt.Fprintf(t, "%s\t\t\t\t\tnot measured\t\t\t\n", r.what)
			continue
		}
		if alone {
			theirs = ours // of which only the number counts
		}
		a, b := median(ours), median(theirs)
		target, met := "", ""
		if r.ratio > 0 {
			target, met = fmt.Sprintf("≤ %.2f×", r.ratio), yes(a <= r.ratio*b)
		}
		if r.limit > 0 {
			target, met = fmt.Sprintf("≤ %.3g", r.limit), yes(a <= r.limit)
		}
		if r.never {
			a = slices.Max(ours)
			target, met = "0 in every run", yes(a == 0)
		}
		ratio := "–" // of nothing
		if b > 0 {
			ratio = fmt.Sprintf("%.2f×", a/b)
		}
		other := fmt.Sprintf("%.3g", b)
		if alone {
			other, ratio = "–", "–"
		}
		cpu, memory := "", ""
		if pair := r.ours + " " + r.theirs; !costs[pair] {
			cpu, memory, costs[pair] = cost(measured, r, "cpu-s"), cost(measured, r, "MB"), true
		}
		fmt.Fprintf(t, "%s\t%.3g\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.what, a, other, ratio, target, met, min(len(ours), len(theirs)), cpu, memory)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, notes)
	return err
}

// cost is what both sides of a row took, where their benchmark tells.
func cost(measured map[string][]float64, r row, unit string) string {
	ours, theirs := measured[r.ours+" "+unit], measured[r.theirs+" "+unit]
	switch {
	case len(ours) == 0:
		return ""
	case len(theirs) == 0:
		return fmt.Sprintf("%.3g", median(ours))
	}
	return fmt.Sprintf("%.3g : %.3g", median(ours), median(theirs))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
