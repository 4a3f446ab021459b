//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"understudy/sidecar/address"
	"understudy/sidecar/boottime"
)

// provocation makes a node speak for its address, if anything can.
type provocation struct {
	what string
	do   func()
	on   *watch
}

// The address is on the node all the time: who takes it away may have been killed.
func TestClosedGateLetsNothingOutByAnyWay(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		front, back := newLAN(t), newLAN(t)
		node := front.host("node", "10.9.0.1/24", "fd00:9::1/64")
		client := front.host("client", "10.9.0.3/24", "fd00:9::3/64")
		behindMAC := node.plug(back, "eth1", "10.8.0.1/24", "fd00:8::1/64")
		other := back.host("other", "10.8.0.3/24", "fd00:8::3/64")
		gates := node.keeper(lb(vip))
		must(t, gates.Add("lb"))
		at := netip.AddrPortFrom(vip.Addr(), 7)
		received := node.echo(at)
		watched, behind := node.watch(), (&lanHost{node.Namespace, back, "node", nil}).watch()
		own := netip.MustParseAddr("10.9.0.1")
		if vip.Addr().Is6() {
			own = netip.MustParseAddr("fd00:9::1")
		}
		other.route(vip.Addr())
		client.answers(own) // the neighbours know each other, and the node is ready
		provocations := []provocation{
			{"asked for the address by a neighbour", func() { client.forgets(vip.Addr()); client.caller(netip.Addr{}, at).answered(quietTime) }, watched},
			{"asked or spoken to on another interface", func() {
				if vip.Addr().Is6() { // Linux answers ARP on any interface, but for IPv6 only on the right one
					other.neighbour("eth0", vip.Addr(), behindMAC, unix.NUD_PERMANENT)
				}
				other.caller(netip.Addr{}, at).answered(quietTime)
			}, behind},
			{"spoken to", func() {
				client.neighbour("eth0", vip.Addr(), node.mac, unix.NUD_PERMANENT)
				client.caller(netip.Addr{}, at).answered(quietTime)
			}, watched},
			{"connected to", func() {
				if c, err := client.dial(netip.AddrPortFrom(vip.Addr(), 81), quietTime); err == nil {
					c.Close()
				}
			}, watched},
			{"speaking by itself", func() { node.caller(vip.Addr(), netip.AddrPortFrom(clientOf(vip), 9)).answered(quietTime) }, watched},
			{"announcing", func() { must(t, gates.Add("lb")) }, watched},
			{"announced by another program", func() { node.announces(vip.Addr()) }, watched},
		}
		for _, p := range provocations {
			p.do()
		}
		client.answers(own) // what the node has sent before is with the switch now
		other.answers(netip.MustParseAddr("10.8.0.1"))
		if n := watched.speakingFor(vip.Addr()) + behind.speakingFor(vip.Addr()); n != 0 || received.Load() != 0 {
			t.Errorf("closed: %d frames speak for the address, %d messages have come in", n, received.Load())
		}
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		for _, p := range provocations {
			before := p.on.speakingFor(vip.Addr())
			p.do()
			until(t, "open, "+p.what+", the node speaks", func() bool { return p.on.speakingFor(vip.Addr()) > before })
		}
	})
}

// A node whose gate is closed is an ordinary client of the holder.
func TestClosedGateDoesNotKeepTheNodeFromTheHolder(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		standby, holder := l.host("standby", "10.9.0.1/24", "fd00:9::1/64"), l.host("holder", "10.9.0.2/24", "fd00:9::2/64")
		standby.keeper(lb(vip))
		gates := holder.keeper(lb(vip))
		at := netip.AddrPortFrom(vip.Addr(), 7)
		holder.echo(at)
		must(t, gates.Add("lb"))
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		standby.caller(netip.Addr{}, at).soonAnswered("the standby reaches the holder")
	})
}

