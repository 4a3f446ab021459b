package admin

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// claimed is a memory of one claim.
func claimed(node string, epoch uint64) *cluster.Recall {
	return &cluster.Recall{Claims: map[string]cluster.Claim{node: {Node: node, Epoch: epoch, Machine: "m"}}}
}

func TestAReseedWantsAMajoritysMemoryAndALedgerThatHasLostSomething(t *testing.T) {
	p := decide.Policy{Self: "lb1", Nodes: []string{"lb1", "lb2", "web1", "web2"}}
	good := decide.Ledger{Configured: true, Sound: true}
	of := func(node, forgot string, epoch uint64) Remembered {
		return Remembered{Node: node, Forgot: forgot, Known: *claimed("web1", epoch)}
	}
	for name, c := range map[string]struct {
		ledger decide.Ledger
		all    []Remembered
		want   string // in the refusal; empty: it is done
	}{
		"three of four":        {good, []Remembered{of("web1", "", 2), of("lb2", "it is lost", 3), of("lb1", "it is lost", 1)}, ""},
		"half of the roster":   {good, []Remembered{of("lb2", "it is lost", 3), of("lb1", "it is lost", 1)}, "3 of 4 members must"},
		"nothing is lost":      {good, []Remembered{of("web1", "", 2), of("lb2", "", 3), of("lb1", "", 1)}, "nothing to fill"},
		"a store not to trust": {decide.Ledger{Configured: true}, []Remembered{of("web1", "x", 2), of("lb2", "x", 3), of("lb1", "x", 1)}, "create-if-absent"},
		"no ledger":            {decide.Ledger{}, []Remembered{of("web1", "x", 2), of("lb2", "x", 3), of("lb1", "x", 1)}, "no ledger"},
	} {
		got, err := newReseed(p, c.ledger, c.all, []string{"web2"})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
			continue
		}
		if err != nil || got.Known.Seed != 1 || got.Known.Claims["web1"].Epoch != 3 || !slices.Equal(got.Heard, []string{"lb1", "lb2", "web1"}) || len(got.Forgot) != 1 {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// The node that is asked collects what the others remember over the network, and writes the newest of it once.
func TestAReseedWritesTheNewestThatAnybodyRemembers(t *testing.T) {
	addrs := map[string]string{}
	for i, name := range []string{"lb2", "web1", "mail1"} {
		b := newBackend()
		b.world.policy.Self = name
		b.world.view.Ledger.Known = claimed("web2", uint64(i+3))
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[name] = l.Addr().String()
		s := newServer(t, b)
		cert, err := s.cfg.Authority.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		run(t, func(ctx context.Context) error { return s.ServeTLS(ctx, l, cert) })
	}
	addrs["mail2"] = addrs["lb2"] // the address is somebody else's now
	b := newBackend()
	b.world.view.Ledger.Known, b.world.view.Ledger.Forgot = claimed("lb1", 7), "the claims of lb1 ends at 0 and was at 7"
	s := NewServer(Config{Log: slog.New(slog.DiscardHandler), Backend: b, Authority: authority(t, testKey), Peers: func() map[string]string { return addrs }})
	c := serveOn(t, s)
	got, err := c.Reseed(t.Context(), Reseed{Try: true})
	if err != nil || got.Written || len(b.reseeded) != 0 {
		t.Fatalf("a try: got %+v, %v; written %v", got, err, b.reseeded)
	}
	if got, err = c.Reseed(t.Context(), Reseed{}); err != nil || !got.Written || len(b.reseeded) != 1 {
		t.Fatalf("got %+v, %v; written %v", got, err, b.reseeded)
	}
	if w := b.reseeded[0]; w.Seed != 1 || w.Claims["web2"].Epoch != 5 || w.Claims["lb1"].Epoch != 7 {
		t.Errorf("wrote %+v", w)
	}
	if want := []string{"lb1", "lb2", "web1", "mail1"}; !slices.Equal(got.Heard, want) || !slices.Contains(got.Mute, "mail2") {
		t.Errorf("heard %v, mute %v; want %v and the others mute", got.Heard, got.Mute, want)
	}
	if r, err := c.Remembered(t.Context()); err != nil || r.Node != "lb1" || r.Forgot == "" || r.Known.Claims["lb1"].Epoch != 7 {
		t.Errorf("got %+v, %v", r, err)
	}
}
