//go:build linux

// Package sidecars runs real sidecars, as built, on the hosts of a small network, with all that a cluster keeps outside of
// its nodes: for the tests and benchmarks that hold them to their promises.
package sidecars

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/sidecar/ledger/sigv4"
	"understudy/tests/netns/wire"
)

// Address is what moves.
var Address = netip.MustParsePrefix("10.9.0.100/16")

// Cluster is sidecars, as built, of one role with an address on the link, and a prober on a host of its own.
type Cluster struct {
	*wire.Wire
	Dir     string // of all files; a node's state lies in one of its host's name
	Nodes   []string
	Runs    map[string]*wire.Process // by host
	Probe   *wire.Prober
	Primary string             // who answered when New returned
	Standby string             // who comes next: the first of the others
	Store   *objectstore.Store // nil: there is no ledger

	t      testing.TB
	member secrets.Membership              // what a node has by having joined
	keys   sigv4.Keys                      // of the store
	zone   *wire.Process                   // the name server; nil: there is none
	clocks sync.Map                        // time.Duration by netip.Addr, see StepClock
	watch  func(http.Handler) http.Handler // who looks on at what is asked of servers
}

// Setup is what a scenario's cluster has besides three nodes. The zero value: nothing.
type Setup struct {
	Roster string   // more of roles.yaml
	Nodes  []string // other ones than n1, n2 and n3
	Ledger bool     // an object store at the host store
	DNS    bool     // a name server (Knot) at the host names

	tokens map[string]secrets.Secret // of providers
}

// New starts the sidecars and waits until one answers on the address, has for a while, and all have voted.
func New(t testing.TB, s Setup) *Cluster {
	t.Helper()
	if s.Nodes == nil {
		s.Nodes = []string{"n1", "n2", "n3"}
	}
	c := &Cluster{t: t, Dir: t.TempDir(), Nodes: s.Nodes, Runs: map[string]*wire.Process{}, watch: func(h http.Handler) http.Handler { return h }}
	c.Wire = wire.New(t, append(slices.Clone(c.Nodes), "client", "store", "names")...)
	roster := c.keep(s)
	c.write("roles.yaml", fmt.Sprintf(`cluster: test
domain: test.example
provider: {local: {region: r, size: s, image: i}}
%sroles:
  lb:
    nodes: [%s]
    address: {vip: %s, interface: %s, names: [www]}
`, roster, strings.Join(c.Nodes, ", "), Address, wire.Interface))
	c.Probe = c.Host("client").Probe(t, Address.Addr())
	// The first one alone, so that it is there before the others can ask for the duty: on a busy machine any might be first.
	for i, n := range c.Nodes {
		c.Start(n)
		if i == 0 {
			wire.Eventually(t, 20*time.Second, func() error { return c.turned(n) })
		}
	}
	c.Settle()
	return c
}

func (c *Cluster) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// Start runs a node's sidecar on the host of its name.
func (c *Cluster) Start(name string) { c.StartAs(name, name) }

// StartAs runs a node's sidecar on a host.
func (c *Cluster) StartAs(name, host string) {
	c.t.Helper()
	var peers []string
	for _, n := range c.Nodes {
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
`, name, c.Dir, c.Dir, c.Dir, host, c.Dir, host, c.Host(host).Addr, host, strings.Join(peers, ", ")))
	c.join(host)
	cmd := exec.Command(program(c.t), "run", "--config", path)
	cmd.Env = []string{"LANG=C.UTF-8"}
	c.Runs[host] = c.Host(host).Start(host, cmd)
}

// Settle waits until every node votes and the address has stayed where it is for a while.
func (c *Cluster) Settle() {
	c.t.Helper()
	wire.Eventually(c.t, 10*time.Second, func() error {
		for _, n := range c.Nodes {
			if err := c.voted(n); err != nil {
				return err
			}
		}
		return nil
	})
	c.Primary = c.Probe.AtRest(time.Second, 15*time.Second)
	c.Standby = slices.DeleteFunc(slices.Clone(c.Nodes), func(n string) bool { return n == c.Primary })[0]
}

// turned says whether a node's loop has turned: then its memory is there.
func (c *Cluster) turned(name string) error {
	if c.State(name) == "" {
		return fmt.Errorf("%s has not turned", name)
	}
	return nil
}

// voted says whether a node has ever voted.
func (c *Cluster) voted(name string) error {
	if !strings.Contains(c.State(name), `"boot"`) { // it is written with the first vote
		return fmt.Errorf("%s has not voted", name)
	}
	return nil
}

// Single checks that at no instant two nodes have answered.
func (c *Cluster) Single() {
	c.t.Helper()
	if found := c.Probe.Doubles(); len(found) > 0 {
		c.t.Errorf("%d probes were answered twice, such as:\n%s", len(found), strings.Join(found[:min(5, len(found))], "\n"))
	}
}

// Stays checks that the address stays at a host for a while, whoever may look on.
func (c *Cluster) Stays(host string, d time.Duration) {
	c.t.Helper()
	since := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	if got := c.Probe.Holders(since); !slices.Equal(got, []string{host}) {
		c.t.Errorf("in %v the address was at %v, want at %s", d, got, host)
	}
}

// Others are the nodes without the primary, the first standby in front.
func (c *Cluster) Others() []string {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n string) bool { return n == c.Primary })
}

// Tidy runs what systemd runs after a sidecar's end, on the host of a node.
func (c *Cluster) Tidy(name string) (string, error) {
	cmd := exec.Command(program(c.t), "run", "--tidy", "--config", filepath.Join(c.Dir, name, "sidecar.yaml"))
	cmd.Env = []string{"LANG=C.UTF-8"}
	var out []byte
	err := c.Host(name).NS.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	return string(out), err
}

// program is understudy, as built.
func program(t testing.TB) string {
	t.Helper()
	return filepath.Join(wire.Program(t, "UNDERSTUDY_BUILD", "the directory with the built programs"), "understudy")
}
