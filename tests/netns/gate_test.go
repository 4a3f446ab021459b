//go:build linux

package netns

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"understudy/sidecar/address"
	"understudy/sidecar/boottime"
)

// The address of the role lb in these tests, in both families.
var (
	vip4 = netip.MustParsePrefix("10.9.0.10/24")
	vip6 = netip.MustParsePrefix("fd00:9::10/64")
)

// families runs a test once with an IPv4 and once with an IPv6 address.
func families(t *testing.T, test func(t *testing.T, vip netip.Prefix)) {
	t.Run("IPv4", func(t *testing.T) { test(t, vip4) })
	t.Run("IPv6", func(t *testing.T) { test(t, vip6) })
}

func lb(vip netip.Prefix) address.Spec { return address.Spec{Role: "lb", Link: vip, Interface: "eth0"} }

const (
	answerTime = 300 * time.Millisecond // for what must come
	quietTime  = 50 * time.Millisecond  // for what must not
)

func TestGateDecidesWhetherTheAddressAnswers(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node, client := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("client", "10.9.0.3/24", "fd00:9::3/64")
		gates := node.keeper(lb(vip))
		at := netip.AddrPortFrom(vip.Addr(), 7)
		received := node.echo(at)
		must(t, gates.Add("lb"))
		c := client.caller(netip.Addr{}, at)
		client.neighbour("eth0", vip.Addr(), node.mac, unix.NUD_PERMANENT)
		if c.answered(quietTime) || received.Load() != 0 {
			t.Fatalf("a closed gate lets %d messages in", received.Load())
		}
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		c.soonAnswered("the gate is open")
		must(t, gates.Gate("lb", 0, false))
		before := received.Load()
		if c.answered(quietTime) || received.Load() != before {
			t.Errorf("a gate that was closed again lets %d messages in", received.Load()-before)
		}
	})
}

// The node's own connections must not die with the duty, so they do not come from the address.
func TestNodeDoesNotSpeakFromTheAddressByItself(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node := l.host("node", "10.9.0.1/24", "fd00:9::1/64")
		l.host("client", "10.9.0.3/24", "fd00:9::3/64")
		gates := node.keeper(lb(vip))
		must(t, gates.Add("lb"))
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		from := node.caller(netip.Addr{}, netip.AddrPortFrom(clientOf(vip), 9)).conn.LocalAddr()
		if got := netip.MustParseAddrPort(from.String()).Addr(); got != ownOf(vip) {
			t.Errorf("the node speaks from %v, want %v", got, ownOf(vip))
		}
	})
}
