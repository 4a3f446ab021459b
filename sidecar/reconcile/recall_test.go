package reconcile

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// A bucket is emptied while the sidecar is down. What its disk remembers keeps it from claiming anew and from relying on the
// ledger, until that is filled again.
func TestALedgerThatWasEmptiedCountsAsAwayUntilItIsReseeded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		before, _ := withLedger(t, idle, func(f *fakeLedger) {
			f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 2, Machine: "11"}
			f.duties["lb"] = cluster.DutyRecord{Duty: "lb", Epoch: 9, Holder: "lb2"}
		})
		before.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if err := before.stop(); err != nil {
			t.Fatal(err)
		}

		r, f := withLedger(t, idle, func(*fakeLedger) {})
		r.restart(before)
		r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		v := r.view()
		if l := v.Ledger; !strings.Contains(l.Forgot, "was at 2") || !l.Failing || l.ReadSent != 0 {
			t.Errorf("got forgot %q, failing %v, read at %v; want an emptied ledger to count as away", l.Forgot, l.Failing, l.ReadSent)
		}
		if !v.Claim.Mine || v.Claim.Epoch != 2 {
			t.Errorf("got %+v, want claim 2 kept", v.Claim)
		}
		if n := r.count("claim lb1 1"); n != 0 {
			t.Errorf("claimed %d times in an empty ledger", n)
		}
		known := *v.Ledger.Known
		known.Seed++
		if err := f.Reseed(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if l := r.view().Ledger; l.Forgot != "" || l.Failing || l.ReadSent == 0 || l.Duties["lb"].Epoch != 9 || l.Known.Seed != 1 {
			t.Errorf("after the reseed: got %+v", l)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A new machine's disk remembers nothing, but the others say who they are.
func TestWhatPeersSayOfTheirClaimsIsRememberedToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, f := withLedger(t, idle, func(f *fakeLedger) {
			f.claims["web1"] = cluster.Claim{Node: "web1", Epoch: 2, Machine: "33"}
		})
		r.heard = map[string]cluster.Peer{"web1": {Heard: r.now(), Said: cluster.Announcement{Claim: 2, Machine: "33"}}}
		r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := r.view().Ledger.Forgot; got != "" {
			t.Errorf("got %q, want nothing forgotten", got)
		}
		f.change(func(f *fakeLedger) { clear(f.claims) })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := r.view().Ledger.Forgot; !strings.Contains(got, "lb1 ends at 0") { // the first by name
			t.Errorf("got %q", got)
		}
		f.change(func(f *fakeLedger) {
			f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 1, Machine: "11"}
			f.claims["web1"] = cluster.Claim{Node: "web1", Epoch: 1, Machine: "33"}
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := r.view().Ledger.Forgot; !strings.Contains(got, "web1 ends at 1 and was at 2") {
			t.Errorf("got %q", got)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// restart gives a rig that has not run yet the disk of one that has ended.
func (r *rig) restart(of *rig) {
	r.t.Helper()
	kept, _, err := loadMemory(of.cfg.MemoryFile)
	if err != nil {
		r.t.Fatal(err)
	}
	r.loop.kept = kept
	r.loop.memory.Lasting = kept.Lasting
	r.loop.board.put(func(v *decide.View) {
		v.Ledger.Known, v.FreshBoot = kept.Ledger, false
		v.Claim.Epoch, v.Claim.Mine = kept.Claim, true
	})
}
