package admin

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"understudy/sidecar/cluster"
)

// A pause reaches everybody who can be reached, and says who was not. One that is given to one node stays there.
func TestAPauseReachesEverybodyItCan(t *testing.T) {
	backends := map[string]*backend{}
	addrs := map[string]string{}
	for _, name := range []string{"lb1", "lb2", "web1", "web2"} {
		b := newBackend()
		b.world.policy.Self = name
		backends[name] = b
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[name] = l.Addr().String()
		s := newServer(t, b)
		if name == "web2" { // its sidecar is not there
			l.Close()
			continue
		}
		cert, err := s.cfg.Authority.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		run(t, func(ctx context.Context) error { return s.ServeTLS(ctx, l, cert) })
	}
	addrs["mail1"] = addrs["lb2"] // the address is somebody else's now
	b := backends["lb1"]
	b.world = calm().peer("mail2", func(a *cluster.Announcement) { a.Private = netip.Addr{} })
	s := NewServer(Config{Log: slog.New(slog.DiscardHandler), Backend: b, Authority: authority(t, testKey), Peers: func() map[string]string { return addrs }})
	c := serveOn(t, s)

	if _, err := c.Pause(t.Context(), Pause{}); err != nil || !b.orders.Pause || backends["lb2"].paused() {
		t.Fatalf("a pause for one: %v, here %v, there %v", err, b.paused(), backends["lb2"].paused())
	}
	got, err := c.Pause(t.Context(), Pause{Everywhere: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range got.Others {
		names = append(names, o.Node)
		want := map[string]string{"web2": "no sidecar answers", "mail1": "is lb2, which obeyed", "mail2": "address is not known"}[o.Node]
		if !strings.Contains(o.Error, want) || (want == "") != (o.Error == "") || want == "" && !o.Paused {
			t.Errorf("got %+v, want %q", o, want)
		}
	}
	if want := []string{"lb2", "web1", "web2", "mail1", "mail2"}; !slices.Equal(names, want) {
		t.Errorf("asked %v, want %v", names, want)
	}
	if !backends["lb2"].paused() || !backends["web1"].paused() || backends["web2"].paused() {
		t.Error("the order did not reach those that could be reached, and no others")
	}
	if _, err := c.Resume(t.Context(), Pause{Everywhere: true}); err != nil || b.paused() || backends["web1"].paused() {
		t.Errorf("resume: %v, here %v, there %v", err, b.paused(), backends["web1"].paused())
	}
}
