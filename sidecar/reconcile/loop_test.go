package reconcile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

func gateAction(until cluster.Instant) decide.Gate {
	return decide.Gate{Reason: "because", Role: "lb", Until: until}
}

func TestGatesCloseBeforeAndOpenAfterTheNodeSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		step := 0
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			step++
			d := decide.Decision{Memory: holding(), LookAgain: v.Now.Add(50 * time.Millisecond)}
			switch step {
			case 1:
				d.Say.Commit = "held"
				d.Actions = []decide.Action{gateAction(v.Now.Add(time.Second)), decide.LinkAddress{Role: "lb", Add: true, Expect: decide.Expect{Duty: "lb", Epoch: 7}}}
			default:
				d.Say.Commit = "released"
				d.Memory = decide.Memory{}
				d.Actions = []decide.Action{gateAction(0)}
			}
			return d
		}, nil)
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		inOrder(t, r.happened(), "say held", "open lb", "address lb true", "close lb", "say released")
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingIsSaidNorOpenedWhileTheMemoryCannotBeSaved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen []uint64
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			seen = append(seen, m.Epochs["lb"])
			next := holding()
			next.Epochs = map[string]uint64{"lb": m.Epochs["lb"] + 1}
			return decide.Decision{Memory: next, Say: cluster.Announcement{Commit: "held"}, Actions: []decide.Action{
				gateAction(v.Now.Add(time.Second)), decide.Gate{Role: "other"},
				decide.LinkAddress{Role: "lb", Add: true, Expect: decide.Expect{Duty: "lb", Epoch: 7}},
			}}
		}, func(c *Config, _ *World) {
			c.MemoryFile = filepath.Join(c.MemoryFile, "not a directory", "memory.json")
		})
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		for _, never := range []string{"say held", "open lb", "address lb true"} {
			if r.count(never) > 0 {
				t.Errorf("%q happened without a memory", never)
			}
		}
		if slices.Max(seen) != 0 || len(seen) < 10 {
			t.Errorf("the memory went from turn to turn without a disk: %v", seen)
		}
		_, _, d, _ := r.loop.Snapshot()
		if len(d.Blocked) != 1 || !strings.Contains(d.Blocked[0].Why, "save the memory") {
			t.Errorf("got blocked %v, want the memory", d.Blocked)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatLastsIsOnTheDiskBeforeItIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var r *rig
		var atSay string
		r = newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			next := holding()
			next.Epochs = map[string]uint64{"lb": 7}
			return decide.Decision{Memory: next, Say: cluster.Announcement{Commit: "held"}}
		}, func(c *Config, w *World) {
			w.Mesh = meshThat{w.Mesh, func() {
				data, err := os.ReadFile(c.MemoryFile)
				if err != nil {
					t.Error(err)
				}
				atSay = string(data)
			}}
		})
		r.run()
		synctest.Wait()
		if !strings.Contains(atSay, `"lb": 7`) {
			t.Errorf("at the first word the disk had %q, want epoch 7", atSay)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		again, err := New(r.cfg, World{Mesh: fakeMesh{r.world}, Addresses: fakeAddresses{r.world}})
		if err != nil || again.memory.Epochs["lb"] != 7 {
			t.Errorf("after a restart: got %v, %v; want epoch 7", again.memory.Epochs, err)
		}
	})
}

// meshThat calls look before every word.
type meshThat struct {
	Mesh
	look func()
}

func (m meshThat) Say(a cluster.Announcement) { m.look(); m.Mesh.Say(a) }

