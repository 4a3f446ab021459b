//go:build linux

package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"understudy/sidecar/boottime"
)

func TestDrainingGoesOnWithConnectionsAndIsSilentToNewOnes(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node, client := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("client", "10.9.0.3/24", "fd00:9::3/64")
		gates := node.keeper(lb(vip))
		must(t, gates.Add("lb"))
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		ours, theirs := connected(t, node, client, vip.Addr())
		listener, err := node.Listen(t.Context(), netip.AddrPortFrom(vip.Addr(), 80).String())
		must(t, err)
		defer listener.Close()

		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), true))
		for range 3 {
			write(t, theirs, "request")
			read(t, ours, "request")
			write(t, ours, "answer")
			read(t, theirs, "answer")
		}
		for _, port := range []uint16{80, 81} { // 81: nobody listens, and not even that is told
			c, err := client.dial(netip.AddrPortFrom(vip.Addr(), port), answerTime)
			if err == nil {
				c.Close()
			}
			if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
				t.Errorf("a new connection to port %d: got %v, want silence", port, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		result := make(chan error, 1)
		go func() {
			c, err := client.Dial(ctx, netip.AddrPortFrom(vip.Addr(), 80))
			if err == nil {
				c.Close()
			}
			result <- err
		}()
		select {
		case err := <-result:
			t.Fatalf("while draining a new connection got through, or was refused: %v", err)
		case <-time.After(answerTime):
		}
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		if err := <-result; err != nil {
			t.Errorf("what the client sends again after the draining: %v", err)
		}

		must(t, gates.Gate("lb", 0, false))
		write(t, theirs, "too late")
		ours.SetReadDeadline(time.Now().Add(answerTime))
		if n, err := ours.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the gate has closed and a connection goes on: %d bytes, %v", n, err)
		}
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), true))
		read(t, ours, "too late") // sent again by the kernel: a connection survives a short closing
	})
}
