//go:build linux

package address

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cloud/localcloud/netns"
)

// testGates opens the gates of one role in a network namespace of the test's own.
func testGates(t *testing.T) (*netns.Namespace, *Addresses) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	name := "understudy-address-" + time.Now().Format("150405.000000000")
	n, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), netns.Remove(name)); err != nil {
			t.Error(err)
		}
	})
	spec := Spec{Role: "lb", Link: netip.MustParsePrefix("10.9.0.10/24"), Interface: netns.Bridge}
	var a *Addresses
	err = n.Do(func() (err error) {
		a, err = Open(slog.New(slog.NewTextHandler(t.Output(), nil)), []Spec{spec})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil && !errors.Is(err, ErrSuperseded) {
			t.Error(err)
		}
	})
	return n, a
}

// openSets are the names of the sets that have an element just now, of those that open a gate.
func openSets(t *testing.T, a *Addresses) []string {
	t.Helper()
	var names []string
	for _, s := range a.table.opens(netip.MustParseAddr("10.9.0.10"), true) {
		elements, err := a.nft.GetSetElements(s)
		if err != nil {
			t.Fatal(err)
		}
		if len(elements) > 0 {
			names = append(names, s.Table.Name+" "+s.Name)
		}
	}
	return names
}

func TestAWriterThatStoodStillOpensNothing(t *testing.T) {
	_, a := testGates(t)
	stood := 0
	a.between = func() {
		stood++
		pause := time.NewTimer(2 * ticketLife) // as SIGSTOP, or a machine with too much to do
		<-pause.C
		if stood == 2 {
			a.between = nil
		}
	}
	if err := a.openGate(a.gates["lb"], boottime.Now().Add(time.Minute), false); !errors.Is(err, errLate) {
		t.Errorf("got %v, want the kernel's refusal", err)
	}
	if open := openSets(t, a); open != nil {
		t.Errorf("a late write has opened %v", open)
	}
	if err := a.Gate("lb", boottime.Now().Add(time.Minute), false); err != nil || stood != 2 {
		t.Errorf("opening after having stood still: %v after %d pauses, want it to be tried again", err, stood)
	}
	if open := openSets(t, a); len(open) != 3 {
		t.Errorf("only %v are open", open)
	}
}

func TestAWriterThatAlwaysStandsStillIsTold(t *testing.T) {
	_, a := testGates(t)
	a.between = func() { <-time.After(2 * ticketLife) }
	if err := a.Gate("lb", boottime.Now().Add(time.Minute), false); !errors.Is(err, errLate) {
		t.Errorf("got %v", err)
	}
}

func TestARightThatRanOutWhileWritingClosesTheGate(t *testing.T) {
	_, a := testGates(t)
	if err := a.Gate("lb", boottime.Now().Add(time.Minute), false); err != nil {
		t.Fatal(err)
	}
	g := a.gates["lb"]
	if err := a.openGate(g, boottime.Now().Add(time.Microsecond), false); err != nil {
		t.Fatal(err)
	}
	if open := openSets(t, a); open != nil || g.until != 0 {
		t.Errorf("%v are open until %d", open, g.until)
	}
}

// An element that expires within a refresh must not fail it; what fails then fails the whole batch.
func TestRefreshingWhatIsExpiringJustNow(t *testing.T) {
	_, a := testGates(t)
	for i := range 200 {
		left := time.Duration(1+i%9) * time.Millisecond // below and above a tick of the kernel's timer
		if err := a.Gate("lb", boottime.Now().Add(left), i%2 == 0); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if i%5 == 0 {
			<-time.After(left)
		}
	}
}

func TestASmallGainIsNotWritten(t *testing.T) {
	_, a := testGates(t)
	g, now := a.gates["lb"], boottime.Now()
	for _, step := range []struct {
		until   time.Duration
		drain   bool
		written bool
	}{
		{100 * time.Second, false, true},
		{101 * time.Second, false, false},
		{110 * time.Second, false, true},
		{110 * time.Second, true, true},
		{110 * time.Second, true, false},
		{109 * time.Second, true, true}, // sooner is always written
	} {
		before := a.ticket
		if err := a.Gate("lb", now.Add(step.until), step.drain); err != nil {
			t.Fatal(err)
		}
		if written := a.ticket != before; written != step.written {
			t.Errorf("until %v, drain %v: written is %v", step.until, step.drain, written)
		}
		if step.written && g.until != now.Add(step.until) {
			t.Errorf("until %v: open for %v", step.until, g.until.Sub(now))
		}
	}
}

// Who is superseded can neither open nor close.
func TestAnEarlierProcessCanWriteNoMore(t *testing.T) {
	n, earlier := testGates(t)
	if err := earlier.Gate("lb", boottime.Now().Add(time.Minute), false); err != nil {
		t.Fatal(err)
	}
	if err := earlier.Add("lb"); err != nil {
		t.Fatal(err)
	}
	var later *Addresses
	if err := n.Do(func() (err error) {
		later, err = Open(earlier.log, earlier.specs)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if open := openSets(t, later); open != nil {
		t.Errorf("opening the table again leaves %v open", open)
	}
	if err := earlier.Gate("lb", boottime.Now().Add(2*time.Minute), false); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the earlier process opens the gate: got %v, want %v", err, ErrSuperseded)
	}
	if open := openSets(t, later); open != nil {
		t.Errorf("the earlier process has opened %v", open)
	}
	if err := later.Gate("lb", boottime.Now().Add(time.Minute), false); err != nil {
		t.Fatal(err)
	}
	if err := earlier.Close(); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the earlier process closes: got %v, want %v", err, ErrSuperseded)
	}
	if open := openSets(t, later); len(open) != 3 {
		t.Errorf("after the earlier process has gone only %v are open", open)
	}
	if there, err := later.Present("lb"); !there || err != nil {
		t.Errorf("the earlier process has taken the address away: %v", err)
	}
	if err := later.Close(); err != nil {
		t.Fatal(err)
	}
	err := n.Do(func() error {
		link, err := netlink.LinkByName(netns.Bridge)
		if err != nil {
			return err
		}
		left, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if len(left) != 0 {
			t.Errorf("closing leaves %v on the interface", left)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Rules that are flushed, wholly or in part, are written anew.
func TestRulesThatHaveGoneComeBack(t *testing.T) {
	_, a := testGates(t)
	for _, gone := range [][]int{{0}, {1}, {2}, {0, 1, 2}} {
		for _, what := range []string{"open", "close", "check"} {
			if what == "check" && !slices.Contains(gone, 0) {
				continue // only the next write sees that
			}
			if err := a.Gate("lb", boottime.Now().Add(time.Minute), false); err != nil {
				t.Fatal(err)
			}
			for _, i := range gone {
				a.nft.DelTable(a.table.tables()[i])
			}
			if err := a.nft.Flush(); err != nil {
				t.Fatal(err)
			}
			var err error
			switch what {
			case "open":
				err = a.Gate("lb", boottime.Now().Add(2*time.Minute), false)
			case "close":
				err = a.Gate("lb", 0, false)
			case "check":
				err = a.check()
			}
			if err != nil {
				t.Fatalf("%s without tables %v: %v", what, gone, err)
			}
			want := 0
			if what == "open" {
				want = 3
			}
			if open := openSets(t, a); len(open) != want {
				t.Errorf("%s without tables %v: %v are open", what, gone, open)
			}
			if err := a.Gate("lb", 0, false); err != nil {
				t.Fatal(err)
			}
		}
	}
}
