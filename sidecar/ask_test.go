package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// stage is a sidecar of lb1 in a cluster of two, whose loop stands still until a test changes what it saw.
type stage struct {
	mu     sync.Mutex
	view   decide.View
	self   cluster.Announcement
	orders decide.Orders
	past   []admin.Incident
	gone   []admin.Destroy
	refuse error // of the next destruction
	socket string
	alone  bool // the cluster has no other member
	// reseeded is what was written into the ledger.
	reseeded []cluster.Recall
	wished   []cluster.Wish
	data     bool // the role has data
	// removal waits to be confirmed, and confirmed are the commits whose removals were.
	removal   admin.Removal
	confirmed []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "stage") // t.TempDir can be longer than a socket's name may be
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{socket: filepath.Join(dir, "admin.sock"), past: []admin.Incident{{ID: "7", Node: "lb2", Role: "lb"}}}
	good := cluster.Announcement{Phase: cluster.Serving, Health: cluster.Healthy, Voting: true}
	s.self = good
	s.self.Machine = "1001"
	good.Machine = "1002"
	s.self.Holds = []cluster.Hold{{Duty: "lb", Epoch: 1, State: cluster.Held}}
	s.view = decide.View{Now: 1e12, Peers: map[string]cluster.Peer{"lb2": {Heard: 1e12 - 1e7, Said: good}}}
	key, err := admin.NewAuthority(secrets.NewSecret(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	srv := admin.NewServer(admin.Config{Log: slog.New(slog.DiscardHandler), Cluster: "blog", Backend: s, Authority: key})
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return srv.ServeSocket(ctx, s.socket) })
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(g.Wait(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	until(t, func() bool { _, err := os.Stat(s.socket); return err == nil })
	return s
}

func (s *stage) Snapshot() (decide.Policy, decide.View, decide.Decision, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := decide.Policy{Self: "lb1", Nodes: []string{"lb1", "lb2"}, Roles: []decide.Role{
		{Name: "lb", Nodes: []string{"lb1", "lb2"}, Link: netip.MustParsePrefix("10.0.0.10/24"), Primary: true, Data: s.data},
	}}
	if s.alone {
		p.Nodes = p.Nodes[:1]
	}
	return p, s.view, decide.Decision{Say: s.self}, time.Now()
}

func (s *stage) Order(change func(*decide.Orders)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.orders)
}

func (s *stage) Reseed(_ context.Context, r cluster.Recall) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reseeded = append(s.reseeded, r)
	return nil
}

func (s *stage) Wish(_ context.Context, w cluster.Wish) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wished = append(s.wished, w)
	return nil
}

func (s *stage) Incidents(context.Context) ([]admin.Incident, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past, nil
}

func (s *stage) Sync(context.Context, admin.SyncFor) (admin.RoleData, error) {
	return admin.RoleData{}, errors.New("no data on this stage")
}

func (*stage) Look() {}

func (s *stage) Removal() admin.Removal { return s.removal }

func (s *stage) ConfirmRemoval(commit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = append(s.confirmed, commit)
}

func (*stage) Runs() []admin.PuppetRun { return nil }

func (s *stage) Destroy(_ context.Context, d admin.Destroy) (admin.Destroyed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return admin.Destroyed{}, s.refuse
	}
	s.gone = append(s.gone, d)
	return admin.Destroyed{Node: d.Node, Machine: d.Machine, DryRun: d.DryRun, Incident: "8"}, nil
}

// lb2 changes what the peer says.
func (s *stage) lb2(change func(*cluster.Announcement)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.view.Peers["lb2"]
	change(&p.Said)
	s.view.Peers = map[string]cluster.Peer{"lb2": p} // what was handed out does not change
}

func (s *stage) boot()  { s.lb2(func(a *cluster.Announcement) { a.Phase = cluster.Booting }) }
func (s *stage) serve() { s.lb2(func(a *cluster.Announcement) { a.Phase = cluster.Serving }) }

func until(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

// tape is what a command has printed so far.
type tape struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *tape) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *tape) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// understudy runs the program and returns what it printed and its exit status, which main would end with.
func understudy(ctx context.Context, args ...string) (string, string, int) {
	var out, errs tape
	code := understudyTo(ctx, &out, &errs, args...)
	return out.String(), errs.String(), code
}

func understudyTo(ctx context.Context, out, errs *tape, args ...string) int {
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	err := cmd.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	errs.Write([]byte(err.Error()))
	return 1
}

