package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cloud/digitalocean"
	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "dop_v1_test"

var key = secrets.NewSecret(strings.Repeat("k", 64))

// world is an account at the memory cloud, a ledger in memory, and machines that wait for an identity as their user data says. It lives
// on virtual time.
type world struct {
	t       *testing.T
	server  *localcloud.Server
	backend *backend
	store   *ledger.Memory
	ledger  *ledger.Ledger
	member  secrets.Membership
	roster  role.Roster
	said    []string
	deaf    bool // machines do not take the identity
	fail    func(r *http.Request) error

	mu   sync.Mutex
	took map[string]int // by machine: how often it was handed an identity
}

// backend notes the user data of what it boots.
type backend struct {
	*localcloud.Memory
	mu       sync.Mutex
	machines map[string]localcloud.Machine // by public address
}

func (b *backend) Boot(ctx context.Context, m localcloud.Machine) error {
	b.mu.Lock()
	b.machines[m.Public.String()] = m
	b.mu.Unlock()
	return b.Memory.Boot(ctx, m)
}

// RoundTrip is the API without a network.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.fail != nil {
		if err := w.fail(r); err != nil {
			return nil, err
		}
	}
	answer := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w.server.API().ServeHTTP(answer, r)
	return answer.Result(), nil
}

// within runs test in a world of its own.
func within(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		data, err := os.ReadFile("../../roles.yaml")
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, backend: &backend{Memory: &localcloud.Memory{}, machines: map[string]localcloud.Machine{}}, store: ledger.NewMemory(), took: map[string]int{}}
		if w.roster, err = role.Parse("roles.yaml", data); err != nil {
			t.Fatal(err)
		}
		w.roster.Provider.SSHKeys = nil
		w.ledger = ledger.New(w.store, w.roster.Cluster)
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		w.member = secrets.Membership{Identity: id}
		o := localcloud.Defaults()
		o.Token, o.ActionDelay, o.BootDelay, o.Rate = token, 2*time.Second, 10*time.Second, localcloud.RateLimit{}
		o.Images = []localcloud.Image{{ID: 77, Name: w.roster.Provider.Image, Distribution: "Debian", MinDisk: 10, SizeGB: 1}}
		w.server = localcloud.New(slog.New(slog.DiscardHandler), w.backend, o)
		test(w)
		if err := w.server.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) provider() *digitalocean.Client {
	w.t.Helper()
	c, err := digitalocean.New(digitalocean.Config{Endpoint: "http://127.0.0.1", Token: secrets.NewSecret(token), Tag: w.roster.Cluster, Transport: w})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// dial reaches the machine that has an address, if it is on.
func (w *world) dial(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
	w.backend.mu.Lock()
	m, ok := w.backend.machines[at.Addr().String()]
	w.backend.mu.Unlock()
	if !ok || w.deaf || at.Port() != secrets.HandoverPort || !w.backend.Running(m.ID) {
		return nil, errors.New("connection refused")
	}
	seed, err := secrets.ParseSeed(m.UserData)
	if err != nil {
		return nil, err
	}
	ours, theirs := pipe()
	l := &oneConn{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- theirs
	go func() { // ends with the connection
		_ = seed.Receive(context.WithoutCancel(ctx), l, func(error) { _ = l.Close() }, func(secrets.Membership) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.took[fmt.Sprint(m.ID)]++
			return nil
		})
	}()
	return ours, nil
}

// pipe is a net.Pipe whose ends may both write first, as both ends of an SSH connection do.
func pipe() (net.Conn, net.Conn) {
	a, b := net.Pipe()
	return newBuffered(a), newBuffered(b)
}

type buffered struct {
	net.Conn
	mu     sync.Mutex
	closed bool
	out    chan []byte
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 256)}
	go func() { // ends with the connection
		for data := range b.out {
			_, _ = b.Conn.Write(data) // a peer that is gone is not told
		}
		_ = b.Conn.Close()
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	b.out <- slices.Clone(p)
	return len(p), nil
}

func (b *buffered) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.out)
	}
	return nil
}

// oneConn is a listener at which one caller arrives.
type oneConn struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, io.EOF
	}
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// run launches, for at most d.
func (w *world) run(d time.Duration, change func(*Config)) (Seed, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), d, errors.New("time is up"))
	defer cancel()
	c := Config{
		Roster: w.roster, Seed: FirstToAct(w.roster), Membership: w.member, ClusterKey: key, Ledger: w.ledger, Provider: w.provider(), Dial: w.dial,
		Say: func(line string) { w.said = append(w.said, line) },
	}
	if change != nil {
		change(&c)
	}
	seed, err := Run(ctx, c)
	for _, secret := range []string{w.member.Identity.String(), key.Reveal(), token} {
		if strings.Contains(fmt.Sprint(err, w.said, seed), secret) {
			w.t.Errorf("a secret is in %v or %q", err, w.said)
		}
	}
	return seed, err
}

