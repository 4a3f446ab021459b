//go:build linux

package keepalive

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// udpLink is a UDP socket, read by one goroutine and written by any.
//
// Its system calls never wait, so they are made without telling the scheduler. Told, it would wake its monitor thread for each
// datagram of a process that is otherwise asleep: with eight members that was half of all context switches, and a sixth of
// the CPU that a sidecar at rest costs.
type udpLink struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	six  bool // an IPv6 socket, which takes IPv4 addresses in their mapped form

	in, out struct { // arguments and results of the calls below, here so that none of them costs memory
		packet []byte
		n      int
		err    error
	}
	from      unix.RawSockaddrAny
	writing   sync.Mutex // of out, to4 and to6: the reader writes answers while the sender writes beats
	to4       unix.RawSockaddrInet4
	to6       unix.RawSockaddrInet6
	recv, put func(fd uintptr) bool
}

func newUDPLink(conn *net.UDPConn) (*udpLink, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &udpLink{conn: conn, raw: raw}
	if e := raw.Control(func(fd uintptr) {
		var at unix.Sockaddr
		at, err = unix.Getsockname(int(fd))
		_, l.six = at.(*unix.SockaddrInet6)
	}); e != nil {
		err = e
	}
	l.recv, l.put = l.recvfrom, l.sendto
	return l, err
}

// read waits for a datagram.
func (l *udpLink) read(packet []byte) (int, netip.AddrPort, error) {
	l.in.packet = packet
	if err := l.raw.Read(l.recv); err != nil {
		return 0, netip.AddrPort{}, err
	}
	return l.in.n, addrPort(&l.from), l.in.err
}

// recvfrom reports whether there was anything to read (recvfrom(2)).
func (l *udpLink) recvfrom(fd uintptr) bool {
	p := unsafe.SliceData(l.in.packet)
	for {
		size := uint32(unsafe.Sizeof(l.from))
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(p)), uintptr(len(l.in.packet)), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&l.from)), uintptr(unsafe.Pointer(&size)))
		switch e {
		case 0:
			l.in.n, l.in.err = int(n), nil
		case unix.EAGAIN:
			return false
		case unix.EINTR:
			continue
		default:
			l.in.n, l.in.err = 0, os.NewSyscallError("recvfrom", e)
		}
		return true
	}
}

// write sends a datagram, or fails if the socket has no room for it.
func (l *udpLink) write(packet []byte, to netip.AddrPort) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	a := to.Addr()
	switch {
	case len(packet) == 0 || !a.IsValid() || a.Zone() != "" || !l.six && !a.Unmap().Is4():
		return net.InvalidAddrError("nothing, or to nowhere that this socket reaches: " + to.String())
	case l.six:
		l.to6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(to.Port()), Addr: a.As16()}
	default:
		l.to4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(to.Port()), Addr: a.Unmap().As4()}
	}
	l.out.packet = packet
	if err := l.raw.Write(l.put); err != nil {
		return err
	}
	return l.out.err
}

// sendto tries once (sendto(2)).
func (l *udpLink) sendto(fd uintptr) bool {
	to, size := unsafe.Pointer(&l.to4), unsafe.Sizeof(l.to4)
	if l.six {
		to, size = unsafe.Pointer(&l.to6), unsafe.Sizeof(l.to6)
	}
	p := unsafe.SliceData(l.out.packet)
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(p)), uintptr(len(l.out.packet)), unix.MSG_DONTWAIT, uintptr(to), size)
	if l.out.err = nil; e != 0 {
		l.out.err = os.NewSyscallError("sendto", e)
	}
	return true
}

func (l *udpLink) interrupt() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) } // fails on a closed one only, which does not wait

// addrPort reads what the kernel has written. The zero value is an address of another family, which cannot be.
func addrPort(a *unix.RawSockaddrAny) netip.AddrPort {
	switch a.Addr.Family {
	case unix.AF_INET:
		p := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), networkOrder(p.Port))
	case unix.AF_INET6:
		p := (*unix.RawSockaddrInet6)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom16(p.Addr).Unmap(), networkOrder(p.Port))
	}
	return netip.AddrPort{}
}

// networkOrder turns a port into the order of bytes that is sent, or back.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
