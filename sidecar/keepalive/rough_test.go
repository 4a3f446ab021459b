//go:build linux

package keepalive

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
)

// rough is a connection that loses a third of what it sends, and sends another third after what comes next.
type rough struct {
	net.PacketConn
	mu   sync.Mutex
	rand *rand.Rand
	held func()
}

func (c *rough) WriteTo(packet []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.held
	c.held = nil
	switch c.rand.IntN(3) {
	case 0:
	case 1:
		late := bytes.Clone(packet)
		c.held = func() { _, _ = c.PacketConn.WriteTo(late, to) } // lost, if it fails
	default:
		if _, err := c.PacketConn.WriteTo(packet, to); err != nil {
			return 0, err
		}
	}
	if before != nil {
		before()
	}
	return len(packet), nil
}

func TestOverARoughNetworkEverythingArrivesInOrder(t *testing.T) {
	seed := uint64(0)
	all := runMeshes(t, 4, nil, func(conn net.PacketConn) net.PacketConn {
		seed++
		return &rough{PacketConn: conn, rand: rand.New(rand.NewPCG(seed, 2))}
	})
	for i := range all[1:] {
		all[i+1].Say(cluster.Announcement{})
	}
	newest := make([]uint64, len(all))
	for claim := uint64(1); claim <= 50; claim++ {
		all[0].Say(cluster.Announcement{Claim: claim})
		for i := range all[1:] {
			eventually(t, all[i+1].Mesh, fmt.Sprintf("claim %d", claim), func(peers map[string]cluster.Peer) bool {
				got := peers["m0"].Said.Claim
				if got < newest[i] || got > claim {
					t.Fatalf("got claim %d after %d", got, newest[i])
				}
				newest[i] = got
				return got == claim
			})
		}
	}
	for i := range all {
		eventually(t, all[i].Mesh, "confirmed by all", func(peers map[string]cluster.Peer) bool {
			for _, p := range peers {
				if p.Confirmed == 0 {
					return false
				}
			}
			return true
		})
	}
}

func TestResetBeginsASession(t *testing.T) {
	all := runMeshes(t, 2, nil, nil)
	hears := func(peers map[string]cluster.Peer) bool { return peers["m1"].Confirmed != 0 }
	all[0].Say(cluster.Announcement{Claim: 1})
	all[1].Say(cluster.Announcement{})
	eventually(t, all[0].Mesh, "m0 hears m1", hears)
	all[0].Reset()
	if p := all[0].Peers()["m1"]; p.Heard != 0 || p.Confirmed != 0 {
		t.Errorf("after a reset: got %+v, want nothing", p)
	}
	all[0].Say(cluster.Announcement{Claim: 2})
	eventually(t, all[0].Mesh, "m0 hears m1 again", hears)
	eventually(t, all[1].Mesh, "m1 hears the new session", func(peers map[string]cluster.Peer) bool { return peers["m0"].Said.Claim == 2 })
	if got := all[1].Stats().Peers["m0"].Sessions; got != 2 {
		t.Errorf("got %d sessions of m0, want 2", got)
	}
}

// A socket for both families tells IPv4 addresses as IPv6 ones; peers are given by their own.
func TestASocketForBothFamiliesWorks(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	at := other.LocalAddr().(*net.UDPAddr).AddrPort()
	l := newLink(conn)
	if err := l.write([]byte("there"), at); err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 10)
	n, from, err := newLink(other).read(packet)
	if err != nil || string(packet[:n]) != "there" {
		t.Fatalf("got %q, %v", packet[:n], err)
	}
	if err := newLink(other).write([]byte("back"), from); err != nil {
		t.Fatal(err)
	}
	if n, from, err = l.read(packet); err != nil || string(packet[:n]) != "back" || from != at {
		t.Errorf("got %q from %v, %v, want it from %v", packet[:n], from, err, at)
	}
}

