//go:build linux

package keepalive

import (
	"net"
	"net/netip"
	"time"
)

// link is a socket by the addresses that this package uses.
type link interface {
	read(packet []byte) (int, netip.AddrPort, error)
	write(packet []byte, to netip.AddrPort) error
	interrupt() // ends a read, and each one from now on
}

// newLink takes the short way for a UDP socket, which costs no memory for addresses.
func newLink(conn net.PacketConn) link {
	if udp, ok := conn.(*net.UDPConn); ok {
		if l, err := newUDPLink(udp); err == nil {
			return l
		}
	}
	return anyLink{conn}
}

type anyLink struct{ conn net.PacketConn }

func (l anyLink) read(packet []byte) (int, netip.AddrPort, error) {
	n, from, err := l.conn.ReadFrom(packet)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	udp, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, net.InvalidAddrError("sender is not at an address of UDP")
	}
	a := udp.AddrPort()
	return n, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

func (l anyLink) write(packet []byte, to netip.AddrPort) error {
	_, err := l.conn.WriteTo(packet, net.UDPAddrFromAddrPort(to))
	return err
}

func (l anyLink) interrupt() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) }