// machines are all of the account, whatever lists show.
func (w *world) machines() (ids []string) {
	for _, m := range w.server.Machines() {
		ids = append(ids, fmt.Sprint(m.ID))
	}
	return ids
}

func (w *world) intent() cluster.Intent {
	w.t.Helper()
	r, err := w.ledger.Read(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Intents["lb1"]
}

// lives makes a node a machine that has claimed it.
func (w *world) lives(node string, epoch uint64) cluster.Machine {
	w.t.Helper()
	p := w.roster.Provider
	m, err := w.provider().Create(w.t.Context(), cloud.Hiring{Name: node, Region: p.Region, Sizes: p.Sizes, Image: p.Image})
	if err == nil {
		err = w.ledger.ClaimIdentity(w.t.Context(), cluster.Claim{Node: node, Epoch: epoch, Machine: m.ID})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(time.Minute)
	return m
}

// destroy deletes machines without warning.
func (w *world) destroy(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		r := httptest.NewRequest(http.MethodDelete, "/v2/droplets/"+id, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		answer := httptest.NewRecorder()
		if w.server.API().ServeHTTP(answer, r); answer.Code != http.StatusNoContent {
			w.t.Fatalf("delete %s: %d", id, answer.Code)
		}
	}
	time.Sleep(time.Minute)
}

func (w *world) mustRun(change func(*Config)) Seed {
	w.t.Helper()
	seed, err := w.run(5*time.Minute, change)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := w.took[seed.Machine]; got != 1 {
		w.t.Errorf("the seed was handed the identity %d times, want 1", got)
	}
	return seed
}

func TestSeedIsCreatedUnderAnIntentAndGetsTheIdentity(t *testing.T) {
	within(t, func(w *world) {
		seed := w.mustRun(nil)
		if seed.Node != "lb1" || !seed.Address.IsValid() || !slices.Equal(w.machines(), []string{seed.Machine}) {
			t.Errorf("got %+v of %v", seed, w.machines())
		}
		in := w.intent()
		if !w.ours(in) || in.Called == 0 || in.N != 1 || in.Try != 1 || in.Replaces != 0 {
			t.Errorf("got the intent %+v, want an open one that was called", in)
		}
		m, err := w.provider().Get(w.t.Context(), seed.Machine)
		if err != nil || m.Name != "lb1" || !slices.Contains(m.Tags, in.Tag()) || !slices.Contains(m.Tags, "blog") {
			t.Errorf("got %+v, %v, want the cluster's tag and %s", m, err, in.Tag())
		}
		for _, m := range w.backend.machines {
			if strings.Contains(m.UserData, w.member.Identity.String()) || strings.Contains(m.UserData, key.Reveal()) {
				t.Error("a secret of the cluster is in the user data")
			}
		}
	})
}

func (w *world) ours(in cluster.Intent) bool { return in.Open() && in.By == "lb1" }

// TestLaunchThatWasCutShortGoesOnWithTheSameMachine cuts it at every question it asks of anybody, and begins again.
func TestLaunchThatWasCutShortGoesOnWithTheSameMachine(t *testing.T) {
	reached := false
	for n := 1; n < 60 && !reached; n++ {
		within(t, func(w *world) {
			ctx, cancel := context.WithCancel(w.t.Context())
			defer cancel()
			asked := 0
			count := func() {
				if asked++; asked == n {
					cancel() // what was asked may happen; the answer is not heard
				}
			}
			c := Config{
				Roster: w.roster, Seed: "lb1", Membership: w.member, ClusterKey: key, Say: func(string) {},
				Ledger: counting{w.ledger, count}, Provider: asking{w.provider(), count},
				Dial: func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
					count()
					return w.dial(ctx, at)
				},
			}
			_, err := Run(ctx, c)
			reached = err == nil && asked < n
			if err != nil && ctx.Err() == nil {
				t.Fatalf("cut at question %d: %v", n, err)
			}
			before := len(w.machines())
			seed, err := w.run(10*time.Minute, nil)
			if err != nil && strings.Contains(err.Error(), "launch again begins anew") {
				seed, err = w.run(10*time.Minute, nil) // the call was written and nobody was asked
			}
			if err != nil || len(w.machines()) != 1 || before == 1 && w.machines()[0] != seed.Machine {
				t.Errorf("cut at question %d: got %+v, %v with machines %v, want one machine", n, seed, err, w.machines())
			}
		})
	}
	if !reached {
		t.Error("the launch never came to its end")
	}
}

// counting and asking tell of every question before it is asked, and cut it short when the launch is.
type counting struct {
	Ledger
	count func()
}

func (c counting) WriteIntent(ctx context.Context, i cluster.Intent) error {
	err := c.Ledger.WriteIntent(context.WithoutCancel(ctx), i)
	c.count()
	return errors.Join(err, ctx.Err())
}

func (c counting) WriteCall(ctx context.Context, i cluster.Call) error {
	err := c.Ledger.WriteCall(context.WithoutCancel(ctx), i)
	c.count()
	return errors.Join(err, ctx.Err())
}

func (c counting) Read(ctx context.Context) (ledger.Reading, error) {
	c.count()
	return c.Ledger.Read(ctx)
}

type asking struct {
	Provider
	count func()
}

func (a asking) List(ctx context.Context) ([]cluster.Machine, error) {
	a.count()
	return a.Provider.List(ctx)
}

func (a asking) Create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error) {
	m, err := a.Provider.Create(context.WithoutCancel(ctx), h)
	a.count()
	return m, errors.Join(err, ctx.Err())
}

