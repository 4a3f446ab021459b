//go:build linux

package netns

import (
	"slices"
	"testing"
	"time"

	"understudy/tests/netns/sidecars"
)

func TestAPrimaryThatIsCutOffGivesUpBeforeAnotherTakesOver(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{})
	cut := time.Now()
	c.Part([]string{c.Primary}, c.Others()) // the client still reaches all of them
	first, last := c.Probe.Await(c.Standby, cut, 5*time.Second)
	t.Logf("the old one answered for %v, the new one from %v on", last.Sub(cut), first.Sub(cut))
	c.Single()
	c.Stays(c.Standby, time.Second)
	c.Heal()
	c.Stays(c.Standby, 3*time.Second) // the old one does not take it back
	c.Single()
}

func TestACutInOneDirectionMakesNoTwoHolders(t *testing.T) {
	for _, way := range []string{"outwards", "inwards"} {
		t.Run(way, func(t *testing.T) {
			c := sidecars.New(t, sidecars.Setup{})
			cut := time.Now()
			for _, o := range c.Others() {
				if way == "outwards" {
					c.Cut(c.Primary, o)
				} else {
					c.Cut(o, c.Primary)
				}
			}
			// Outwards: the others hear nothing and one takes over. Inwards: they hear it, but it is confirmed by nobody; it
			// gives the duty up and says so.
			first, last := c.Probe.Await(c.Standby, cut, 5*time.Second)
			t.Logf("the old one answered for %v, the new one from %v on", last.Sub(cut), first.Sub(cut))
			c.Single()
			c.Heal()
			c.Stays(c.Standby, 3*time.Second)
			c.Single()
		})
	}
}

func TestABrokenLinkBetweenTwoIsNoFailure(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{})
	c.Part([]string{c.Primary}, []string{c.Standby})
	c.Stays(c.Primary, 4*time.Second)
	c.Heal()
	c.Stays(c.Primary, time.Second)
	c.Single()
}

func TestAMinorityWithoutALedgerTakesNothing(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{})
	cut := time.Now()
	o := c.Others()
	c.Part([]string{c.Primary}, []string{o[0]}, []string{o[1]})
	c.Probe.Silent(3 * time.Second)
	quiet := time.Now()
	<-time.After(3 * time.Second)
	if got := c.Probe.Holders(quiet); len(got) > 0 {
		t.Errorf("%v answered although nobody has a majority", got)
	}
	c.Single()
	c.Heal()
	healed := time.Now()
	for who := ""; who == ""; who = c.Probe.Now() {
		if time.Since(healed) > 10*time.Second {
			t.Fatal("nobody answers ten seconds after the partition")
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Logf("answered again %v after the partition of %v", time.Since(healed), healed.Sub(cut))
	c.Single()
}

func TestLossIsNoFailure(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{})
	c.Lose(20)
	began := time.Now()
	<-time.After(15 * time.Second)
	if got := c.Probe.Holders(began); !slices.Equal(got, []string{c.Primary}) {
		t.Errorf("with 20%% loss the address was at %v, want at %s alone", got, c.Primary)
	}
	c.Heal()
	c.Stays(c.Primary, time.Second)
	c.Single()
}

// Two members are lost one after the other: the last one alone is no majority, and without a ledger it must not act.
func TestALoneSurvivorWithoutALedgerDoesNotAct(t *testing.T) {
	c := sidecars.New(t, sidecars.Setup{})
	lost := time.Now()
	o := c.Others()
	c.Runs[c.Primary].Kill()
	c.Probe.Await(o[0], lost, 5*time.Second)
	c.Runs[o[0]].Kill()
	c.Probe.Silent(3 * time.Second)
	quiet := time.Now()
	<-time.After(2 * time.Second)
	if got := c.Probe.Holders(quiet); len(got) > 0 {
		t.Errorf("%v answers alone", got)
	}
	c.Start(c.Primary)
	c.Probe.Await(c.Primary, time.Now(), 10*time.Second)
	c.Single()
}
