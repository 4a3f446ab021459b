//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// twoNodes is a control repo like this one with two nodes of one role.
func twoNodes(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"puppet", "systemd"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(repo(t), name))); err != nil {
			t.Fatal(err)
		}
	}
	roles, err := os.ReadFile(filepath.Join(repo(t), "roles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(roles), "\n  lb:\n")
	_, after, found := strings.Cut(rest, "\n  repo:\n")
	if !ok || !found {
		t.Fatal("roles.yaml has no lb before repo")
	}
	if err := os.WriteFile(filepath.Join(dir, "roles.yaml"), []byte(before+"\n  repo:\n"+after), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLaunchGoesOnAfterKill9 launches a small cluster again and again: killed once the machine is there, to the end, and once more
// beside the cluster that lives. The identity is nowhere but where it belongs.
func TestLaunchGoesOnAfterKill9(t *testing.T) {
	c := &cluster{name: fmt.Sprintf("launch%d", os.Getpid()), ports: map[string]string{}}
	t.Cleanup(func() {
		if out, err := try(t, "local", "down", "--name", c.name); err != nil {
			t.Errorf("take the cluster down: %v\n%s", err, out)
		}
	})
	understudy(t, "local", "up", "--name", c.name, "--repo", twoNodes(t), cacheFlag(), "--empty")
	seed := func() node {
		st := c.status(t)
		if len(st.Nodes) != 2 || st.Nodes[0].Name != "repo1" {
			t.Fatalf("got nodes %+v, want repo1 and repo2", st.Nodes)
		}
		return st.Nodes[0]
	}
	if n := seed(); n.Machine != 0 {
		t.Fatalf("got machine %d before anybody has launched", n.Machine)
	}

	cmd := exec.Command(program(t), "launch", "--local", c.name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		if seed().Machine == 0 {
			return errors.New("repo1 has no machine")
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	first := seed().Machine

	out := understudy(t, "launch", "--local", c.name, "--timeout", "2m")
	if err := contains(out, "going on with the launch", "has the identity", "2 nodes serve"); err != nil {
		t.Error(err)
	}
	if got := seed().Machine; got != first {
		t.Errorf("repo1 is machine %d, want %d: launch has made a second one", got, first)
	}
	if again := c.listed(t, "repo1", "repo1"); len(again) != 1 {
		t.Errorf("the account has the machines %v for repo1, want one", again)
	}
	// The cluster closes the intent; then it lives, and nothing may be begun beside it.
	eventually(t, 30*time.Second, func() error {
		out, err := try(t, "launch", "--local", c.name, "--no-wait", "--timeout", "20s")
		if err == nil {
			return fmt.Errorf("launched beside a living cluster:\n%s", out)
		}
		return contains(out, "cluster blog is there already: repo1 is machine", "nothing was created")
	})

	key, err := os.ReadFile(filepath.Join(c.status(t).Operator, "cluster.key"))
	if err != nil {
		t.Fatal(err)
	}
	identity := strings.TrimSpace(string(key))
	for what, text := range map[string]string{
		"launch's output": out, "journal": c.on(t, "repo1", "journalctl", "--no-pager", "-o", "json"),
		"user data": c.on(t, "repo1", "curl", "-s", "http://169.254.169.254/metadata/v1/user-data"),
	} {
		if len(identity) < 16 || strings.Contains(text, identity) {
			t.Errorf("the %s has the cluster's identity", what)
		}
	}
}

// listed are the IDs of all machines of a name, as the provider's API tells a node.
func (c *cluster) listed(t *testing.T, at, name string) (ids []int) {
	t.Helper()
	st := c.status(t)
	token, err := os.ReadFile(st.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	out := c.on(t, at, "curl", "-s", "-H", "Authorization: Bearer "+strings.TrimSpace(string(token)), "http://10.77.0.1:8000/v2/droplets?tag_name="+st.Cluster)
	var all struct {
		Droplets []struct {
			ID   int
			Name string
		}
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, d := range all.Droplets {
		if d.Name == name {
			ids = append(ids, d.ID)
		}
	}
	return ids
}