func TestAGapClosesTheGatesFirstAndStartsListeningAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var started []cluster.Instant
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			if n := len(started); n == 0 || started[n-1] != v.Started {
				started = append(started, v.Started)
			}
			d := decide.Decision{Memory: holding(), LookAgain: v.Now.Add(50 * time.Millisecond)}
			if len(started) == 1 {
				d.Actions = []decide.Action{gateAction(v.Now.Add(300 * time.Millisecond))}
			}
			return d
		}, nil)
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		r.skew.Add(int64(300 * time.Millisecond)) // late, but within the gate time
		time.Sleep(time.Second)
		synctest.Wait()
		if len(started) != 1 || r.count("reset") != 0 {
			t.Fatalf("a pause of 300ms counts as a gap: %v", r.happened())
		}
		r.skew.Add(int64(time.Second))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(started) != 2 || started[1].Sub(started[0]) < 3*time.Second {
			t.Errorf("started at %v, want a second start after the gap", started)
		}
		inOrder(t, r.happened(), "open lb", "close lb", "reset")
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestABurstOfNewsCostsOneTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var turns atomic.Int64
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			turns.Add(1)
			return decide.Decision{LookAgain: v.Now.Add(time.Hour)}
		}, nil)
		r.run()
		synctest.Wait()
		turns.Store(0)
		for range 1000 { // a millisecond of news
			select {
			case r.changed <- struct{}{}:
			default:
			}
			r.loop.board.poke()
			time.Sleep(time.Microsecond)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if n := turns.Load(); n == 0 || n > 3 {
			t.Errorf("%d turns, want one to three", n)
		}
		turns.Store(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := turns.Load(); n != 10 {
			t.Errorf("%d turns in an idle second, want one each 100ms whatever the decision says", n)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAGateThatDoesNotOpenIsShownAndTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			return decide.Decision{Memory: holding(), Actions: []decide.Action{gateAction(v.Now.Add(time.Second))}}
		}, nil)
		r.fail("open lb", errBroken)
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		_, _, d, _ := r.loop.Snapshot()
		if len(d.Blocked) != 1 || d.Blocked[0].What != "gate lb" {
			t.Errorf("got blocked %v, want the gate", d.Blocked)
		}
		r.fail("open lb", nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if _, _, d, _ := r.loop.Snapshot(); len(d.Blocked) != 0 || !(fakeAddresses{r.world}).open("lb") {
			t.Errorf("after the repair: blocked %v, want the gate open", d.Blocked)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAWrongClockIsShownAndSeen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var ahead atomic.Int64
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			return decide.Decision{Say: cluster.Announcement{ClockOff: v.ClockOff}}
		}, func(_ *Config, w *World) { w.Clock = func() time.Duration { return time.Duration(ahead.Load()) } })
		r.run()
		for _, c := range []struct {
			ahead time.Duration
			says  string
		}{{0, ""}, {time.Hour, "1h0m0s behind"}, {-90 * time.Second, "1m30s ahead of"}, {0, ""}} {
			ahead.Store(int64(c.ahead))
			time.Sleep(2 * time.Second)
			synctest.Wait()
			_, _, d, _ := r.loop.Snapshot()
			if d.Say.ClockOff != (c.ahead != 0) || len(d.Blocked) != min(1, len(c.says)) || c.says != "" && !strings.Contains(d.Blocked[0].Why, c.says) {
				t.Errorf("%v: off %v, blocked %v", c.ahead, d.Say.ClockOff, d.Blocked)
			}
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestNoWordOfReleaseWhileAGateDoesNotClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			return decide.Decision{Say: cluster.Announcement{Commit: "released"}, Actions: []decide.Action{gateAction(0)}}
		}, nil)
		r.fail("close lb", errBroken)
		r.loop.gates.set["lb"] = gate{until: r.now().Add(time.Hour)}
		r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		if r.count("say released") > 0 || r.count("close lb") < 10 {
			t.Errorf("got %v, want only tries to close", r.happened())
		}
		if err := r.stop(); !errors.Is(err, errBroken) {
			t.Errorf("stopped with %v, want the open gate told", err)
		}
	})
}

func TestAStopWaitsUntilTheDutiesHaveMoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var left time.Time
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			d := decide.Decision{Memory: holding(), LookAgain: v.Now.Add(10 * time.Millisecond)}
			switch {
			case v.Orders.Leave && left.IsZero():
				left = time.Now()
			case v.Orders.Leave && time.Since(left) > 3*time.Second:
				d.Memory = decide.Memory{}
				d.Say.Commit = "released"
				d.Actions = []decide.Action{gateAction(0)}
			}
			if d.Say.Commit == "" {
				d.Actions = []decide.Action{gateAction(v.Now.Add(400 * time.Millisecond))}
			}
			return d
		}, nil)
		r.run()
		time.Sleep(time.Second)
		began := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("stopped after %v, want when the duty had moved", took)
		}
		inOrder(t, r.happened(), "open lb", "close lb", "say released", "flush")
	})
}

func TestAStopIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			return decide.Decision{Memory: holding(), Actions: []decide.Action{gateAction(v.Now.Add(400 * time.Millisecond))}}
		}, nil)
		r.run()
		time.Sleep(time.Second)
		began := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("stopped after %v, want 15s", took)
		}
		if (fakeAddresses{r.world}).open("lb") {
			t.Error("the gate is open after the stop")
		}
	})
}

func TestTheServiceManagerHearsOfReadinessLifeAndDuty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told []string
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision { return decide.Decision{Memory: holding()} },
			func(_ *Config, w *World) {
				w.Notify = func(s string) error { told = append(told, strings.Split(s, "\n")...); return nil }
			})
		r.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n := 0
		for _, s := range told {
			if s == "WATCHDOG=1" {
				n++
			}
		}
		if told[0] != "READY=1" || !slices.Contains(told, "STATUS=holds lb (epoch 7)") || n < 9 || n > 11 || len(told) != n+2 {
			t.Errorf("got %q", told)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAPauseOutlivesARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision { return decide.Decision{} }, nil)
		r.run()
		synctest.Wait()
		r.loop.Order(func(o *decide.Orders) { o.Pause = true })
		time.Sleep(time.Second)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		again, err := New(r.cfg, World{Mesh: fakeMesh{r.world}, Addresses: fakeAddresses{r.world}})
		if err != nil || !again.orders.Pause {
			t.Errorf("after a restart: %v, %v; want a pause", again.orders, err)
		}
	})
}

func TestAnUnreadableMemoryIsPutAside(t *testing.T) {
	for _, text := range []string{"", "{", `{"version": 2}`, `{"version": 1, "epochs": {"lb": -1}}`} {
		path := filepath.Join(t.TempDir(), "memory.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, aside, err := loadMemory(path)
		if err != nil || aside == "" || l.Epochs != nil {
			t.Errorf("%q: got %v, %q, %v; want it put aside", text, l, aside, err)
		}
		if data, err := os.ReadFile(aside); err != nil || string(data) != text {
			t.Errorf("aside lies %q, %v; want %q", data, err, text)
		}
	}
}