func TestTwoOperatorsMakeOneMachine(t *testing.T) {
	within(t, func(w *world) {
		var wg sync.WaitGroup
		var errs [2]error
		var seeds [2]Seed
		for i := range errs {
			wg.Go(func() {
				c := Config{
					Roster: w.roster, Seed: "lb1", Membership: w.member, ClusterKey: key, Say: func(string) {},
					Ledger: ledger.New(w.store, "blog"), Provider: w.provider(), Dial: w.dial,
				}
				seeds[i], errs[i] = Run(w.t.Context(), c)
			})
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil && !strings.Contains(err.Error(), "somebody else") {
				t.Errorf("operator %d: %v", i, err)
			}
		}
		if errs[0] != nil && errs[1] != nil || len(w.machines()) != 1 {
			t.Errorf("got %v, %v with machines %v, want one", errs[0], errs[1], w.machines())
		}
	})
}

// TestOperatorWhoIsSecondToCallCreatesNothing has another launch come to its end between the last look of this one and its call.
func TestOperatorWhoIsSecondToCallCreatesNothing(t *testing.T) {
	within(t, func(w *world) {
		var first Seed
		var ferr error
		before := func() {
			c := Config{
				Roster: w.roster, Seed: "lb1", Membership: w.member, ClusterKey: key, Say: func(string) {},
				Ledger: ledger.New(w.store, "blog"), Provider: w.provider(), Dial: w.dial,
			}
			first, ferr = Run(w.t.Context(), c)
		}
		seed, err := w.run(5*time.Minute, func(c *Config) { c.Ledger = late{c.Ledger, before} })
		if err := errors.Join(err, ferr); err != nil || seed != first || len(w.machines()) != 1 {
			t.Errorf("got %+v and %+v, %v with machines %v, want one", seed, first, err, w.machines())
		}
	})
}

// late lets something happen right before a call is written.
type late struct {
	Ledger
	before func()
}

func (l late) WriteCall(ctx context.Context, c cluster.Call) error {
	l.before()
	return l.Ledger.WriteCall(ctx, c)
}

func TestNothingIsBegunBesideWhatLives(t *testing.T) {
	for name, c := range map[string]struct {
		make func(w *world)
		want string
	}{
		"a node":               {func(w *world) { w.lives("web1", 3) }, "cluster blog is there already: web1 is machine"},
		"the seed node itself": {func(w *world) { w.lives("lb1", 1) }, "cluster blog is there already: lb1 is machine"},
		"a machine nobody knows": {func(w *world) {
			w.lives("web1", 3)
			if err := w.ledger.Tombstone(w.t.Context(), "web1", 3); err != nil {
				w.t.Fatal(err)
			}
		}, "called web1, carries the tag blog"},
	} {
		within(t, func(w *world) {
			c.make(w)
			before := w.machines()
			_, err := w.run(time.Minute, nil)
			lives, ok := errors.AsType[*LivesError](err)
			if !ok || !strings.Contains(err.Error(), c.want) || lives.Next == "" {
				t.Errorf("%s: got %v, want a LivesError with %q", name, err, c.want)
			}
			if in := w.intent(); in.N != 0 || !slices.Equal(w.machines(), before) {
				t.Errorf("%s: something was begun: %+v, machines %v", name, in, w.machines())
			}
		})
	}
}

// TestClusterThatIsGoneIsLaunchedAnew is for operators without a beachhead.
func TestClusterThatIsGoneIsLaunchedAnew(t *testing.T) {
	within(t, func(w *world) {
		old := w.lives("lb1", 4)
		web := w.lives("web1", 2)
		w.destroy(old.ID, web.ID)
		seed := w.mustRun(nil)
		in := w.intent()
		if in.Replaces != 4 || in.Machine != old.ID || seed.Machine == old.ID {
			t.Errorf("got %+v, want it to replace machine %s under claim 4", in, old.ID)
		}
		r, err := w.ledger.Read(w.t.Context())
		if err != nil || !r.Claims["lb1"].Tombstoned || r.Claims["web1"].Tombstoned {
			t.Errorf("got %+v, %v, want a tombstone for lb1 alone: web1's is the seed's to write", r.Claims, err)
		}
	})
}