// What a node forwards is not its own: containers on it are clients of the holder, too.
func TestClosedGateLetsForwardedPacketsPass(t *testing.T) {
	front, back := newLAN(t), newLAN(t)
	router, holder := front.host("router", "10.9.0.1/24"), front.host("holder", "10.9.0.2/24")
	router.plug(back, "eth1", "10.8.0.1/24")
	inside := back.host("inside", "10.8.0.3/24")
	router.keeper(lb(vip4))
	gates := holder.keeper(lb(vip4))
	must(t, gates.Add("lb"))
	must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
	at := netip.AddrPortFrom(vip4.Addr(), 7)
	holder.echo(at)
	inside.via("10.9.0.0/24", "10.8.0.1")
	holder.via("10.8.0.0/24", "10.9.0.1")
	inside.caller(netip.Addr{}, at).soonAnswered("the holder is reached through the standby")
}

// Opening the gates anew, in place of an earlier process, has no moment without rules.
func TestOpeningAnewIsNeverOpen(t *testing.T) {
	l := newLAN(t)
	node, client := l.host("node", "10.9.0.1/24"), l.host("client", "10.9.0.3/24")
	at := netip.AddrPortFrom(vip4.Addr(), 7)
	received := node.echo(at)
	gates := node.keeper(lb(vip4))
	must(t, gates.Add("lb"))
	client.neighbour("eth0", vip4.Addr(), node.mac, unix.NUD_PERMANENT)
	c := client.caller(netip.Addr{}, at)
	must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
	c.soonAnswered("the gate is open")
	node.keeper(lb(vip4)) // closes it, for good
	before := received.Load()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				c.conn.Write([]byte("knock"))
			}
		}
	}()
	for range 30 {
		node.keeper(lb(vip4))
	}
	close(stop)
	<-done
	c.answered(quietTime)
	if n := received.Load() - before; n != 0 {
		t.Errorf("%d messages have come in while the rules were replaced", n)
	}
}

// An address that is no role's any more would have no gate, so it must go with the rules.
func TestAnAddressThatNoRoleHasAnyMoreIsTakenAway(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node := l.host("node", "10.9.0.1/24", "fd00:9::1/64")
		gates := node.keeper(lb(vip), address.Spec{Role: "mail", Anchor: netip.MustParseAddr("10.9.0.1")})
		must(t, gates.Add("lb"))
		must(t, node.Do(func() error { return address.Tidy(gatesLog(t), nil) }))
		for _, a := range []netip.Addr{vip.Addr(), netip.MustParseAddr("10.9.0.1")} {
			if got, want := node.has(a), a != vip.Addr(); got != want {
				t.Errorf("%s is on the node: %v, want %v: an anchor is the machine's own", a, got, want)
			}
		}
	})
}

func TestTidyClosesAndTakesAway(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node, client := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("client", "10.9.0.3/24", "fd00:9::3/64")
		gates := node.keeper(lb(vip)) // and its process is gone, say
		must(t, gates.Add("lb"))
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		must(t, node.Do(func() error { return address.Tidy(gatesLog(t), []address.Spec{lb(vip)}) }))
		if node.has(vip.Addr()) {
			t.Error("the address is still there")
		}
		must(t, node.Do(func() error { return address.Tidy(gatesLog(t), []address.Spec{lb(vip)}) })) // once more is no error
		node.put(vip)
		received := node.echo(netip.AddrPortFrom(vip.Addr(), 7))
		client.neighbour("eth0", vip.Addr(), node.mac, unix.NUD_PERMANENT)
		if client.caller(netip.Addr{}, netip.AddrPortFrom(vip.Addr(), 7)).answered(quietTime) || received.Load() != 0 {
			t.Error("the gate is not closed")
		}
	})
}

// The anchor is gated for IP, on the machine's own interface, but stays in its neighbours' tables.
func TestAnchorIsGatedButKeepsItsPlaceInNeighbourTables(t *testing.T) {
	l := newLAN(t)
	anchor := netip.MustParseAddr("10.16.0.5")
	node, router := l.host("node", "10.16.0.5/16", "10.9.0.1/24"), l.host("router", "10.16.0.1/16", "10.9.0.3/24")
	gates := node.keeper(address.Spec{Role: "lb", Anchor: anchor})
	at := netip.AddrPortFrom(anchor, 7)
	received := node.echo(at)
	c := router.caller(netip.Addr{}, at)
	if c.answered(quietTime) || received.Load() != 0 {
		t.Error("the gate is closed and the anchor answers")
	}
	until(t, "the router knows where the anchor is", func() bool { return router.neighbourOf("eth0", anchor).String() == node.mac.String() })
	must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
	c.soonAnswered("the gate is open")
	must(t, gates.Add("lb"))
	must(t, gates.Drop("lb"))
	if there, err := gates.Present("lb"); there || err != nil || !node.has(anchor) {
		t.Errorf("an anchor is no link address: present is %v, %v", there, err)
	}
}

