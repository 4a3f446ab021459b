//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cloud/localcloud/netns"
)

// fleet is a number of members of one kind, a process each, in a network namespace of their own.
type fleet struct {
	b       *testing.B
	ns      *netns.Namespace
	name    string
	members []*memberProcess
	burners []*memberProcess
	events  chan event
	readers errgroup.Group
}

// memberProcess is this test binary as one member, see TestMembershipNode.
type memberProcess struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	at   netip.AddrPort
	dead bool
}

// event is a line that a member has written.
type event struct {
	member, word, rest string
	at                 time.Time
}

// startFleet starts members of a kind and waits until each knows all others.
func startFleet(b *testing.B, kind string, size int) *fleet {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Fatal("these benchmarks run in a network namespace of their own, as root: run them with make bench")
	}
	f := &fleet{b: b, name: fmt.Sprintf("members%d", os.Getpid()), events: make(chan event, 4096)}
	ns, err := netns.Create(f.name)
	if err != nil {
		b.Fatal(err)
	}
	f.ns = ns
	b.Cleanup(f.stop)
	for i := range size {
		m := f.start(kind, fmt.Sprintf("m%02d", i))
		f.members = append(f.members, m)
	}
	f.await("where it listens", size, func(e event) bool {
		if e.word != "at" {
			return false
		}
		f.member(e.member).at = netip.MustParseAddrPort(e.rest)
		return true
	})
	var all []string
	for _, m := range f.members {
		all = append(all, m.name+"="+m.at.String())
	}
	for _, m := range f.members {
		f.tell(m, "join "+strings.Join(all, ","))
	}
	f.await("all others alive", size, func(e event) bool { return e.word == "ready" })
	return f
}

// start runs this binary inside the namespace.
func (f *fleet) start(kind, name string) *memberProcess {
	f.b.Helper()
	m := &memberProcess{name: name, cmd: exec.Command("/proc/self/exe", "-test.run=^TestMembershipNode$", "-test.timeout=1h")}
	m.cmd.Env = append(os.Environ(), "UNDERSTUDY_MEMBER="+kind+" "+name)
	m.cmd.Stderr = os.Stderr
	in, err := m.cmd.StdinPipe()
	if err != nil {
		f.b.Fatal(err)
	}
	m.in = in
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		f.b.Fatal(err)
	}
	if err := f.ns.Do(m.cmd.Start); err != nil {
		f.b.Fatal(err)
	}
	f.readers.Go(func() error {
		for s := bufio.NewScanner(out); s.Scan(); {
			word, rest, _ := strings.Cut(s.Text(), " ")
			f.events <- event{member: name, word: word, rest: rest, at: time.Now()}
		}
		return nil
	})
	return m
}

func (f *fleet) member(name string) *memberProcess {
	return f.members[slices.IndexFunc(f.members, func(m *memberProcess) bool { return m.name == name })]
}

func (f *fleet) tell(m *memberProcess, line string) {
	f.b.Helper()
	if _, err := fmt.Fprintln(m.in, line); err != nil {
		f.b.Fatalf("tell %s: %v", m.name, err)
	}
}

// await reads events until count of them are what is waited for, and returns when the last of those came.
func (f *fleet) await(what string, count int, is func(event) bool) time.Time {
	f.b.Helper()
	deadline := time.After(5 * time.Minute)
	for {
		select {
		case e := <-f.events:
			if is(e) {
				if count--; count == 0 {
					return e.at
				}
			}
		case <-deadline:
			f.b.Fatalf("waited for 5 minutes: %s, from %d more", what, count)
		}
	}
}

// kill ends members all at once, without a word to anybody.
func (f *fleet) kill(members []*memberProcess) {
	for _, m := range members {
		if err := m.cmd.Process.Kill(); err != nil {
			f.b.Fatalf("kill %s: %v", m.name, err)
		}
		m.dead = true
	}
}

// stop ends everything. It may be called again.
func (f *fleet) stop() {
	all := slices.Concat(f.members, f.burners)
	for _, m := range all {
		_ = m.cmd.Process.Kill() // it may be dead already
	}
	ctx, cancel := context.WithCancel(context.Background())
	var drain errgroup.Group
	drain.Go(func() error { // so that no reader hangs on a full channel
		for {
			select {
			case <-f.events:
			case <-ctx.Done():
				return nil
			}
		}
	})
	_ = f.readers.Wait() // they return nothing else than nil
	cancel()
	_ = drain.Wait()
	for _, m := range all {
		_ = m.cmd.Wait() // killed, and says so
	}
	f.members, f.burners = nil, nil
	if f.ns == nil {
		return
	}
	if err := errors.Join(f.ns.Close(), netns.Remove(f.name)); err != nil {
		f.b.Error(err)
	}
	f.ns = nil
}

