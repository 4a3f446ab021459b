package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/decide"
)

// hung is a sidecar whose loop turned for the last time a minute ago.
type hung struct{ *stage }

func (h hung) Snapshot() (decide.Policy, decide.View, decide.Decision, time.Time) {
	p, v, d, _ := h.stage.Snapshot()
	return p, v, d, time.Now().Add(-time.Minute)
}

// Only lb1's own sidecar, with its loop turning, speaks for lb1.
func TestAProbeBelievesOnlyALivingSidecarOfThatNode(t *testing.T) {
	authority := func(key string) *admin.Authority {
		a, err := admin.NewAuthority(secrets.NewSecret(strings.Repeat(key, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ours := authority("k")
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	serve := func(b admin.Backend, by *admin.Authority) string {
		l := listen()
		cert, err := by.Node("lb1")
		if err != nil {
			t.Fatal(err)
		}
		s := admin.NewServer(admin.Config{Log: slog.New(slog.DiscardHandler), Cluster: "blog", Backend: b, Authority: by})
		ctx, cancel := context.WithCancel(context.Background())
		var g errgroup.Group
		g.Go(func() error { return s.ServeTLS(ctx, l, cert) })
		t.Cleanup(func() {
			cancel()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	mute := listen() // a kernel that completes handshakes for a process that accepts none
	defer mute.Close()
	closed := listen()
	closed.Close()
	s := newStage(t)
	for name, c := range map[string]struct {
		at, node string
		want     string // in the error; empty: it speaks
	}{
		"its sidecar":                {serve(s, ours), "lb1", ""},
		"another node's sidecar":     {serve(s, ours), "lb2", "is lb1, not lb2"},
		"a sidecar whose loop hangs": {serve(hung{s}, ours), "lb1", "not looked around for 1m"},
		"another cluster's sidecar":  {serve(s, authority("x")), "lb1", "certificate"},
		"a machine that hangs":       {mute.Addr().String(), "lb1", context.DeadlineExceeded.Error()},
		"a machine that resets":      {closed.Addr().String(), "lb1", "no sidecar answers"},
	} {
		at := netip.MustParseAddrPort(c.at)
		_, port, _ := net.SplitHostPort(c.at)
		began := time.Now()
		err := prober{ours, "web1", port}.probe(t.Context(), c.node, at.Addr())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if took := time.Since(began); took > 2*probeWithin {
			t.Errorf("%s: took %v, want %v at most", name, took, probeWithin)
		}
	}
}