func TestADatagramToNowhereIsAnErrorOfItsOwn(t *testing.T) {
	four, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	l := newLink(four)
	good := four.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, to := range []netip.AddrPort{{}, netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[fe80::1%lo]:1")} {
		if err := l.write([]byte("x"), to); err == nil {
			t.Errorf("%v: sent", to)
		}
	}
	if err := l.write(nil, good); err == nil {
		t.Error("nothing was sent")
	}
	if err := l.write([]byte("x"), good); err != nil {
		t.Errorf("after errors: %v", err)
	}
	packet := make([]byte, 10)
	if n, from, err := l.read(packet); err != nil || n != 1 || from != good {
		t.Errorf("got %d bytes from %v, %v", n, from, err)
	}
	l.interrupt()
	if _, _, err := l.read(packet); err == nil {
		t.Error("an interrupted read goes on")
	}
	four.Close()
	if err := l.write([]byte("x"), good); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, _, err := l.read(packet); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// The reader of a mesh writes answers while its sender writes beats.
func TestALinkIsWrittenByMany(t *testing.T) {
	sockets := make([]*net.UDPConn, 3)
	for i := range sockets {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sockets[i] = conn
	}
	l := newLink(sockets[0])
	var g errgroup.Group
	for i, conn := range sockets[1:] {
		to, mark, packet := conn.LocalAddr().(*net.UDPAddr).AddrPort(), []byte{byte(i)}, make([]byte, 10)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		g.Go(func() error {
			for range 5000 {
				if err := l.write(mark, to); err != nil {
					return err
				}
				if n, _, err := conn.ReadFrom(packet); err != nil || !bytes.Equal(packet[:n], mark) {
					return fmt.Errorf("socket %d received %v, %w", i, packet[:n], err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestALinkCostsNoMemory(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l, to, packet := newLink(conn), conn.LocalAddr().(*net.UDPAddr).AddrPort(), make([]byte, 10)
	if n := testing.AllocsPerRun(100, func() {
		_ = l.write(packet, to)
		_, _, _ = l.read(packet)
	}); n > 0 {
		t.Errorf("%v allocations for a datagram there and back", n)
	}
}

func TestAnAddressWithoutARouteIsCounted(t *testing.T) {
	all := runMeshes(t, 1, nil, nil)
	all[0].SetPeers(map[string]netip.AddrPort{"m1": netip.MustParseAddrPort("[2001:db8::1]:7946")}) // the socket is of IPv4
	all[0].Say(cluster.Announcement{})
	eventually(t, all[0].Mesh, "a datagram that the kernel does not take", func(map[string]cluster.Peer) bool { return all[0].Stats().Unsent > 2 })
	s := all[0].Stats()
	if s.Sent.Packets != 0 || s.Peers["m1"].Addr.Port() != 7946 {
		t.Errorf("got %+v, want nothing sent", s)
	}
}

func TestBeatsLargerThanAPacketAreSentAndReportedOnce(t *testing.T) {
	var log syncBuffer
	all := runMeshes(t, 2, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }, nil)
	all[0].Say(cluster.Announcement{Machine: strings.Repeat("m", 3000)})
	all[1].Say(cluster.Announcement{})
	eventually(t, all[1].Mesh, "a large beat", func(peers map[string]cluster.Peer) bool { return len(peers["m0"].Said.Machine) == 3000 })
	received := all[1].Stats().Peers["m0"].Received
	eventually(t, all[1].Mesh, "more of them", func(map[string]cluster.Peer) bool { return all[1].Stats().Peers["m0"].Received > received+2 })
	if got := strings.Count(log.String(), "level=WARN"); got != 1 {
		t.Errorf("got %d warnings, want 1:\n%s", got, log.String())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestValidateReportsAllProblemsAtOnce(t *testing.T) {
	if err := testConfig("n00").Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{Self: strings.Repeat("x", 256), Beat: time.Microsecond, MissedBeats: 2, Fast: time.Second, FullMesh: -1}
	_, err := New(bad, nil)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"name of this node", "cluster key", "beat 1µs", "missed beats 2", "fast beat 1s", "full mesh of -1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to mention %q", err, want)
		}
	}
}

// Two nodes that happen to choose the same session must not share a key, or their beats would share nonces.
func TestKeysDifferByNodeAndSession(t *testing.T) {
	k, err := newKeys(secrets.NewSecret("cluster key"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, key := range map[string]sealer{"n00/1": k.of("n00", 1), "n00/2": k.of("n00", 2), "n01/1": k.of("n01", 1)} {
		text := string(key.seal(nil, 1, []byte("the same text")))
		if other := seen[text]; other != "" {
			t.Errorf("%s and %s have the same key", name, other)
		}
		seen[text] = name
	}
}
