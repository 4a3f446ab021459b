package secrets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

const seedNonce = "00112233445566778899aabbccddeeff"

func newHandover(t *testing.T, key, node, nonce string) Handover {
	t.Helper()
	h, err := NewHandover(NewSecret(strings.Repeat(key, 64)), "blog", node, nonce)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newMember(t *testing.T) Membership {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return Membership{Identity: id, AllowedSigners: []byte("ops@blog.example ssh-ed25519 AAAA\n"), OldestCommit: strings.Repeat("a", 40)}
}

// waiting is a seed that waits on loopback until it has an identity.
type waiting struct {
	addr  string
	saved chan Membership
	heard chan error
	group *errgroup.Group
}

func wait(ctx context.Context, t *testing.T, userData string, save func(Membership) error) *waiting {
	t.Helper()
	s, err := ParseSeed(userData)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &waiting{addr: l.Addr().String(), saved: make(chan Membership, 1), heard: make(chan error, 8), group: &errgroup.Group{}}
	w.group.Go(func() error {
		return s.Receive(ctx, l, func(err error) { w.heard <- err }, func(m Membership) error {
			if err := save(m); err != nil {
				return err
			}
			w.saved <- m
			return nil
		})
	})
	return w
}

func (w *waiting) give(t *testing.T, h Handover, m Membership) error {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	return h.Give(t.Context(), conn, m)
}

func keep(Membership) error { return nil }

func TestSeedGetsTheIdentityFromTheOperatorOnly(t *testing.T) {
	h, m := newHandover(t, "k", "lb1", seedNonce), newMember(t)
	w := wait(t.Context(), t, h.UserData(), keep)
	strangers := map[string]Handover{
		"another cluster key": newHandover(t, "x", "lb1", seedNonce), "another node": newHandover(t, "k", "lb2", seedNonce),
		"another machine": newHandover(t, "k", "lb1", strings.Repeat("f", 32)),
	}
	thief := h // has the user data: the host key, but not the operator's
	thief.operator = newHandover(t, "x", "lb1", seedNonce).operator
	strangers["a thief of the user data"] = thief
	for name, stranger := range strangers {
		if err := w.give(t, stranger, newMember(t)); err == nil {
			t.Errorf("%s: the seed took an identity", name)
		}
		if err := <-w.heard; err == nil {
			t.Errorf("%s: the seed says nothing of it", name)
		}
	}
	if err := w.give(t, h, m); err != nil {
		t.Fatal(err)
	}
	if err := w.group.Wait(); err != nil {
		t.Fatal(err)
	}
	got := <-w.saved
	if got.Identity.String() != m.Identity.String() || string(got.AllowedSigners) != string(m.AllowedSigners) || got.OldestCommit != m.OldestCommit {
		t.Errorf("got %v, want %v", got, m)
	}
}

// TestOperatorTellsNothingToAnotherMachine has one that answers at the address, takes anybody, and has another host key.
func TestOperatorTellsNothingToAnotherMachine(t *testing.T) {
	m := newMember(t)
	other := newHandover(t, "x", "lb1", seedNonce)
	h := newHandover(t, "k", "lb1", seedNonce)
	impostor := other
	impostor.operator = h.operator
	w := wait(t.Context(), t, impostor.UserData(), keep)
	err := w.give(t, h, m)
	if err == nil || !strings.Contains(err.Error(), "host key mismatch") || strings.Contains(fmt.Sprint(err), m.Identity.String()) {
		t.Errorf("got %v, want a host key mismatch", err)
	}
	select {
	case got := <-w.saved:
		t.Errorf("it has %v", got)
	case err := <-w.heard:
		if err == nil {
			t.Error("the impostor got through")
		}
	}
	if err := w.give(t, impostor, m); err != nil { // so that it ends
		t.Error(err)
	}
	if err := w.group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOperatorHearsThatAllIsWellOnlyWhenTheIdentityIsKept(t *testing.T) {
	h := newHandover(t, "k", "lb1", seedNonce)
	full := true
	w := wait(t.Context(), t, h.UserData(), func(Membership) error {
		if full {
			return errors.New("the disk is full")
		}
		return nil
	})
	if err := w.give(t, h, newMember(t)); err == nil {
		t.Error("got nil from a seed whose disk is full")
	}
	if err := <-w.heard; err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("the seed says %v, want that its disk is full", err)
	}
	full = false
	if err := w.give(t, h, newMember(t)); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := w.group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSeedStopsWaitingWithItsContext(t *testing.T) {
	why := errors.New("waited long enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	w := wait(ctx, t, newHandover(t, "k", "lb1", seedNonce).UserData(), keep)
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	cancel(why)
	if err := w.group.Wait(); !errors.Is(err, why) || time.Since(began) > handoverTimeout/3 {
		t.Errorf("got %v after %v, want the cause at once", err, time.Since(began))
	}
}

func TestBrokenSeedsAreTold(t *testing.T) {
	good := newHandover(t, "k", "lb1", seedNonce).UserData()
	if s, err := ParseSeed(good + "\n \n"); err != nil || s.Cluster != "blog" || s.Node != "lb1" {
		t.Fatalf("got %v, %v", s, err)
	}
	for text, want := range map[string]error{
		"": ErrNoTicket, "#cloud-config\n": ErrNoTicket, "#understudy-ticket v1\n{}\n": ErrNoTicket,
		"#understudy-seed v2\n{}\n": ErrBadTicket, "#understudy-seed v1\n{}\n": ErrBadTicket, "#understudy-seed v1\n": ErrBadTicket,
		"\n" + good: ErrBadTicket, good + "{}": ErrBadTicket,
		strings.Replace(good, `"lb1"`, `"LB 1"`, 1):          ErrBadTicket,
		strings.Replace(good, seedNonce, "00", 1):            ErrBadTicket,
		strings.Replace(good, `"operator":"`, `"x":"`, 1):    ErrBadTicket,
		strings.Replace(good, `"host_key":"`, `$0 "`, 1):     ErrBadTicket,
		good[:len(good)-4] + "zz\"}\n":                       ErrBadTicket,
		seedHeader + "\n" + strings.Repeat(" ", maxUserData): ErrBadTicket,
	} {
		if _, err := ParseSeed(text); !errors.Is(err, want) {
			t.Errorf("%.60q: got %v, want %v", text, err, want)
		}
	}
	if _, err := ParseUserData(good); !errors.Is(err, ErrNoTicket) {
		t.Errorf("a seed as a ticket: got %v, want ErrNoTicket", err)
	}
}

// TestUserDataOfASeedHasNoSecretOfTheCluster is about the key that everything is made of, and the operator's private half.
func TestUserDataOfASeedHasNoSecretOfTheCluster(t *testing.T) {
	h := newHandover(t, "k", "lb1", seedNonce)
	for what, secret := range map[string]string{"cluster key": strings.Repeat("k", 32), "operator's key": fmt.Sprintf("%x", h.operator.Seed())} {
		if strings.Contains(h.UserData(), secret) {
			t.Errorf("the %s is in it", what)
		}
	}
	if again := newHandover(t, "k", "lb1", seedNonce); again.UserData() != h.UserData() {
		t.Error("the same launch, begun again, has another key")
	}
	for _, refused := range []struct{ key, node, nonce string }{{"", "lb1", seedNonce}, {"k", "LB", seedNonce}, {"k", "lb1", "x"}} {
		if _, err := NewHandover(NewSecret(strings.Repeat(refused.key, 64)), "blog", refused.node, refused.nonce); err == nil {
			t.Errorf("%+v: got nil", refused)
		}
	}
	s, err := ParseSeed(h.UserData())
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "h", fmt.Sprintf("%v %+v %#v", h, h, h), "s", fmt.Sprintf("%v %+v %#v", s, s, s))
	private, err := ssh.NewSignerFromKey(h.host)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{fmt.Sprintf("%x", h.host.Seed()), fmt.Sprintf("%x", h.operator.Seed()), fmt.Sprintf("%v", []byte(h.host.Seed())), fmt.Sprintf("%+v", private)} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("a key is in %s", log.String())
		}
	}
}
