package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// fakeLedger is a store that honours create-if-absent, unless it is told not to, and is away when it is told to be.
type fakeLedger struct {
	*world

	mu      sync.Mutex
	away    error
	unsound bool
	claims  map[string]cluster.Claim
	duties  map[string]cluster.DutyRecord
	tie     cluster.Tie
	beats   map[string]string
	steps   []IncidentStep
	intents map[string]cluster.Intent
	wishes  map[string]cluster.Wish
	called  map[string]cluster.Call
	seed    uint64
	late    func() // happens after a reading was made and before its answer arrives; nil: nothing
}

func newFakeLedger(w *world) *fakeLedger {
	return &fakeLedger{world: w, claims: map[string]cluster.Claim{}, duties: map[string]cluster.DutyRecord{}, beats: map[string]string{},
		intents: map[string]cluster.Intent{}, called: map[string]cluster.Call{}}
}

func (f *fakeLedger) change(c func(f *fakeLedger)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c(f)
}

// ask is one call, which fails while the store is away.
func (f *fakeLedger) ask(ctx context.Context, what string, do func() error) error {
	if err := f.call(ctx, "%s", what); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil {
		return f.away
	}
	return do()
}

func (f *fakeLedger) SelfTest(ctx context.Context) error {
	return f.ask(ctx, "self-test", func() error {
		if f.unsound {
			return fmt.Errorf("%w: both writers won", ErrUnsound)
		}
		return nil
	})
}

func (f *fakeLedger) Read(ctx context.Context) (r LedgerReading, err error) {
	err = f.ask(ctx, "read ledger", func() error {
		r = LedgerReading{Duties: maps.Clone(f.duties), Tie: f.tie, Claims: maps.Clone(f.claims), Beats: maps.Clone(f.beats), Intents: maps.Clone(f.intents),
			Wishes: maps.Clone(f.wishes), Seed: f.seed}
		return nil
	})
	if f.late != nil {
		f.late()
	}
	return r, err
}

func (f *fakeLedger) WriteDuty(ctx context.Context, d cluster.DutyRecord) error {
	return f.ask(ctx, "write duty", func() error {
		if was, ok := f.duties[d.Duty]; ok && was.Epoch >= d.Epoch && was != d {
			return fmt.Errorf("%w: %s", ErrTaken, was.Holder)
		}
		f.duties[d.Duty] = d
		return nil
	})
}

func (f *fakeLedger) ClaimTie(ctx context.Context, t cluster.Tie) error {
	return f.ask(ctx, "claim tie", func() error {
		if f.tie.N >= t.N && f.tie.Winner != t.Winner {
			return ErrTaken
		}
		f.tie = t
		return nil
	})
}

func (f *fakeLedger) ClaimIdentity(ctx context.Context, c cluster.Claim) error {
	return f.ask(ctx, fmt.Sprintf("claim %s %d", c.Node, c.Epoch), func() error {
		if was := f.claims[c.Node]; was.Epoch >= c.Epoch && was.Machine != c.Machine {
			return ErrTaken
		}
		f.claims[c.Node] = c
		return nil
	})
}

func (f *fakeLedger) WriteIntent(ctx context.Context, i cluster.Intent) error {
	return f.ask(ctx, "intent "+i.Node, func() error {
		if f.intents[i.Node].N >= i.N {
			return ErrTaken
		}
		f.intents[i.Node] = i
		return nil
	})
}

func (f *fakeLedger) WriteCall(ctx context.Context, c cluster.Call) error {
	return f.ask(ctx, "call "+c.Node, func() error {
		if _, there := f.called[c.Node]; there {
			return ErrTaken
		}
		f.called[c.Node] = c
		i := f.intents[c.Node]
		i.Called = 1
		f.intents[c.Node] = i
		return nil
	})
}

