//go:build linux

package netns

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/localcloud"
	"understudy/tests/netns/sidecars"
)

// lbOf is a role without data, of the nodes that follow.
func lbOf(nodes ...string) string {
	return "roles:\n  lb:\n    nodes: [" + strings.Join(nodes, ", ") + "]\n" +
		"    address: {vip: " + sidecars.Address.String() + ", interface: eth0, names: [www]}\n"
}

// healsWithin is how long a cluster may take that is disturbed while it heals, on a machine that is busy with others.
const healsWithin = 2 * time.Minute

// killing is one way to lose the acting sidecar.
type killing struct {
	at        string // the step after which, before its answer
	destroyed bool   // with its machine; otherwise it comes back
}

func (k killing) String() string {
	if k.destroyed {
		return k.at + ", machine destroyed"
	}
	return k.at + ", comes back"
}

// The acting sidecar is killed when the store or the provider has done what it asked, and before it hears of that.
func TestTheActingSidecarMayBeKilledAfterEveryStepOfAReplacement(t *testing.T) {
	var g errgroup.Group
	g.SetLimit(5) // clusters side by side: five sidecars each, which wait most of the time
	// First what takes longest: a call without a create must be given up.
	for _, at := range []string{"call", "intent", "tombstone", "power off", "create", "claim", "delete", "close"} {
		for _, destroyed := range []bool{false, true} {
			k := killing{at, destroyed}
			g.Go(func() error {
				t.Run(k.String(), func(t *testing.T) { killedAfter(t, k) })
				return nil
			})
		}
	}
	_ = g.Wait() // the cases tell what is wrong
}

func killedAfter(t *testing.T, k killing) {
	nodes := []string{"n1", "n2", "n3", "n4", "n5"}
	h := sidecars.NewHired(t, nodes, lbOf(nodes...), 4)
	_, others := h.Acting()
	lost := others[3]
	killed := make(chan int, 1)
	var once sync.Once
	h.After(func(s sidecars.Step) {
		if s.What != k.at || s.Node != lost {
			return
		}
		once.Do(func() {
			actor := h.Steps()[0].By // whose intent it is
			if h.Kill(actor); k.destroyed {
				h.Destroy(actor)
			} else {
				h.Restart(actor, 2*time.Second)
			}
			killed <- actor
		})
	})
	h.Hang(h.Machine(lost))
	select {
	case actor := <-killed:
		t.Logf("machine %d acted; steps: %v", actor, h.Steps())
	case <-time.After(healsWithin):
		t.Fatalf("nobody took the step; steps: %v", h.Steps())
	}
	h.Whole(healsWithin)
	want := 1
	if k.destroyed {
		want = 2
	}
	if got := h.Count("create"); got != want {
		t.Errorf("%d machines were created, want %d; steps: %v", got, want, h.Steps())
	}
}

// What the old machine of a primary has, perhaps nobody else has; what that of its mirror had, the primary has.
func TestTheOldMachineOfAPrimaryWithDataIsKeptPoweredOff(t *testing.T) {
	for _, c := range []struct {
		claim   string
		primary bool
	}{{"the primary's is kept", true}, {"its mirror's is deleted", false}} {
		t.Run(c.claim, func(t *testing.T) {
			t.Parallel()
			h := sidecars.NewHired(t, []string{"n1", "n2", "n3", "d1", "d2"},
				lbOf("n1", "n2", "n3")+"  store:\n    nodes: [d1, d2]\n    data: [{path: /srv/store}]\n", 1)
			st, err := h.Status(h.Machine("n1"))
			if err != nil {
				t.Fatal(err)
			}
			node := "d1"
			if i := slices.IndexFunc(st.Roles, func(r admin.Role) bool { return r.Name == "store" }); (st.Roles[i].Primary == "d1") != c.primary {
				node = "d2"
			}
			lost := h.Machine(node)
			h.Hang(lost)
			h.Await("close", healsWithin)
			kept := 0
			if c.primary {
				kept = 1
			}
			h.WholeKeeping(kept, healsWithin)
			off := slices.ContainsFunc(h.Cloud.Machines(), func(m localcloud.MachineStatus) bool { return m.ID == lost && m.Status == "off" })
			if off != c.primary {
				t.Errorf("the old machine is there: %v; steps: %v", off, h.Steps())
			}
			if h.Count("create") != 1 || h.Count("delete") != 1-kept {
				t.Errorf("steps: %v", h.Steps())
			}
		})
	}
}
