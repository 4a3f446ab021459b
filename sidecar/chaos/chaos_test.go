package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
	"understudy/sidecar/ledger"
)

// rig is a cluster of two load balancers and two web nodes in which all is well, seen from lb1.
type rig struct {
	*Destroyer
	t       *testing.T
	status  admin.Status
	store   *ledger.Memory
	ledger  *ledger.Ledger
	account *account
	now     time.Time
}

// order is the one that the tests give.
var order = admin.Destroy{Node: "web2", Machine: "1004", Seed: 42}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: ledger.NewMemory(), account: &account{machines: map[string]cluster.Machine{}}, now: time.Now()}
	r.ledger = ledger.New(r.store, "blog")
	r.status = admin.Status{Node: "lb1", Redundant: true, Majority: admin.Majority{Have: true}, Ledger: admin.Ledger{Configured: true, Usable: true}}
	for i, node := range []string{"lb1", "lb2", "web1", "web2"} {
		id := fmt.Sprint(1001 + i)
		r.must(r.ledger.ClaimIdentity(t.Context(), cluster.Claim{Node: node, Epoch: 1, Machine: id}))
		r.account.machines[id] = cluster.Machine{ID: id, Name: node, Tags: []string{"blog"}, Power: cluster.PowerOn}
		r.status.Nodes = append(r.status.Nodes, admin.Node{
			Name: node, Role: node[:len(node)-1], Machine: id, Phase: cluster.Serving.String(), Alive: decide.Alive.String(), Voting: true,
		})
	}
	r.Destroyer = New(Config{
		Log: slog.New(slog.DiscardHandler), Machine: "1001", Tag: "blog", Status: func() admin.Status { return r.status },
		Ledger: r.ledger, Provider: r.account, Now: func() time.Time { return r.now },
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// node changes what lb1 believes of a node.
func (r *rig) node(name string, change func(*admin.Node)) {
	i := slices.IndexFunc(r.status.Nodes, func(n admin.Node) bool { return n.Name == name })
	change(&r.status.Nodes[i])
}

// account is a provider that does as it is told, after a while, and remembers what it was told.
type account struct {
	machines map[string]cluster.Machine
	unlisted string // a machine that lists lack
	slow     int    // so many questions see a machine run whose power is cut
	refuse   error  // of the next power-off
	stuck    error  // of the next deletion
	asked    func() // before the answer to a list
	told     []string
}

func (a *account) List(context.Context) ([]cluster.Machine, error) {
	if a.asked != nil {
		a.asked()
	}
	var all []cluster.Machine
	for id, m := range a.machines {
		if id != a.unlisted && m.Power != cluster.PowerGone {
			all = append(all, m)
		}
	}
	return all, nil
}

func (a *account) Get(_ context.Context, id string) (cluster.Machine, error) {
	m, ok := a.machines[id]
	if !ok {
		return cluster.Machine{ID: id, Power: cluster.PowerGone}, nil
	}
	if m.Power == cluster.PowerOff && a.slow > 0 {
		a.slow--
		m.Power = cluster.PowerOn
	}
	return m, nil
}

func (a *account) PowerOff(_ context.Context, id, name string) error {
	a.told = append(a.told, "off "+id+" "+name)
	if a.refuse != nil {
		return a.refuse
	}
	m := a.machines[id]
	m.Power = cluster.PowerOff
	a.machines[id] = m
	return nil
}

func (a *account) Delete(_ context.Context, id, name string) error {
	a.told = append(a.told, "delete "+id+" "+name)
	switch {
	case a.stuck != nil:
		return a.stuck
	case a.machines[id].Power != cluster.PowerOff || a.slow > 0:
		return cloud.ErrRunning
	}
	delete(a.machines, id)
	return nil
}

func TestAnOrderDestroysOneMachineAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.account.slow = 5
		done, err := r.Destroy(t.Context(), order)
		want := admin.Destroyed{Node: "web2", Role: "web", Machine: "1004", Incident: cluster.IncidentID(r.now, "web2"), Deleted: true}
		if err != nil || done != want {
			t.Fatalf("got %+v, %v; want %+v", done, err, want)
		}
		if want := []string{"off 1004 web2", "delete 1004 web2"}; !slices.Equal(r.account.told, want) {
			t.Errorf("told the provider %q, want %q", r.account.told, want)
		}
		all, err := r.ledger.Incidents(t.Context(), 10)
		r.must(err)
		if len(all) != 1 || all[0].Cause != cluster.Chaos || all[0].Role != "web" || all[0].Steps[0].Phase != "lost" || all[0].Steps[0].By != "lb1" ||
			all[0].Steps[0].Detail != "machine 1004 was destroyed on purpose, picked with seed 42" {
			t.Errorf("the incident: %+v", all)
		}
		read, err := r.ledger.Read(t.Context())
		r.must(err)
		if d := read.Destroyed; d.N != 1 || d.Node != "web2" || d.Machine != "1004" || d.Seed != 42 || d.By != "lb1" {
			t.Errorf("the ledger has %+v", d)
		}
	})
}

