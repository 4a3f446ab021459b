package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cluster"
)

// onSocket serves b on a socket until the test ends, and returns a client for it; serveOn does the same for a server.
func onSocket(t *testing.T, b Backend) *Client {
	t.Helper()
	return serveOn(t, newServer(t, b))
}

func serveOn(t *testing.T, s *Server) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin") // t.TempDir can be longer than a socket's name may be
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "run", "admin.sock")
	run(t, func(ctx context.Context) error { return s.ServeSocket(ctx, path) })
	c := NewSocketClient(path)
	t.Cleanup(func() { c.Close(); os.RemoveAll(dir) })
	eventually(t, func() error {
		_, err := os.Stat(path)
		return err
	})
	return c
}

// onTLS serves b on loopback under the test's cluster key and returns the address.
func onTLS(t *testing.T, b Backend) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node, err := authority(t, testKey).Node("lb1")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, b)
	run(t, func(ctx context.Context) error { return s.ServeTLS(ctx, l, node) })
	return l.Addr().String()
}

// run runs f until the test ends and expects that it ends well.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return f(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

func TestTheSocketTellsStatusPlanAndIncidents(t *testing.T) {
	b := newBackend()
	b.past = []Incident{{ID: "1", Node: "web1", Role: "web"}}
	c := onSocket(t, b)
	st, err := c.Status(t.Context())
	if err != nil || st.Cluster != "blog" || !st.Redundant || len(st.Nodes) != 6 || st.At.IsZero() {
		t.Errorf("got %+v, %v", st, err)
	}
	plan, err := c.Plan(t.Context())
	if err != nil || plan.Node != "lb1" || plan.Cluster != "blog" {
		t.Errorf("got %+v, %v", plan, err)
	}
	all, err := c.Incidents(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != "1" || all[0].Phases == nil {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestTheSocketIsRootsAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	if err := os.WriteFile(path, nil, 0o666); err != nil { // left by an earlier process
		t.Fatal(err)
	}
	s := newServer(t, newBackend())
	run(t, func(ctx context.Context) error { return s.ServeSocket(ctx, path) })
	eventually(t, func() error {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Type() != os.ModeSocket {
			return errors.Join(err, errors.New("no socket yet"))
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("mode is %v, want 0600", got)
		}
		return nil
	})
}

func TestOrdersReachTheLoop(t *testing.T) {
	b := newBackend()
	c := onSocket(t, b)
	moving, err := c.Switchover(t.Context(), Move{Role: "lb", To: "lb2"})
	if want := (Moving{Role: "lb", From: "lb1", Epoch: 4, To: "lb2"}); err != nil || moving != want {
		t.Errorf("got %+v, %v, want %+v", moving, err, want)
	}
	if _, err := c.Switchover(t.Context(), Move{Role: "mail"}); err != nil {
		t.Error(err)
	}
	if _, err := c.Switchover(t.Context(), Move{Role: "lb"}); err != nil { // replaces the one before
		t.Error(err)
	}
	if got, err := c.Pause(t.Context(), Pause{}); err != nil || got.Node != "lb1" || !got.Paused || len(got.Others) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	b.mu.Lock()
	got := b.orders
	b.mu.Unlock()
	if want := []cluster.Move{{Duty: "mail", From: 2}, {Duty: "lb", From: 4}}; !reflect.DeepEqual(got.Moves, want) || !got.Pause {
		t.Errorf("got %+v, want %+v and a pause", got, want)
	}
	if got, err := c.Resume(t.Context(), Pause{}); err != nil || got.Paused || b.orders.Pause {
		t.Errorf("got %+v, %v; orders %+v", got, err, b.orders)
	}
}

func TestASwitchoverThatCannotBeIsRefusedWithTheReason(t *testing.T) {
	for _, tc := range []struct {
		claim  string
		move   Move
		world  func() *world
		status int
		want   string
	}{
		{"no role", Move{Role: "db"}, calm, 422, `no role is called "db"; a duty have: lb and mail`},
		{"no duty", Move{Role: "web"}, calm, 422, "all nodes of web serve alike, so there is nothing to move; a duty have: lb and mail"},
		{"not its node", Move{Role: "lb", To: "web1"}, calm, 422, `lb is played by lb1 and lb2, not by "web1"`},
		{"no role at all", Move{}, calm, 400, "role is missing"},
		{"there already", Move{Role: "lb", To: "lb1"}, calm, 409, "lb1 has the duty of lb"},
		{"to the failed", Move{Role: "lb", To: "lb2"}, stories[1].world, 409, "lb2 cannot take the duty of lb: it does not serve (failed)"},
		{"to nobody", Move{Role: "lb"}, stories[1].world, 409, "no other node of lb serves and is not paused; see: understudy status"},
		{"from nobody", Move{Role: "mail"}, stories[3].world, 409, "nobody has the duty of mail now; whoever can takes it without being asked. See: understudy status"},
		{"paused there", Move{Role: "mail", To: "mail2"}, func() *world {
			return calm().peer("mail2", func(a *cluster.Announcement) { a.Paused = true })
		}, 409, "mail2 only observes; first: understudy resume"},
		{"all others paused", Move{Role: "mail"}, func() *world {
			return calm().peer("mail2", func(a *cluster.Announcement) { a.Paused = true })
		}, 409, "no other node of mail serves and is not paused; see: understudy status"},
	} {
		t.Run(tc.claim, func(t *testing.T) {
			b := newBackend()
			b.world = tc.world()
			_, err := onSocket(t, b).Switchover(t.Context(), tc.move)
			var p *Problem
			if !errors.As(err, &p) || p.Status != tc.status || p.Error() != tc.want {
				t.Errorf("got %#v, want %d %s", err, tc.status, tc.want)
			}
			if len(b.orders.Moves) != 0 {
				t.Errorf("ordered all the same: %+v", b.orders.Moves)
			}
		})
	}
}

func TestBeforeTheFirstTurnNothingIsTold(t *testing.T) {
	b := newBackend()
	b.at = time.Time{}
	_, err := onSocket(t, b).Status(t.Context())
	var p *Problem
	if !errors.As(err, &p) || p.Status != 503 {
		t.Errorf("got %v", err)
	}
}

func TestALoopThatHangsIsNotRedundant(t *testing.T) {
	b := newBackend()
	b.at = time.Now().Add(-time.Minute)
	st, err := onSocket(t, b).Status(t.Context())
	if err != nil || st.Redundant || len(st.Why) != 1 || !strings.Contains(st.Why[0], "has not looked around for 1m") {
		t.Errorf("got redundant %v, %q, %v", st.Redundant, st.Why, err)
	}
}

func TestNobodyAtTheSocketIsUnreachable(t *testing.T) {
	_, err := NewSocketClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "systemctl status understudy") {
		t.Errorf("got %v", err)
	}
}

func TestPeersAndOperatorsAreLetInOverTLS(t *testing.T) {
	addr := onTLS(t, newBackend())
	a := authority(t, testKey) // another process' own
	peer, err := a.Node("lb2")
	if err != nil {
		t.Fatal(err)
	}
	operator, err := a.Operator(time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, cert := range []tls.Certificate{peer, operator} {
		c := NewTLSClient(addr, a.Client(cert))
		if st, err := c.Status(t.Context()); err != nil || !st.Redundant {
			t.Errorf("%s: got %+v, %v", cert.Leaf.Subject, st, err)
		}
		c.Close()
	}
}

// A route that does not exist, or not that way, is a problem like all others.
func TestWhatIsNotPartOfTheAPIIsAProblem(t *testing.T) {
	h := newServer(t, newBackend()).Handler(Remote)
	for _, tc := range []struct{ method, path string }{{"GET", "/"}, {"GET", "/v1/switchover"}, {"POST", "/v1/status"}, {"POST", "/v1/access"}, {"GET", "/metrics"}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
		if w.Code != 404 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: got %d %s", tc.method, tc.path, w.Code, w.Body)
		}
	}
}

func TestHealthzIsTheLoops(t *testing.T) {
	b := newBackend()
	for age, want := range map[time.Duration]int{0: 200, time.Minute: 503} {
		b.at = time.Now().Add(-age)
		w := httptest.NewRecorder()
		newServer(t, b).Handler(Remote).ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if w.Code != want {
			t.Errorf("age %v: got %d %s, want %d", age, w.Code, w.Body, want)
		}
	}
}

// Whoever holds connections open without asking anything cannot use up the node's files: further ones wait.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimited(inner, 2)
	accepted := make(chan net.Conn, 3)
	run(t, func(context.Context) error {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			accepted <- c
		}
	})
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	<-accepted
	select {
	case <-accepted:
		t.Error("a third connection was accepted")
	case <-time.After(50 * time.Millisecond): // long enough for loopback; were it too short, this would pass all the same
	}
	first.Close()
	first.Close() // gives its place back once only
	<-accepted
	l.Close()
}
