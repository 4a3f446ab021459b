//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// spareRoles is a small roster: two roles, without data.
const spareRoles = `cluster: spare
domain: spare.example
provider:
  digitalocean: {region: lon1, size: s-1vcpu-1gb, image: understudy-base}
ledger:
  s3: {endpoint: https://s3.example, bucket: spare-understudy}
dns:
  - digitalocean: {zone: spare.example}
roles:
  lb:
    nodes: lb[1-3]
    address: {reserved_ip: 203.0.113.10, names: ["@"]}
    health: {units: [haproxy.service], http: http://127.0.0.1:8404/healthz}
  web:
    nodes: web[1-2]
    health: {units: [nginx.service], tcp: 127.0.0.1:80}
`

// spareWeb takes the place of role::web: no package of the cluster's own, and a word for every request.
const spareWeb = `class role::web {
  contain profile::base
  class { 'profile::nginx':
    servers => "server { listen 80 default_server; location / { return 200 \"spare\\n\"; } }\n",
  }
  contain profile::nginx
}
`

// spareCluster brings up a cluster that is redundant.
func spareCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	for _, tree := range []string{"puppet", "systemd"} {
		if err := os.CopyFS(filepath.Join(dir, tree), os.DirFS(filepath.Join(repo(t), tree))); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"roles.yaml": spareRoles, "puppet/site-modules/role/manifests/web.pp": spareWeb, "puppet/secrets.yaml": "{}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{name: fmt.Sprintf("spare%d", os.Getpid())}
	t.Cleanup(func() {
		if out, err := try(t, "local", "down", "--name", c.name); err != nil {
			t.Errorf("take the cluster down: %v\n%s", err, out)
		}
	})
	t.Log(understudy(t, "local", "up", "--name", c.name, "--repo", dir, cacheFlag()))
	understudy(t, "status", "--local", c.name, "--wait", "redundant", "--timeout", "1m")
	return c
}

// refused runs chaos where it must refuse, and returns what it said.
func (c *cluster) refused(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try(t, append([]string{"chaos", "--local", c.name}, args...)...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out, "refused, and nothing was changed: ") {
		t.Errorf("chaos %v: got %v, want a refusal with status 3\n%s", args, err, out)
	}
	return out
}

// mayGo waits until nothing speaks against chaos, and returns what a dry run says: a replacement is closed a moment after the
// cluster is redundant.
func (c *cluster) mayGo(t *testing.T, args ...string) string {
	t.Helper()
	var out string
	eventually(t, 30*time.Second, func() (err error) {
		out, err = try(t, append([]string{"chaos", "--local", c.name, "--dry-run"}, args...)...)
		return errors.Join(err, contains(out, "nothing speaks against destroying it; nothing was changed"))
	})
	return out
}

// TestChaosDestroysOneNodeAndEndsRedundant has the seed pick one, and then names the one that the command asks first, so that it has
// to ask somebody else.
func TestChaosDestroysOneNodeAndEndsRedundant(t *testing.T) {
	c := spareCluster(t)
	for _, lost := range []struct {
		node, role string
		args       []string
	}{{"lb2", "lb", []string{"--seed", "1"}}, {"lb1", "lb", []string{"--node", "lb1"}}} {
		before := c.machines(t)
		if err := contains(c.mayGo(t, lost.args...), lost.node+" ("+lost.role+"), machine "+before[lost.node]); err != nil {
			t.Error(err)
		}
		if now := c.machines(t); now[lost.node] != before[lost.node] {
			t.Errorf("after a dry run %s has machine %s, it had %s", lost.node, now[lost.node], before[lost.node])
		}
		began := time.Now()
		out := understudy(t, append([]string{"chaos", "--local", c.name, "--timeout", "2m"}, lost.args...)...)
		t.Logf("chaos took %v\n%s", time.Since(began).Round(100*time.Millisecond), out)
		told := fmt.Sprintf("%s (%s) was destroyed by chaos; redundant again after ", lost.node, lost.role)
		if err := contains(out, "destroyed; the cluster has 2m", lost.node+" is failed", lost.node+" is serving", "\nredundant again after ", told, "\n  created ", "\n  booted ", "\n  applied ", "\n  redundant "); err != nil {
			t.Error(err)
		}
		if err := contains(understudy(t, "incidents", "--local", c.name), told); err != nil {
			t.Error(err)
		}
		var replaced []string
		for node, machine := range c.machines(t) {
			if machine != before[node] {
				replaced = append(replaced, node)
			}
		}
		if want := []string{lost.node}; !slices.Equal(replaced, want) {
			t.Errorf("replaced %v, want %v", replaced, want)
		}
	}
	c.mayGo(t)
	if err := contains(c.refused(t, "--apart", "1h"), "lb1 was destroyed ", "the next one may go 1h after that"); err != nil {
		t.Error(err)
	}
	// The unit asks through the socket, from its sandbox; that the order is refused is no failure of it.
	before := c.machines(t)
	c.on(t, "web2", "systemctl", "start", "understudy-chaos.service")
	if err := contains(c.on(t, "web2", "journalctl", "--no-pager", "-u", "understudy-chaos"), "refused, and nothing was changed: lb1 was destroyed "); err != nil {
		t.Error(err)
	}
	if out, code := c.run(t, "web2", "systemctl", "is-enabled", "understudy-chaos.timer"); code == 0 {
		t.Errorf("the timer is %s without anybody's wish", out)
	}
	c.on(t, "web2", "systemd-analyze", "verify", "understudy-chaos.service", "understudy-chaos.timer")
	if now := c.machines(t); !maps.Equal(now, before) {
		t.Errorf("the unit has destroyed one all the same: machines %v, they were %v", now, before)
	}
}

// TestChaosLeavesAClusterThatIsNotRedundantAlone: who has lost a node already is not tried any further.
func TestChaosLeavesAClusterThatIsNotRedundantAlone(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	before := c.machines(t)
	const lost = "web2"
	understudy(t, "local", "destroy", "--name", c.name, lost)
	eventually(t, 30*time.Second, func() error {
		if st, err := c.tryAsk(""); err != nil || st.Redundant {
			return fmt.Errorf("the loss of %s is not noticed yet (%v)", lost, err)
		}
		return nil
	})
	for _, args := range [][]string{{"--seed", "1"}, {"--dry-run"}, {"--node", "web2"}} {
		if err := contains(c.refused(t, args...), "the cluster is not redundant: "); err != nil {
			t.Error(err)
		}
	}
	c.healed(t, map[string]string{lost: before[lost]})
	for node, machine := range c.machines(t) {
		if machine != before[node] && node != lost {
			t.Errorf("%s has machine %s, it had %s", node, machine, before[node])
		}
	}
}