func TestADryRunChangesNothing(t *testing.T) {
	r := newRig(t)
	dry := order
	dry.DryRun = true
	if done, err := r.Destroy(t.Context(), dry); err != nil || done != (admin.Destroyed{Node: "web2", Role: "web", Machine: "1004", DryRun: true}) {
		t.Errorf("got %+v, %v", done, err)
	}
	r.untouched()
}

// untouched says that no order was written down and the provider was told nothing.
func (r *rig) untouched() {
	r.t.Helper()
	read, err := ledger.New(r.store, "blog").Read(r.t.Context())
	r.must(err)
	if len(r.account.told) > 0 || read.Destroyed.N > 0 && read.Destroyed.By == "lb1" {
		r.t.Errorf("told the provider %q, wrote %+v", r.account.told, read.Destroyed)
	}
}

// earlier writes an order down that somebody else gave so long ago.
func (r *rig) earlier(ago time.Duration, node, machine string) {
	l := ledger.New(r.store, "blog")
	r.must(l.WriteDestruction(r.t.Context(), cluster.Destruction{N: 1, Node: node, Machine: machine, By: "lb2", Mark: mark()}))
	r.cfg.Ledger = aged{r.ledger, ago}
}

// aged is a ledger whose newest order is older than it is.
type aged struct {
	*ledger.Ledger
	by time.Duration
}

func (a aged) Read(ctx context.Context) (ledger.Reading, error) {
	r, err := a.Ledger.Read(ctx)
	r.Destroyed.Age = a.by
	return r, err
}

func (r *rig) incident(ago time.Duration, phases ...string) {
	for _, p := range phases {
		s := ledger.Step{Incident: "20260101T000000Z-lb2", Node: "lb2", Role: "lb", Phase: p, At: r.now.Add(-ago), By: "lb1"}
		r.must(r.ledger.AppendIncident(r.t.Context(), s))
	}
}

func (r *rig) machine(id string, change func(*cluster.Machine)) {
	m := r.account.machines[id]
	change(&m)
	r.account.machines[m.ID] = m
}

func (r *rig) intent() {
	r.must(r.ledger.WriteIntent(r.t.Context(), cluster.Intent{Node: "lb2", N: 1, Nonce: mark(), Replaces: 1, Machine: "1002", By: "lb1", Epoch: 1, Try: 1}))
}

