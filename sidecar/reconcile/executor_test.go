package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

var reserved = netip.MustParseAddr("203.0.113.10")

func assign(holder string) decide.AssignReserved {
	return decide.AssignReserved{Reason: "lb2 is silent", Role: "lb", Address: reserved, Machine: "11",
		Expect: decide.Expect{Duty: "lb", Epoch: 7, Holder: holder, Reads: true}}
}

// always wants the same actions while we hold lb.
func always(m decide.Memory, actions ...decide.Action) plan {
	return func(v decide.View, _ decide.Memory) decide.Decision {
		return decide.Decision{Memory: m, Actions: actions, LookAgain: v.Now.Add(10 * time.Millisecond)}
	}
}

func TestAnAddressIsNotMovedAwayFromAHolderThatWasNotExpected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, always(holding(), assign("22")), nil)
		r.holder[reserved] = cluster.AddressHolder{Machine: "33"}
		r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.count("assign 203.0.113.10 to 11") != 0 {
			t.Error("assigned although another machine has it")
		}
		if _, v, d, _ := r.loop.Snapshot(); v.Holders["lb"].Machine != "33" || len(d.Blocked) > 0 {
			t.Errorf("got %+v, blocked %v; want the fresh reading and no failure", v.Holders["lb"], d.Blocked)
		}
		r.mu.Lock()
		r.holder[reserved] = cluster.AddressHolder{Machine: "22", Pending: true}
		r.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.count("assign 203.0.113.10 to 11") != 0 {
			t.Error("assigned while an action is in progress")
		}
		r.mu.Lock()
		r.holder[reserved] = cluster.AddressHolder{Machine: "22"}
		r.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, v, _, _ := r.loop.Snapshot(); r.count("assign 203.0.113.10 to 11") == 0 || v.Holders["lb"].Machine != "11" {
			t.Errorf("got %+v, want the address here, read back", v.Holders["lb"])
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestADutyLostDuringACallStopsWhatFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var lost atomic.Bool
		r := newRig(t, func(v decide.View, _ decide.Memory) decide.Decision {
			memory := holding()
			if lost.Load() {
				memory = decide.Memory{}
			}
			return decide.Decision{Memory: memory, Actions: []decide.Action{assign("22")}, LookAgain: v.Now.Add(10 * time.Millisecond)}
		}, nil)
		r.holder[reserved] = cluster.AddressHolder{Machine: "22"}
		r.delay = time.Second
		r.run()
		time.Sleep(500 * time.Millisecond) // the holder is being read
		synctest.Wait()
		lost.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.count("holder of 203.0.113.10") == 0 || r.count("assign 203.0.113.10 to 11") != 0 {
			t.Errorf("got %v, want a reading and no assignment", r.happened())
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnActionOfAStoppedProcessIsNotDoneAfterwards(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, always(holding(), assign("22")), nil)
		r.run()
		synctest.Wait()
		if err := r.loop.holds(decide.Expect{Duty: "lb", Epoch: 7}); err != nil {
			t.Fatalf("while the loop turns: %v", err)
		}
		r.skew.Add(int64(time.Second)) // the process stood still, and this goroutine goes on before the loop does
		if err := r.loop.holds(decide.Expect{Duty: "lb", Epoch: 7}); !errors.Is(err, errStale) {
			t.Errorf("got %v, want %v", err, errStale)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAFailedActionIsTriedAgainWithGrowingPausesAndShown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, always(holding(), decide.ReadMachine{Reason: "web1 is silent", Node: "web1", Machine: "22"}), nil)
		r.fail("get 22", errBroken)
		r.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.count("get 22"); n < 7 || n > 14 {
			t.Errorf("%d tries in a minute, want about ten", n)
		}
		_, _, d, _ := r.loop.Snapshot()
		if len(d.Blocked) != 1 || d.Blocked[0].What != "machine of web1" || !strings.Contains(d.Blocked[0].Why, "broken") ||
			!strings.Contains(d.Blocked[0].Why, "web1 is silent") {
			t.Errorf("got blocked %v", d.Blocked)
		}
		r.fail("get 22", nil)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		_, v, d, _ := r.loop.Snapshot()
		if m := v.Machines["web1"]; len(d.Blocked) != 0 || m.Power != cluster.PowerGone || m.Same < 2 {
			t.Errorf("after the repair: blocked %v, reading %+v", d.Blocked, m)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnEffectThatNeverShowsIsNoStormOfCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, always(holding(), decide.ReadMachine{Node: "web1", Machine: "22"}, decide.CountSockets{Role: "lb"}), nil)
		r.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := r.count("get 22"); n < 9 || n > 11 {
			t.Errorf("%d calls of the provider in 10s, want one a second", n)
		}
		if n := r.count("count lb"); n > 510 {
			t.Errorf("%d counts in 10s, want about 500 at most", n)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherActionOfTheKeyReplacesTheOneUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var other atomic.Bool
		r := newRig(t, func(v decide.View, _ decide.Memory) decide.Decision {
			which := "22"
			if other.Load() {
				which = "33"
			}
			return decide.Decision{Memory: holding(), LookAgain: v.Now.Add(10 * time.Millisecond),
				Actions: []decide.Action{decide.ReadMachine{Node: "web1", Machine: which}}}
		}, nil)
		r.delay = 4 * time.Second
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.happened(); !slices.Equal(got, []string{"get 22"}) {
			t.Fatalf("got %v, want one call under way", got)
		}
		other.Store(true)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.happened(); !slices.Equal(got, []string{"get 22", "cut off: get 22", "get 33"}) {
			t.Errorf("got %v, want the first cut off and the second begun", got)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsNoLongerWantedIsNotTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var unwanted atomic.Bool
		r := newRig(t, func(v decide.View, _ decide.Memory) decide.Decision {
			d := decide.Decision{Memory: holding()}
			if !unwanted.Load() {
				d.Actions = []decide.Action{decide.ReadMachine{Node: "web1", Machine: "22"}}
			}
			return d
		}, nil)
		r.fail("get 22", errBroken)
		r.run()
		synctest.Wait()
		unwanted.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.count("get 22"); n != 1 {
			t.Errorf("%d tries, want the first alone", n)
		}
		if _, _, d, _ := r.loop.Snapshot(); len(d.Blocked) != 0 {
			t.Errorf("still shown: %v", d.Blocked)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// limited says when to come back.
type limited struct{ error }

func (limited) RetryAfter() time.Duration { return 20 * time.Second }

func TestARateLimitIsObeyed(t *testing.T) {
	for tries := 1; tries < 100; tries++ {
		err := fmt.Errorf("ask: %w", limited{errBroken})
		if wait := backoff(decide.ReadMachine{}, tries, err); wait < 20*time.Second || wait > 21*time.Second {
			t.Fatalf("try %d: waits %v, want 20s", tries, wait)
		}
		if wait := backoff(decide.ReadMachine{}, tries, errBroken); wait <= 0 || wait > mostPause {
			t.Fatalf("try %d: waits %v, want at most %v", tries, wait, mostPause)
		}
	}
}

func TestAMissingPartIsToldAndNotCalled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, always(holding(), decide.ReadLedger{Reason: "why"}, decide.ReadZone{Zone: "z"}, decide.PrimaryUnits{Role: "lb"}),
			func(_ *Config, w *World) { w.Provider = nil })
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		if _, _, d, _ := r.loop.Snapshot(); len(d.Blocked) != 3 {
			t.Errorf("got blocked %v, want all three", d.Blocked)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOlderViewDoesNotRepeatWhatHasBeenDone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var done atomic.Int64
		perform := func(context.Context, decide.Action) error { done.Add(1); return nil }
		x := newExecutor(slog.New(slog.DiscardHandler), perform, func() uint64 { return 5 }, func() {})
		for _, step := range []struct {
			version uint64
			want    int64
		}{{3, 1}, {4, 1}, {5, 2}} {
			x.want(t.Context(), []decide.Action{decide.CountSockets{Role: "lb"}}, step.version)
			time.Sleep(time.Second)
			synctest.Wait()
			if got := done.Load(); got != step.want {
				t.Errorf("after a view of version %d: done %d times, want %d", step.version, got, step.want)
			}
		}
		x.wait()
	})
}

func TestReadingsAreSilentWhenTheyWork(t *testing.T) {
	for _, a := range []decide.Action{
		decide.ReadHolder{}, decide.ReadMachine{}, decide.ReadList{}, decide.ReadLedger{}, decide.ReadZone{}, decide.CountSockets{},
	} {
		if got := level(a); got != slog.LevelDebug {
			t.Errorf("%T is logged as %v, want debug", a, got)
		}
	}
	if got := level(decide.Delete{}); got != slog.LevelInfo {
		t.Errorf("a deletion is logged as %v, want info", got)
	}
}