func (f *fakeLedger) WriteClosing(ctx context.Context, c cluster.Closing) error {
	return f.ask(ctx, fmt.Sprintf("%s %s", c.Outcome, c.Node), func() error {
		i := f.intents[c.Node]
		i.Closed = c
		f.intents[c.Node] = i
		return nil
	})
}

func (f *fakeLedger) Tombstone(ctx context.Context, node string, epoch uint64) error {
	return f.ask(ctx, "tombstone "+node, func() error {
		c := f.claims[node]
		c.Tombstoned = c.Epoch == epoch
		f.claims[node] = c
		return nil
	})
}

func (f *fakeLedger) Leave(ctx context.Context, node string, epoch uint64) error {
	return f.ask(ctx, "leave "+node, func() error {
		c := f.claims[node]
		c.Tombstoned = c.Epoch == epoch
		c.Left = c.Tombstoned
		f.claims[node] = c
		return nil
	})
}

func (f *fakeLedger) History(ctx context.Context, node string) (nonces map[string]bool, claims map[string]uint64, err error) {
	err = f.ask(ctx, "history", func() error {
		nonces, claims = map[string]bool{f.intents[node].Nonce: true}, map[string]uint64{f.claims[node].Machine: f.claims[node].Epoch}
		return nil
	})
	return nonces, claims, err
}

func (f *fakeLedger) Reseed(ctx context.Context, r cluster.Recall) error {
	return f.ask(ctx, "reseed", func() error {
		maps.Copy(f.claims, r.Claims)
		maps.Copy(f.duties, r.Duties)
		f.tie, f.seed = r.Tie, r.Seed
		return nil
	})
}

func (f *fakeLedger) Prune(ctx context.Context, most int) (int, error) {
	return most, f.ask(ctx, fmt.Sprintf("prune %d", most), func() error { return nil })
}

func (f *fakeLedger) Beat(ctx context.Context, _ Heartbeat) error {
	return f.ask(ctx, "beat", func() error { return nil })
}

func (f *fakeLedger) AppendIncident(ctx context.Context, s IncidentStep) error {
	return f.ask(ctx, "append", func() error { f.steps = append(f.steps, s); return nil })
}

func (f *fakeLedger) OpenIncident(ctx context.Context, node string) (id string, err error) {
	err = f.ask(ctx, "open incident", func() error {
		for _, s := range f.steps {
			if s.Node == node && s.Phase != "redundant" {
				id = s.Incident
			}
			if s.Incident == id && s.Phase == "redundant" {
				id = ""
			}
		}
		return nil
	})
	return id, err
}

// withLedger makes a rig whose node has one. Its decisions read it every second, as decide's do.
func withLedger(t *testing.T, next plan, prepare func(*fakeLedger)) (*rig, *fakeLedger) {
	var f *fakeLedger
	r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
		d := next(v, m)
		if v.Ledger.Sound && v.Now.Since(v.Ledger.ReadSent) >= time.Second {
			d.Actions = append(d.Actions, decide.ReadLedger{Reason: "what has changed"})
		}
		return d
	}, func(_ *Config, w *World) {
		f = newFakeLedger(w.Mesh.(fakeMesh).world)
		prepare(f)
		w.Ledger = f
	})
	return r, f
}

func idle(v decide.View, m decide.Memory) decide.Decision { return decide.Decision{} }

func (r *rig) view() decide.View { return r.loop.look().View }

