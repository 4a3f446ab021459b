//go:build linux

package address

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
)

// announcements are the times at which an address is announced after it became ours: at once, and again because the first
// may be lost, or a switch may not forward yet.
var announcements = [...]time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, time.Second, 5 * time.Second}

// announcer holds the sockets that announcements leave by.
type announcer struct{ arp, icmp int }

// open opens the sockets. They receive nothing.
func (s *announcer) open() (err error) {
	// A packet socket bound to protocol 0 receives nothing (packet(7)).
	if s.arp, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		s.arp = -1
		return fmt.Errorf("open a socket for ARP: %w", err)
	}
	s.icmp, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		s.icmp = -1
		return nil // a machine without IPv6 has no such addresses either
	}
	if err != nil {
		s.icmp = -1
		return fmt.Errorf("open a socket for neighbour advertisements: %w", err)
	}
	var nothing unix.ICMPv6Filter
	for i := range nothing.Data {
		nothing.Data[i] = ^uint32(0)
	}
	return errors.Join(
		unix.SetsockoptICMPv6Filter(s.icmp, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &nothing),
		// RFC 4861 section 7.1.2: others throw away an advertisement that may have crossed a router.
		unix.SetsockoptInt(s.icmp, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.SetsockoptInt(s.icmp, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
	)
}

// send announces ip, which is on the interface with that number and hardware address.
func (s *announcer) send(ip netip.Addr, index int, hardware net.HardwareAddr) error {
	if ip.Is4() {
		to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: index, Halen: 6}
		copy(to.Addr[:], broadcast)
		return errors.Join(
			unix.Sendto(s.arp, gratuitousARP(arpRequest, ip, hardware), 0, to),
			unix.Sendto(s.arp, gratuitousARP(arpReply, ip, hardware), 0, to),
		)
	}
	allNodes := &unix.SockaddrInet6{ZoneId: uint32(index), Addr: netip.MustParseAddr("ff02::1").As16()}
	return unix.Sendmsg(s.icmp, unsolicitedAdvertisement(ip, hardware), sourceAddress(ip, index), allNodes, 0)
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

const (
	arpRequest = 1
	arpReply   = 2
)

// gratuitousARP is an ARP message that tells everybody where ip is (RFC 5944 section 4.6). Both forms are sent: some
// systems take an existing entry's change from requests only, some from replies only.
func gratuitousARP(operation uint16, ip netip.Addr, hardware net.HardwareAddr) []byte {
	m := binary.BigEndian.AppendUint16(nil, unix.ARPHRD_ETHER)
	m = binary.BigEndian.AppendUint16(m, unix.ETH_P_IP)
	m = append(m, 6, 4)
	m = binary.BigEndian.AppendUint16(m, operation)
	m = append(append(m, hardware...), ip.AsSlice()...)
	target := broadcast
	if operation == arpReply {
		target = hardware
	}
	return append(append(m, target...), ip.AsSlice()...)
}

// unsolicitedAdvertisement is the ICMPv6 message that tells everybody where ip is (RFC 4861 section 7.2.6). The kernel fills
// in the checksum.
func unsolicitedAdvertisement(ip netip.Addr, hardware net.HardwareAddr) []byte {
	const advertisement, override, targetLinkLayer = 136, 0x20, 2
	m := append([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, ip.AsSlice()...)
	return append(append(m, targetLinkLayer, 1), hardware...) // the length counts units of 8 bytes
}

// sourceAddress is the control message that sends from ip through one interface (RFC 3542 section 6.2).
func sourceAddress(ip netip.Addr, index int) []byte {
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: ip.As16(), Ifindex: uint32(index)})
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// announceAnew begins the announcements of a gate's address from the first, which is made at once.
func (a *Addresses) announceAnew(g *gate) {
	g.since, g.announced = boottime.Now(), 0
	a.announce(g)
	select {
	case a.changed <- struct{}{}:
	default: // Run has not even seen the last change
	}
}

// announce makes the next announcement. An address whose gate has closed is not announced; the kernel would not let it out.
func (a *Addresses) announce(g *gate) {
	if !g.added || g.until <= boottime.Now() {
		g.announced = len(announcements)
		return
	}
	g.announced++
	link, err := a.links.LinkByName(g.Interface)
	if err == nil {
		attrs := link.Attrs()
		if len(attrs.HardwareAddr) != len(broadcast) {
			return // not Ethernet: there is no neighbour table to correct
		}
		err = a.raw.send(g.Link.Addr(), attrs.Index, attrs.HardwareAddr)
	}
	if err != nil { // others find us all the same, when they ask
		a.log.Warn("announcing an address", "role", g.Role, "address", g.Link.Addr(), "err", err)
	}
}

// checkEvery is the pause between two looks whether the rules still stand.
const checkEvery = time.Second

// Run repeats the announcements, and writes the rules anew if they have gone, until ctx ends. Then it returns nil; it
// returns ErrSuperseded once the rules are another process's.
func (a *Addresses) Run(ctx context.Context) error {
	repeat := time.NewTimer(0)
	defer repeat.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
			if err := a.check(); errors.Is(err, ErrSuperseded) {
				return err
			} else if err != nil { // tried again soon
				a.log.Warn("checking the rules of the gates", "err", err)
			}
			continue
		case <-a.changed:
		case <-repeat.C:
		}
		if wait := a.repeat(boottime.Now()); wait < cluster.Forever {
			repeat.Reset(wait)
		}
	}
}

// check looks whether the rules stand, by getting a ticket, which is what fails if they do not.
func (a *Addresses) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.newTicket()
	return err
}

// repeat makes the announcements that are due, and returns the time until the next.
func (a *Addresses) repeat(now cluster.Instant) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := time.Duration(cluster.Forever)
	for _, role := range a.roles() {
		g := a.gates[role]
		if g.announced < len(announcements) && now.Sub(g.since) >= announcements[g.announced] {
			a.announce(g)
		}
		if g.announced < len(announcements) {
			wait = min(wait, max(0, g.since.Add(announcements[g.announced]).Sub(now)))
		}
	}
	return wait
}
