//go:build linux

package netns

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/peerlink"
	"understudy/tests/netns/wire"
)

// TestStreamsEndSoonAfterTheOtherMachineIsGone: nothing says goodbye, and neither side may wait for minutes. One stream is
// silent at that moment, as a mirror's is; on the other something is on its way.
func TestStreamsEndSoonAfterTheOtherMachineIsGone(t *testing.T) {
	w := wire.New(t, "web1", "mail1")
	authority, err := admin.NewAuthority(secrets.NewSecret(strings.Repeat("k", 64)))
	if err != nil {
		t.Fatal(err)
	}
	links := func(node string) *peerlink.Links {
		l, err := peerlink.New(slog.New(slog.DiscardHandler), authority, node)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	at := netip.AddrPortFrom(w.Host("web1").Addr, 7750)
	ln, err := w.Host("web1").NS.Listen(t.Context(), at.String())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ended := map[string]time.Time{}
	over := func(stream string, conn net.Conn) {
		io.Copy(io.Discard, conn)
		mu.Lock()
		defer mu.Unlock()
		ended[stream] = time.Now()
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error {
		return links("web1").Serve(ctx, ln, map[string]peerlink.Handler{
			peerlink.Mirror:  func(_ context.Context, _ string, conn net.Conn) error { over("silent, there", conn); return nil },
			peerlink.Journal: func(_ context.Context, _ string, conn net.Conn) error { over("busy, there", conn); return nil },
		})
	})
	defer g.Wait()
	defer stop()
	dial := func(protocol string) (conn net.Conn) {
		err := w.Host("mail1").NS.Do(func() (err error) {
			conn, err = links("mail1").Dial(ctx, at.String(), "web1", protocol)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	silent, busy := dial(peerlink.Mirror), dial(peerlink.Journal)
	defer silent.Close()
	defer busy.Close()
	g.Go(func() error { over("silent, here", silent); return nil })
	g.Go(func() error { over("busy, here", busy); return nil })
	g.Go(func() error { // until the stream's end
		for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
			if _, err := busy.Write(make([]byte, 1000)); err != nil {
				tick.Stop()
				return nil
			}
		}
	})
	lost := time.Now()
	w.Host("web1").Unplug()
	wire.Eventually(t, 2*peerlink.DeadAfter, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(ended) < 4 {
			return context.DeadlineExceeded
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	for stream, at := range ended {
		t.Logf("%s: ended after %v", stream, at.Sub(lost).Round(time.Millisecond))
	}
}
