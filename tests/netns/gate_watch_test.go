//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watch notes the frames that a host has sent onto the lan.
type watch struct {
	t    *testing.T
	port string

	mu     sync.Mutex
	frames [][]byte
}

// watch begins to note what leaves the host, as seen from the switch.
func (h *lanHost) watch() *watch {
	t := h.lan.t
	t.Helper()
	w := &watch{t: t, port: "p-" + h.name}
	var fd int
	must(t, h.lan.hub.Do(func() (err error) {
		link, err := netlink.LinkByName(w.port)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds()) // how soon the end is noticed
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return errors.Join(
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}),
		)
	}))
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.note(fd, end)
	}()
	t.Cleanup(func() { close(end); <-done; unix.Close(fd) })
	return w
}

func (w *watch) note(fd int, end chan struct{}) {
	buf := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		select {
		case <-end:
			return
		default:
		}
		if l, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && l.Pkttype != unix.PACKET_OUTGOING {
			w.mu.Lock()
			w.frames = append(w.frames, slices.Clone(buf[:n]))
			w.mu.Unlock()
		}
	}
}

// speakingFor counts the frames that claim to come from ip, or that tell neighbours where it is.
func (w *watch) speakingFor(ip netip.Addr) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := 0
	for _, f := range w.frames {
		if speaksFor(f, ip) {
			count++
		}
	}
	return count
}

func speaksFor(frame []byte, ip netip.Addr) bool {
	if len(frame) < 14 {
		return false
	}
	is := func(at, length int) bool {
		got, ok := netip.AddrFromSlice(frame[min(at, len(frame)):min(at+length, len(frame))])
		return ok && got == ip
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		return is(14+14, 4)
	case unix.ETH_P_IP:
		return is(14+12, 4)
	case unix.ETH_P_IPV6:
		advertises := len(frame) > 54 && frame[14+6] == unix.IPPROTO_ICMPV6 && frame[54] == 136 && is(54+8, 16)
		return advertises || is(14+8, 16)
	}
	return false
}
