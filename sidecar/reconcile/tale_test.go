package reconcile

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

var talePolicy = decide.Policy{
	Self: "web1", Nodes: []string{"lb1", "lb2", "web1"}, Timings: decide.Timings{Detection: 500 * time.Millisecond},
	Roles: []decide.Role{{Name: "lb", Nodes: []string{"lb1", "lb2"}, Primary: true}, {Name: "web", Nodes: []string{"web1"}}},
}

// tale is a view of web1's at an instant, ten seconds after its start, with everybody alive and serving, lb1 the holder of lb
// and web1 the coordinator.
func tale(now cluster.Instant) (decide.View, decide.Decision) {
	peer := func(last byte, holds ...cluster.Hold) cluster.Peer {
		return cluster.Peer{Heard: now, Said: cluster.Announcement{
			Claim: 1, Phase: cluster.Serving, Private: netip.AddrFrom4([4]byte{10, 9, 0, last}), Holds: holds,
		}}
	}
	v := decide.View{Now: now, Started: now.Add(-10 * time.Second), Private: netip.MustParseAddr("10.9.0.3"), Peers: map[string]cluster.Peer{
		"lb1": peer(1, cluster.Hold{Duty: "lb", Epoch: 4, State: cluster.Held}), "lb2": peer(2),
	}}
	d := decide.Decision{Say: cluster.Announcement{Phase: cluster.Serving}}
	d.Memory.Duties = map[string]decide.Duty{cluster.Coordinator: {Hold: cluster.Hold{Duty: cluster.Coordinator, Epoch: 1, State: cluster.Held}}}
	d.Memory.Verdicts = map[string]decide.Verdict{"lb1": {State: decide.Alive}, "lb2": {State: decide.Alive}}
	return v, d
}

func TestACoordinatorTellsALossFromItsBeginningToItsEnd(t *testing.T) {
	var c chronicler
	wall := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	at := func(d time.Duration) cluster.Instant { return cluster.Instant(time.Hour).Add(d) }
	var got []string
	var took []time.Duration
	turn := func(after time.Duration, change func(v *decide.View, d *decide.Decision)) {
		v, d := tale(at(after))
		change(&v, &d)
		for _, s := range c.follow(v, d, talePolicy, wall.Add(after)) {
			got = append(got, s.Incident+" "+s.Role+" "+s.Phase)
			took = append(took, s.Took)
			if want := wall.Add(s.Took); !s.At.Equal(want) {
				t.Errorf("%s: at %v, want %v", s.Phase, s.At, want)
			}
		}
	}
	lost := func(v *decide.View, d *decide.Decision) {
		p := v.Peers["lb1"]
		p.Heard = at(0)
		v.Peers["lb1"] = p
		d.Memory.Verdicts["lb1"] = decide.Verdict{State: decide.Failed, Since: at(550 * time.Millisecond)}
	}
	turn(0, func(*decide.View, *decide.Decision) {})
	turn(550*time.Millisecond, lost)
	turn(560*time.Millisecond, lost)
	turn(600*time.Millisecond, func(v *decide.View, d *decide.Decision) {
		lost(v, d)
		p := v.Peers["lb2"]
		p.Said.Holds = []cluster.Hold{{Duty: "lb", Epoch: 5, State: cluster.Held}}
		v.Peers["lb2"] = p
	})
	turn(time.Minute, func(*decide.View, *decide.Decision) {})
	turn(2*time.Minute, func(*decide.View, *decide.Decision) {})
	want := []string{"20260102T150405Z-lb1 lb lost", "20260102T150405Z-lb1 lb detected", "20260102T150405Z-lb1 lb taken over", "20260102T150405Z-lb1 lb redundant"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if want := []time.Duration{0, 550 * time.Millisecond, 600 * time.Millisecond, time.Minute}; !slices.Equal(took, want) {
		t.Errorf("took %v, want %v", took, want)
	}
}

// A new machine that serves before the ledger was read again has its claim told all the same.
func TestAReplacementIsToldByTheNewMachinesOwnWord(t *testing.T) {
	c := chronicler{open: map[string]*incident{"lb2": {id: "i", role: "lb", began: 1, told: map[string]bool{}}}}
	turn := func(said cluster.Announcement) []string {
		v, d := tale(cluster.Instant(time.Hour))
		v.Peers["lb2"] = cluster.Peer{Heard: v.Now, Said: said}
		v.Ledger.Intents = map[string]cluster.Intent{"lb2": {Node: "lb2", N: 1, Replaces: 3, Machine: "33", Called: time.Second}}
		v.Ledger.Claims = map[string]cluster.Claim{"lb2": {Node: "lb2", Epoch: 3, Machine: "33", Tombstoned: true}}
		v.Machines = map[string]decide.MachineReading{"lb2": {ID: "33", Power: cluster.PowerGone}}
		var got []string
		for _, s := range c.follow(v, d, talePolicy, time.Now()) {
			got = append(got, s.Phase)
		}
		return got
	}
	for _, tc := range []struct {
		claim string
		said  cluster.Announcement
		want  []string
	}{
		{"the old machine's last word", cluster.Announcement{Claim: 3, Machine: "33", Phase: cluster.Applied}, []string{"fenced", "created"}},
		{"not claimed yet", cluster.Announcement{Machine: "34", Phase: cluster.Booting}, nil},
		{"serving, not claimed yet", cluster.Announcement{Machine: "34", Phase: cluster.Serving}, nil},
		{"claimed", cluster.Announcement{Claim: 4, Machine: "34", Phase: cluster.Booting}, []string{"booted"}},
		{"serving", cluster.Announcement{Claim: 4, Machine: "34", Phase: cluster.Serving}, []string{"applied", "redundant"}},
	} {
		if got := turn(tc.said); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.claim, got, tc.want)
		}
	}
}