// lose drops a share of all packets in the namespace, both sides' TCP included.
func (f *fleet) lose(percent int) {
	f.b.Helper()
	rules := fmt.Sprintf("table inet loss { chain in { type filter hook input priority 0; iif lo numgen random mod 100 < %d drop; }; }", percent)
	if err := f.ns.Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft: %w\n%s", err, out)
		}
		return nil
	}); err != nil {
		f.b.Fatal(err)
	}
}

// burn starts as many processes that do nothing but count as there are processors.
func (f *fleet) burn(processors int) {
	for i := range processors {
		f.burners = append(f.burners, f.start("burner", fmt.Sprintf("burner%d", i)))
	}
}

// count counts the events of a kind in a time.
func (f *fleet) count(word string, d time.Duration) (count int) {
	end := time.After(d)
	for {
		select {
		case e := <-f.events:
			if e.word == word {
				count++
			}
		case <-end:
			return count
		}
	}
}

// cost is what members have used up.
type cost struct {
	cpu            time.Duration // of all members
	packets, bytes float64       // that crossed the namespace's loopback interface
}

// cost asks every living member for its CPU time and the kernel for the traffic.
func (f *fleet) cost() (c cost) {
	f.b.Helper()
	for _, m := range f.members {
		f.tell(m, "usage")
	}
	f.await("its CPU time", len(f.members), func(e event) bool {
		if e.word != "usage" {
			return false
		}
		ns, err := strconv.ParseInt(e.rest, 10, 64)
		if err != nil {
			f.b.Fatal(err)
		}
		c.cpu += time.Duration(ns)
		return true
	})
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", f.members[0].cmd.Process.Pid))
	if err != nil {
		f.b.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		name, counters, _ := strings.Cut(string(line), ":")
		if fields := strings.Fields(counters); strings.TrimSpace(name) == "lo" && len(fields) == 16 { // proc_net_dev(5)
			c.bytes, _ = strconv.ParseFloat(fields[8], 64)
			c.packets, _ = strconv.ParseFloat(fields[9], 64)
			return c
		}
	}
	f.b.Fatal("the namespace has no loopback interface")
	return c
}

// BenchmarkMembership compares how members come to know who is there. Ours is the mesh with the production verdicts at the
// default timings, theirs is memberlist with the defaults that it has for local networks.
func BenchmarkMembership(b *testing.B) {
	for _, story := range []struct {
		name string
		tell func(b *testing.B, kind string)
	}{
		{"one-of-8-lost", func(b *testing.B, kind string) { lost(b, kind, 1) }},
		{"7-of-8-lost", func(b *testing.B, kind string) { lost(b, kind, 7) }},
		{"loss=20%", lossy},
		{"rest=8", func(b *testing.B, kind string) { atRest(b, kind, 8) }},
		{"rest=32", func(b *testing.B, kind string) { atRest(b, kind, 32) }},
	} {
		b.Run(story.name, func(b *testing.B) {
			for _, kind := range []string{"understudy", "memberlist"} {
				b.Run(kind, func(b *testing.B) { story.tell(b, kind) })
			}
		})
	}
}

// lost is the time from the death of some of eight until each survivor knows of each of them.
func lost(b *testing.B, kind string, victims int) {
	var total time.Duration
	for range b.N {
		f := startFleet(b, kind, 8)
		f.count("", time.Second+time.Duration(os.Getpid()%100)*time.Millisecond) // at any point of a beat
		begin := time.Now()
		f.kill(f.members[:victims])
		known := f.await("the dead", victims*(8-victims), func(e event) bool {
			return e.word == "dead" && f.member(e.rest).dead && !f.member(e.member).dead
		})
		total += known.Sub(begin)
		f.stop()
	}
	b.ReportMetric(total.Seconds()/float64(b.N), "s/known")
	b.ReportMetric(0, "ns/op")
}

// lossy counts how often a living member is called dead, by anybody, in a minute in which a fifth of all packets is lost and
// every processor is busy with something else.
func lossy(b *testing.B, kind string) {
	deaths := 0
	for range b.N {
		f := startFleet(b, kind, 8)
		f.burn(2)
		f.lose(20)
		deaths += f.count("dead", time.Minute)
		f.stop()
	}
	b.ReportMetric(float64(deaths)/float64(b.N), "deaths/min")
	b.ReportMetric(0, "ns/op")
}

// atRest is what membership costs while nothing happens.
func atRest(b *testing.B, kind string, size int) {
	const window = 20 * time.Second
	var total cost
	for range b.N {
		f := startFleet(b, kind, size)
		f.count("", 2*time.Second) // the beginning is over
		before := f.cost()
		f.count("", window)
		after := f.cost()
		total.cpu += after.cpu - before.cpu
		total.packets += after.packets - before.packets
		total.bytes += after.bytes - before.bytes
		f.stop()
	}
	each := window.Seconds() * float64(b.N) * float64(size)
	b.ReportMetric(100*total.cpu.Seconds()/each, "%core/member")
	b.ReportMetric(total.packets/each, "packets/s/member")
	b.ReportMetric(total.bytes/1000/each, "kB/s/member")
	b.ReportMetric(0, "ns/op")
}
