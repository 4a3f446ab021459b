//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/progress"
)

// get fetches a page through a forward.
func (c *cluster) get(target, path string) (string, http.Header, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + c.ports[target] + path)
	if err != nil {
		return "", nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	return string(body), res.Header, err
}

func TestEveryNodeFindsItsRoleByItsHostname(t *testing.T) {
	c := sharedCluster(t)
	var st status
	eventually(t, 60*time.Second, func() error {
		if st = c.status(t); !st.Serving || len(st.Nodes) != 8 {
			return fmt.Errorf("got serving %v with %d nodes, want 8 that serve", st.Serving, len(st.Nodes))
		}
		return nil
	})
	for _, n := range st.Nodes {
		if got := strings.TrimSpace(c.on(t, n.Name, "hostname")); got != n.Name {
			t.Errorf("machine of %s calls itself %s", n.Name, got)
		}
		fact := c.on(t, n.Name, "cat", "/etc/facter/facts.d/understudy.json")
		if err := contains(strings.ReplaceAll(fact, " ", ""), fmt.Sprintf("%q:%q", "node", n.Name), fmt.Sprintf("%q:%q", "role", n.Role)); err != nil {
			t.Error(err)
		}
	}
}

// TestBlogAnswersThroughBothLoadBalancers moves the duty there and back.
func TestBlogAnswersThroughBothLoadBalancers(t *testing.T) {
	c := sharedCluster(t)
	c.answering(t)
	web := map[string]bool{}
	for range 2 {
		from := c.primary(t, "lb", "")
		understudy(t, "switchover", "lb", "--local", c.name)
		to := c.primary(t, "lb", from)
		c.holds(t, to, "203.0.113.10")
		c.answering(t)
		for range 6 {
			page, header, err := c.get("www:80", "/")
			if err != nil {
				t.Fatalf("through %s: %v", to, err)
			}
			if err := contains(page, "<html", "Notes from the wings"); err != nil {
				t.Fatalf("through %s: %v", to, err)
			}
			web[header.Get("X-Served-By")] = true
		}
	}
	if !web["web1"] || !web["web2"] {
		t.Errorf("got answers from %v, want both web nodes", web)
	}
}

// TestSecondRunChangesNothing runs Puppet once more on every node, as bootstrap does.
func TestSecondRunChangesNothing(t *testing.T) {
	c := sharedCluster(t)
	for _, n := range c.status(t).Nodes {
		release := c.release(t, n.Name)
		if out, code := c.apply(t, n.Name, release); code != 0 {
			t.Errorf("%s: a second run: status %d, want 0 (nothing changed)\n%s", n.Name, code, out)
		}
	}
}

// release is the directory of the commit that a node is at.
func (c *cluster) release(t *testing.T, node string) string {
	t.Helper()
	record, err := progress.Parse([]byte(c.on(t, node, "cat", "/var/lib/understudy/bootstrap.json")))
	if err != nil || record.Commit == "" {
		t.Fatalf("%s: commit %q, %v", node, record.Commit, err)
	}
	return "/var/lib/understudy/releases/" + record.Commit
}

// apply runs Puppet on a node and returns its detailed exit code: 0 unchanged, 2 changed, 4 and 6 failed.
func (c *cluster) apply(t *testing.T, node, release string) (string, int) {
	t.Helper()
	return c.run(t, node, "puppet", "apply", "--detailed-exitcodes", "--color=false", "--environmentpath="+release, "--environment=puppet",
		release+"/puppet/manifests")
}

// TestMissingPackageIsInstalledFromTheMirror takes a baked package away; nodes have no internet, so
// it can only come from the mirror that the image's own packages make.
func TestMissingPackageIsInstalledFromTheMirror(t *testing.T) {
	c := sharedCluster(t)
	const node = "repo2"
	c.on(t, node, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "purge", "nginx-light", "nginx", "nginx-common")
	if _, code := c.run(t, node, "test", "-e", "/usr/sbin/nginx"); code == 0 {
		t.Fatal("nginx is still there: the test shows nothing")
	}
	release := c.release(t, node)
	if out, code := c.apply(t, node, release); code != 2 {
		t.Fatalf("got status %d, want 2 (changed)\n%s", code, out)
	}
	c.on(t, node, "systemctl", "is-active", "nginx")
	if out, code := c.apply(t, node, release); code != 0 {
		t.Errorf("the run after that: got status %d, want 0\n%s", code, out)
	}
}

