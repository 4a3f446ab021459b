//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/cloud/localcloud/site"
	"understudy/tests/load"
)

// ask is what the sidecars say, by way of whichever answers first; node narrows it to one.
func (c *cluster) ask(t testing.TB, node string) admin.Status {
	t.Helper()
	st, err := c.tryAsk(node)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (c *cluster) tryAsk(node string) (admin.Status, error) {
	args := []string{"status", "--local", c.name, "--json"}
	if node != "" {
		args = append(args, "--node", node)
	}
	cmd := exec.Command(filepath.Join(os.Getenv("UNDERSTUDY_BUILD"), "understudy"), args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 3) {
		return admin.Status{}, fmt.Errorf("status: %w\n%s", err, out)
	}
	var st admin.Status
	if err := json.Unmarshal(out, &st); err != nil {
		return admin.Status{}, fmt.Errorf("status: %w\n%s", err, out)
	}
	return st, nil
}

func roleOf(st admin.Status, name string) admin.Role {
	if i := slices.IndexFunc(st.Roles, func(r admin.Role) bool { return r.Name == name }); i >= 0 {
		return st.Roles[i]
	}
	return admin.Role{}
}

// primary waits until a role has a primary, one that is not but, and returns it.
func (c *cluster) primary(t testing.TB, role, but string) string {
	t.Helper()
	var is string
	eventually(t, 60*time.Second, func() error {
		st, err := c.tryAsk("")
		if err != nil {
			return err
		}
		if is = roleOf(st, role).Primary; is == "" || is == but {
			return fmt.Errorf("primary of %s is %q; blocked: %v", role, is, st.Blocked)
		}
		return nil
	})
	return is
}

// read starts to fetch the blog through the reserved address, from inside the cloud.
func (c *cluster) read(t testing.TB, rate int) *load.Load {
	t.Helper()
	ns, err := netns.Open(site.Namespace(c.name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return load.Start(context.Background(), load.Config{
		URL: "http://203.0.113.10/", Rate: rate,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return ns.Dial(ctx, at)
		},
	})
}

// answering waits until the blog answers through the reserved address.
func (c *cluster) answering(t testing.TB) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		_, _, err := c.get("www:80", "/")
		return err
	})
}

func TestSwitchoverUnderLoadFailsNoRequest(t *testing.T) {
	c := sharedCluster(t)
	c.answering(t)
	for range 2 {
		from := c.primary(t, "lb", "")
		l := c.read(t, 100)
		understudy(t, "switchover", "lb", "--local", c.name)
		to := c.primary(t, "lb", from)
		c.holds(t, to, "203.0.113.10")
		r := l.Stop()
		t.Logf("lb moved from %s to %s: %v", from, to, r)
		if r.Failed > 0 {
			t.Errorf("%d requests failed, want 0", r.Failed)
		}
	}
}

// holds waits until the provider says that the address is with the node's machine.
func (c *cluster) holds(t testing.TB, node, address string) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		for _, n := range c.status(t).Nodes {
			if n.Name != node {
				continue
			}
			if out, code := c.run(t, node, "curl", "-sf", "http://169.254.169.254/metadata/v1/reserved_ip/ipv4/ip_address"); code != 0 || strings.TrimSpace(out) != address {
				return fmt.Errorf("%s has reserved address %q, want %s", node, out, address)
			}
		}
		return nil
	})
}

// TestNamesFollowWhoServes asks a node's own resolver, as HAProxy and Puppet's manifests do.
func TestNamesFollowWhoServes(t *testing.T) {
	c := sharedCluster(t)
	for _, n := range c.status(t).Nodes {
		eventually(t, 20*time.Second, func() error {
			out, code := c.run(t, "lb1", "getent", "ahostsv4", n.Name+".blog.internal")
			if code != 0 || !strings.HasPrefix(out, n.Address+" ") {
				return fmt.Errorf("%s resolves to %q, want %s", n.Name, out, n.Address)
			}
			return nil
		})
	}
}