func TestNobodyButTheCoordinatorTellsOfALoss(t *testing.T) {
	var c chronicler
	v, d := tale(cluster.Instant(time.Hour))
	d.Memory.Verdicts["lb1"] = decide.Verdict{State: decide.Failed, Since: v.Now}
	d.Memory.Duties = nil
	if got := c.follow(v, d, talePolicy, time.Now()); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestNamesSayWhoIsPrimaryAndWhoServes(t *testing.T) {
	addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, last}) }
	for _, tc := range []struct {
		name   string
		change func(v *decide.View, d *decide.Decision)
		want   map[string][]netip.Addr
	}{
		{"all is well", func(*decide.View, *decide.Decision) {},
			map[string][]netip.Addr{"lb1": {addr(1)}, "lb2": {addr(2)}, "web1": {addr(3)}, "lb": {addr(1)}, "web": {addr(3)}}},
		{"the primary has failed", func(_ *decide.View, d *decide.Decision) {
			d.Memory.Verdicts["lb1"] = decide.Verdict{State: decide.Failed}
		},
			map[string][]netip.Addr{"lb1": {addr(1)}, "lb2": {addr(2)}, "web1": {addr(3)}, "lb": nil, "web": {addr(3)}}},
		{"two say that they are: the later epoch", func(v *decide.View, _ *decide.Decision) {
			p := v.Peers["lb2"]
			p.Said.Holds = []cluster.Hold{{Duty: "lb", Epoch: 5, State: cluster.Held}}
			v.Peers["lb2"] = p
		}, map[string][]netip.Addr{"lb1": {addr(1)}, "lb2": {addr(2)}, "web1": {addr(3)}, "lb": {addr(2)}, "web": {addr(3)}}},
		{"nobody serves", func(_ *decide.View, d *decide.Decision) { d.Say.Phase = cluster.Applied },
			map[string][]netip.Addr{"lb1": {addr(1)}, "lb2": {addr(2)}, "web1": {addr(3)}, "lb": {addr(1)}, "web": {addr(3)}}},
		{"a peer known by its claim alone", func(v *decide.View, _ *decide.Decision) {
			delete(v.Peers, "lb2")
			v.Ledger.Claims = map[string]cluster.Claim{"lb2": {Private: addr(22)}}
		}, map[string][]netip.Addr{"lb1": {addr(1)}, "lb2": {addr(22)}, "web1": {addr(3)}, "lb": {addr(1)}, "web": {addr(3)}}},
		{"too soon to deny anything", func(v *decide.View, _ *decide.Decision) { v.Started = v.Now }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, d := tale(cluster.Instant(time.Hour))
			tc.change(&v, &d)
			if got := table(v, d, talePolicy); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %v\nwant %v", got, tc.want)
			}
		})
	}
}
