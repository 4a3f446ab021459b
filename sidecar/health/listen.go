//go:build linux

package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a TCP socket that waits for connections, as the kernel tells of it.
type listener struct {
	addr    netip.Addr // unspecified: every address of its family
	only6   bool       // an IPv6 one that takes no IPv4 connections
	waiting uint32     // connections that the program has not accepted yet
	room    uint32     // one more than so many may wait
}

// takes tells whether a connection to addr would be this listener's.
func (l listener) takes(addr netip.Addr) bool {
	switch own := l.addr.Unmap(); {
	case own == addr:
		return true
	case !own.IsUnspecified():
		return false
	case own.Is4():
		return addr.Is4()
	}
	return addr.Is6() || !l.only6
}

// accepts tells whether the kernel would complete one more connection now (sk_acceptq_is_full in include/net/sock.h).
func (l listener) accepts() bool { return l.waiting <= l.room }

// lookAtListener tells what connecting to a port of this machine would, without leaving a trace in the service's log: it
// is the kernel that accepts, for whoever listens, as long as there is room in the queue. Mail servers write two lines for
// each connection that says nothing, which would be all there is in their logs.
func lookAtListener(target netip.AddrPort, timeout time.Duration) (look, error) {
	var all []listener
	families := []byte{unix.AF_INET6}
	if target.Addr().Is4() {
		families = []byte{unix.AF_INET, unix.AF_INET6}
	}
	for _, family := range families {
		some, err := listeners(family, target.Port(), timeout)
		if err != nil {
			return look{}, err
		}
		all = append(all, some...)
	}
	full := false
	for _, l := range all {
		if l.takes(target.Addr()) {
			if l.accepts() {
				return look{ok: true}, nil
			}
			full = true
		}
	}
	if full {
		return look{why: "accepts no more connections"}, nil
	}
	return look{why: unix.ECONNREFUSED.Error()}, nil
}

// listeners asks the kernel (sock_diag(7)) for the TCP sockets that listen on a port.
func listeners(family byte, port uint16, timeout time.Duration) ([]listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("ask for listeners: %w", err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, fmt.Errorf("ask for listeners: %w", err)
	}
	if err := unix.Sendto(fd, listenersRequest(family, port), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask for listeners: %w", err)
	}
	var all []listener
	for buf := make([]byte, 32<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask for listeners: %w", os.NewSyscallError("recvfrom", err))
		}
		some, last, err := parseListeners(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("ask for listeners: %w", err)
		}
		if all = append(all, some...); last {
			return all, nil
		}
	}
}

// Sizes and places in struct inet_diag_req_v2 and struct inet_diag_msg (linux/inet_diag.h).
const (
	requestSize  = 56
	messageSize  = 72
	stateListen  = 10 // TCP_LISTEN of net/tcp_states.h
	attrV6Only   = 11 // INET_DIAG_SKV6ONLY
	sockDiag     = 20 // SOCK_DIAG_BY_FAMILY of linux/sock_diag.h
	atSourcePort = 8  // in a request
	atSource     = 8  // in an answer, behind both ports
	atReceive    = 56
	atSend       = 60
)

func listenersRequest(family byte, port uint16) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+requestSize)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiag)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<stateListen)
	binary.BigEndian.PutUint16(r[atSourcePort:], port)
	return b
}

var errShort = errors.New("the kernel's answer is cut short")

// parseListeners reads one datagram of answers. The second result tells that it is the last.
func parseListeners(b []byte) (all []listener, last bool, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return nil, false, errShort
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return nil, false, errShort
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return all, true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, false, errShort
			}
			return nil, false, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case sockDiag:
			l, err := parseListener(body)
			if err != nil {
				return nil, false, err
			}
			all = append(all, l)
		}
		b = b[min(align(size), len(b)):]
	}
	return all, false, nil
}

func parseListener(b []byte) (listener, error) {
	if len(b) < messageSize {
		return listener{}, errShort
	}
	l := listener{waiting: binary.NativeEndian.Uint32(b[atReceive:]), room: binary.NativeEndian.Uint32(b[atSend:])}
	if b[0] == unix.AF_INET {
		l.addr = netip.AddrFrom4([4]byte(b[atSource:]))
	} else {
		l.addr = netip.AddrFrom16([16]byte(b[atSource:]))
	}
	for attrs := b[messageSize:]; len(attrs) >= unix.NLA_HDRLEN; {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.NLA_HDRLEN || size > len(attrs) {
			return listener{}, errShort
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == attrV6Only && size > unix.NLA_HDRLEN {
			l.only6 = attrs[unix.NLA_HDRLEN] != 0
		}
		attrs = attrs[min(align(size), len(attrs)):]
	}
	return l, nil
}

// align rounds up as netlink does.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
