//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/tests/netns/wire"
)

// shared is the address that these scenarios move.
var shared = netip.MustParsePrefix("10.9.0.100/16")

// cluster is three sidecars, as built, of one role with an address on the link, and a prober on a host of its own.
type cluster struct {
	*wire.Wire
	t       *testing.T
	dir     string
	timings string
	nodes   []string
	runs    map[string]*wire.Process
	probe   *wire.Prober
	primary string // who answers when newCluster returns
	standby string // who comes next: the first of the others
}

// newCluster starts the sidecars and waits until one answers on the address, has for a while, and all have voted.
func newCluster(t *testing.T, extra string) *cluster {
	t.Helper()
	c := &cluster{Wire: wire.New(t, "n1", "n2", "n3", "client"), t: t, dir: t.TempDir(), nodes: []string{"n1", "n2", "n3"}, runs: map[string]*wire.Process{}}
	c.write("key", strings.Repeat("k", 64))
	c.write("roles.yaml", fmt.Sprintf(`cluster: test
domain: test.example
provider: {local: {region: r, size: s, image: i}}
roles:
  lb:
    nodes: n[1-3]
    address: {vip: %s, interface: %s}
%s`, shared, wire.Interface, extra))
	c.probe = c.Host("client").Probe(t, shared.Addr())
	for _, n := range c.nodes {
		c.start(n)
	}
	c.settle()
	return c
}

func (c *cluster) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// start runs a node's sidecar.
func (c *cluster) start(name string) {
	c.t.Helper()
	var peers []string
	for _, n := range c.nodes {
		if n != name {
			peers = append(peers, fmt.Sprintf("%s: %s", n, c.Host(n).Addr))
		}
	}
	path := c.write(name+"/sidecar.yaml", fmt.Sprintf(`node: %s
roster: %s/roles.yaml
cluster_key_file: %s/key
state: %s/%s
socket: %s/%s/sock
listen: {beats: "%s:7946", admin: none, names: none}
metadata: none
peers: {%s}
`, name, c.dir, c.dir, c.dir, name, c.dir, name, c.Host(name).Addr, strings.Join(peers, ", ")))
	cmd := exec.Command(filepath.Join(wire.Program(c.t, "UNDERSTUDY_BUILD", "the directory with the built programs"), "understudy"), "run", "--config", path)
	cmd.Env = []string{"LANG=C.UTF-8"}
	c.runs[name] = c.Host(name).Start(name, cmd)
}

// settle waits until every node votes and the address has stayed where it is for a while.
func (c *cluster) settle() {
	c.t.Helper()
	wire.Eventually(c.t, 10*time.Second, func() error {
		for _, n := range c.nodes {
			text, err := os.ReadFile(filepath.Join(c.dir, n, "sidecar.json"))
			if err != nil {
				return err
			}
			if !strings.Contains(string(text), `"boot"`) { // it is written with the first vote
				return fmt.Errorf("%s has not voted", n)
			}
		}
		return nil
	})
	now, since := "", time.Now()
	wire.Eventually(c.t, 10*time.Second, func() error {
		if is := c.probe.Now(); is != now || now == "" {
			now, since = is, time.Now()
		}
		if time.Since(since) < time.Second {
			return fmt.Errorf("the address is not at rest")
		}
		return nil
	})
	c.primary = now
	c.standby = slices.DeleteFunc(slices.Clone(c.nodes), func(n string) bool { return n == now })[0]
}

// single checks that at no instant two nodes have answered.
func (c *cluster) single() {
	c.t.Helper()
	if found := c.probe.Doubles(); len(found) > 0 {
		c.t.Errorf("%d probes were answered twice, such as:\n%s", len(found), strings.Join(found[:min(5, len(found))], "\n"))
	}
}

// stays checks that the address stays at a host for a while, whoever may look on.
func (c *cluster) stays(host string, d time.Duration) {
	c.t.Helper()
	since := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	if got := c.probe.Holders(since); !slices.Equal(got, []string{host}) {
		c.t.Errorf("in %v the address was at %v, want at %s", d, got, host)
	}
}

func TestAStandbyTakesOverFromALostNode(t *testing.T) {
	c := newCluster(t, "")
	lost := time.Now()
	c.Host(c.primary).Unplug()
	first, last := c.probe.Await(c.standby, lost, 5*time.Second)
	took := first.Sub(lost)
	t.Logf("answered again after %v; the last answer before came %v after the loss", took, last.Sub(lost))
	if took > time.Second {
		t.Errorf("took %v, want at most a second", took)
	}
	c.single()
}

func TestTheGateClosesByItselfWhenTheSidecarIsKilled(t *testing.T) {
	c := newCluster(t, "")
	killed := time.Now()
	c.runs[c.primary].Kill()
	first, last := c.probe.Await(c.standby, killed, 5*time.Second)
	t.Logf("answered for %v more, the other from %v on", last.Sub(killed), first.Sub(killed))
	if open := last.Sub(killed); open > 500*time.Millisecond {
		t.Errorf("answered for %v without its sidecar, want at most 500ms", open)
	}
	c.single()
	c.start(c.primary)
	c.stays(c.standby, 3*time.Second)
	c.single()
}

func TestAShortPauseIsNoFailure(t *testing.T) {
	c := newCluster(t, "")
	began := time.Now()
	c.runs[c.primary].Signal(t, syscall.SIGSTOP)
	<-time.After(400 * time.Millisecond)
	c.runs[c.primary].Signal(t, syscall.SIGCONT)
	c.stays(c.primary, 2*time.Second)
	if got := c.probe.Holders(began); !slices.Equal(got, []string{c.primary}) {
		t.Errorf("the address was at %v, want at %s alone", got, c.primary)
	}
	c.single()
}

func TestALongPauseIsAFailureAndHarmsNobody(t *testing.T) {
	c := newCluster(t, "")
	began := time.Now()
	c.runs[c.primary].Signal(t, syscall.SIGSTOP)
	c.probe.Await(c.standby, began, 5*time.Second)
	<-time.After(3*time.Second - time.Since(began))
	c.runs[c.primary].Signal(t, syscall.SIGCONT)
	c.stays(c.standby, 3*time.Second)
	c.single()
}

func TestACleanStopMovesTheAddressAtOnce(t *testing.T) {
	c := newCluster(t, "")
	began := time.Now()
	c.runs[c.primary].Signal(t, syscall.SIGTERM)
	first, last := c.probe.Await(c.standby, began, 5*time.Second)
	c.stays(c.standby, 200*time.Millisecond)
	gap := c.probe.Gap(began, first.Add(150*time.Millisecond))
	t.Logf("the other answers after %v, the longest silence is %v", first.Sub(began), gap)
	if gap > 50*time.Millisecond || last.After(first) {
		t.Errorf("silent for %v, want at most 50ms", gap)
	}
	if err := c.runs[c.primary].Ended(t, 5*time.Second); err != nil {
		t.Errorf("the sidecar ended with %v", err)
	}
	c.single()
}