func TestSeedThatHasClaimedIsNotHandedTheIdentityAgain(t *testing.T) {
	within(t, func(w *world) {
		seed := w.mustRun(nil)
		if err := w.ledger.ClaimIdentity(w.t.Context(), cluster.Claim{Node: "lb1", Epoch: 1, Machine: seed.Machine}); err != nil {
			t.Fatal(err)
		}
		w.deaf = true // it waits no more
		again, err := w.run(time.Minute, nil)
		if err != nil || again != seed || w.took[seed.Machine] != 1 {
			t.Errorf("got %+v, %v after %d hand-overs, want %+v and one", again, err, w.took[seed.Machine], seed)
		}
		w.destroy(seed.Machine) // before any other node was there
		w.deaf = false
		third := w.mustRun(nil)
		if in := w.intent(); third.Machine == seed.Machine || in.N != 2 || in.Try != 2 || in.Replaces != 1 {
			t.Errorf("got %+v under %+v, want another machine under a second intent", third, in)
		}
	})
}

func TestWhatGoesWrongIsToldWithWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(w *world)
		change func(*Config)
		want   string
		closed bool // the intent: the next launch begins anew
	}{
		"a ledger that is unsound": {set: func(w *world) { w.store.Set(ledger.Faults{Deaf: true}) }, want: "a cluster needs a ledger it can rely on"},
		"a ledger that is away":    {set: func(w *world) { w.store.Set(ledger.Faults{Away: true}) }, want: "the store is away"},
		"an unknown seed node":     {change: func(c *Config) { c.Seed = "db1" }, want: "begin with db1"},
		"no such region":           {change: func(c *Config) { c.Roster.Provider.Region = "nyc9" }, want: "create a machine for lb1", closed: true},
		"a seed that cannot be reached": {
			set: func(w *world) { w.deaf = true }, want: "whether TCP port 7749 of 198.51.100.",
		},
		"a provider that does not answer": {
			set:  func(w *world) { w.fail = func(*http.Request) error { return errors.New("no route") } },
			want: "no route",
		},
		"a create whose answer and machine are lost": {
			set: func(w *world) {
				w.fail = func(r *http.Request) error {
					if r.Method == http.MethodPost {
						return errors.New("reset by peer")
					}
					return nil
				}
			},
			want: "the machine was asked for and never came to be", closed: true,
		},
	} {
		within(t, func(w *world) {
			if c.set != nil {
				c.set(w)
			}
			_, err := w.run(5*time.Minute, c.change)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
			w.store.Set(ledger.Faults{})
			if got := w.intent().Closed.Outcome == cluster.Failed; got != c.closed {
				t.Errorf("%s: got the intent %+v, want it closed %v", name, w.intent(), c.closed)
			}
			if w.deaf, w.fail = false, nil; c.want != "begin with db1" {
				w.mustRun(nil)
				if len(w.machines()) != 1 {
					t.Errorf("%s, and then again: got machines %v, want one", name, w.machines())
				}
			}
		})
	}
}

// TestCreateThatWasAcceptedInSpiteOfItsAnswerMakesNoSecondMachine has the answer lost on its way back.
func TestCreateThatWasAcceptedInSpiteOfItsAnswerMakesNoSecondMachine(t *testing.T) {
	within(t, func(w *world) {
		w.server.Inject(localcloud.Fault{Kind: localcloud.ListLag, Delay: 20 * time.Second})
		lost := asking{w.provider(), func() {}}
		seed := w.mustRun(func(c *Config) { c.Provider = deafCreate{lost} })
		if !slices.Equal(w.machines(), []string{seed.Machine}) {
			t.Errorf("got %v, want only %s", w.machines(), seed.Machine)
		}
	})
}

type deafCreate struct{ asking }

func (d deafCreate) Create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error) {
	_, err := d.asking.Create(ctx, h)
	return cluster.Machine{}, errors.Join(err, errors.New("502 Bad Gateway"))
}

func TestSeedIsTheFirstNodeThatWaitsForNobody(t *testing.T) {
	needs := []role.Need{{Role: "repo"}}
	for want, r := range map[string]role.Roster{
		"lb1":   {Roles: []role.Role{{Name: "lb", Nodes: []string{"lb1", "lb2"}}, {Name: "web", Nodes: []string{"web1"}, Needs: needs}}},
		"repo1": {Roles: []role.Role{{Name: "web", Nodes: []string{"web1"}, Needs: needs}, {Name: "repo", Nodes: []string{"repo1", "repo2"}}}},
	} {
		if got := FirstToAct(r); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
