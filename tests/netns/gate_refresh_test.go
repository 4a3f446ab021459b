//go:build linux

package netns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"understudy/sidecar/boottime"
)

// An open gate drops nothing while it is written as often as it can be. TCP itself is no measure: a link that is flooded loses
// segments by itself.
func TestRefreshingAnOpenGateLosesNothing(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node, client := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("client", "10.9.0.3/24", "fd00:9::3/64")
		gates := node.keeper(lb(vip))
		must(t, gates.Add("lb"))
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		ours, theirs := connected(t, node, client, vip.Addr())
		received := node.echo(netip.AddrPortFrom(vip.Addr(), 7))
		c := client.caller(netip.Addr{}, netip.AddrPortFrom(vip.Addr(), 7))
		c.soonAnswered("the gate is open")
		before := received.Load()

		stop, ended := make(chan struct{}), make(chan error, 3)
		for _, c := range []net.Conn{ours, theirs} {
			go func() { ended <- talk(c, stop) }()
		}
		var sent atomic.Int64
		go func() {
			for {
				select {
				case <-stop:
					ended <- nil
					return
				default:
				}
				if !c.answered(time.Second) {
					ended <- errors.New("a message was lost")
					return
				}
				sent.Add(1)
			}
		}()
		deadline := time.Now().Add(20 * time.Second)
		for i := 0; (i < 2000 || sent.Load() < 50) && time.Now().Before(deadline); i++ {
			// sooner, then later: each is written, and each time the element is another
			must(t, gates.Gate("lb", boottime.Now().Add(time.Minute+time.Duration(i%2)*time.Minute), i%3 == 0))
		}
		close(stop)
		must(t, errors.Join(theirs.SetDeadline(time.Now()), ours.SetDeadline(time.Now()))) // a writer may wait for a reader that has ended
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if got := received.Load() - before; got != sent.Load() || got < 50 {
			t.Errorf("%d messages arrived of %d, want 50 at least", got, sent.Load())
		}
		if n := node.dropped(); n != 0 {
			t.Errorf("the gate has dropped %d packets", n)
		}
		must(t, gates.Gate("lb", 0, false))
		if c.answered(100 * time.Millisecond) {
			t.Error("a closed gate answers")
		}
		until(t, "a closed gate counts what it drops", func() bool { return node.dropped() > 0 })
	})
}

// talk sends and receives until stop.
func talk(c net.Conn, stop chan struct{}) error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		done <- err
	}()
	piece := make([]byte, 1000)
	for {
		select {
		case <-stop:
			if err := <-done; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			return nil
		default:
		}
		if _, err := c.Write(piece); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// connected is a TCP connection from the client to an address of the node.
func connected(t *testing.T, node, client *lanHost, to netip.Addr) (ours, theirs net.Conn) {
	t.Helper()
	listener, err := node.Listen(t.Context(), netip.AddrPortFrom(to, 80).String())
	must(t, err)
	defer listener.Close()
	theirs, err = client.Dial(t.Context(), netip.AddrPortFrom(to, 80))
	must(t, err)
	ours, err = listener.Accept()
	must(t, err)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// dropped is how many packets the host's gates have dropped.
func (h *lanHost) dropped() (count uint64) {
	t := h.lan.t
	t.Helper()
	must(t, h.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := conn.ListChains()
		if err != nil {
			return err
		}
		for _, chain := range chains {
			rules, err := conn.GetRules(chain.Table, chain)
			if err != nil {
				return err
			}
			for _, rule := range rules {
				for _, e := range rule.Exprs {
					if c, ok := e.(*expr.Counter); ok && chain.Table.Name == "understudy" {
						count += c.Packets
					}
				}
			}
		}
		return nil
	}))
	return count
}