func TestStatusEndsWithWhatItSaw(t *testing.T) {
	s := newStage(t)
	if out, errs, code := understudy(t.Context(), "status", "--socket", s.socket); code != 0 || !strings.HasPrefix(out, "blog is redundant") {
		t.Errorf("redundant: got %d\n%s%s", code, out, errs)
	}
	s.boot()
	out, errs, code := understudy(t.Context(), "status", "--socket", s.socket)
	if code != 3 || !strings.Contains(out, "lb: 1 of 2 serve: lb2 is booting") || errs != "" {
		t.Errorf("not redundant: got %d\n%s%s", code, out, errs)
	}
	if _, errs, code := understudy(t.Context(), "status", "--socket", s.socket+".none"); code != 1 || !strings.Contains(errs, "systemctl status understudy") {
		t.Errorf("nobody there: got %d, %s", code, errs)
	}
	out, _, code = understudy(t.Context(), "status", "--json", "--socket", s.socket)
	var st admin.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != 3 || st.Redundant || len(st.Nodes) != 2 {
		t.Errorf("JSON: got %d, %v\n%s", code, err, out)
	}
}

func TestWaitEndsWhenTheClusterIsRedundant(t *testing.T) {
	s := newStage(t)
	s.boot()
	if out, _, code := understudy(t.Context(), "status", "--socket", s.socket, "--wait", "redundant", "--timeout", "300ms"); code != 3 || !strings.Contains(out, "lb2 is booting") {
		t.Errorf("in vain: got %d\n%s", code, out)
	}
	var out, errs tape
	var code int
	var g errgroup.Group
	g.Go(func() error {
		code = understudyTo(t.Context(), &out, &errs, "status", "--socket", s.socket, "--wait", "redundant", "--json")
		return nil
	})
	s.serve()
	_ = g.Wait() // never fails
	if code != 0 || !strings.Contains(out.String(), `"redundant": true`) {
		t.Errorf("got %d\n%s%s", code, &out, &errs)
	}
	if _, errs, code := understudy(t.Context(), "status", "--socket", s.socket+".none", "--wait", "redundant", "--timeout", "300ms"); code != 1 || !strings.Contains(errs, "nobody could tell within 300ms") {
		t.Errorf("nobody there: got %d, %s", code, errs)
	}
	if _, errs, code := understudy(t.Context(), "status", "--wait", "gone"); code != 1 || !strings.Contains(errs, "only redundant can be waited for") {
		t.Errorf("something else: got %d, %s", code, errs)
	}
}

// Where there is no terminal, watching prints a status whenever one changes, and ends with the last one's exit status.
func TestWatchPrintsEveryChangeOnce(t *testing.T) {
	s := newStage(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs tape
	var code int
	var g errgroup.Group
	g.Go(func() error {
		code = understudyTo(ctx, &out, &errs, "status", "--socket", s.socket, "--watch", "--json")
		return nil
	})
	lines := func() int { return strings.Count(out.String(), "\n") }
	until(t, func() bool { return lines() == 1 })
	s.boot()
	until(t, func() bool { return lines() == 2 })
	s.serve()
	until(t, func() bool { return lines() == 3 })
	s.boot()
	until(t, func() bool { return lines() == 4 })
	interrupt()
	_ = g.Wait() // never fails
	if code != 3 {
		t.Errorf("got %d, %s; want 3", code, &errs)
	}
	var seen []bool
	for line := range strings.Lines(out.String()) {
		var st admin.Status
		if err := json.Unmarshal([]byte(line), &st); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, st.Redundant)
	}
	if want := []bool{true, false, true, false}; !slices.Equal(seen, want) {
		t.Errorf("got %v, want %v", seen, want)
	}
}

func TestSwitchoverWaitsForTheMove(t *testing.T) {
	s := newStage(t)
	if out, errs, code := understudy(t.Context(), "switchover", "lb", "--socket", s.socket, "--to", "lb2"); code != 0 || !strings.HasPrefix(out, "lb1 has been asked to hand lb over to lb2; see") {
		t.Errorf("got %d, %s%s", code, out, errs)
	}
	if _, errs, code := understudy(t.Context(), "switchover", "db", "--socket", s.socket); code != 1 || errs != `no role is called "db"; a duty have: lb` {
		t.Errorf("refused: got %d, %s", code, errs)
	}
	if _, errs, code := understudy(t.Context(), "switchover", "lb", "--socket", s.socket, "--wait", "--timeout", "100ms"); code != 3 || !strings.Contains(errs, "lb has not moved within 100ms: nothing is known to be in its way") {
		t.Errorf("late: got %d, %s", code, errs)
	}
	var out, errs tape
	var code int
	var g errgroup.Group
	g.Go(func() error {
		code = understudyTo(t.Context(), &out, &errs, "switchover", "lb", "--socket", s.socket, "--wait")
		return nil
	})
	until(t, func() bool { return strings.Contains(out.String(), "has been asked") })
	s.lb2(func(a *cluster.Announcement) {
		a.Holds = []cluster.Hold{{Duty: "lb", Epoch: 2, State: cluster.Held}}
	})
	_ = g.Wait() // never fails
	if code != 0 || !strings.Contains(out.String(), "lb has moved from lb1 to lb2 in ") {
		t.Errorf("got %d\n%s%s", code, &out, &errs)
	}
	if want := []cluster.Move{{Duty: "lb", From: 1}}; !slices.Equal(s.orders.Moves, want) {
		t.Errorf("ordered %+v, want %+v", s.orders.Moves, want)
	}
}

