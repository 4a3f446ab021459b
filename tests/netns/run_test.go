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

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/tests/netns/wire"
)

// shared is the address that these scenarios move.
var shared = netip.MustParsePrefix("10.9.0.100/16")

// cluster is sidecars, as built, of one role with an address on the link, and a prober on a host of its own.
type cluster struct {
	*wire.Wire
	t       *testing.T
	dir     string
	nodes   []string
	runs    map[string]*wire.Process
	probe   *wire.Prober
	primary string             // who answers when newCluster returns
	standby string             // who comes next: the first of the others
	member  secrets.Membership // what a node has by having joined
	store   *objectstore.Store // nil: there is no ledger
	zone    *wire.Process      // the name server; nil: there is none
}

// setup is what a scenario's cluster has besides three nodes. The zero value: nothing.
type setup struct {
	roster string   // more of roles.yaml
	nodes  []string // other ones than n1, n2 and n3
	ledger bool     // an object store at the host store
	dns    bool     // a name server (Knot) at the host names
}

// newCluster starts the sidecars and waits until one answers on the address, has for a while, and all have voted.
func newCluster(t *testing.T, s setup) *cluster {
	t.Helper()
	if s.nodes == nil {
		s.nodes = []string{"n1", "n2", "n3"}
	}
	c := &cluster{t: t, dir: t.TempDir(), nodes: s.nodes, runs: map[string]*wire.Process{}}
	c.Wire = wire.New(t, append(slices.Clone(c.nodes), "client", "store", "names")...)
	roster := c.keep(s)
	c.write("roles.yaml", fmt.Sprintf(`cluster: test
domain: test.example
provider: {local: {region: r, size: s, image: i}}
%sroles:
  lb:
    nodes: [%s]
    address: {vip: %s, interface: %s, names: [www]}
`, roster, strings.Join(c.nodes, ", "), shared, wire.Interface))
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

// start runs a node's sidecar on the host of its name.
func (c *cluster) start(name string) { c.startAs(name, name) }

// startAs runs a node's sidecar on a host.
func (c *cluster) startAs(name, host string) {
	c.t.Helper()
	var peers []string
	for _, n := range c.nodes {
		if n != name {
			peers = append(peers, fmt.Sprintf("%s: %s", n, c.Host(n).Addr))
		}
	}
	path := c.write(host+"/sidecar.yaml", fmt.Sprintf(`node: %s
roster: %s/roles.yaml
secrets: %s/secrets.age
state: %s/%s
socket: %s/%s/sock
listen: {beats: "%s:7946", admin: none, names: none}
metadata: none
machine_id: m-%s
peers: {%s}
`, name, c.dir, c.dir, c.dir, host, c.dir, host, c.Host(host).Addr, host, strings.Join(peers, ", ")))
	c.join(host)
	cmd := exec.Command(filepath.Join(wire.Program(c.t, "UNDERSTUDY_BUILD", "the directory with the built programs"), "understudy"), "run", "--config", path)
	cmd.Env = []string{"LANG=C.UTF-8"}
	c.runs[host] = c.Host(host).Start(host, cmd)
}

// settle waits until every node votes and the address has stayed where it is for a while.
func (c *cluster) settle() {
	c.t.Helper()
	wire.Eventually(c.t, 10*time.Second, func() error {
		for _, n := range c.nodes {
			if !strings.Contains(c.state(n), `"boot"`) { // it is written with the first vote
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
	c := newCluster(t, setup{})
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
	c := newCluster(t, setup{})
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
	c := newCluster(t, setup{})
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
	c := newCluster(t, setup{})
	began := time.Now()
	c.runs[c.primary].Signal(t, syscall.SIGSTOP)
	c.probe.Await(c.standby, began, 5*time.Second)
	<-time.After(3*time.Second - time.Since(began))
	c.runs[c.primary].Signal(t, syscall.SIGCONT)
	c.stays(c.standby, 3*time.Second)
	c.single()
}

func TestACleanStopMovesTheAddressAtOnce(t *testing.T) {
	c := newCluster(t, setup{})
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