func TestANodeClaimsItsIdentityOnceAndOnlyAgainAfterATombstone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(*fakeLedger) {})
		r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if c := r.view().Claim; !c.Needed || !c.Mine || c.Epoch != 1 || c.At == 0 {
			t.Errorf("got %+v, want claim 1", c)
		}
		if n := r.count("claim lb1 1"); n != 1 {
			t.Errorf("claimed %d times, want once", n)
		}
		at := r.view().Claim.At
		r.hear("lb2", time.Minute)
		f.change(func(f *fakeLedger) { c := f.claims["lb1"]; c.Tombstoned = true; f.claims["lb1"] = c })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if c := r.view().Claim; !c.Mine || c.Epoch != 2 || c.At <= at {
			t.Errorf("after the tombstone: got %+v, want claim 2, later", c)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAMachineThatHasLeftNeverClaimsAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := withLedger(t, idle, func(f *fakeLedger) {
			f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 4, Machine: "11", Tombstoned: true, Left: true}
		})
		r.run()
		r.hear("web1", time.Hour)
		time.Sleep(10 * returnAfter)
		synctest.Wait()
		if c := r.view().Claim; c.Mine || c.Taken == "" || r.count("claim lb1 5") > 0 {
			t.Errorf("got %+v, want no claim", c)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// hear lets a member be heard for a while from now on.
func (r *rig) hear(node string, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = map[string]cluster.Peer{node: {Heard: r.now().Add(d)}}
}

// Whoever is cut off and given up would otherwise claim again and again, and be in the way of its own replacement.
func TestAMachineThatHearsNoMajorityWaitsBeforeItClaimsAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(f *fakeLedger) {
			f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 4, Machine: "11", Tombstoned: true}
		})
		r.run()
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if r.count("claim lb1 5") > 0 {
			t.Error("claimed at once")
		}
		time.Sleep(5 * time.Second) // a lone survivor would wait for ever
		synctest.Wait()
		if c := r.view().Claim; !c.Mine || c.Epoch != 5 {
			t.Errorf("after a while: got %+v, want claim 5", c)
		}
		f.change(func(f *fakeLedger) { c := f.claims["lb1"]; c.Tombstoned = true; f.claims["lb1"] = c })
		time.Sleep(5 * time.Second)
		r.hear("web1", time.Minute)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if c := r.view().Claim; !c.Mine || c.Epoch != 6 {
			t.Errorf("when most are heard: got %+v, want claim 6", c)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAReadingFromBeforeAClaimDoesNotUndoIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(*fakeLedger) {})
		r.loop.board.put(func(v *decide.View) { v.Ledger.Sound = true })
		f.late = func() {
			f.late = nil
			time.Sleep(time.Millisecond)
			if err := r.loop.claim(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := r.loop.readLedger(t.Context()); err != nil {
			t.Error(err)
		}
		if v, _ := r.loop.board.look(); !v.Claim.Mine || v.Claim.Epoch != 1 {
			t.Errorf("got %+v, want claim 1 kept", v.Claim)
		}
		time.Sleep(time.Second)
		f.change(func(f *fakeLedger) { clear(f.claims) }) // what a later reading does not show is gone
		if err := r.loop.readLedger(t.Context()); err != nil {
			t.Error(err)
		}
		if v, _ := r.loop.board.look(); v.Claim.Mine {
			t.Errorf("got %+v, want none", v.Claim)
		}
	})
}

