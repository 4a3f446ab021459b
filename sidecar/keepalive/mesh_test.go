//go:build linux

package keepalive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a mesh on a socket of the loopback interface.
type running struct {
	*Mesh
	conn *net.UDPConn
	addr netip.AddrPort
	stop func() error // ends Run and returns its error; may be called again
}

// runMeshes starts meshes m0, m1 and so on that know each other, and stops them when the test ends.
func runMeshes(t testing.TB, size int, change func(*Config), wrap func(net.PacketConn) net.PacketConn) []running {
	t.Helper()
	peers := map[string]netip.AddrPort{}
	all := make([]running, size)
	for i := range all {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(fmt.Sprintf("m%d", i))
		cfg.Beat, cfg.Fast = 20*time.Millisecond, 5*time.Millisecond
		if change != nil {
			change(&cfg)
		}
		var link net.PacketConn = conn
		if wrap != nil {
			link = wrap(conn)
		}
		m, err := New(cfg, link)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = running{Mesh: m, conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
		peers[cfg.Self] = all[i].addr
	}
	for i := range all {
		all[i].SetPeers(peers)
		ctx, cancel := context.WithCancel(context.Background())
		var g errgroup.Group
		g.Go(func() error { return all[i].Run(ctx) })
		all[i].stop = func() error {
			cancel()
			return g.Wait()
		}
		t.Cleanup(func() {
			if err := all[i].stop(); err != nil {
				t.Errorf("Run of m%d: got %v, want nil", i, err)
			}
			all[i].conn.Close()
		})
	}
	return all
}

// glimpse is Peers without the promise of a Say.
func (m *Mesh) glimpse() map[string]cluster.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.snapshot()
}

// eventually waits for what must come true, woken by what a mesh hears.
func eventually(t testing.TB, m *Mesh, what string, is func(map[string]cluster.Peer) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !is(m.glimpse()) {
		select {
		case <-m.Changed():
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: not within 10s; peers %+v, stats %+v", what, m.glimpse(), m.Stats())
		}
	}
}

func TestWhatIsSaidArrives(t *testing.T) {
	all := runMeshes(t, 3, nil, nil)
	for i := range all {
		all[i].Say(cluster.Announcement{Claim: uint64(i + 1)})
	}
	for i := range all {
		eventually(t, all[i].Mesh, "all hear each other", func(peers map[string]cluster.Peer) bool {
			for j := range all {
				p := peers[fmt.Sprintf("m%d", j)]
				if i != j && (p.Said.Claim != uint64(j+1) || p.Confirmed == 0) {
					return false
				}
			}
			return len(peers) == 2
		})
	}
	want := everything()
	before := boottime.Now()
	all[0].Say(want)
	if err := all[0].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := boottime.Now().Sub(before); took > 15*time.Millisecond {
		t.Logf("Flush took %v", took) // a loaded machine, or a beat was waited for: TestNewsIsSentAtOnce decides
	}
	eventually(t, all[1].Mesh, "the news arrives", func(peers map[string]cluster.Peer) bool {
		return peers["m0"].Said.Machine == want.Machine && len(peers["m0"].Said.Mirrors) == 2
	})
}

func TestRunSendsALastBeat(t *testing.T) {
	all := runMeshes(t, 2, func(c *Config) { c.Beat = time.Hour }, nil)
	all[0].Say(cluster.Announcement{Phase: cluster.Serving})
	all[1].Say(cluster.Announcement{Phase: cluster.Serving})
	eventually(t, all[1].Mesh, "m1 hears m0", func(peers map[string]cluster.Peer) bool { return peers["m0"].Said.Phase == cluster.Serving })
	received := all[1].Stats().Peers["m0"].Received
	if err := all[0].stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, all[1].Mesh, "a last beat", func(map[string]cluster.Peer) bool { return all[1].Stats().Peers["m0"].Received > received })
}

func TestRunFailsWhenItsConnectionIsClosed(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(testConfig("m0"), conn)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := m.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func TestFlushGivesUpWithItsContext(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m, err := New(testConfig("m0"), conn)
	if err != nil {
		t.Fatal(err)
	}
	m.Say(cluster.Announcement{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled, since nobody sends", err)
	}
}
