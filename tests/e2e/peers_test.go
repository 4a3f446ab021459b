//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/admin"
)

// originAway takes the repository from under the origin's server until the test ends: nobody can fetch from it any more.
func (c *cluster) originAway(t *testing.T) {
	t.Helper()
	at := filepath.Join("/var/lib/understudy-local", c.name, "git", "control.git")
	if err := os.Rename(at, at+".away"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(at+".away", at); err != nil {
			t.Error(err)
		}
	})
}

// TestAReplacementBootsFromAPeerWhileTheOriginIsDown destroys a node when its control repo is nowhere but on the other nodes.
func TestAReplacementBootsFromAPeerWhileTheOriginIsDown(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	const lost, mate = "web2", "web1"
	before, commit := c.machines(t), strings.TrimPrefix(c.release(t, mate), "/var/lib/understudy/releases/")
	c.originAway(t)
	if out, code := c.run(t, mate, "curl", "-sf", "http://control.understudy.internal:3000/control.git/info/refs?service=git-upload-pack"); code == 0 {
		t.Fatalf("the origin still answers: the test shows nothing\n%s", out)
	}
	began := time.Now()
	understudy(t, "local", "destroy", "--name", c.name, lost)
	c.healed(t, map[string]string{lost: before[lost]})
	t.Logf("%s is back after %v without an origin", lost, time.Since(began).Round(100*time.Millisecond))
	if got := c.release(t, lost); filepath.Base(got) != commit {
		t.Errorf("%s is at %s, want %s as %s", lost, filepath.Base(got), commit, mate)
	}
	journal := c.on(t, lost, "journalctl", "--no-pager", "-u", "understudy-bootstrap")
	if err := contains(journal, "/v1/control.git", "as the peers say"); err != nil {
		t.Errorf("%v\n%s", err, journal)
	}
	eventually(t, 30*time.Second, func() error {
		st, err := c.tryAsk(lost)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(st.Nodes, func(n admin.Node) bool { return n.Name == lost && n.Phase == "serving" && n.Commit == commit }) {
			return fmt.Errorf("%s does not say that it serves with %s", lost, commit)
		}
		return nil
	})
}
