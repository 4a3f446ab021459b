//go:build linux

package address

import (
	"errors"
	"fmt"
	"math"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Add puts the role's link address on its interface and announces it there, at once and, by Run, a few times more. An
// address that is there already is announced all the same. Announcements leave only while the gate is open; opening it
// announces again, so the order of the two does not matter. Roles without a link address: nothing happens.
func (a *Addresses) Add(role string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.gate(role)
	if err != nil || !g.Link.IsValid() {
		return err
	}
	link, err := a.links.LinkByName(g.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", g.Interface, err)
	}
	if err := a.links.AddrAdd(link, onLink(g)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add %s to %s: %w", g.Link, g.Interface, err)
	}
	g.added = true
	a.announceAnew(g)
	return nil
}

// onLink is the address as the kernel is told it. An IPv6 address is used at once, without asking whether somebody else has
// it (RFC 4862 section 5.4 takes a second, and the former holder may not answer), and is deprecated, so that the machine does
// not choose it as the source of its own connections, which would die with the duty (RFC 6724 section 5 rule 3).
func onLink(g *gate) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(g)}
	if g.Link.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
		addr.ValidLft, addr.PreferedLft = math.MaxUint32, 0
	}
	return addr
}

func ipNet(g *gate) *net.IPNet {
	ip := g.Link.Addr()
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(g.Link.Bits(), ip.BitLen())}
}

// Drop takes the role's link address off its interface. One that is not there is no error. The gate is not touched: close
// it first.
func (a *Addresses) Drop(role string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.gate(role)
	if err != nil || !g.Link.IsValid() {
		return err
	}
	return a.remove(g)
}

func (a *Addresses) remove(g *gate) error {
	g.added = false
	link, err := a.links.LinkByName(g.Interface)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil // and its addresses with it
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", g.Interface, err)
	}
	if err := a.links.AddrDel(link, &netlink.Addr{IPNet: ipNet(g)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take %s off %s: %w", g.Link, g.Interface, err)
	}
	return nil
}

// Present tells whether the role's link address is on its interface. Without a link address it never is.
func (a *Addresses) Present(role string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.gate(role)
	if err != nil || !g.Link.IsValid() {
		return false, err
	}
	return a.present(g)
}

func (a *Addresses) present(g *gate) (bool, error) {
	link, err := a.links.LinkByName(g.Interface)
	if err != nil {
		return false, fmt.Errorf("find interface %s: %w", g.Interface, err)
	}
	family := netlink.FAMILY_V4
	if g.Link.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := a.links.AddrList(link, family)
	if err != nil {
		return false, fmt.Errorf("list the addresses of %s: %w", g.Interface, err)
	}
	for _, addr := range addrs {
		if addr.IP.Equal(g.Link.Addr().AsSlice()) {
			return true, nil
		}
	}
	return false, nil
}