func TestAClaimOfAnotherMachineIsRespected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(f *fakeLedger) { f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 4, Machine: "99"} })
		r.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if c := r.view().Claim; c.Mine || !strings.Contains(c.Taken, "99") {
			t.Errorf("got %+v, want it taken by machine 99", c)
		}
		if r.count("claim lb1 5")+r.count("beat") != 0 {
			t.Error("claimed, or beat, in another machine's place")
		}
		f.change(func(f *fakeLedger) { c := f.claims["lb1"]; c.Tombstoned = true; f.claims["lb1"] = c })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if c := r.view().Claim; !c.Mine || c.Epoch != 5 {
			t.Errorf("after its tombstone: got %+v, want claim 5", c)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestALostClaimIsNoticedByTheNextReading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(*fakeLedger) {})
		r.run()
		time.Sleep(5 * time.Second)
		f.change(func(f *fakeLedger) { f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 2, Machine: "99"} })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c := r.view().Claim; c.Mine {
			t.Errorf("got %+v, want it lost to machine 99", c)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A restart while the ledger is away must not take a node's voice, but a boot must: it may have been fenced meanwhile.
func TestAClaimIsRememberedOverARestartAndNotOverABoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, func(v decide.View, m decide.Memory) decide.Decision {
			return decide.Decision{Say: cluster.Announcement{Voting: v.Claim.Mine}}
		}, func(*fakeLedger) {})
		r.run()
		time.Sleep(5 * time.Second)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		for boot, want := range map[string]bool{"boot": true, "another": false} {
			cfg := r.cfg
			cfg.Boot = boot
			again, err := New(cfg, World{Mesh: fakeMesh{r.world}, Addresses: fakeAddresses{r.world}, Ledger: f})
			if err != nil {
				t.Fatal(err)
			}
			if v, _ := again.board.look(); v.Claim.Mine != want || v.FreshBoot == want {
				t.Errorf("boot %q: got claim %+v, fresh boot %v; want mine %v", boot, v.Claim, v.FreshBoot, want)
			}
		}
		cfg := r.cfg
		cfg.Machine = "12"
		again, err := New(cfg, World{Mesh: fakeMesh{r.world}, Addresses: fakeAddresses{r.world}, Ledger: f})
		if v, _ := again.board.look(); err != nil || v.Claim.Mine {
			t.Errorf("on another machine: got claim %+v, %v; want none", v.Claim, err)
		}
	})
}

