//go:build linux

package address

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long a connection must have been silent both ways to count as idle. It covers the time between a client's
// connecting, or its last answer, and the request that is under way already.
const quiet = 200 * time.Millisecond

// young is how long a connection on which the client has said nothing yet counts as in use: whoever connects is about to ask, and may be slow.
// Browsers also open some in advance, which say nothing for long.
const young = time.Second

// Sockets counts the TCP connections that end at the role's addresses on this machine and are in use: a request or an
// answer is under way on them, as far as the kernel can tell. Not counted are those that wait for their client to say
// something, such as kept-alive ones between two requests, and those that are over but for the farewell. Roles without an
// address here have none.
//
// The kernel is asked (sock_diag(7)) for the connections of these addresses only, so other traffic costs nothing.
func (a *Addresses) Sockets(ctx context.Context, role string) (int, error) {
	a.mu.Lock()
	g, err := a.gate(role)
	a.mu.Unlock()
	if err != nil {
		return 0, err
	}
	count := 0
	for _, ip := range g.addresses() {
		for _, family := range families(ip) {
			n, err := a.diag.count(ctx, family, ip)
			if err != nil {
				return 0, fmt.Errorf("count the connections of %s: %w", ip, err)
			}
			count += n
		}
	}
	return count, nil
}

// families are those of sockets that may end at ip: one that listens on IPv6 may take IPv4 connections, too (ipv6(7)).
func families(ip netip.Addr) []byte {
	if ip.Is4() {
		return []byte{unix.AF_INET, unix.AF_INET6}
	}
	return []byte{unix.AF_INET6}
}

// States of a TCP connection, from linux/tcp_states.h (net/tcp_states.h).
const (
	stateEstablished = 1
	stateSynReceived = 3
	stateFinWait1    = 4
	stateCloseWait   = 8
	stateLastAck     = 9
	stateClosing     = 11
	stateNewSyn      = 12 // how a connection of which only the first packet has come is asked for
)

// connection is what the kernel tells of one.
type connection struct {
	state           uint8
	retransmissions uint8
	// unread and unsent are bytes: arrived and not read by the program, written and not acknowledged by the client.
	// Info is missing for connections that are not established yet.
	unread, unsent uint32
	hasInfo        bool
	// heard and spoke are how long ago data last arrived and was last sent. Before the first, it is the connecting.
	heard, spoke time.Duration
	mute         bool // no data have ever arrived
}

// inUse tells whether something is under way on the connection.
func (c connection) inUse() bool {
	switch c.state {
	case stateSynReceived, stateNewSyn:
		return c.retransmissions == 0 // else the client is not there
	case stateFinWait1, stateClosing, stateLastAck:
		return c.unsent > 1 // the farewell itself counts as one byte
	case stateEstablished, stateCloseWait:
	default:
		return false
	}
	if c.unread > 0 || c.unsent > 0 || !c.hasInfo {
		return true
	}
	if c.mute {
		return c.heard < young
	}
	// Who spoke last? A client that did waits for its answer.
	return c.heard < c.spoke || min(c.heard, c.spoke) < quiet
}

// diagnosis is the socket by which connections are asked for. A negative fd is not open.
type diagnosis struct {
	fd   int
	turn chan struct{} // one asks at a time; holds one token
}

func (d *diagnosis) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("open a netlink socket for connections: %w", err)
	}
	d.fd, d.turn = fd, make(chan struct{}, 1)
	d.turn <- struct{}{}
	timeout := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
}

