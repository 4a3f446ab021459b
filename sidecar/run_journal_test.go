package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/config"
	"understudy/sidecar/decide"
	"understudy/sidecar/mailjournal"
	"understudy/sidecar/units"
)

const mailRoster = `cluster: test
domain: test.example
provider: {local: {region: r, size: s, image: i}}
roles:
  web:
    nodes: web[1-2]
  mail:
    nodes: mail[1-2]
    data: [{path: /var/vmail, kind: maildir}]
    primary_units: [postfix.service]
    journal: {}
`

// member is a node with its streams, and a turn of its loop that a test makes up.
type member struct {
	*parts
	epoch atomic.Uint64 // of mail, as far as it has heard
	heard []string
	said  map[string]cluster.Announcement // by member, itself included
}

// members are nodes that reach each other on loopback addresses of their own, at one port.
func members(t *testing.T, names ...string) map[string]*member {
	t.Helper()
	roster, err := role.Parse("roles.yaml", []byte(mailRoster))
	if err != nil {
		t.Fatal(err)
	}
	key := secrets.NewSecret(strings.Repeat("k", 64))
	authority, err := admin.NewAuthority(key)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]netip.AddrPort{}
	for i, name := range names {
		at[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(101 + i)}), 1)
	}
	all, port := map[string]*member{}, "0"
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		n := &node{cfg: config.Config{Node: name, State: t.TempDir(), Listen: config.Listen{Data: at[name].Addr().String() + ":" + port}, Peers: at},
			log: slog.New(slog.DiscardHandler), roster: roster, bundle: secrets.Bundle{ClusterKey: key}}
		if n.role, err = roster.ForHost(name); err != nil {
			t.Fatal(err)
		}
		if n.policy, err = decide.New(name, roster); err != nil {
			t.Fatal(err)
		}
		m := &member{parts: &parts{node: n}, heard: names}
		m.snapshot = m.turn
		if m.journals, err = m.newJournals(nil); err != nil {
			t.Fatal(err)
		}
		if m.control, err = m.copyOfControl(); err != nil {
			t.Fatal(err)
		}
		inner, innerCtx := errgroup.WithContext(ctx)
		if err := m.serveData(innerCtx, inner, authority); err != nil {
			t.Fatal(err)
		}
		g.Go(inner.Wait)
		_, port, _ = net.SplitHostPort(netip.AddrPortFrom(at[name].Addr(), m.dataPort).String())
		all[name] = m
	}
	return all
}

func (m *member) turn() (decide.Policy, decide.View, decide.Decision, time.Time) {
	v := decide.View{Now: cluster.Instant(time.Hour), Peers: map[string]cluster.Peer{}}
	for _, name := range m.heard {
		v.Peers[name] = cluster.Peer{Heard: v.Now, Said: m.said[name]}
	}
	d := decide.Decision{Say: m.said[m.cfg.Node]}
	d.Memory.Epochs = map[string]uint64{"mail": m.epoch.Load()}
	return m.policy, v, d, time.Now()
}