func TestPauseNamesWhomItDidNotReach(t *testing.T) {
	s := newStage(t)
	out, errs, code := understudy(t.Context(), "pause", "--socket", s.socket)
	if code != 3 || out != "paused: lb1\n" || !strings.HasPrefix(errs, "not reached: lb2: its address is not known") || !s.orders.Pause {
		t.Errorf("got %d\n%s%s", code, out, errs)
	}
	if out, errs, code := understudy(t.Context(), "resume", "--only", "--socket", s.socket); code != 0 || out != "resumed: lb1\n" || errs != "" || s.orders.Pause {
		t.Errorf("got %d\n%s%s", code, out, errs)
	}
}

func TestPlanIncidentsAndAccessPrintWhatTheyAreFor(t *testing.T) {
	s := newStage(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"plan"}, "lb1 has nothing to change"},
		{[]string{"plan", "--json"}, `"actions": []`},
		{[]string{"incidents"}, "lb2 (lb): nothing is written about it yet"},
		{[]string{"incidents", "--json"}, "[\n  {\n    \"id\": \"7\",\n    \"node\": \"lb2\",\n    \"role\": \"lb\",\n    \"cause\": \"\",\n    \"phases\": []"},
		{[]string{"access", "--for", "1h"}, "-----BEGIN PRIVATE KEY-----"},
	} {
		out, errs, code := understudy(t.Context(), append(tc.args, "--socket", s.socket)...)
		if code != 0 || !strings.Contains(out, tc.want) {
			t.Errorf("%v: got %d\n%s%s", tc.args, code, out, errs)
		}
	}
	if _, errs, code := understudy(t.Context(), "access", "--for", "1s", "--socket", s.socket); code != 1 || !strings.Contains(errs, "must be from 1m to 87600h") {
		t.Errorf("a short access: got %d, %s", code, errs)
	}
}

func TestWhereIsCheckedBeforeAnythingIsAsked(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "--node", "lb1"}, "--node needs --local NAME"},
		{[]string{"status", "--connect", "h:1"}, "missing [cert]"},
		{[]string{"status", "--connect", "h:1", "--cert", "/none"}, "open /none: no such file"},
		{[]string{"status", "--connect", "h:1", "--cert", "c", "--socket", "s"}, "none of the others can be"},
		{[]string{"switchover"}, "accepts 1 arg(s), received 0"},
	} {
		if _, errs, code := understudy(t.Context(), tc.args...); code != 1 || !strings.Contains(errs, tc.want) {
			t.Errorf("%v: got %d, %s; want %q", tc.args, code, errs, tc.want)
		}
	}
}

// The shell is offered what the live status knows.
func TestTheShellCompletesRolesAndNodes(t *testing.T) {
	s := newStage(t)
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"switchover", "--socket", s.socket, ""}, []string{"lb\ton lb1", ":4"}},
		{[]string{"switchover", "--socket", s.socket, "x"}, []string{":4"}},
		{[]string{"switchover", "--socket", s.socket, "lb", "--to", ""}, []string{"lb2\tserving", ":4"}},
		{[]string{"status", "--socket", s.socket, "--node", ""}, []string{"lb1\tlb primary, serving", "lb2\tlb standby, serving", ":4"}},
		{[]string{"chaos", "--socket", s.socket, "--node", "lb2"}, []string{"lb2\tlb standby, serving", ":4"}},
		{[]string{"status", "--wait", ""}, []string{"redundant", ":4"}},
		{[]string{"switchover", "--socket", s.socket + ".none", ""}, []string{":4"}},
	} {
		out, _, code := understudy(t.Context(), append([]string{"__complete"}, tc.args...)...)
		if got := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || !slices.Equal(got, tc.want) {
			t.Errorf("%v: got %d %q, want %q", tc.args, code, got, tc.want)
		}
	}
}

// Help teaches: what a command does, how it ends, whom it asks, and examples.
func TestHelpTeaches(t *testing.T) {
	for _, name := range []string{"status", "plan", "incidents", "chaos", "switchover", "pause", "resume", "access"} {
		out, _, code := understudy(t.Context(), name, "--help")
		if code != 0 || !strings.Contains(out, "Examples:\n  ") || !strings.Contains(out, "--local NAME asks a node") {
			t.Errorf("%s: got %d\n%s", name, code, out)
		}
		for line := range strings.Lines(out) {
			if len(line) > 125 {
				t.Errorf("%s: a line of %d characters: %s", name, len(line), line)
			}
		}
	}
}