// count counts the connections in use of one family of sockets.
func (d *diagnosis) count(ctx context.Context, family byte, ip netip.Addr) (int, error) {
	select {
	case <-d.turn:
		defer func() { d.turn <- struct{}{} }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	request := diagnosisRequest(family, ip)
	if err := unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	count := 0
	for buf := make([]byte, 64<<10); ; {
		n, _, err := unix.Recvfrom(d.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		more, last, err := connections(buf[:n])
		if err != nil {
			return 0, err
		}
		for _, c := range more {
			if c.inUse() {
				count++
			}
		}
		if last {
			return count, nil
		}
	}
}

// diagnosisRequest asks for the TCP connections whose own address is ip: struct inet_diag_req_v2 and a filter
// (linux/inet_diag.h).
func diagnosisRequest(family byte, ip netip.Addr) []byte {
	const states = 1<<stateEstablished | 1<<stateSynReceived | 1<<stateFinWait1 | 1<<stateCloseWait | 1<<stateLastAck |
		1<<stateClosing | 1<<stateNewSyn
	const wantInfo = 1 << (inetDiagInfo - 1)
	r := binary.NativeEndian.AppendUint32(nil, 0) // the length, below
	r = binary.NativeEndian.AppendUint16(r, unix.SOCK_DIAG_BY_FAMILY)
	r = binary.NativeEndian.AppendUint16(r, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r = append(r, make([]byte, 8)...) // number and port
	r = append(r, family, unix.IPPROTO_TCP, wantInfo, 0)
	r = binary.NativeEndian.AppendUint32(r, states)
	r = append(r, make([]byte, sizeofSockID)...) // of no meaning in a dump

	condition := localAddress(ip)
	r = binary.NativeEndian.AppendUint16(r, uint16(unix.SizeofNlAttr+len(condition)))
	r = binary.NativeEndian.AppendUint16(r, 1) // INET_DIAG_REQ_BYTECODE
	r = append(r, condition...)
	binary.NativeEndian.PutUint32(r, uint32(len(r)))
	return r
}

const (
	sizeofSockID = 48
	inetDiagInfo = 2 // struct tcp_info
)

// localAddress is a filter of one condition: struct inet_diag_bc_op and inet_diag_hostcond. One that is not met leaves the
// filter by jumping beyond its end, which means no.
func localAddress(ip netip.Addr) []byte {
	const sourceCondition, operation = 7, 4 // INET_DIAG_BC_S_COND; the size of the operation
	key := ip.AsSlice()
	family := byte(unix.AF_INET)
	if ip.Is6() {
		family = unix.AF_INET6
	}
	size := operation + 8 + len(key)
	f := []byte{sourceCondition, byte(size)}
	f = binary.NativeEndian.AppendUint16(f, uint16(size+operation))
	f = append(f, family, byte(ip.BitLen()), 0, 0)
	f = binary.NativeEndian.AppendUint32(f, ^uint32(0)) // any port
	return append(f, key...)
}

// connections reads one piece of the kernel's answer, and tells whether it is the last.
func connections(answer []byte) (found []connection, last bool, err error) {
	for len(answer) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(answer))
		if length < unix.SizeofNlMsghdr || length > len(answer) {
			return nil, false, fmt.Errorf("a message of %d bytes in %d", length, len(answer))
		}
		body := answer[unix.SizeofNlMsghdr:length]
		switch kind := binary.NativeEndian.Uint16(answer[4:]); kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR: // either may tell that the asking went wrong
			if len(body) < 4 {
				return nil, false, errors.New("an end without a result")
			}
			if number := int32(binary.NativeEndian.Uint32(body)); number != 0 {
				return nil, false, unix.Errno(-number)
			}
			return found, true, nil
		case unix.SOCK_DIAG_BY_FAMILY:
			c, err := parseConnection(body)
			if err != nil {
				return nil, false, err
			}
			found = append(found, c)
		default:
			return nil, false, fmt.Errorf("a message of kind %d", kind)
		}
		answer = answer[min(len(answer), align(length)):]
	}
	return found, false, nil
}

// parseConnection reads struct inet_diag_msg and the attributes after it.
func parseConnection(b []byte) (connection, error) {
	const timers = 4 + sizeofSockID // expires, rqueue, wqueue, uid, inode follow
	if len(b) < timers+20 {
		return connection{}, fmt.Errorf("a connection of %d bytes", len(b))
	}
	c := connection{
		state: b[1], retransmissions: b[3],
		unread: binary.NativeEndian.Uint32(b[timers+4:]), unsent: binary.NativeEndian.Uint32(b[timers+8:]),
	}
	for b = b[timers+20:]; len(b) >= unix.SizeofNlAttr; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return connection{}, fmt.Errorf("an attribute of %d bytes in %d", length, len(b))
		}
		// struct tcp_info of linux/tcp.h: last_data_sent is at 44, last_ack_sent, last_data_recv, in milliseconds; bytes_received at 128.
		if value := b[unix.SizeofNlAttr:length]; binary.NativeEndian.Uint16(b[2:]) == inetDiagInfo && len(value) >= 56 {
			c.hasInfo = true
			c.spoke = time.Duration(binary.NativeEndian.Uint32(value[44:])) * time.Millisecond
			c.heard = time.Duration(binary.NativeEndian.Uint32(value[52:])) * time.Millisecond
			c.mute = len(value) >= 136 && binary.NativeEndian.Uint64(value[128:]) == 0
		}
		b = b[min(len(b), align(length)):]
	}
	return c, nil
}

// align rounds up to where netlink's next message or attribute begins.
func align(length int) int { return (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