// greeting builds a package that nobody has seen.
func greeting(t *testing.T, name string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), name)
	for path, text := range map[string]string{
		"DEBIAN/control":              "Package: " + name + "\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <t@blog.example>\nDescription: a test\n",
		"usr/share/" + name + "/text": "hello from the repository\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return buildPackage(t, tree)
}

// TestPublishedPackageInstallsOnAWebNode publishes a package and installs it.
func TestPublishedPackageInstallsOnAWebNode(t *testing.T) {
	c := sharedCluster(t)
	deb := greeting(t, "greeting")
	for range 2 { // publishing the same file again changes nothing
		understudy(t, "publish", "--local", c.name, "--repo", repo(t), deb)
	}
	c.on(t, "web2", "apt-get", "-qq", "update")
	c.on(t, "web2", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "install", "greeting")
	if got := c.on(t, "web2", "cat", "/usr/share/greeting/text"); got != "hello from the repository\n" {
		t.Errorf("got %q", got)
	}
	c.on(t, "web2", "apt-get", "-qq", "-y", "purge", "greeting")
}

// TestPrimaryUnitsRunWhereTheDutyIs: they write the data, and the data has one writer.
func TestPrimaryUnitsRunWhereTheDutyIs(t *testing.T) {
	c := sharedCluster(t)
	primary := c.primary(t, "mail", "")
	for _, unit := range []string{"postfix.service", "dovecot.service"} {
		for _, node := range []string{"mail1", "mail2"} {
			eventually(t, 30*time.Second, func() error {
				out, code := c.run(t, node, "systemctl", "is-active", unit)
				if (code == 0) != (node == primary) {
					return fmt.Errorf("%s on %s is %s, and %s is primary", unit, node, strings.TrimSpace(out), primary)
				}
				return nil
			})
			if out, code := c.run(t, node, "systemctl", "is-enabled", unit); code == 0 {
				t.Errorf("%s would start by itself on %s: %s", unit, node, out)
			}
		}
	}
}

// TestAPlannedMoveTakesTheDataAlong: what was written up to the last moment is on the new primary.
func TestAPlannedMoveTakesTheDataAlong(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	primary := c.primary(t, "mail", "")
	c.on(t, primary, "sh", "-c", "echo good night >/var/vmail/last-words")
	out := understudy(t, "switchover", "mail", "--local", c.name, "--wait")
	next := c.primary(t, "mail", primary)
	if got := c.on(t, next, "cat", "/var/vmail/last-words"); got != "good night\n" {
		t.Errorf("%s has %q after\n%s", next, got, out)
	}
	c.on(t, next, "rm", "/var/vmail/last-words")
}

// TestSyncWaitsForTheMirrors: what was written before the call is on the other node when it returns.
func TestSyncWaitsForTheMirrors(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	primary := c.primary(t, "repo", "")
	other := map[string]string{"repo1": "repo2", "repo2": "repo1"}[primary]
	c.on(t, primary, "sh", "-c", "echo mine >/srv/apt/note")
	out := understudy(t, "sync", "--local", c.name, "--wait", "--timeout", "1m")
	if err := contains(out, "mail: everything written on ", "repo: everything written on "+primary+" so far is on the other node's disk", "/srv/apt: "+other+" follows"); err != nil {
		t.Error(err)
	}
	if got := c.on(t, other, "cat", "/srv/apt/note"); got != "mine\n" {
		t.Errorf("%s has %q", other, got)
	}
	c.on(t, primary, "rm", "/srv/apt/note")
}

// TestRebootedNodeServesAgain: what bootstrap has recorded as done is not done again, and what lives
// in /run comes back.
func TestRebootedNodeServesAgain(t *testing.T) {
	c := sharedCluster(t)
	before := c.leader(t, "web1")
	c.run(t, "web1", "systemctl", "reboot")
	eventually(t, time.Minute, func() error {
		if now := c.leader(t, "web1"); now == 0 || now == before {
			return fmt.Errorf("web1 has not rebooted yet")
		}
		_, code := c.run(t, "web1", "curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1/")
		if code != 0 {
			return fmt.Errorf("web1 does not serve after its reboot (curl ends with %d)", code)
		}
		return nil
	})
}

func (c *cluster) leader(t *testing.T, name string) int {
	t.Helper()
	for _, n := range c.status(t).Nodes {
		if n.Name == name {
			return n.Leader
		}
	}
	t.Fatalf("no node is called %s", name)
	return 0
}

