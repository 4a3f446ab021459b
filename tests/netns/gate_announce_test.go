//go:build linux

package netns

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"understudy/sidecar/boottime"
)

// A third host that speaks to the former holder learns of the new one, whichever is done first.
func TestNeighboursLearnWhereTheAddressIs(t *testing.T) {
	former := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	families(t, func(t *testing.T, vip netip.Prefix) {
		for _, first := range []string{"the gate opens first", "the address is added first"} {
			t.Run(first, func(t *testing.T) {
				l := newLAN(t)
				node, third := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("third", "10.9.0.3/24", "fd00:9::3/64")
				watched := node.watch()
				gates := node.keeper(lb(vip))
				third.answers(ownOf(vip)) // both are on the link
				third.neighbour("eth0", vip.Addr(), former, unix.NUD_REACHABLE)
				learnt := func() bool { return third.neighbourOf("eth0", vip.Addr()).String() == node.mac.String() }
				if first == "the address is added first" {
					must(t, gates.Add("lb"))
					if learnt() || watched.speakingFor(vip.Addr()) != 0 {
						t.Error("the gate is closed and the neighbour has learnt of the address")
					}
				}
				must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
				if first == "the gate opens first" {
					must(t, gates.Add("lb"))
				}
				until(t, "the neighbour knows the node", learnt)

				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- gates.Run(ctx) }()
				for range 2 { // the first repetitions
					third.neighbour("eth0", vip.Addr(), former, unix.NUD_REACHABLE)
					until(t, "the neighbour is told again", learnt)
				}
				must(t, gates.Gate("lb", 0, false))
				third.neighbour("eth0", vip.Addr(), former, unix.NUD_REACHABLE)
				<-time.After(2 * time.Second) // within which there would be one more
				if learnt() {
					t.Error("the gate is closed and the neighbour is told again")
				}
				must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
				until(t, "the neighbour is told when the gate opens again", learnt)
				cancel()
				must(t, <-ended)
			})
		}
	})
}

func ownOf(vip netip.Prefix) netip.Addr {
	if vip.Addr().Is6() {
		return netip.MustParseAddr("fd00:9::1")
	}
	return netip.MustParseAddr("10.9.0.1")
}