// TestAnyOneNodeCanGo loses one node of each role in turn. Another one takes over, and a new machine takes the lost one's place.
func TestAnyOneNodeCanGo(t *testing.T) {
	c := newCluster(t, "loss")
	c.answering(t)
	c.healed(t, nil)
	for _, role := range []string{"lb", "web", "mail", "repo"} {
		lost := role + "1"
		if role != "web" {
			lost = c.primary(t, role, "")
		}
		var l *load.Load
		if role == "lb" {
			l = c.read(t, 50)
		}
		began, before := time.Now(), c.machines(t)
		understudy(t, "local", "destroy", "--name", c.name, lost)
		if role != "web" {
			next := c.primary(t, role, lost)
			t.Logf("%s took %s over from %s", next, role, lost)
		}
		c.answering(t)
		if l != nil {
			t.Logf("%s destroyed: %v", lost, l.Stop())
		}
		c.healed(t, map[string]string{lost: before[lost]})
		t.Logf("%s is back after %v", lost, time.Since(began).Round(100*time.Millisecond))
		for node, machine := range c.machines(t) {
			if node != lost && machine != before[node] {
				t.Errorf("%s has machine %s, it had %s", node, machine, before[node])
			}
		}
	}
	eventually(t, 30*time.Second, func() error {
		if out, code := c.run(t, c.primary(t, "mail", ""), "systemctl", "is-active", "postfix.service"); code != 0 {
			return fmt.Errorf("postfix is %s on the new primary", out)
		}
		return nil
	})
	t.Logf("\n%s", understudy(t, "incidents", "--local", c.name))
}

var long = flag.Bool("long", false, "also play what takes many minutes: the survivor of each role, and the removal of a node")

// TestALoneSurvivorRebuildsTheCluster destroys all nodes but one at once. One that has the packages builds everything from them. What no
// survivor has comes from nowhere yet: any other one rebuilds the repository empty, and its operator publishes again.
func TestALoneSurvivorRebuildsTheCluster(t *testing.T) {
	survivors := []string{"repo"}
	if *long {
		survivors = append(survivors, "lb", "web", "mail")
	}
	for _, role := range survivors {
		t.Run(role, func(t *testing.T) {
			c := newCluster(t, "survivor-"+role)
			c.healed(t, nil)
			survivor := role + "1"
			if role != "web" {
				survivor = c.primary(t, role, "")
			}
			c.survives(t, survivor, role != "repo")
		})
	}
}

func (c *cluster) survives(t *testing.T, survivor string, publish bool) {
	before := c.machines(t)
	lost := map[string]string{}
	args := []string{"local", "destroy", "--name", c.name}
	for node, machine := range before {
		if node != survivor {
			args, lost[node] = append(args, node), machine
		}
	}
	began := time.Now()
	understudy(t, args...)
	if publish {
		deb := blogPackage(t)
		eventually(t, 2*time.Minute, func() error {
			_, err := try(t, "publish", "--mirrored", "0s", "--local", c.name, "--repo", repo(t), deb)
			return err
		})
		t.Logf("published again after %v", time.Since(began).Round(100*time.Millisecond))
	}
	c.healed(t, lost)
	c.answering(t)
	t.Logf("%s has seven others back after %v", survivor, time.Since(began).Round(100*time.Millisecond))
	if now := c.machines(t)[survivor]; now != before[survivor] {
		t.Errorf("the survivor has machine %s, it had %s", now, before[survivor])
	}
}

// machines are the nodes' machines, by node.
func (c *cluster) machines(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, n := range c.ask(t, "").Nodes {
		all[n.Name] = n.Machine
	}
	return all
}

// healed waits until every node has done what a new machine can, and none of replaced has the machine that it had.
func (c *cluster) healed(t testing.TB, replaced map[string]string) {
	t.Helper()
	eventually(t, 3*time.Minute, func() error {
		st, err := c.tryAsk("")
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if n.Phase != "serving" || n.Machine == "" || n.Machine == replaced[n.Name] {
				return fmt.Errorf("%s is %s with machine %q; blocked: %v", n.Name, n.Phase, n.Machine, st.Blocked)
			}
		}
		return nil
	})
}
