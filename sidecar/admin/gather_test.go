package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
	"understudy/sidecar/health"
)

// onPeer serves a peer with its own view of the world over TLS, and returns where.
func onPeer(t *testing.T, name string, w *world, checks ...health.Check) string {
	t.Helper()
	w.policy.Self = name
	b := newBackend()
	b.world = w
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, b)
	s.cfg.Checks = func() []health.Check { return checks }
	s.cfg.Journal = func() *Journal { return w.journal }
	cert, err := s.cfg.Authority.Node(name)
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return s.ServeTLS(ctx, l, cert) })
	return l.Addr().String()
}

// What keeps the cluster from healing is known where it should happen; whoever is asked finds it out there.
func TestTheWholeStatusTellsWhatBlocksOthers(t *testing.T) {
	stuck := calm()
	stuck.decision.Say = cluster.Announcement{Phase: cluster.Serving}
	stuck.decision.Blocked = []decide.Blocked{{What: "takeover of mail", Why: "the provider is still working on the address"}}
	stuck.decision.Actions = []decide.Action{decide.PrimaryUnits{Role: "mail", Reason: "mail2 has epoch 3"}}
	sick := calm()
	sick.decision.Say = cluster.Announcement{Phase: cluster.Applied, Health: cluster.Unhealthy}
	addrs := map[string]string{
		"mail2": onPeer(t, "mail2", stuck),
		"web2":  onPeer(t, "web2", sick, health.Check{Name: "unit nginx.service", Health: cluster.Unhealthy, Why: "failed"}, health.Check{Name: "tcp 127.0.0.1:80", Health: cluster.Healthy}),
		"lb2":   onPeer(t, "somebody else", calm()), "web1": "127.0.0.1:1", "mail1": "127.0.0.1:1",
	}
	b := newBackend()
	b.world = calm().silence("mail1", time.Minute, decide.Failed).peer("web2", func(a *cluster.Announcement) { a.Phase, a.Health = cluster.Applied, cluster.Unhealthy })
	b.world.peer("mail2", func(a *cluster.Announcement) { a.Bids = []cluster.Bid{{Duty: "mail", Epoch: 3}} })
	b.world.decision.Blocked = []decide.Blocked{{What: "a vote", Why: "b"}}
	s := newServer(t, b)
	s.cfg.Peers = func() map[string]string { return addrs }
	c := serveOn(t, s)

	st, err := c.StatusOfAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"lb2", "web1", "web2", "mail2"}; !slices.Equal(st.Asked, want) { // not the failed one
		t.Errorf("asked %v, want %v", st.Asked, want)
	}
	if want := []string{"lb2", "web1"}; !slices.Equal(st.Mute, want) { // one is somebody else, one is not there
		t.Errorf("mute %v, want %v", st.Mute, want)
	}
	want := []Blocked{{"lb1", "a vote", "b"}, {"mail2", "takeover of mail", "the provider is still working on the address"}}
	if !slices.Equal(st.Blocked, want) {
		t.Errorf("blocked %+v, want %+v", st.Blocked, want)
	}
	if want := []Step{{"mail2", "primary units mail", "mail2 has epoch 3"}}; !slices.Equal(st.Doing, want) { // its own word, not its beats'
		t.Errorf("doing %+v, want %+v", st.Doing, want)
	}
	if !slices.ContainsFunc(st.Why, func(w string) bool { return strings.Contains(w, "web2 is unhealthy: unit nginx.service: failed") }) {
		t.Errorf("why %q", st.Why)
	}

	st, err = c.Status(t.Context()) // one node's word is quick and asks nobody
	if err != nil || len(st.Asked) != 0 || len(st.Blocked) != 1 || !slices.ContainsFunc(st.Doing, func(s Step) bool { return s.What == "takeover of mail" }) {
		t.Errorf("got asked %v, blocked %+v, doing %+v, %v", st.Asked, st.Blocked, st.Doing, err)
	}
}

// A node without a key still tells what it knows, and who would not tell.
func TestWithoutAKeyNobodyElseIsAsked(t *testing.T) {
	s := NewServer(Config{Log: slog.New(slog.DiscardHandler), Backend: newBackend()})
	c := serveOn(t, s)
	if st, err := c.StatusOfAll(t.Context()); err != nil || len(st.Mute) != 5 || !st.Redundant {
		t.Errorf("got %+v, %v", st, err)
	}
	var p *Problem
	if _, err := ask[Status](t.Context(), c, "status?everywhere=perhaps"); !errors.As(err, &p) || p.Status != 400 {
		t.Errorf("got %v", err)
	}
}

func TestANodesOwnChecksAreTold(t *testing.T) {
	b := newBackend()
	b.world.decision.Say.Phase, b.world.decision.Say.Health = cluster.Applied, cluster.Unhealthy
	s := newServer(t, b)
	s.cfg.Checks = func() []health.Check {
		return []health.Check{{Name: "unit haproxy.service", Health: cluster.Healthy, Why: "flaps: 6 changes in a minute", Flapping: true}, {Name: "tcp 127.0.0.1:80", Health: cluster.Unhealthy}}
	}
	st, err := serveOn(t, s).Status(t.Context())
	if err != nil || len(st.Checks) != 2 || !st.Checks[0].Flapping || st.Checks[1].Health != "unhealthy" {
		t.Errorf("got %+v, %v", st.Checks, err)
	}
	if want := "lb1 is unhealthy: unit haproxy.service: flaps: 6 changes in a minute and tcp 127.0.0.1:80"; len(st.Why) != 1 || !strings.HasSuffix(st.Why[0], want) {
		t.Errorf("got %q, want %q", st.Why, want)
	}
}

// A primary's mail journal is known to itself, and to whoever asks it.
func TestAMailJournalIsToldByTheNodeThatHasIt(t *testing.T) {
	refusing, alone := calm(), calm()
	refusing.journal = &Journal{Open: 3, Refusing: "no other machine takes the second copy", Behind: []string{"mail1"}}
	alone.journal = &Journal{Open: 1, Behind: []string{}}
	b := newBackend()
	b.world = calm()
	s := newServer(t, b)
	s.cfg.Journal = func() *Journal { return &Journal{Open: 12, Second: "web1", Behind: []string{}} } // of another role, for this test
	addrs := map[string]string{"mail1": onPeer(t, "mail1", refusing), "mail2": onPeer(t, "mail2", alone)}
	s.cfg.Peers = func() map[string]string { return addrs }
	st, err := serveOn(t, s).StatusOfAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var with []Node
	for _, n := range st.Nodes {
		if n.Journal != nil {
			with = append(with, n)
		}
	}
	golden(t, "journal.nodes.json", asJSON(t, with))
	want := []string{
		"mail1 accepts no mail: no other machine takes the second copy",
		"mail2 accepts mail that no other machine has: nobody takes the second copy",
	}
	if !slices.Equal(st.Warnings, want) {
		t.Errorf("warnings: got %q, want %q", st.Warnings, want)
	}
}