// Every reason by itself is enough, nothing happens, and the asker is told which it was.
func TestWhateverSpeaksAgainstItNothingHappens(t *testing.T) {
	for _, tc := range []struct {
		claim  string
		change func(r *rig, o *admin.Destroy)
		want   string
	}{
		{"not redundant", func(r *rig, _ *admin.Destroy) {
			r.status.Redundant, r.status.Why = false, []string{"lb: 1 of 2 serve", "web: 0 of 2 serve"}
		}, "the cluster is not redundant: lb: 1 of 2 serve; web: 0 of 2 serve"},
		{"a minority", func(r *rig, _ *admin.Destroy) { r.status.Majority.Have = false }, "lb1 hears no majority of the members"},
		{"no ledger", func(r *rig, _ *admin.Destroy) {
			r.status.Ledger = admin.Ledger{Why: "it does not answer"}
		}, "the ledger cannot be used: it does not answer"},
		{"itself", func(_ *rig, o *admin.Destroy) { o.Node, o.Machine = "lb1", "1001" },
			"lb1 carries the order out, so it cannot be the one that goes; ask another node"},
		{"nobody", func(_ *rig, o *admin.Destroy) { o.Node = "web9" }, `no node is called "web9"`},
		{"another is paused", func(r *rig, _ *admin.Destroy) { r.node("lb2", func(n *admin.Node) { n.Paused = true }) },
			"lb2 is paused, so it would not help; first: understudy resume"},
		{"paused", func(r *rig, _ *admin.Destroy) { r.status.Paused = true }, "lb1 is paused, so it would not help; first: understudy resume"},
		{"suspect", func(r *rig, _ *admin.Destroy) {
			r.node("web1", func(n *admin.Node) { n.Alive = decide.Suspect.String() })
		}, "web1 has not been heard for a moment"},
		{"mute", func(r *rig, _ *admin.Destroy) { r.node("web1", func(n *admin.Node) { n.Voting = false }) },
			"web1 does not vote yet: its sidecar has just started, or stood still"},
		{"replaced meanwhile", func(r *rig, _ *admin.Destroy) { r.node("web2", func(n *admin.Node) { n.Machine = "1005" }) },
			"web2 is machine 1005 now, not 1004"},
		{"not the newest claim", func(r *rig, _ *admin.Destroy) {
			r.must(r.ledger.Tombstone(t.Context(), "web2", 1))
			r.must(r.ledger.ClaimIdentity(t.Context(), cluster.Claim{Node: "web2", Epoch: 2, Machine: "1005"}))
		}, "machine 1004 has not the newest claim to be web2"},
		{"a tombstone", func(r *rig, _ *admin.Destroy) { r.must(r.ledger.Tombstone(t.Context(), "web2", 1)) },
			"machine 1004 has not the newest claim to be web2"},
		{"no longer this node", func(r *rig, _ *admin.Destroy) { r.must(r.ledger.Tombstone(t.Context(), "lb1", 1)) }, "this machine is not lb1 any more"},
		{"an open intent", func(r *rig, _ *admin.Destroy) { r.intent() }, "lb2 is being replaced"},
		{"an open incident", func(r *rig, _ *admin.Destroy) { r.incident(59*time.Minute, "lost", "detected") },
			`the loss of lb2 is not made good yet: the incident is at "detected"`},
		{"an order under way", func(r *rig, _ *admin.Destroy) { r.earlier(14*time.Minute, "web1", "1003") },
			"the order to destroy web1, 14m ago, has not run its course yet"},
		{"too soon", func(r *rig, o *admin.Destroy) {
			o.Apart = admin.Duration(time.Hour)
			r.earlier(59*time.Minute, "web1", "999")
		}, "web1 was destroyed 59m ago; the next one may go 1h after that"},
		{"a list without this machine", func(r *rig, _ *admin.Destroy) { r.account.unlisted = "1001" },
			"the list of machines does not have this one (1001), so it cannot be right"},
		{"a list without that machine", func(r *rig, _ *admin.Destroy) { r.account.unlisted = "1004" }, "the list of machines does not have machine 1004"},
		{"another name", func(r *rig, _ *admin.Destroy) { r.machine("1004", func(m *cluster.Machine) { m.Name = "db1" }) },
			`machine 1004 is called "db1" and has the tags ["blog"], so it is not the cluster's web2`},
		{"no tag", func(r *rig, _ *admin.Destroy) { r.machine("1004", func(m *cluster.Machine) { m.Tags = nil }) },
			`machine 1004 is called "web2" and has the tags [], so it is not the cluster's web2`},
		{"off already", func(r *rig, _ *admin.Destroy) {
			r.machine("1004", func(m *cluster.Machine) { m.Power = cluster.PowerOff })
		}, "machine 1004 does not run"},
		{"two of that name", func(r *rig, _ *admin.Destroy) { r.machine("1004", func(m *cluster.Machine) { m.ID = "1005" }) },
			"there are 2 machines called web2; the one too many goes first"},
	} {
		t.Run(tc.claim, func(t *testing.T) {
			r, o := newRig(t), order
			tc.change(r, &o)
			for _, o.DryRun = range []bool{true, false} {
				_, err := r.Destroy(t.Context(), o)
				var no *admin.Problem
				if !errors.As(err, &no) || no.Status != http.StatusConflict || no.Detail != tc.want {
					t.Errorf("dry run %v: got %v, want %s", o.DryRun, err, tc.want)
				}
			}
			r.untouched()
		})
	}
}

