//go:build linux

package bench

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"understudy/tests/netns/sidecars"
	"understudy/tests/netns/wire"
)

// pace is how often, and how patiently, both sides beat. keepalived has no choice of the multiplier: it waits for three
// advertisements and a bit (RFC 5798, 6.1, Master_Down_Interval).
type pace struct {
	name   string
	every  time.Duration // keepalived's advert_int
	roster string        // timings for ours
}

var (
	// standard is what each side does if nobody says anything.
	standard = pace{"default", time.Second, ""}
	// equal is the same interval and the same multiplier.
	equal = pace{"interval=100ms", 100 * time.Millisecond, "timings: {beat: 100ms, missed_beats: 3}\n"}
	slow  = pace{"interval=1s", time.Second, "timings: {beat: 1s, missed_beats: 3}\n"}
)

// pair is either side: three members with an address on the link, watched by a prober on a fourth host.
type pair struct {
	*wire.Wire
	b       *testing.B
	probe   *wire.Prober
	primary string
	runs    map[string]*wire.Process
}

var members = []string{"n1", "n2", "n3"}

// lab starts one side and waits until its address is at rest.
func lab(b *testing.B, side string, p pace) *pair {
	b.Helper()
	environment(b)
	// What is done to either side must not fall on the same moment between two of its beats in every run.
	defer func() { <-time.After(rand.N(p.every)) }()
	if side == "understudy" {
		c := sidecars.New(b, sidecars.Setup{Roster: p.roster})
		return &pair{Wire: c.Wire, b: b, probe: c.Probe, primary: c.Primary, runs: c.Runs}
	}
	l := &pair{Wire: wire.New(b, append(slices.Clone(members), "client")...), b: b, runs: map[string]*wire.Process{}}
	l.probe = l.Host("client").Probe(b, sidecars.Address.Addr())
	for i, m := range members {
		l.keepalived(m, 150-10*i, p.every)
	}
	l.primary = l.probe.AtRest(2*p.every+time.Second, 30*time.Second)
	return l
}

// keepalived runs Debian's, from its tree, as its manual has it for three members of which none preempts.
func (l *pair) keepalived(member string, priority int, every time.Duration) {
	l.b.Helper()
	tree := wire.Program(l.b, "UNDERSTUDY_TOOLS_TREE", "the tree with keepalived")
	dir := l.b.TempDir()
	conf := filepath.Join(dir, "keepalived.conf")
	write(l.b, conf, fmt.Sprintf(`global_defs {
	router_id %s
	vrrp_version 3
	enable_script_security
}
vrrp_instance lb {
	state BACKUP
	nopreempt
	interface %s
	virtual_router_id 51
	priority %d
	advert_int %g
	virtual_ipaddress { %s }
}
`, member, wire.Interface, priority, every.Seconds(), sidecars.Address), 0o644)
	// In a mount namespace of its own, so that nothing is written into the tree.
	cmd := exec.Command("/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", `
mount -t tmpfs none "$1/run"
mount -t tmpfs none "$1/tmp"
mount --bind "$2" "$1/mnt"
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" /usr/sbin/keepalived --dont-fork --log-console --vrrp --use-file /mnt/keepalived.conf`, "sh", tree, dir)
	cmd.Env = []string{"LANG=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	l.runs[member] = l.Host(member).Start("keepalived-"+member, cmd)
}

// moved waits until another member than the primary answers, and returns when its first answer came.
func (l *pair) moved(since time.Time, within time.Duration) time.Time {
	l.b.Helper()
	wire.Eventually(l.b, within, func() error {
		if now := l.probe.Now(); now == "" || now == l.primary {
			return fmt.Errorf("%q answers, it was with %s", now, l.primary)
		}
		return nil
	})
	first, _ := l.probe.Await(l.probe.Now(), since, time.Second)
	return first
}

// both runs a measurement for either side. Its hosts live as long as the benchmark, so one run is one measurement.
func both(b *testing.B, unit string, measure func(l *pair) float64, paces ...pace) {
	for _, p := range paces {
		for _, side := range []string{"understudy", "keepalived"} {
			b.Run(p.name+"/"+side, func(b *testing.B) {
				if b.N > 1 {
					b.Fatal("one measurement a run: use -benchtime=1x and -count, as make bench does")
				}
				b.ReportMetric(measure(lab(b, side, p)), unit)
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkFailover is the time from the loss of the node with the address to the first answer from another one.
func BenchmarkFailover(b *testing.B) {
	both(b, "s/failover", func(l *pair) float64 {
		lost := time.Now()
		l.Host(l.primary).Unplug()
		return l.moved(lost, 20*time.Second).Sub(lost).Seconds()
	}, standard, equal, slow)
}

// BenchmarkCleanStop is the longest silence of the address when the daemon that has it is told to stop.
func BenchmarkCleanStop(b *testing.B) {
	both(b, "s/silence", func(l *pair) float64 {
		told := time.Now()
		l.runs[l.primary].Signal(b, syscall.SIGTERM)
		first := l.moved(told, 20*time.Second)
		<-time.After(time.Until(first.Add(300 * time.Millisecond)))
		return l.probe.Gap(told, first.Add(200*time.Millisecond)).Seconds()
	}, standard, equal)
}

// BenchmarkLoss counts moves of the address in a minute in which a fifth of all frames is lost. None is called for.
func BenchmarkLoss(b *testing.B) {
	both(b, "moves/min", func(l *pair) float64 {
		l.Lose(20)
		since := time.Now()
		<-time.After(time.Minute)
		return float64(len(l.probe.Holders(since)) - 1)
	}, equal, pace{"default,interval=100ms", 100 * time.Millisecond, ""})
}

// watched is how long two holders are looked for.
const watched = 10 * time.Second

// BenchmarkKill is for how long of ten seconds two hosts answer for the address after its daemon was killed.
func BenchmarkKill(b *testing.B) {
	both(b, "s/two-holders", func(l *pair) float64 {
		l.runs[l.primary].Kill()
		<-time.After(watched)
		return l.doubly()
	}, standard, equal)
}

// BenchmarkCut is the same after a silent partition between the holder and the other members.
func BenchmarkCut(b *testing.B) {
	both(b, "s/two-holders", func(l *pair) float64 {
		l.Part([]string{l.primary}, slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == l.primary }))
		<-time.After(watched)
		return l.doubly()
	}, standard, equal)
}

// doubly is for how long two have answered. There is one probe every wire.Every.
func (l *pair) doubly() float64 { return float64(len(l.probe.Doubles())) * wire.Every.Seconds() }