func TestWrongSpecsAreRefused(t *testing.T) {
	l := newLAN(t)
	node := l.host("node", "10.9.0.1/24")
	for _, specs := range [][]address.Spec{
		{lb(vip4), lb(vip6)}, // one role twice
		{lb(vip4), {Role: "mail", Anchor: vip4.Addr()}},
		{{Role: "lb", Link: vip4}},
		{{Role: "lb", Link: vip4, Interface: "eth9"}},
		{{Role: "lb", Anchor: netip.MustParseAddr("127.0.0.1")}},
		{{Role: "lb", Anchor: netip.MustParseAddr("::ffff:10.9.0.10")}},
		{{Anchor: vip4.Addr()}},
	} {
		if a, err := node.open(specs...); err == nil {
			t.Errorf("%v: no error", specs)
			a.Close()
		}
	}
}

// clientOf is the client's address in the family of an address of the node.
func clientOf(vip netip.Prefix) netip.Addr {
	if vip.Addr().Is6() {
		return netip.MustParseAddr("fd00:9::3")
	}
	return netip.MustParseAddr("10.9.0.3")
}

// answers waits until a neighbour takes a message from the host, and so has handled all that came before.
func (h *lanHost) answers(neighbour netip.Addr) {
	h.lan.t.Helper()
	until(h.lan.t, neighbour.String()+" can be connected to, or refuses it", func() bool {
		c, err := h.dial(netip.AddrPortFrom(neighbour, 81), answerTime)
		if err == nil {
			c.Close()
		}
		return err == nil || errors.Is(err, unix.ECONNREFUSED)
	})
}

func (h *lanHost) dial(to netip.AddrPort, within time.Duration) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = (&net.Dialer{Timeout: within}).Dial("tcp", to.String())
		return err
	})
	return c, err
}

// route makes the host look for ip on its own link.
func (h *lanHost) route(ip netip.Addr) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		one := &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: one, Scope: netlink.SCOPE_LINK})
	}))
}

// via makes the host send to a network through a router.
func (h *lanHost) via(network, router string) {
	h.lan.t.Helper()
	_, dst, err := net.ParseCIDR(network)
	must(h.lan.t, err)
	must(h.lan.t, h.Do(func() error { return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(router)}) }))
}

// forgets drops the host's neighbour entry.
func (h *lanHost) forgets(ip netip.Addr) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		err = netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip.AsSlice()})
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}))
}

// put puts an address on the host, as somebody else might.
func (h *lanHost) put(p netip.Prefix) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(link, addr)
	}))
}

// has tells whether an address is on the host.
func (h *lanHost) has(ip netip.Addr) (found bool) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range addrs {
			found = found || a.IP.Equal(ip.AsSlice())
		}
		return err
	}))
	return found
}

// announces writes frames as any other program could: a gratuitous ARP message, or an advertisement whose sender is
// another address of the machine than the one it is about.
func (h *lanHost) announces(ip netip.Addr) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if ip.Is6() {
			return advertise(link.Attrs().Index, h.mac, ip)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		m := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, h.mac...)
		m = append(m, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
		m = append(append(append(append(m, h.mac...), ip.AsSlice()...), h.mac...), ip.AsSlice()...)
		arp := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
		err = unix.Sendto(fd, m, 0, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: link.Attrs().Index})
		if errors.Is(err, unix.ENOBUFS) {
			return nil // so the gate's refusal looks
		}
		return err
	}))
}

func advertise(index int, mac net.HardwareAddr, ip netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, ip.AsSlice()...)
	m = append(append(m, 2, 1), mac...)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr("fd00:9::1").As16()}),
	)
	if err != nil {
		return err
	}
	err = unix.Sendto(fd, m, 0, &unix.SockaddrInet6{ZoneId: uint32(index), Addr: netip.MustParseAddr("ff02::1").As16()})
	if errors.Is(err, unix.EPERM) {
		return nil // so the gate's refusal looks
	}
	return err
}
