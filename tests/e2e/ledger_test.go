//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// usable waits until the sidecar that is asked calls the ledger usable, or not.
func (c *cluster) usable(t *testing.T, want bool) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		st, err := c.tryAsk("")
		if err != nil {
			return err
		}
		if st.Ledger.Configured && st.Ledger.Usable == want {
			return nil
		}
		return fmt.Errorf("the ledger is %+v", st.Ledger)
	})
}

// everybodyReads waits until every node has read the ledger since it was called: what was written before is known to all.
func (c *cluster) everybodyReads(t *testing.T) {
	t.Helper()
	since := time.Now()
	for _, n := range c.status(t).Nodes {
		eventually(t, time.Minute, func() error {
			asked := time.Now()
			st, err := c.tryAsk(n.Name)
			if err != nil {
				return err
			}
			if age := time.Duration(st.Ledger.Age); !st.Ledger.Usable || age == 0 || asked.Add(-age).Before(since) {
				return fmt.Errorf("%s has not read the ledger: %+v", n.Name, st.Ledger)
			}
			return nil
		})
	}
}

// TestLedgerAwayStopsNoSwitchover: inside a majority duties move without the ledger, which is told afterwards. Nodes reach it
// with the keys of the sealed bundle, at the place that the image names.
func TestLedgerAwayStopsNoSwitchover(t *testing.T) {
	c := sharedCluster(t)
	c.usable(t, true)
	t.Cleanup(func() {
		understudy(t, "local", "fault", "--name", c.name, "ledger", "ok")
		c.usable(t, true)
	})
	for _, fault := range []string{"away", "silent"} {
		c.everybodyReads(t)
		understudy(t, "local", "fault", "--name", c.name, "ledger", fault)
		c.usable(t, false)
		out, err := try(t, "local", "status", "--name", c.name) // ends with 3 while a duty is on its way
		if !strings.Contains(out, "misbehave: "+fault) {
			t.Errorf("local status does not say that the ledger is %s: %v\n%s", fault, err, out)
		}
		before := c.primary(t, "lb", "")
		understudy(t, "switchover", "lb", "--local", c.name)
		after := c.primary(t, "lb", before)
		epoch := roleOf(c.ask(t, after), "lb").Epoch
		understudy(t, "local", "fault", "--name", c.name, "ledger", "slow", "500ms")
		c.usable(t, true)
		// The record appears in the store. Records that were written before, by writers that were told nothing, are our own.
		eventually(t, time.Minute, func() error {
			for _, b := range c.ask(t, after).Blocked {
				if strings.Contains(b.What, fmt.Sprintf("epoch %d of lb", epoch)) {
					return errors.New(b.Why)
				}
			}
			return nil
		})
	}
	c.answering(t)
}

// TestLedgersKeysAreNowhereButInTheBundle: the store lets nobody in without them.
func TestLedgersKeysAreNowhereButInTheBundle(t *testing.T) {
	c := sharedCluster(t)
	out, _ := c.run(t, "web1", "curl", "-s", "-w", "%{http_code}", "http://10.77.0.1:9000/blog-understudy?list-type=2")
	if err := contains(out, "403", "AccessDenied"); err != nil {
		t.Error(err)
	}
	file := c.on(t, "web1", "cat", "/etc/understudy/sidecar.yaml")
	if err := contains(file, "http://10.77.0.1:9000", "http://10.77.0.1:8000/"); err != nil || strings.Contains(file, "key") {
		t.Errorf("sidecar.yaml: %v\n%s", err, file)
	}
	if _, err := os.Stat("/var/lib/understudy-local/" + c.name + "/objects"); err != nil {
		t.Error(err)
	}
}