func TestAnUnsoundLedgerIsSaidToBeAndNeededForNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := withLedger(t, idle, func(f *fakeLedger) { f.unsound = true })
		r.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		v := r.view()
		if v.Ledger.Sound || !strings.Contains(v.Ledger.Unsound, "both writers won") || v.Claim.Needed {
			t.Errorf("got ledger %+v, claim %+v", v.Ledger, v.Claim)
		}
		if r.count("claim lb1 1")+r.count("read ledger") != 0 {
			t.Error("the ledger is used")
		}
		_, _, d, _ := r.loop.Snapshot()
		if !slices.ContainsFunc(d.Blocked, func(b decide.Blocked) bool { return b.What == "ledger's soundness" }) {
			t.Errorf("got blocked %v, want the ledger among it", d.Blocked)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestALedgerThatIsAwayIsFailingAndKeepsItsLastReading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(f *fakeLedger) { f.duties["lb"] = cluster.DutyRecord{Duty: "lb", Epoch: 3, Holder: "lb2"} })
		r.run()
		time.Sleep(5 * time.Second)
		f.change(func(f *fakeLedger) { f.away = errBroken })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		v := r.view()
		if !v.Ledger.Failing || v.Ledger.Duties["lb"].Epoch != 3 || v.Now.Sub(v.Ledger.ReadSent) < 9*time.Second {
			t.Errorf("got %+v, want it failing, with the last reading and its true age", v.Ledger)
		}
		f.change(func(f *fakeLedger) { f.away = nil })
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if v := r.view(); v.Ledger.Failing || v.Now.Sub(v.Ledger.ReadSent) > 3*time.Second {
			t.Errorf("after its return: got %+v", v.Ledger)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// The age of a reading is counted from the sending of the request: a slow answer must not lengthen a lease.
func TestAReadingIsAsOldAsItsRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		wishes := map[string]cluster.Wish{"lb1": {Node: "lb1", N: 1, Keep: []string{"22"}}}
		r, _ := withLedger(t, idle, func(f *fakeLedger) { f.wishes = wishes })
		r.run()
		time.Sleep(10 * time.Second)
		if got := r.view().Ledger.Wishes; !reflect.DeepEqual(got, wishes) {
			t.Errorf("wishes: got %+v, want %+v", got, wishes)
		}
		r.mu.Lock()
		r.delay = 2 * time.Second
		r.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for range 500 {
			if v := r.view(); v.Now.Sub(v.Ledger.ReadSent) < 1990*time.Millisecond {
				t.Fatalf("a reading whose answer took 2s is %v old", v.Now.Sub(v.Ledger.ReadSent))
			}
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnEpochThatIsNoLongerWantedIsNotWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		write := decide.WriteDuty{Record: cluster.DutyRecord{Duty: "lb", Epoch: 9, Holder: "lb1", Lease: true}}
		bidding := decide.Memory{Duties: map[string]decide.Duty{"lb": {Bid: 9, BidLease: true}}}
		var asks atomic.Bool
		r, f := withLedger(t, func(v decide.View, _ decide.Memory) decide.Decision {
			d := decide.Decision{Actions: []decide.Action{write}}
			if asks.Load() {
				d.Memory = bidding
			}
			return d
		}, func(*fakeLedger) {})
		r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.count("write duty") != 0 {
			t.Error("wrote an epoch that nobody asks for")
		}
		asks.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if w := r.view().Ledger.Wrote["lb"]; w.Epoch != 9 || w.Lost || f.duties["lb"].Holder != "lb1" {
			t.Errorf("got %+v, want epoch 9 written", w)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestSomebodyElsesEpochAndTieAreSeenToBeSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, func(v decide.View, _ decide.Memory) decide.Decision {
			return decide.Decision{Memory: decide.Memory{Duties: map[string]decide.Duty{"lb": {Bid: 9}}}, Actions: []decide.Action{
				decide.WriteDuty{Record: cluster.DutyRecord{Duty: "lb", Epoch: 9, Holder: "lb1"}},
				decide.ClaimTie{Tie: cluster.Tie{N: 1, Winner: "lb1", Members: []string{"lb1", "web1"}}},
			}}
		}, func(f *fakeLedger) {
			f.duties["lb"] = cluster.DutyRecord{Duty: "lb", Epoch: 9, Holder: "lb2"}
			f.tie = cluster.Tie{N: 1, Winner: "lb2", Members: []string{"lb2"}}
		})
		r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		v := r.view()
		if w := v.Ledger.Wrote["lb"]; w.Epoch != 9 || !w.Lost {
			t.Errorf("got %+v, want epoch 9 lost", w)
		}
		if v.Ledger.Tie.Winner != "lb2" || v.Ledger.WonTie != 0 {
			t.Errorf("got tie %+v, won %v; want lb2's", v.Ledger.Tie, v.Ledger.WonTie)
		}
		f.change(func(f *fakeLedger) { f.tie = cluster.Tie{} })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if v := r.view(); v.Ledger.Tie.Winner != "lb1" || v.Ledger.WonTie == 0 {
			t.Errorf("got tie %+v, won %v; want ours", v.Ledger.Tie, v.Ledger.WonTie)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAHeartbeatIsStaleForAsLongAsItWasWatchedUnchanged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(f *fakeLedger) { f.beats["lb2"], f.beats["lb1"] = "long ago", "x" })
		r.run()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		stale := r.view().Ledger.Stale
		if s := stale["lb2"]; s < 15*time.Second || s > 20*time.Second || stale["lb1"] != 0 {
			t.Errorf("got %v, want lb2 stale for as long as we have looked, and never ourselves", stale)
		}
		f.change(func(f *fakeLedger) { f.beats["lb2"] = "now" })
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := r.view().Ledger.Stale["lb2"]; s > 3*time.Second {
			t.Errorf("stale for %v after a beat", s)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestPeersAreFoundByConfigurationClaimAndListAndRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		addr := netip.MustParseAddr
		var f *fakeLedger
		change := func(c *Config, w *World) {
			f = newFakeLedger(w.Mesh.(fakeMesh).world)
			f.claims["lb2"] = cluster.Claim{Node: "lb2", Epoch: 1, Machine: "22", Private: addr("10.9.0.22")}
			w.Ledger, c.Port = f, 7946
			c.Peers = nil
			f.machines = []cluster.Machine{{ID: "33", Name: "web1", Private: addr("10.9.0.33")}, {ID: "11", Name: "lb1", Private: addr("10.9.0.11")}}
		}
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			return decide.Decision{Actions: []decide.Action{decide.ReadLedger{}}}
		}, change)
		r.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		got := r.peers
		r.mu.Unlock()
		want := map[string]netip.AddrPort{"lb2": netip.MustParseAddrPort("10.9.0.22:7946"), "web1": netip.MustParseAddrPort("10.9.0.33:7946")}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if n := r.count("list"); n != 1 {
			t.Errorf("%d lists in ten seconds, want one", n)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		// A restart, with neither provider nor ledger.
		again, err := New(r.cfg, World{Mesh: fakeMesh{r.world}, Addresses: fakeAddresses{r.world}})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.findPeers(t.Context()); err != nil || !maps.Equal(r.peers, want) {
			t.Errorf("after a restart: got %v, %v; want %v", r.peers, err, want)
		}
	})
}