// link opens a stream for a role's mail from one member to another's holder.
func link(t *testing.T, from *member, to string) (*mailjournal.Link, error) {
	t.Helper()
	sealer, err := mailjournal.NewSealer([]byte(from.bundle.ClusterKey.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := from.journals.dial(t.Context(), to)
	if err != nil {
		return nil, err
	}
	return mailjournal.NewLink(conn, sealer, 0)
}

func mail(epoch uint64) mailjournal.Entry {
	return mailjournal.Entry{Meta: mailjournal.Meta{ID: mailjournal.NewID(), Epoch: epoch, Time: time.Now()}, To: []mailjournal.Recipient{{Address: "a@test.example"}},
		Message: []byte("Subject: x\r\n\r\nx\r\n")}
}

// A holder is any member, of whatever role; a primary is a node of the role, and of the newest epoch.
func TestAnyMemberHoldsMailForTheRolesPrimaryAlone(t *testing.T) {
	all := members(t, "mail1", "mail2", "web1")
	for _, holder := range []string{"mail2", "web1"} {
		l, err := link(t, all["mail1"], holder)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := l.Append(t.Context(), mail(3)); err != nil {
			t.Errorf("%s: %v", holder, err)
		}
		if list, err := l.Pending(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("%s: got %v, %v; want one entry", holder, list, err)
		}
	}
	all["web1"].epoch.Store(5)
	l, err := link(t, all["mail2"], "web1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Append(t.Context(), mail(4)); err == nil || !strings.Contains(err.Error(), "higher epoch") {
		t.Errorf("an epoch below what the holder's node has heard of: got %v", err)
	}
	all["web1"].journals.parts.role = all["mail1"].role // what it asks for, not what it is
	if l, err := link(t, all["web1"], "mail2"); err == nil {
		l.Close()
		t.Error("a node of another role was served")
	}
	conn, err := all["mail1"].parts.dial(t.Context(), "mail2", "understudy-journal/1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write([]byte("\x03web"))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a role without a journal: got %v, want to be hung up on", err)
	}
}

// The other node of the role comes first: it will need the mail, and need not fetch it then.
func TestTheRolesOwnNodeIsAskedFirstAndTheSilentAreNot(t *testing.T) {
	all := members(t, "mail1", "mail2", "web1", "web2")
	m := all["mail1"]
	for _, tc := range []struct{ heard, want string }{
		{"web1 web2 mail2", "mail2 web1 web2"}, {"web2 web1", "web1 web2"}, {"", ""},
	} {
		m.heard = strings.Fields(tc.heard)
		if got := strings.Join(m.journals.holders(), " "); got != tc.want {
			t.Errorf("hearing %q: got %q, want %q", tc.heard, got, tc.want)
		}
	}
}

// idle is a journalctl that says nothing.
type idle struct{}

func (idle) Run(ctx context.Context, _ command.Cmd) (command.Result, error) {
	<-ctx.Done()
	return command.Result{}, ctx.Err()
}

// The journal is up before the first writer and ends after the last one.
func TestPrimaryUnitsRunOnlyBehindTheirJournal(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free, and is taken for now
	if err != nil {
		t.Fatal(err)
	}
	milter := ln.Addr().String()
	sealer, err := mailjournal.NewSealer([]byte(strings.Repeat("k", 64)))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	holding := &mailjournal.Holding{Options: mailjournal.Options{Dir: t.TempDir(), Log: log}, Epoch: func() uint64 { return 0 }}
	none := func(context.Context) error { return nil }
	service := mailjournal.NewService(mailjournal.ServiceConfig{
		Dir: t.TempDir(), Milter: milter, SMTP: milter, Maildirs: t.TempDir(), Holding: holding, Holders: func() []string { return nil },
		Held: func() uint64 { return 3 }, Sealer: sealer, ClearQueue: none, Barrier: none, Runner: idle{}, Log: log,
	})
	bus := &units.Fake{}
	bus.Add("postfix.service", "mail")
	u := primaryUnits{units.New(log, bus, units.Timeouts{}), role.Role{PrimaryUnits: []string{"postfix.service"}}, nil, service}
	state := func(want decide.UnitReading) {
		t.Helper()
		if got, err := u.State(t.Context(), "mail"); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if err := u.Start(t.Context(), "mail", 3); err == nil || !strings.Contains(err.Error(), "no mail is taken without its journal") {
		t.Errorf("without a journal: got %v", err)
	}
	state(decide.UnitReading{})
	ln.Close()
	if err := u.Start(t.Context(), "mail", 3); err != nil {
		t.Fatal(err)
	}
	state(decide.UnitReading{Running: true, All: true})
	if err := service.Stop(); err != nil { // as if it had failed
		t.Fatal(err)
	}
	state(decide.UnitReading{Running: true}) // so it is started again
	if err := u.Start(t.Context(), "mail", 3); err != nil {
		t.Fatal(err)
	}
	if err := u.Stop(t.Context(), "mail"); err != nil || service.Serves() {
		t.Errorf("after the stop: got %v, the journal serves: %v", err, service.Serves())
	}
	state(decide.UnitReading{})
	if err := holding.Close(); err != nil {
		t.Error(err)
	}
}
