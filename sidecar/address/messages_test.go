//go:build linux

package address

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var testMAC = net.HardwareAddr{2, 0x75, 0x73, 0, 0, 1}

func TestAnnouncementsAreWhatTheRFCsSay(t *testing.T) {
	ip4, ip6 := netip.MustParseAddr("10.9.0.10"), netip.MustParseAddr("fd00:9::10")
	for _, tc := range []struct {
		what string
		got  []byte
		want string
	}{
		{"request", gratuitousARP(arpRequest, ip4, testMAC),
			"0001" + "0800" + "0604" + "0001" + "027573000001" + "0a09000a" + "ffffffffffff" + "0a09000a"},
		{"reply", gratuitousARP(arpReply, ip4, testMAC),
			"0001" + "0800" + "0604" + "0002" + "027573000001" + "0a09000a" + "027573000001" + "0a09000a"},
		{"advertisement", unsolicitedAdvertisement(ip6, testMAC),
			"8800" + "0000" + "20000000" + "fd000009000000000000000000000010" + "0201" + "027573000001"},
	} {
		if got := hex.EncodeToString(tc.got); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.what, got, tc.want)
		}
	}
}

func TestConnectionInUse(t *testing.T) {
	const long, short = time.Minute, 20 * time.Millisecond
	for _, tc := range []struct {
		what string
		c    connection
		want bool
	}{
		{"new, nothing said", connection{state: stateEstablished, hasInfo: true, heard: short, spoke: short}, true},
		{"nothing ever said", connection{state: stateEstablished, hasInfo: true, heard: long, spoke: long}, false},
		{"connected, not asked yet", connection{state: stateEstablished, hasInfo: true, heard: 3 * quiet, spoke: 3 * quiet, mute: true}, true},
		{"connected long ago, never asked", connection{state: stateEstablished, hasInfo: true, heard: young, spoke: young, mute: true}, false},
		{"asked, not answered", connection{state: stateEstablished, hasInfo: true, heard: long, spoke: 2 * long}, true},
		{"answered a while ago", connection{state: stateEstablished, hasInfo: true, heard: 2 * long, spoke: long}, false},
		{"answered just now", connection{state: stateEstablished, hasInfo: true, heard: long, spoke: short}, true},
		{"answer under way", connection{state: stateEstablished, hasInfo: true, heard: 2 * long, spoke: long, unsent: 1}, true},
		{"request not read", connection{state: stateEstablished, hasInfo: true, heard: 2 * long, spoke: long, unread: 1}, true},
		{"nothing known", connection{state: stateEstablished}, true},
		{"client closed its side and waits", connection{state: stateCloseWait, hasInfo: true, heard: long, spoke: 2 * long}, true},
		{"connecting", connection{state: stateSynReceived}, true},
		{"connecting without a client", connection{state: stateSynReceived, retransmissions: 1}, false},
		{"closed, answer under way", connection{state: stateFinWait1, unsent: 100}, true},
		{"closed, farewell under way", connection{state: stateFinWait1, unsent: 1}, false},
		{"any other state", connection{state: 6, unsent: 100}, false},
	} {
		if got := tc.c.inUse(); got != tc.want {
			t.Errorf("%s: got %v", tc.what, got)
		}
	}
}

// message is a netlink message of a kind.
func message(kind uint16, body []byte) []byte {
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	return append(append(m, make([]byte, 10)...), body...)
}

// number is a result as netlink has it: zero, or a negative errno.
func number(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func TestWhatTheKernelRefusesIsTold(t *testing.T) {
	for _, kind := range []uint16{unix.NLMSG_ERROR, unix.NLMSG_DONE} {
		if _, _, err := connections(message(kind, number(-int32(unix.EPERM)))); !errors.Is(err, unix.EPERM) {
			t.Errorf("connections, message of kind %d: got %v", kind, err)
		}
		if _, last, err := connections(message(kind, number(0))); err != nil || !last {
			t.Errorf("connections, message of kind %d without an error: %v, %v", kind, last, err)
		}
	}
	about := message(0, nil)
	binary.NativeEndian.PutUint32(about[8:], 77)
	seq, errno, err := outcome(message(unix.NLMSG_ERROR, append(number(-int32(unix.ENOENT)), about...)))
	if seq != 77 || errno != unix.ENOENT || err != nil {
		t.Errorf("got %d, %v, %v", seq, errno, err)
	}
	if _, _, err := outcome(message(unix.NLMSG_DONE, make([]byte, 20))); err == nil {
		t.Error("another message is taken for an acknowledgement")
	}
}

// What comes from the kernel is read without trust all the same: a length that is wrong must not be followed.
func FuzzAnswers(f *testing.F) {
	f.Add(message(unix.SOCK_DIAG_BY_FAMILY, make([]byte, 72+4+60)))
	f.Add(append(message(unix.SOCK_DIAG_BY_FAMILY, make([]byte, 72)), message(unix.NLMSG_DONE, number(0))...))
	f.Add(message(unix.NLMSG_ERROR, make([]byte, 20)))
	f.Fuzz(func(t *testing.T, answer []byte) {
		found, _, err := connections(answer)
		if err != nil && found != nil {
			t.Errorf("%d connections, and %v", len(found), err)
		}
		if len(found)*unix.SizeofNlMsghdr > len(answer) {
			t.Errorf("%d connections in %d bytes", len(found), len(answer))
		}
		outcome(answer)
	})
}

// A batch that is used again does not grow, and writing it allocates nothing but the timeouts.
func TestBatchIsUsedAgain(t *testing.T) {
	table, key := newTable(1), []byte{10, 9, 0, 10}
	var b batch
	write := func() {
		b.reset()
		b.remove(table.tickets, key)
		b.ensure(table.open4, key, time.Second)
		b.end()
	}
	write()
	size := len(b.buf)
	if n := testing.AllocsPerRun(100, write); n > 2 {
		t.Errorf("%v allocations", n)
	}
	if len(b.buf) != size {
		t.Errorf("the batch has %d bytes, and had %d", len(b.buf), size)
	}
}

func TestAConnectionOnWhichNothingHasComeIsTold(t *testing.T) {
	told := func(size int, received uint64) connection {
		info := make([]byte, size)
		if size >= 136 {
			binary.NativeEndian.PutUint64(info[128:], received)
		}
		attr := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+size))
		attr = append(binary.NativeEndian.AppendUint16(attr, inetDiagInfo), info...)
		found, _, err := connections(message(unix.SOCK_DIAG_BY_FAMILY, append(make([]byte, 4+sizeofSockID+20), attr...)))
		if err != nil || len(found) != 1 || !found[0].hasInfo {
			t.Fatalf("got %+v, %v", found, err)
		}
		return found[0]
	}
	if !told(136, 0).mute || told(136, 1).mute {
		t.Error("what has come is not told from nothing")
	}
	if told(104, 0).mute {
		t.Error("a kernel that does not tell is taken at its word")
	}
}