// TestPartitionCutsTwoNodesAndHealJoinsThem uses the two ways of cutting on a pair.
func TestPartitionCutsTwoNodesAndHealJoinsThem(t *testing.T) {
	c := sharedCluster(t)
	reaches := func(from, to string) bool {
		_, code := c.run(t, from, "curl", "-s", "-o", "/dev/null", "--max-time", "2", "http://"+to+".blog.internal/")
		return code == 0
	}
	if !reaches("lb1", "web1") {
		t.Fatal("lb1 does not reach web1 before any partition")
	}
	for _, args := range [][]string{{}, {"--one-way"}} {
		understudy(t, append([]string{"local", "partition", "--name", c.name, "lb1", "web1"}, args...)...)
		if reaches("lb1", "web1") {
			t.Errorf("partition %v: lb1 still reaches web1", args)
		}
		if !reaches("lb1", "web2") {
			t.Errorf("partition %v: lb1 does not reach web2", args)
		}
		understudy(t, "local", "heal", "--name", c.name)
		if !reaches("lb1", "web1") {
			t.Errorf("healed after %v: lb1 does not reach web1", args)
		}
	}
}

// TestNoSecretIsInTheImageOrTheMetadata looks for the cluster's secrets where every process, or
// whoever gets hold of the image, could read them.
func TestNoSecretIsInTheImageOrTheMetadata(t *testing.T) {
	c := sharedCluster(t)
	metadata := c.on(t, "web1", "curl", "-fsS", "http://169.254.169.254/metadata/v1.json")
	token, err := os.ReadFile(c.status(t).TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	identity := strings.TrimSpace(c.on(t, "web1", "cat", "/var/lib/understudy/identity"))
	for name, secret := range map[string]string{"API token": strings.TrimSpace(string(token)), "cluster identity": identity} {
		if len(secret) < 16 {
			t.Fatalf("%s is too short to look for: %q", name, secret)
		}
		if strings.Contains(metadata, secret) {
			t.Errorf("the %s stands in the metadata", name)
		}
		log := c.on(t, "web1", "journalctl", "--no-pager", "-o", "json")
		if strings.Contains(log, secret) {
			t.Errorf("the %s stands in the journal", name)
		}
	}
	if mode := strings.TrimSpace(c.on(t, "web1", "stat", "-c", "%a %U", "/var/lib/understudy/identity")); mode != "400 root" {
		t.Errorf("identity: got mode and owner %s, want 400 root", mode)
	}
	if out, code := c.run(t, "web1", "runuser", "-u", "www-data", "--", "ls", "/run/understudy/secrets"); code == 0 {
		t.Errorf("an ordinary user lists the secrets: %s", out)
	}
	// Machines of one image must not share what identifies them.
	if a, b := c.on(t, "web1", "cat", "/etc/machine-id"), c.on(t, "web2", "cat", "/etc/machine-id"); a == b {
		t.Errorf("two machines have the machine-id %s", a)
	}
	if a, b := c.on(t, "web1", "cat", "/etc/ssh/ssh_host_ed25519_key.pub"), c.on(t, "web2", "cat", "/etc/ssh/ssh_host_ed25519_key.pub"); a == b {
		t.Error("two machines have the same SSH host key")
	}
}

// TestMetadataIsForRootOnly: user_data holds a join ticket, and a program that fetches URLs for strangers runs on most nodes.
func TestMetadataIsForRootOnly(t *testing.T) {
	c := sharedCluster(t)
	ask := func(user string) (string, int) {
		return c.run(t, "web2", "runuser", "-u", user, "--", "curl", "-sS", "--max-time", "5", "http://169.254.169.254/metadata/v1/hostname")
	}
	refused := func() error {
		if out, code := ask("www-data"); code != 7 { // curl(1): failed to connect
			return fmt.Errorf("an ordinary user: curl ends with %d, want 7: %s", code, out)
		}
		return nil
	}
	if err := refused(); err != nil {
		t.Error(err)
	}
	if out, code := ask("root"); code != 0 || out != "web2" {
		t.Errorf("root: status %d, %q", code, out)
	}
	c.on(t, "web2", "nft", "flush", "ruleset")
	if out, code := ask("www-data"); code != 0 {
		t.Fatalf("without the rule: status %d, %q: the test shows nothing", code, out)
	}
	eventually(t, 30*time.Second, refused) // the sidecar has noticed
}
