package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/admin"
)

// aConfirmedPushRemovesANode adds a web node, and takes it away again under load: not by roles.yaml alone, and then by itself. TestMain runs it
// with -long.
func aConfirmedPushRemovesANode(t *testing.T) {
	c := sharedCluster(t)
	c.healed(t, nil)
	o := c.origin(t)
	if machineOf(c.ask(t, "lb1"), "web3") == "" {
		o.edit(t, "roles.yaml", "nodes: web[1-2]", "nodes: web[1-3]")
		o.push(t, "A third web node", o.operator)
	}
	var web3 string
	eventually(t, 3*time.Minute, func() error {
		st, err := c.tryAsk("lb1")
		if err != nil {
			return err
		}
		if web3 = machineOf(st, "web3"); web3 == "" || !st.Redundant || roleOf(st, "web").Serving != 3 || st.Rollout.At != st.Rollout.Of {
			return fmt.Errorf("web3 is machine %q; %s; why %v; blocked %v", web3, st.Rollout.Line(), st.Why, st.Blocked)
		}
		return nil
	})
	l := c.read(t, 50)
	o.edit(t, "roles.yaml", "nodes: web[1-3]", "nodes: web[1-2]")
	commit := o.push(t, "Two web nodes will do", o.operator)
	for _, node := range []string{"lb1", "web1", "web3"} {
		eventually(t, 20*time.Second, func() error {
			st, err := c.tryAsk(node)
			if err == nil && !slices.ContainsFunc(st.Blocked, func(b admin.Blocked) bool {
				return strings.Contains(b.Why, "roles.yaml removes web3: confirm with `understudy apply --confirm-removal`")
			}) {
				err = fmt.Errorf("%s does not say that it waits: %v", node, st.Blocked)
			}
			return err
		})
	}
	if st := c.ask(t, "lb1"); roleOf(st, "web").Serving != 3 || st.Rollout.Commit == commit {
		t.Fatalf("roles.yaml alone did something: %+v", st.Rollout)
	}
	began := time.Now()
	told := understudy(t, "apply", "--confirm-removal", "--yes", "--local", c.name, "--node", "mail2")
	if !strings.Contains(told, "goes on, and removes web3") {
		t.Errorf("apply says %q", told)
	}
	eventually(t, 4*time.Minute, func() error {
		st, err := c.tryAsk("lb1")
		if err != nil {
			return err
		}
		if machineOf(st, "web3") != "" || !st.Redundant || roleOf(st, "web").Wanted != 2 || st.Rollout.Commit != commit || st.Rollout.At != st.Rollout.Of || len(st.Rollout.Trying) > 0 {
			return fmt.Errorf("%s; why %v; blocked %v", st.Rollout.Line(), st.Why, st.Blocked)
		}
		if ids := c.listed(t, "lb1", "web3"); len(ids) > 0 {
			return fmt.Errorf("the provider still has %v; blocked %v", ids, st.Blocked)
		}
		return nil
	})
	t.Logf("gone %v after the word", time.Since(began).Round(100*time.Millisecond))
	for _, lb := range []string{"lb1", "lb2"} {
		if out, code := c.run(t, lb, "sh", "-c", "curl -sf 'http://127.0.0.1:8404/stats;csv' | grep ,web3, | grep ,UP,"); code == 0 {
			t.Errorf("%s still sends requests to web3: %q", lb, out)
		}
	}
	r := l.Stop()
	t.Logf("meanwhile %v", r)
	if r.Failed > 0 {
		t.Errorf("%d requests failed, want 0", r.Failed)
	}
}

// machineOf is a node's machine; empty: there is no such node, or it has none.
func machineOf(st admin.Status, node string) string {
	for _, n := range st.Nodes {
		if n.Name == node {
			return n.Machine
		}
	}
	return ""
}
