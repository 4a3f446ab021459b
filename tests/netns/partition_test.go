//go:build linux

package netns

import (
	"slices"
	"testing"
	"time"
)

// others are the nodes without the primary, the first standby in front.
func (c *cluster) others() []string {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n string) bool { return n == c.primary })
}

func TestAPrimaryThatIsCutOffGivesUpBeforeAnotherTakesOver(t *testing.T) {
	c := newCluster(t, setup{})
	cut := time.Now()
	c.Part([]string{c.primary}, c.others()) // the client still reaches all of them
	first, last := c.probe.Await(c.standby, cut, 5*time.Second)
	t.Logf("the old one answered for %v, the new one from %v on", last.Sub(cut), first.Sub(cut))
	c.single()
	c.stays(c.standby, time.Second)
	c.Heal()
	c.stays(c.standby, 3*time.Second) // the old one does not take it back
	c.single()
}

func TestACutInOneDirectionMakesNoTwoHolders(t *testing.T) {
	for _, way := range []string{"outwards", "inwards"} {
		t.Run(way, func(t *testing.T) {
			c := newCluster(t, setup{})
			cut := time.Now()
			for _, o := range c.others() {
				if way == "outwards" {
					c.Cut(c.primary, o)
				} else {
					c.Cut(o, c.primary)
				}
			}
			// Outwards: the others hear nothing and one takes over. Inwards: they hear it, but it is confirmed by nobody; it
			// gives the duty up and says so.
			first, last := c.probe.Await(c.standby, cut, 5*time.Second)
			t.Logf("the old one answered for %v, the new one from %v on", last.Sub(cut), first.Sub(cut))
			c.single()
			c.Heal()
			c.stays(c.standby, 3*time.Second)
			c.single()
		})
	}
}

func TestABrokenLinkBetweenTwoIsNoFailure(t *testing.T) {
	c := newCluster(t, setup{})
	c.Part([]string{c.primary}, []string{c.standby})
	c.stays(c.primary, 4*time.Second)
	c.Heal()
	c.stays(c.primary, time.Second)
	c.single()
}

func TestAMinorityWithoutALedgerTakesNothing(t *testing.T) {
	c := newCluster(t, setup{})
	cut := time.Now()
	o := c.others()
	c.Part([]string{c.primary}, []string{o[0]}, []string{o[1]})
	c.probe.Silent(3 * time.Second)
	quiet := time.Now()
	<-time.After(3 * time.Second)
	if got := c.probe.Holders(quiet); len(got) > 0 {
		t.Errorf("%v answered although nobody has a majority", got)
	}
	c.single()
	c.Heal()
	healed := time.Now()
	for who := ""; who == ""; who = c.probe.Now() {
		if time.Since(healed) > 10*time.Second {
			t.Fatal("nobody answers ten seconds after the partition")
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Logf("answered again %v after the partition of %v", time.Since(healed), healed.Sub(cut))
	c.single()
}

func TestLossIsNoFailure(t *testing.T) {
	c := newCluster(t, setup{})
	c.Lose(20)
	began := time.Now()
	<-time.After(15 * time.Second)
	if got := c.probe.Holders(began); !slices.Equal(got, []string{c.primary}) {
		t.Errorf("with 20%% loss the address was at %v, want at %s alone", got, c.primary)
	}
	c.Heal()
	c.stays(c.primary, time.Second)
	c.single()
}

// Two members are lost one after the other: the last one alone is no majority, and without a ledger it must not act.
func TestALoneSurvivorWithoutALedgerDoesNotAct(t *testing.T) {
	c := newCluster(t, setup{})
	lost := time.Now()
	o := c.others()
	c.runs[c.primary].Kill()
	c.probe.Await(o[0], lost, 5*time.Second)
	c.runs[o[0]].Kill()
	c.probe.Silent(3 * time.Second)
	quiet := time.Now()
	<-time.After(2 * time.Second)
	if got := c.probe.Holders(quiet); len(got) > 0 {
		t.Errorf("%v answers alone", got)
	}
	c.start(c.primary)
	c.probe.Await(c.primary, time.Now(), 10*time.Second)
	c.single()
}