func TestIncidentsAreWrittenInOrderAndSurviveAnAbsentLedger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(f *fakeLedger) { f.away = errors.New("away") })
		r.loop.steps.add([]IncidentStep{{Incident: "a-lb2", Node: "lb2", Phase: "lost"}, {Incident: "a-lb2", Node: "lb2", Phase: "detected"}})
		r.run()
		time.Sleep(10 * time.Second)
		f.change(func(f *fakeLedger) { f.away = nil })
		time.Sleep(10 * time.Second)
		r.loop.steps.add([]IncidentStep{{Incident: "b-lb2", Node: "lb2", Phase: "redundant"}}) // of a later coordinator
		time.Sleep(10 * time.Second)
		synctest.Wait()
		f.change(func(f *fakeLedger) {
			var got []string
			for _, s := range f.steps {
				got = append(got, s.Incident+" "+s.Phase)
			}
			if want := []string{"a-lb2 lost", "a-lb2 detected", "a-lb2 redundant"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// Only who coordinates prunes, slowly, and only a ledger that is whole and its own.
func TestTheCoordinatorPrunesSlowly(t *testing.T) {
	for name, c := range map[string]struct {
		state  cluster.HoldState
		change func(f *fakeLedger, r *rig)
		want   int // prunings in an hour
	}{
		"coordinating": {cluster.Held, nil, 6},
		"not yet":      {cluster.Waiting, nil, 0},
		"paused":       {cluster.Held, func(_ *fakeLedger, r *rig) { r.loop.Order(func(o *decide.Orders) { o.Pause = true }) }, 0},
		"another coordinates since": {cluster.Held, func(f *fakeLedger, _ *rig) {
			f.duties[cluster.Coordinator] = cluster.DutyRecord{Epoch: 8, Holder: "lb2"}
		}, 0},
		"the ledger is away": {cluster.Held, func(f *fakeLedger, _ *rig) { f.away = errBroken }, 0},
		"the ledger has forgotten": {cluster.Held, func(_ *fakeLedger, r *rig) {
			r.loop.board.put(func(v *decide.View) { v.Ledger.Known = &cluster.Recall{Tie: cluster.Tie{N: 3}} })
		}, 0},
	} {
		bubble(t, func(t *testing.T) {
			m := decide.Memory{Duties: map[string]decide.Duty{cluster.Coordinator: {Hold: cluster.Hold{Duty: cluster.Coordinator, Epoch: 7, State: c.state}}}}
			r, f := withLedger(t, func(decide.View, decide.Memory) decide.Decision { return decide.Decision{Memory: m} }, func(*fakeLedger) {})
			if c.change != nil {
				c.change(f, r)
			}
			r.run()
			time.Sleep(time.Hour + time.Minute)
			synctest.Wait()
			if got := r.count("prune 10"); got != c.want {
				t.Errorf("%s: pruned %d times in an hour, want %d", name, got, c.want)
			}
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
