//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/admin"
)

// origin is a clone of the cluster's control repo, for pushes by hand. Whatever is pushed stays there: nothing is ever taken back.
type origin struct {
	c        *cluster
	dir      string
	operator []string // what makes git sign with the operator's key
}

func (c *cluster) origin(t *testing.T) *origin {
	t.Helper()
	return &origin{c, c.control(t), signedBy(filepath.Join(c.status(t).Operator, "id_ed25519"))}
}

func signedBy(key string) []string {
	return []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + key, "-c", "commit.gpgsign=true"}
}

// edit replaces a text in a file that must have it once.
func (o *origin) edit(t *testing.T, file, old, new string) {
	t.Helper()
	path := filepath.Join(o.dir, file)
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), old) != 1 {
		t.Fatalf("%s has %q %d times, want once (%v)", file, old, strings.Count(string(data), old), err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// push commits all there is and makes it the tip, whatever was there. It returns the commit.
func (o *origin) push(t *testing.T, message string, sign []string) string {
	t.Helper()
	git(t, o.dir, "add", "-A")
	git(t, o.dir, append(sign, "commit", "-q", "--allow-empty", "-m", message)...)
	git(t, o.dir, "push", "-q", "--force", "origin", "HEAD:refs/heads/main")
	return git(t, o.dir, "rev-parse", "HEAD")
}

// arrives waits until every node has the commit and serves, and returns when the first and the last had it. With roles: until their nodes have it.
func (c *cluster) arrives(t *testing.T, commit string, roles ...string) (first, last time.Duration) {
	t.Helper()
	began := time.Now()
	eventually(t, 4*time.Minute, func() error {
		st, err := c.tryAsk("")
		if err != nil {
			return err
		}
		there, all := 0, 0
		for _, n := range st.Nodes {
			if len(roles) > 0 && !slices.Contains(roles, n.Role) {
				continue
			}
			if all++; n.Commit == commit {
				there++
			}
		}
		if there > 0 && first == 0 {
			first = time.Since(began)
		}
		if there == all && last == 0 {
			last = time.Since(began)
		}
		if there < all || len(roles) == 0 && (len(st.Rollout.Trying) > 0 || !st.Redundant) {
			return fmt.Errorf("%s; why %v; blocked %v", st.Rollout.Line(), st.Why, st.Blocked)
		}
		return nil
	})
	return first, last
}

// runs are the newest runs of Puppet on a node.
func (c *cluster) runs(t *testing.T, node string) []admin.PuppetRun {
	t.Helper()
	var got admin.Runs
	if err := json.Unmarshal([]byte(understudy(t, "runs", "--local", c.name, "--node", node, "--json")), &got); err != nil || got.Node != node {
		t.Fatalf("runs of %s: %v, of %s", node, err, got.Node)
	}
	return got.Runs
}

const serverConf = "puppet/site-modules/profile/templates/web/server.conf.epp"

// TestAPushComesToEveryNodeAndNoRequestFails pushes a new layout of the blog's site under load.
func TestAPushComesToEveryNodeAndNoRequestFails(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	o := c.origin(t)
	o.edit(t, serverConf, "        location / {", "        location = /layout {\n            return 200 \"two columns\\n\";\n        }\n\n        location / {")
	l := c.read(t, 200)
	commit := o.push(t, "Two columns", o.operator)
	first, last := c.arrives(t, commit)
	r := l.Stop()
	t.Logf("the push was on the first node after %v, on the last after %v; meanwhile %v", first.Round(100*time.Millisecond), last.Round(100*time.Millisecond), r)
	if r.Failed > 0 {
		t.Errorf("%d requests failed, want 0", r.Failed)
	}
	for _, node := range []string{"web1", "web2"} {
		if got := c.on(t, node, "curl", "-sf", "http://127.0.0.1/layout"); got != "two columns\n" {
			t.Errorf("%s has %q", node, got)
		}
		for _, r := range c.runs(t, node)[:1] {
			if r.Commit != commit || r.Noop || r.Why != "rollout" || r.Resources.Changed == 0 || r.Seconds["total"] == 0 {
				t.Errorf("newest run of %s: %+v", node, r)
			}
		}
	}
}

// TestOnlyWhatTheOperatorSignedOnTopIsTaken pushes three tips that no node may take; every one says so, until the tip is what they have
// again.
func TestOnlyWhatTheOperatorSignedOnTopIsTaken(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	o := c.origin(t)
	head := git(t, o.dir, "rev-parse", "HEAD")
	if git(t, o.dir, "rev-list", "--count", "HEAD") == "1" { // this test runs alone
		head = o.push(t, "One more", o.operator)
		c.arrives(t, head)
	}
	stranger := filepath.Join(t.TempDir(), "stranger")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	for _, step := range []struct {
		what, from string
		sign       []string
		want       string
	}{
		{"an unsigned commit", head, nil, "not signed"},
		{"a commit signed by a stranger", head, signedBy(stranger), "not an allowed signer"},
		{"a commit on top of an older one", head + "~1", o.operator, "does not descend"},
	} {
		git(t, o.dir, "reset", "-q", "--hard", step.from)
		tip := o.push(t, step.what, step.sign)
		for _, node := range []string{"lb1", "lb2", "web1", "web2", "mail1", "mail2", "repo1", "repo2"} {
			eventually(t, 30*time.Second, func() error {
				st, err := c.tryAsk(node)
				if err != nil {
					return err
				}
				if x := st.Rollout; x.Commit != head || !strings.Contains(x.Refused, step.want) || !strings.Contains(x.Refused, tip[:8]) {
					return fmt.Errorf("%s, at %s: %+v, want %q", step.what, node, x, step.want)
				}
				return nil
			})
		}
		t.Logf("%s: %s", step.what, c.ask(t, "lb1").Rollout.Refused)
	}
	git(t, o.dir, "push", "-q", "--force", "origin", head+":refs/heads/main")
	eventually(t, 30*time.Second, func() error {
		if x := c.ask(t, "lb1").Rollout; x.Commit != head || x.Refused != "" {
			return fmt.Errorf("%+v", x)
		}
		return nil
	})
}

// TestABadPushIsTriedOnOneNodeAndUndoneThere breaks nginx's configuration, and mends it.
func TestABadPushIsTriedOnOneNodeAndUndoneThere(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	o := c.origin(t)
	l := c.read(t, 50)
	o.edit(t, serverConf, "        index index.html;", "        index index.html;\n        no_such_directive on;")
	c.held(t, o.push(t, "Break nginx", o.operator))
	o.edit(t, serverConf, "\n        no_such_directive on;", "")
	c.arrives(t, o.push(t, "Mend nginx", o.operator), "web") // the others have it with the next test's
	if r := l.Stop(); r.Failed > 0 {
		t.Errorf("%d requests failed, want 0: %v", r.Failed, r)
	}
}

// held waits until everybody knows that web1 failed with a commit, and looks that it was run there once, and on no other web node.
func (c *cluster) held(t *testing.T, bad string) {
	t.Helper()
	for _, node := range []string{"lb1", "web1", "web2"} {
		eventually(t, 3*time.Minute, func() error {
			st, err := c.tryAsk(node)
			if err != nil {
				return err
			}
			if x := st.Rollout; x.Commit != bad || !strings.Contains(x.Held, "web1 failed with it: ") || len(x.Trying) > 0 {
				return fmt.Errorf("%s says %+v; blocked %v", node, x, st.Blocked)
			}
			return nil
		})
	}
	for node, want := range map[string]int{"web1": 1, "web2": 0} {
		tried := 0
		for _, r := range c.runs(t, node) {
			if r.Commit == bad && !r.Noop {
				tried++
			}
		}
		if tried != want {
			t.Errorf("%s tried it %d times, want %d", node, tried, want)
		}
	}
	st := c.ask(t, "")
	if slices.ContainsFunc(st.Nodes, func(n admin.Node) bool { return n.Role == "web" && (n.Commit == bad || n.Phase != "serving") }) {
		t.Errorf("a web node is still at it: %+v", st.Nodes)
	}
	t.Log(st.Rollout.Line())
}

// TestAPushAddsNodesAndRoles pushes a roles.yaml with one more web node and one more role. It comes last: the cluster keeps both.
func TestAPushAddsNodesAndRoles(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	o := c.origin(t)
	o.edit(t, "roles.yaml", "nodes: web[1-2]", "nodes: web[1-3]")
	o.edit(t, "roles.yaml", "\n  mail:\n", "\n  prompt:\n    nodes: [prompt1]\n    understudy: none\n    health: {units: [systemd-journald.service]}\n\n  mail:\n")
	class := "# Who whispers.\nclass role::prompt {\n  contain profile::base\n\n  file { '/etc/prompt': content => \"line?\\n\" }\n}\n"
	if err := os.WriteFile(filepath.Join(o.dir, "puppet/site-modules/role/manifests/prompt.pp"), []byte(class), 0o644); err != nil {
		t.Fatal(err)
	}
	l := c.read(t, 50)
	began := time.Now()
	commit := o.push(t, "A third web node, and a prompter", o.operator)
	eventually(t, 4*time.Minute, func() error {
		st, err := c.tryAsk("lb1")
		if err != nil {
			return err
		}
		if r := roleOf(st, "prompt"); len(st.Nodes) != 10 || r.Serving != 1 || roleOf(st, "web").Serving != 3 || !st.Redundant || st.Rollout.At != 10 || len(st.Rollout.Trying) > 0 {
			return fmt.Errorf("%s; why %v; blocked %v", st.Rollout.Line(), st.Why, st.Blocked)
		}
		return nil
	})
	t.Logf("both serve %v after the push", time.Since(began).Round(100*time.Millisecond))
	if got := filepath.Base(c.release(t, "web3")); got != commit {
		t.Errorf("web3 is at %s, want %s", got, commit)
	}
	if got := c.on(t, "prompt1", "cat", "/etc/prompt"); got != "line?\n" {
		t.Errorf("prompt1 has %q", got)
	}
	for _, lb := range []string{"lb1", "lb2"} {
		eventually(t, 30*time.Second, func() error {
			if out, code := c.run(t, lb, "sh", "-c", "curl -sf 'http://127.0.0.1:8404/stats;csv' | grep ,web3, | grep ,UP,"); code != 0 {
				return fmt.Errorf("%s sends no requests to web3: %q", lb, out)
			}
			return nil
		})
	}
	r := l.Stop()
	t.Logf("meanwhile %v", r)
	if r.Failed > 0 {
		t.Errorf("%d requests failed, want 0", r.Failed)
	}
}
