//go:build linux

package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"understudy/sidecar/address"
	"understudy/sidecar/cloud/localcloud/netns"
)

// lan is a switch with hosts plugged into it, each a network namespace.
type lan struct {
	t   *testing.T
	hub *netns.Namespace
}

// lanHost is a host of a lan. Its interface there is eth0.
type lanHost struct {
	*netns.Namespace
	lan  *lan
	name string
	mac  net.HardwareAddr
}

var lans atomic.Int64

func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	l := &lan{t: t}
	l.hub = l.space(fmt.Sprintf("understudy-lan-%d-%d", os.Getpid(), lans.Add(1)))
	return l
}

func (l *lan) space(name string) *netns.Namespace {
	l.t.Helper()
	n, err := netns.Create(name)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := errors.Join(n.Close(), netns.Remove(name)); err != nil {
			l.t.Error(err)
		}
	})
	return n
}

// host makes a host with addresses on eth0.
func (l *lan) host(name string, addresses ...string) *lanHost {
	l.t.Helper()
	h := &lanHost{Namespace: l.space(l.hub.Name + "-" + name), lan: l, name: name}
	h.mac = h.plug(l, "eth0", addresses...)
	return h
}

// plug joins the host to a lan by one more interface.
func (h *lanHost) plug(l *lan, device string, addresses ...string) net.HardwareAddr {
	t := l.t
	t.Helper()
	port := "p-" + h.name
	inside, err := vns.GetFromPath(netns.Path(h.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	must(t, l.hub.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: device, PeerNamespace: netlink.NsFd(inside)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make link %s: %w", port, err)
		}
		bridge, err := netlink.LinkByName(netns.Bridge)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(veth, bridge), netlink.LinkSetUp(veth))
	}))
	var mac net.HardwareAddr
	must(t, h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("add %s: %w", a, err)
			}
		}
		mac = link.Attrs().HardwareAddr
		return netlink.LinkSetUp(link)
	}))
	return mac
}

// keeper opens the gates on the host, in this process.
func (h *lanHost) keeper(specs ...address.Spec) *address.Addresses {
	h.lan.t.Helper()
	a, err := h.open(specs...)
	must(h.lan.t, err)
	h.lan.t.Cleanup(func() {
		if err := a.Close(); err != nil && !errors.Is(err, address.ErrSuperseded) {
			h.lan.t.Error(err)
		}
	})
	return a
}

func (h *lanHost) open(specs ...address.Spec) (a *address.Addresses, err error) {
	err = h.Do(func() (err error) {
		a, err = address.Open(gatesLog(h.lan.t), specs)
		return err
	})
	return a, err
}

func gatesLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// echo answers UDP on one address of the host, which need not be there, and counts what it has received.
func (h *lanHost) echo(at netip.AddrPort) *atomic.Int64 {
	t := h.lan.t
	t.Helper()
	var conn net.PacketConn
	must(t, h.Do(func() (err error) {
		config := net.ListenConfig{Control: anyAddress}
		conn, err = config.ListenPacket(context.Background(), "udp", at.String())
		return err
	}))
	received := &atomic.Int64{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				received.Add(1)
				conn.WriteTo(buf[:n], from) // a closed gate refuses it, which is what is tested
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return received
}

// anyAddress lets a socket be bound to an address that the machine does not have (ip(7)).
func anyAddress(network, _ string, c syscall.RawConn) (err error) {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if network[len(network)-1] == '6' {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }), err)
}

// caller asks an echo from the host.
type caller struct {
	t    *testing.T
	conn net.Conn
	n    uint64
}

// from may be invalid: any of the host's.
func (h *lanHost) caller(from netip.Addr, to netip.AddrPort) *caller {
	t := h.lan.t
	t.Helper()
	c := &caller{t: t}
	must(t, h.Do(func() (err error) {
		d := net.Dialer{Control: anyAddress}
		if from.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c.conn, err = d.Dial("udp", to.String())
		return err
	}))
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// answered sends one message and tells whether it has come back within a time.
func (c *caller) answered(within time.Duration) bool {
	c.n++
	c.conn.SetReadDeadline(time.Now().Add(within))
	if _, err := c.conn.Write(binary.BigEndian.AppendUint64(nil, c.n)); err != nil {
		return false
	}
	buf := make([]byte, 16)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return false
		}
		if n == 8 && binary.BigEndian.Uint64(buf) == c.n {
			return true
		}
	}
}

// soonAnswered waits for an answer.
func (c *caller) soonAnswered(why string) {
	c.t.Helper()
	until(c.t, "an answer, as "+why, func() bool { return c.answered(answerTime) })
}

// neighbour writes a host's neighbour entry: so it speaks to ip at mac without asking.
func (h *lanHost) neighbour(device string, ip netip.Addr, mac net.HardwareAddr, state int) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip.AsSlice(), HardwareAddr: mac, State: state})
	}))
}

// neighbourOf is the hardware address that a host has for ip.
func (h *lanHost) neighbourOf(device string, ip netip.Addr) (mac net.HardwareAddr) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		all, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
		for _, n := range all {
			if n.IP.Equal(ip.AsSlice()) {
				mac = n.HardwareAddr
			}
		}
		return err
	}))
	return mac
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}
