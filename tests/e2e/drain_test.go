//go:build linux

package e2e

import (
	"strings"
	"testing"
)

// What `drain` in roles.yaml asks of a load balancer: it goes on accepting, and each answer ends its connection, so that
// clients come again on new ones. It ends by itself, or when it is told to.
func TestADrainedBalancerEndsConnectionsWithTheirAnswers(t *testing.T) {
	c := sharedCluster(t)
	const node, local = "lb2", "http://127.0.0.1:8404/drain"
	ends := func() bool {
		t.Helper()
		out := strings.ToLower(c.on(t, node, "curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--dump-header", "-", "http://127.0.0.1/"))
		return strings.Contains(out, "\nconnection: close")
	}
	if ends() {
		t.Fatal("connections end before anybody has asked for it")
	}
	t.Cleanup(func() {
		c.on(t, node, "curl", "--silent", "--fail", "--request", "DELETE", local)
		if ends() {
			t.Error("connections still end after the end of draining")
		}
	})
	c.on(t, node, "curl", "--silent", "--fail", "--max-time", "2", "--request", "POST", local)
	if !ends() {
		t.Error("connections are kept although the duty is about to move")
	}
}
