//go:build linux

package netns

import (
	"slices"
	"testing"
	"time"

	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/tests/netns/sidecars"
)

// trio is three nodes whose machines are hired: the one that acts, and the others.
func trio(t *testing.T) (h *sidecars.Hired, acting string, others []string) {
	t.Helper()
	t.Parallel() // most of the time they wait
	nodes := []string{"n1", "n2", "n3"}
	h = sidecars.NewHired(t, nodes, lbOf(nodes...), 2)
	h.Look()
	acting, others = h.Acting()
	return h, acting, others
}

// did fails the test if anything was done but one whole replacement of a node, by others.
func did(t *testing.T, h *sidecars.Hired, node string, old int) {
	t.Helper()
	var got []string
	for _, s := range h.Steps() {
		if s.Node != node || s.By == old {
			t.Errorf("%v, but only others replace %s", s, node)
		}
		got = append(got, s.What)
	}
	if want := []string{"intent", "tombstone", "power off", "call", "create", "claim", "delete", "close"}; !slices.Equal(got, want) {
		t.Errorf("steps %v, want %v", got, want)
	}
}

// The one that is cut off is the one that acts, so that a new one must be found among the others, and the old one stops.
func TestANodeThatIsCutOffDestroysNothingAndIsReplaced(t *testing.T) {
	for name, ledger := range map[string]bool{"with provider and ledger": true, "with the provider alone": false} {
		t.Run(name, func(t *testing.T) {
			h, acting, others := trio(t)
			old := h.Machine(acting)
			at := h.HostOf(old)
			h.Part([]string{at}, []string{h.HostOf(h.Machine(others[0])), h.HostOf(h.Machine(others[1]))})
			if !ledger {
				h.Part([]string{at}, []string{"store"})
			}
			h.Explains(h.Machine(others[0]), 3*time.Second, "replacement of "+acting)
			h.Explains(old, 3*time.Second, "it is in a minority")
			h.Await("create", healsWithin)
			h.Whole(healsWithin)
			did(t, h, acting, old)
			h.Heal() // of what is off nothing comes back
			h.Stays(h.Probe.AtRest(time.Second, 15*time.Second), 2*time.Second)
			did(t, h, acting, old)
			h.Single()
		})
	}
}

// idle checks that nothing is done for a while.
func idle(t *testing.T, h *sidecars.Hired, d time.Duration) {
	t.Helper()
	<-time.After(d)
	if steps := h.Steps(); len(steps) > 0 {
		t.Errorf("did %v", steps)
	}
}

func TestWithoutTheLedgerADestroyedNodeWaits(t *testing.T) {
	h, acting, others := trio(t)
	h.Store.Set(objectstore.Fault{Away: true})
	h.Destroy(h.Machine(others[1]))
	idle(t, h, 10*time.Second) // three times the hold time
	h.Explains(h.Machine(acting), 5*time.Second, "replacement of "+others[1])
	h.Store.Set(objectstore.Fault{})
	h.Whole(healsWithin)
	if h.Count("create") != 1 || h.Count("delete") != 0 {
		t.Errorf("steps: %v", h.Steps())
	}
	h.Single()
}

func TestWithoutTheProviderALostNodeWaits(t *testing.T) {
	h, acting, others := trio(t)
	old := h.Machine(others[1])
	h.SetAway(true)
	h.Hang(old)
	<-time.After(10 * time.Second)
	if h.Count("tombstone")+h.Count("call")+h.Count("close") > 0 {
		t.Errorf("did %v", h.Steps())
	}
	h.Explains(h.Machine(acting), 5*time.Second, "replacement of "+others[1])
	h.SetAway(false)
	h.Whole(healsWithin)
	did(t, h, others[1], old)
	h.Single()
}

// Signatures, tickets and certificates want the time. What is decided does not: such a node's word counts like any other's.
func TestAClockThatIsWrongByTwentyMinutesCostsNobodyAMachine(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 20 * time.Minute, "behind": -20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			h, acting, others := trio(t)
			off, lost := h.Machine(acting), h.Machine(others[1])
			h.StepClock(h.HostOf(off), by)
			h.Kill(off) // what it heard before would tell it that its clock is right
			h.Restart(off, 0)
			h.Explains(off, 20*time.Second, "wall clock is off: "+acting)
			h.Explains(h.Machine(others[0]), 5*time.Second, "wall clock is off: "+acting)
			idle(t, h, 10*time.Second)
			h.Whole(10 * time.Second)
			h.Hang(lost)
			h.Await("intent", healsWithin)
			h.Whole(healsWithin)
			did(t, h, others[1], lost)
			h.Single()
		})
	}
}
