//go:build linux

package netns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/tests/netns/sidecars"
	"understudy/tests/netns/wire"
)

func TestASlowOrAbsentLedgerDoesNotSlowAFailoverInsideAMajority(t *testing.T) {
	for name, fault := range map[string]objectstore.Fault{"slow": {Delay: 500 * time.Millisecond}, "away": {Away: true}} {
		t.Run(name, func(t *testing.T) {
			c := sidecars.New(t, sidecars.Setup{Ledger: true})
			c.Store.Set(fault)
			lost := time.Now()
			c.Host(c.Primary).Unplug()
			first, _ := c.Probe.Await(c.Standby, lost, 5*time.Second)
			if took := first.Sub(lost); took > time.Second {
				t.Errorf("took %v, want at most a second", took)
			}
			c.Single()
		})
	}
}

// Two members: whoever loses the other is exactly half, and acts by the ledger's word after the lease's time.
func TestHalfOfARosterActsByTheLedgersWordAndTheOtherHalfDoesNot(t *testing.T) {
	for _, loss := range []string{"machine", "link"} {
		t.Run(loss, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			c := sidecars.New(t, sidecars.Setup{Ledger: true, Nodes: []string{"n1", "n2"}})
			lost := time.Now()
			if loss == "machine" {
				c.Host(c.Primary).Unplug()
				first, last := c.Probe.Await(c.Standby, lost, 30*time.Second)
				t.Logf("the old one answered for %v, the new one from %v on", last.Sub(lost), first.Sub(lost))
				if took := first.Sub(lost); took < 5*time.Second || took > 20*time.Second {
					t.Errorf("took %v, want about 15s: sooner, a lease might not be over", took)
				}
				c.Single()
				return
			}
			c.Part([]string{"n1"}, []string{"n2"}) // both still reach the ledger and the client
			<-time.After(25 * time.Second)
			since := time.Now()
			<-time.After(2 * time.Second)
			if got := c.Probe.Holders(since); len(got) != 1 {
				t.Errorf("after 25s %v answer, want one", got)
			}
			t.Logf("it was with %v, longest silence %v", c.Probe.Holders(lost), c.Probe.Gap(lost, since))
			c.Single()
			c.Heal()
			<-time.After(3 * time.Second)
			c.Single()
		})
	}
}

func TestASecondMachineOfOneNameStandsStill(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{Ledger: true})
	c.Runs[c.Standby].Kill()
	c.StartAs(c.Standby, "names") // any other host: it has the name, and another machine's ID
	wire.Eventually(t, 10*time.Second, func() error {
		log := c.Runs["names"].Text()
		if !strings.Contains(log, "machine m-"+c.Standby+" has claimed it") {
			return fmt.Errorf("it has not noticed")
		}
		return nil
	})
	if strings.Contains(c.State("names"), `"boot"`) {
		t.Error("it votes")
	}
	c.Stays(c.Primary, 2*time.Second)
	c.Single()
}

func TestAWrongClockMovesTheDutyToARightOneAndBreaksNothing(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{Ledger: true})
	stepped := time.Now()
	c.StepClock(c.Primary, 10*time.Minute)
	_, _ = c.Probe.Await(c.Standby, stepped, 15*time.Second) // the store is read every few seconds
	if gap := c.Probe.Gap(stepped, time.Now()); gap > 500*time.Millisecond {
		t.Errorf("for %v nobody answered, want the time of a switchover", gap)
	}
	c.Single()
	says := func(node string) {
		wire.Eventually(t, 15*time.Second, func() error {
			if !strings.Contains(c.Runs[node].Text(), "this machine's is 10m") {
				return fmt.Errorf("%s does not say that its clock is off", node)
			}
			return nil
		})
	}
	says(c.Primary)
	third := slices.DeleteFunc(slices.Clone(c.Nodes), func(n string) bool { return n == c.Primary || n == c.Standby })[0]
	for _, n := range []string{third, c.Standby} { // then all are wrong: none is better, so nothing moves
		c.StepClock(n, 10*time.Minute)
		says(n)
	}
	c.Stays(c.Standby, 2*time.Second)
}

func TestNamesFollowAndAnAbsentNameServerHoldsNothingUp(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{DNS: true})
	shows := func(within time.Duration) {
		t.Helper()
		wire.Eventually(t, within, func() error {
			got, err := c.Published("www")
			if err == nil && !slices.Equal(got, []string{sidecars.Address.Addr().String()}) {
				err = fmt.Errorf("www is %v", got)
			}
			return err
		})
	}
	shows(10 * time.Second)
	c.Host("names").Unplug()
	lost := time.Now()
	c.Host(c.Primary).Unplug()
	first, _ := c.Probe.Await(c.Standby, lost, 5*time.Second)
	if took := first.Sub(lost); took > time.Second {
		t.Errorf("took %v, want at most a second", took)
	}
	c.Single()
}
