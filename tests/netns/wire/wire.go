//go:build linux

// Package wire is a small network for tests: hosts, each a network namespace of its own, on one bridge; programs that run in
// them; partitions and loss; and a prober on a host of its own, which asks every millisecond who answers on an address.
//
// It needs root. Whatever an earlier run has left, because it was killed, is removed by the next one.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"

	"understudy/sidecar/cloud/localcloud/netns"
)

// prefix begins the name of every namespace made here; the pid of its maker follows.
const prefix = "understudy-wire-"

// Interface is every host's one interface.
const Interface = "eth0"

// Network is the link that all hosts are on.
var Network = netip.MustParsePrefix("10.9.0.0/16")

// Wire is one bridge with hosts.
type Wire struct {
	t      testing.TB
	hub    *netns.Namespace
	hosts  map[string]*Host
	logs   string // the directory of what programs print
	serial atomic.Int64
	number int64
}

// wires counts them, so that each has namespaces of its own.
var wires atomic.Int64

// Host is one machine of the network.
type Host struct {
	Name string
	Addr netip.Addr
	MAC  net.HardwareAddr
	NS   *netns.Namespace
	wire *Wire
}

// New makes a network with these hosts, which have the addresses 10.9.0.1, 10.9.0.2, … in their order. It goes with the test.
func New(t testing.TB, hosts ...string) *Wire {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	sweep(t)
	l := &Wire{t: t, hosts: map[string]*Host{}, logs: t.TempDir(), number: wires.Add(1)}
	l.hub = l.namespace("hub")
	for i, name := range hosts {
		l.join(name, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}))
	}
	return l
}

// namespace makes one that goes with the test.
func (l *Wire) namespace(name string) *netns.Namespace {
	l.t.Helper()
	full := fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), l.number, name)
	n, err := netns.Create(full)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := errors.Join(n.Close(), netns.Remove(full)); err != nil {
			l.t.Error(err)
		}
	})
	return n
}

// join adds a host to the bridge.
func (l *Wire) join(name string, addr netip.Addr) {
	l.t.Helper()
	h := &Host{Name: name, Addr: addr, NS: l.namespace(name), wire: l}
	inside, err := vns.GetFromPath(netns.Path(h.NS.Name))
	if err != nil {
		l.t.Fatal(err)
	}
	defer inside.Close()
	err = l.hub.Do(func() error {
		bridge, err := netlink.LinkByName(netns.Bridge)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = port(name), bridge.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: Interface, PeerNamespace: netlink.NsFd(inside)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make the link of %s: %w", name, err)
		}
		return netlink.LinkSetUp(veth)
	})
	if err == nil {
		err = h.NS.Do(h.configure)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.hosts[name] = h
}

// configure runs inside the host.
func (h *Host) configure() error {
	link, err := netlink.LinkByName(Interface)
	if err != nil {
		return err
	}
	h.MAC = link.Attrs().HardwareAddr
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: h.Addr.AsSlice(), Mask: net.CIDRMask(Network.Bits(), 32)}}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

func port(host string) string { return "p-" + host }

// Host returns a host by its name.
func (l *Wire) Host(name string) *Host {
	h := l.hosts[name]
	if h == nil {
		l.t.Fatalf("there is no host %s", name)
	}
	return h
}

// Cut drops all frames from one host to another. Cut both ways is a partition.
func (l *Wire) Cut(from, to string) {
	l.t.Helper()
	l.must(l.hub.Cut(port(from), port(to)))
}

// Part cuts every pair of hosts of different groups, both ways.
func (l *Wire) Part(groups ...[]string) {
	l.t.Helper()
	for i, group := range groups {
		for j, other := range groups {
			if i == j {
				continue
			}
			for _, from := range group {
				for _, to := range other {
					l.Cut(from, to)
				}
			}
		}
	}
}

// Heal takes all cuts and losses back.
func (l *Wire) Heal() {
	l.t.Helper()
	l.must(l.hub.Heal())
}

// Lose drops a share of all frames between hosts, in percent, at random.
func (l *Wire) Lose(percent int) {
	l.t.Helper()
	rules := fmt.Sprintf("table bridge loss {\n chain forward {\n  type filter hook forward priority 10;\n  numgen random mod 100 < %d drop\n }\n}\n", percent)
	l.must(l.hub.Do(func() error {
		cmd := exec.Command("/usr/sbin/nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w\n%s", err, out)
		}
		return nil
	}))
}

// Unplug takes the host's cable out.
func (h *Host) Unplug() {
	h.wire.t.Helper()
	h.wire.must(h.wire.hub.SetPort(port(h.Name), false))
}

func (l *Wire) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// Process is a program that runs in a host.
type Process struct {
	Cmd  *exec.Cmd
	Log  string // the file with what it prints
	done chan struct{}
	err  error
}

// Start runs a program in the host. At the end of the test it is killed.
func (h *Host) Start(name string, cmd *exec.Cmd) *Process {
	h.wire.t.Helper()
	p, err := h.Run(name, cmd)
	h.wire.must(err)
	return p
}

// Run is Start for other goroutines than the test's own, which must not end the test.
func (h *Host) Run(name string, cmd *exec.Cmd) (*Process, error) {
	t := h.wire.t
	p := &Process{Cmd: cmd, Log: filepath.Join(h.wire.logs, fmt.Sprintf("%s-%d.log", name, h.wire.serial.Add(1))), done: make(chan struct{})}
	log, err := os.Create(p.Log)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	err = h.NS.Do(cmd.Start)
	log.Close()
	if err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(p.Log)
			t.Logf("log of %s:\n%s", name, text)
		}
	})
	return p, nil
}

// Kill ends the process and its children, which cannot do anything about it, and waits for its end.
func (p *Process) Kill() {
	if p.Over() {
		return
	}
	_ = syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	_ = syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGCONT)
	<-p.done
}

// Over says whether the process has ended.
func (p *Process) Over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Signal sends the process a signal.
func (p *Process) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Ended waits for the process' end and returns its error.
func (p *Process) Ended(t testing.TB, within time.Duration) error {
	t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(within):
		t.Fatalf("still runs after %v", within)
		return nil
	}
}

// Eventually asks until it gets no error, and fails the test if that takes too long.
func Eventually(t testing.TB, within time.Duration, ask func() error) {
	t.Helper()
	EventuallyEvery(t, 5*time.Millisecond, within, ask)
}

// EventuallyEvery is Eventually with a pause between two questions, for those that cost something.
func EventuallyEvery(t testing.TB, pause, within time.Duration, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", within, err)
		case <-tick.C:
		}
	}
}

// sweep removes what tests that were killed have left.
func sweep(t testing.TB) {
	entries, err := os.ReadDir(netns.Dir)
	if err != nil {
		return // no namespace was ever named here
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix)
		id, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(id)
		if !ours || err != nil || pid == os.Getpid() || syscall.Kill(pid, 0) == nil {
			continue
		}
		endThoseIn(netns.Path(e.Name()))
		if err := netns.Remove(e.Name()); err != nil {
			t.Log(err)
		}
	}
}

// endThoseIn kills the processes that run in a namespace: they are of a test that is no more.
func endThoseIn(path string) {
	var want, got syscall.Stat_t
	if syscall.Stat(path, &want) != nil {
		return
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if syscall.Stat(dir+"/ns/net", &got) == nil && got.Ino == want.Ino && got.Dev == want.Dev {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// Text is what the process has printed so far.
func (p *Process) Text() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
