//go:build linux

package netns

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"understudy/sidecar/address"
	"understudy/sidecar/boottime"
)

// The gate in these tests is open for gateTime and refreshed every refreshTime, as by default.
const (
	gateTime    = 400 * time.Millisecond
	refreshTime = 100 * time.Millisecond
	// overtime is what a gate may be open too long at most: the life of a ticket and a tick at 250 Hz.
	overtime = 24 * time.Millisecond
)

// keeperFor names the address in the environment of the process that TestKeeperProcess is to be.
const keeperFor = "UNDERSTUDY_TEST_KEEPER"

// TestKeeperProcess is no test: in a process that startKeeper has started it keeps the gate of one address open, and writes
// before each refresh until when.
func TestKeeperProcess(t *testing.T) {
	vip := os.Getenv(keeperFor)
	if vip == "" {
		return
	}
	gates, err := address.Open(gatesLog(t), []address.Spec{lb(netip.MustParsePrefix(vip))})
	must(t, err)
	must(t, gates.Add("lb"))
	for range time.Tick(refreshTime) {
		until := boottime.Now().Add(gateTime)
		fmt.Println(int64(until))
		must(t, gates.Gate("lb", until, false))
	}
}

// keeperProcess is a process of its own that keeps a gate.
type keeperProcess struct {
	*os.Process
	until atomic.Int64 // the newest that it has asked for
	ended chan struct{}
}

func (h *lanHost) startKeeper(vip netip.Prefix) *keeperProcess {
	t := h.lan.t
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKeeperProcess$")
	cmd.Env = append(os.Environ(), keeperFor+"="+vip.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a signal to us is none to it
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, h.Do(cmd.Start)) // a process is born into the namespace of the thread that starts it
	k := &keeperProcess{Process: cmd.Process, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				k.until.Store(n)
			}
		}
		cmd.Wait() // killed, as a rule
	}()
	t.Cleanup(func() {
		if err := k.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-k.ended
	})
	return k
}

// askAlways asks every half millisecond until the end of the test, and keeps the sending time of the newest message that
// was answered: then the gate was still open, so nothing that delays the asking can make the gate look open too long.
func (c *caller) askAlways() *atomic.Int64 {
	newest, sent := &atomic.Int64{}, [1 << 12]atomic.Int64{}
	stop, asked, heard := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		every := time.NewTicker(500 * time.Microsecond)
		defer every.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-every.C:
			}
			n %= len(sent)
			sent[n].Store(int64(boottime.Now()))
			fmt.Fprintf(c.conn, "%d", n)
		}
	}()
	go func() {
		defer close(heard)
		buf := make([]byte, 16)
		for {
			size, err := c.conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if n, bad := strconv.Atoi(string(buf[:size])); err == nil && bad == nil && n < len(sent) {
				newest.Store(max(newest.Load(), sent[n].Load()))
			}
		}
	}()
	c.conn.SetReadDeadline(time.Time{})
	c.t.Cleanup(func() {
		close(stop)
		<-asked
		c.conn.SetReadDeadline(time.Unix(1, 0))
		<-heard
	})
	return newest
}

// kept is a gate that is kept by a process, with a client that always asks.
func kept(t *testing.T, vip netip.Prefix) (*keeperProcess, *atomic.Int64) {
	l := newLAN(t)
	node, client := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("client", "10.9.0.3/24", "fd00:9::3/64")
	at := netip.AddrPortFrom(vip.Addr(), 7)
	node.echo(at)
	k := node.startKeeper(vip)
	c := client.caller(netip.Addr{}, at)
	c.soonAnswered("the process keeps the gate open")
	answered := c.askAlways()
	first := int64(boottime.Now())
	until(t, "the gate has been refreshed for a while", func() bool {
		return answered.Load() > first+int64(3*refreshTime)
	})
	return k, answered
}

// closes waits until nothing has been answered for a while, and checks when that began.
func closes(t *testing.T, k *keeperProcess, answered *atomic.Int64) {
	t.Helper()
	until(t, "nothing is answered", func() bool {
		return int64(boottime.Now())-answered.Load() > int64(3*gateTime)
	})
	late := time.Duration(answered.Load() - k.until.Load())
	if late > overtime {
		t.Errorf("the gate was open %v longer than its keeper had asked for; at most %v are allowed", late, overtime)
	}
	if late < -refreshTime-gateTime/10 {
		t.Errorf("the gate closed %v too soon", -late)
	}
	t.Logf("last answer %v after the gate should have closed", late)
}

func TestGateOfAKilledProcessCloses(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		k, answered := kept(t, vip)
		must(t, k.Kill())
		<-k.ended
		closes(t, k, answered)
	})
}

func TestGateOfAStoppedProcessClosesAndOpensAgain(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		k, answered := kept(t, vip)
		must(t, k.Signal(syscall.SIGSTOP))
		closes(t, k, answered)
		before := answered.Load()
		must(t, k.Signal(syscall.SIGCONT))
		until(t, "the gate is open again when its keeper goes on", func() bool { return answered.Load() > before })
	})
}

// An address that a killed process has left on its interface answers nobody, and its successor starts closed.
func TestSuccessorOfAKilledProcessStartsClosed(t *testing.T) {
	l := newLAN(t)
	node, client := l.host("node", "10.9.0.1/24"), l.host("client", "10.9.0.3/24")
	at := netip.AddrPortFrom(vip4.Addr(), 7)
	received := node.echo(at)
	k := node.startKeeper(vip4)
	c := client.caller(netip.Addr{}, at)
	c.soonAnswered("the process keeps the gate open")
	must(t, k.Kill())
	<-k.ended
	gates := node.keeper(lb(vip4)) // the gate would still be open for a while
	before := received.Load()
	if c.answered(quietTime) || received.Load() != before {
		t.Error("the successor has taken the gate over open")
	}
	if there, err := gates.Present("lb"); !there || err != nil {
		t.Errorf("the address has gone: %v", err)
	}
	must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
	c.soonAnswered("the gate is open")
	must(t, gates.Drop("lb"))
	must(t, gates.Drop("lb")) // once more is no error
	if there, err := gates.Present("lb"); there || err != nil {
		t.Errorf("the address is still there: %v", err)
	}
}
