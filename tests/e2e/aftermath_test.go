package e2e

import (
	"strings"
	"testing"
)

// aftermath logs what a person would look at first, should the test have failed by its end: what the cluster says of itself, and what the
// nodes that do not serve say.
func (c *cluster) aftermath(t *testing.T) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		said, _ := try(t, "status", "--local", c.name)
		t.Logf("the cluster says\n%s", said)
		st, err := c.tryAsk("")
		if err != nil {
			return
		}
		for _, n := range st.Nodes {
			if n.Phase == "serving" && n.Name != st.Coordinator {
				continue
			}
			units := []string{"-u", "understudy-bootstrap.service", "-u", "understudy.service"}
			log, err := try(t, append([]string{"local", "exec", "--name", c.name, n.Name, "--", "journalctl", "--no-pager", "-o", "short-precise", "-n", "60"}, units...)...)
			t.Logf("%s (%v) says\n%s", n.Name, err, strings.TrimSpace(log))
		}
	})
}
