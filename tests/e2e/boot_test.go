//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// again runs understudy-bootstrap by hand on a node and returns what it said and its exit code.
func (c *cluster) again(t *testing.T, node string, args ...string) (string, int) {
	t.Helper()
	return c.run(t, node, append([]string{"understudy-bootstrap"}, args...)...)
}

// control clones the cluster's control repo for a push by hand.
func (c *cluster) control(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "control")
	git(t, "", "clone", "-q", "http://"+c.ports["control.understudy.internal:3000"]+"/control.git", dir)
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also called while cleaning up
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "user.name=Test", "-c", "user.email=test@blog.example", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestNoopShowsAndChangesNothing breaks a file and asks what a run would do.
func TestNoopShowsAndChangesNothing(t *testing.T) {
	c := sharedCluster(t)
	const file = "/etc/systemd/journald.conf.d/understudy.conf"
	before := c.on(t, "lb2", "cat", file)
	c.on(t, "lb2", "sh", "-c", "echo '# drift' >> "+file)
	out, code := c.again(t, "lb2", "-noop")
	if code != 0 || !strings.Contains(out, "1 of ") || !strings.Contains(out, "would change") {
		t.Errorf("got status %d, want 0 and one resource that would change\n%s", code, out)
	}
	if got := c.on(t, "lb2", "cat", file); got == before {
		t.Error("-noop put the file right")
	}
	if out, code := c.again(t, "lb2"); code != 0 {
		t.Fatalf("status %d\n%s", code, out)
	}
	if got := c.on(t, "lb2", "cat", file); got != before {
		t.Errorf("after a real run the file is %q", got)
	}
}

// TestHostnameInNoRoleIsSaidAndNotRetried gives a node a name that nobody knows.
func TestHostnameInNoRoleIsSaidAndNotRetried(t *testing.T) {
	c := sharedCluster(t)
	c.on(t, "lb2", "hostname", "stranger")
	t.Cleanup(func() {
		c.on(t, "lb2", "hostname", "lb2")
		if out, code := c.again(t, "lb2"); code != 0 {
			t.Errorf("lb2 does not go back: status %d\n%s", code, out)
		}
	})
	out, code := c.again(t, "lb2")
	if code != 11 || !strings.Contains(out, "stranger") {
		t.Errorf("got status %d, want 11 and the name\n%s", code, out)
	}
}

// TestKilledBootstrapGoesOn kills it in the middle of its work on a real node, several times, and
// lets systemd start it again.
func TestKilledBootstrapGoesOn(t *testing.T) {
	c := sharedCluster(t)
	c.on(t, "repo2", "rm", "-rf", "/var/lib/understudy/bootstrap.done", "/var/lib/understudy/bootstrap.json", "/var/lib/understudy/control.git", "/var/lib/understudy/releases")
	c.on(t, "repo2", "systemctl", "start", "--no-block", "understudy-bootstrap")
	for _, phase := range []string{"control", "puppet"} {
		eventually(t, 30*time.Second, func() error {
			out, _ := c.run(t, "repo2", "cat", "/var/lib/understudy/bootstrap.json")
			return contains(out, fmt.Sprintf("%q: %q", "name", previous(phase)))
		})
		c.on(t, "repo2", "systemctl", "kill", "--signal=KILL", "understudy-bootstrap")
		c.on(t, "repo2", "systemctl", "reset-failed", "understudy-bootstrap")
		c.run(t, "repo2", "systemctl", "start", "--no-block", "understudy-bootstrap")
	}
	eventually(t, 2*time.Minute, func() error {
		out, code := c.run(t, "repo2", "cat", "/var/lib/understudy/bootstrap.done")
		if code != 0 {
			return errors.New("repo2 is not done")
		}
		return contains(out, "repo2 role=repo")
	})
	c.on(t, "repo2", "systemctl", "is-active", "nginx")
}

// previous is the step whose record shows that phase has begun.
func previous(phase string) string {
	return map[string]string{"control": "join", "puppet": "facts"}[phase]
}

// TestProvisionMakesAMachineTheImage does on a node what the README says to do on a droplet. It runs
// on the last node anybody needs, and gives it back what it takes.
func TestProvisionMakesAMachineTheImage(t *testing.T) {
	c := sharedCluster(t)
	var archive bytes.Buffer
	tar := exec.Command("tar", "-C", repo(t), "-c", "roles.yaml", "puppet", "systemd")
	tar.Stdout = &archive
	if err := tar.Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program(t), "local", "exec", "--name", c.name, "mail2", "--", "sh", "-c",
		"mkdir -p /root/c && tar -C /root/c -x && cp -a /etc/machine-id /etc/hostname /etc/ssh /var/lib/understudy /root/ && cp -a /etc/understudy /root/etc-understudy")
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		c.on(t, "mail2", "sh", "-c", "cp -a /root/machine-id /root/hostname /etc/ && cp -a /root/ssh/. /etc/ssh/ && cp -a /root/etc-understudy/. /etc/understudy/ && cp -a /root/understudy /var/lib/")
		if out, code := c.again(t, "mail2"); code != 0 { // services that provisioning stopped
			t.Errorf("mail2 does not come back: status %d\n%s", code, out)
		}
	})
	if out, code := c.run(t, "mail2", "understudy", "image", "provision", "--repo", "/root/c", "--source", "https://git.example/c.git"); code == 0 {
		t.Fatalf("it changes a machine without --really\n%s", out)
	}
	c.on(t, "mail2", "understudy", "image", "provision", "--really", "--repo", "/root/c", "--source", "https://git.example/c.git")
	if got := c.on(t, "mail2", "cat", "/etc/machine-id"); got != "uninitialized\n" {
		t.Errorf("machine-id: got %q", got)
	}
	if err := contains(c.on(t, "mail2", "cat", "/etc/understudy/bootstrap.yaml"), "https://git.example/c.git"); err != nil {
		t.Error(err)
	}
	for _, gone := range []string{"/var/lib/understudy", "/etc/ssh/ssh_host_ed25519_key"} {
		if _, code := c.run(t, "mail2", "test", "-e", gone); code == 0 {
			t.Errorf("%s is still there", gone)
		}
	}
}