// What is over, or has come to nothing, is in nobody's way: nothing stays refused for ever.
func TestWhatIsOverIsInNobodysWay(t *testing.T) {
	for claim, change := range map[string]func(*rig){
		"an incident that is over":          func(r *rig) { r.incident(time.Minute, "lost", "detected", "redundant") },
		"an incident that nobody goes on":   func(r *rig) { r.incident(61*time.Minute, "lost") },
		"an order that came to nothing":     func(r *rig) { r.earlier(16*time.Minute, "web1", "1003") },
		"an order whose loss is made good":  func(r *rig) { r.earlier(time.Minute, "web1", "999") },
		"a replacement that has come to be": func(r *rig) { r.intent(); r.closing() },
	} {
		r := newRig(t)
		change(r)
		if done, err := r.Destroy(t.Context(), order); err != nil || !done.Deleted {
			t.Errorf("%s: got %+v, %v", claim, done, err)
		}
	}
}

func (r *rig) closing() {
	r.must(r.ledger.WriteClosing(r.t.Context(), cluster.Closing{Node: "lb2", N: 1, Outcome: cluster.Aborted, By: "lb1"}))
}

func TestOfTwoOrdersAtOnceOneIsCarriedOut(t *testing.T) {
	r := newRig(t)
	r.account.asked = func() { // between the reading and the act
		r.account.asked = nil
		r.must(ledger.New(r.store, "blog").WriteDestruction(t.Context(), cluster.Destruction{N: 1, Node: "web1", Machine: "1003", By: "lb2", Mark: mark()}))
	}
	_, err := r.Destroy(t.Context(), order)
	var no *admin.Problem
	if !errors.As(err, &no) || no.Detail != "another order, of lb2, came first" {
		t.Errorf("got %v", err)
	}
	r.untouched()
}

func TestALossWhileTheOrderIsCheckedStopsIt(t *testing.T) {
	r := newRig(t)
	r.account.asked = func() { r.status.Redundant, r.status.Why = false, []string{"lb: 1 of 2 serve"} }
	_, err := r.Destroy(t.Context(), order)
	var no *admin.Problem
	if !errors.As(err, &no) || !strings.Contains(no.Detail, "not redundant") || len(r.account.told) > 0 {
		t.Errorf("got %v; told the provider %q", err, r.account.told)
	}
}

func TestWithoutTheLedgersWordNothingIsDestroyed(t *testing.T) {
	r := newRig(t)
	r.account.asked = func() { r.store.Set(ledger.Faults{Silent: true}) } // it writes, and its answer is lost
	if _, err := r.Destroy(t.Context(), order); err == nil || len(r.account.told) > 0 {
		t.Errorf("got %v; told the provider %q", err, r.account.told)
	}
}

// The provider is asked once for each thing, whatever it answers; what is left is off, and the cluster's to delete.
func TestNothingIsAskedForTwice(t *testing.T) {
	refusal := func(err error) bool {
		var no *admin.Problem
		return errors.As(err, &no) && no.Status == http.StatusConflict
	}
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			claim   string
			change  func(*account)
			told    []string
			refused bool
			fails   bool
		}{
			{"refused", func(a *account) { a.refuse = cloud.ErrPending }, []string{"off 1004 web2"}, true, true},
			{"not ours", func(a *account) { a.refuse = fmt.Errorf("power off: %w", cloud.ErrNotOurs) }, []string{"off 1004 web2"}, true, true},
			{"too many requests", func(a *account) { a.refuse = &cloud.RateLimitedError{} }, []string{"off 1004 web2"}, true, true},
			{"no answer", func(a *account) { a.refuse = context.DeadlineExceeded }, []string{"off 1004 web2"}, false, true},
			{"never off", func(a *account) { a.slow = 1000 }, []string{"off 1004 web2"}, false, false},
			{"not deleted", func(a *account) { a.stuck = cloud.ErrPending }, []string{"off 1004 web2", "delete 1004 web2"}, false, false},
		} {
			r := newRig(t)
			tc.change(r.account)
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			began := time.Now()
			done, err := r.Destroy(ctx, order)
			cancel()
			if took := time.Since(began); took > 25*time.Second-afterwards {
				t.Errorf("%s: took %v, which leaves no time for the deletion", tc.claim, took)
			}
			if (err != nil) != tc.fails || refusal(err) != tc.refused || done.Deleted || !slices.Equal(r.account.told, tc.told) {
				t.Errorf("%s: got %+v, %v; told the provider %q", tc.claim, done, err, r.account.told)
			}
			all, err := r.ledger.Incidents(t.Context(), 10)
			r.must(err)
			if begun := len(all) == 1; begun == tc.fails {
				t.Errorf("%s: the incidents are %+v", tc.claim, all)
			}
		}
	})
}
