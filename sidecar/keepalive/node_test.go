//go:build linux

package keepalive

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

const (
	detection = 500 * time.Millisecond
	slack     = 50 * time.Millisecond
)

// pairs are all nodes with each of their peers.
func (w *world) pairs(yield func(at, of string) bool) {
	for _, at := range w.names {
		for _, of := range w.names {
			if at != of && !yield(at, of) {
				return
			}
		}
	}
}

func TestEverybodyHearsAndConfirmsEverybody(t *testing.T) {
	w := newWorld(t, 8, 1, nil)
	w.run(3 * time.Second)
	for at, of := range w.pairs {
		p := w.peer(at, of)
		if silent := w.now.Since(p.Heard); silent > 101*time.Millisecond {
			t.Errorf("%s has not heard %s for %v, want at most a beat", at, of, silent)
		}
		if ago := w.now.Since(p.Confirmed); ago > 202*time.Millisecond {
			t.Errorf("%s is confirmed by %s as of %v ago, want at most two beats", at, of, ago)
		}
		if p.Every != 100*time.Millisecond {
			t.Errorf("%s says to %s that it sends every %v, want 100ms", of, at, p.Every)
		}
		for member, ago := range p.Hears {
			if ago > 101*time.Millisecond || member == of {
				t.Errorf("%s believes that %s has not heard %s for %v, want at most a beat", at, of, member, ago)
			}
		}
		if len(p.Hears) != 7 {
			t.Errorf("%s knows of %d whom %s hears, want 7", at, len(p.Hears), of)
		}
	}
}

// A confirmation must never claim more than the peer has heard, whatever is lost, late or paused.
func TestConfirmedIsNeverLaterThanWhatThePeerHeard(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 5, seed, nil)
		w.lost = func(string, string) bool { return w.rand.IntN(3) == 0 }
		w.late = func() time.Duration { return time.Duration(w.rand.Int64N(int64(300 * time.Millisecond))) }
		for range 500 {
			w.run(20 * time.Millisecond)
			if w.rand.IntN(50) == 0 {
				w.sleep(w.names[w.rand.IntN(5)], time.Duration(w.rand.Int64N(int64(time.Second))))
			}
			for at, of := range w.pairs {
				if c, newest := w.nodes[at].peers[of].confirmed, w.nodes[of].arrived[at]; c > newest {
					t.Fatalf("seed %d: %s believes that %s heard a beat sent at %d, but the newest arrived at %d", seed, at, of, c, newest)
				}
			}
		}
	}
}

// worstSilence lets time pass and returns the longest silence of any node towards any other.
func (w *world) worstSilence(d time.Duration) (worst time.Duration) {
	for end := w.now.Add(d); w.now < end; w.run(10 * time.Millisecond) {
		for at, of := range w.pairs {
			worst = max(worst, w.silence(at, of))
		}
	}
	return worst
}

func TestTwentyPercentLossIsNotSilence(t *testing.T) {
	w := newWorld(t, 8, 1, nil)
	w.run(time.Second)
	w.lost = func(string, string) bool { return w.rand.IntN(5) == 0 }
	if worst := w.worstSilence(time.Minute); worst > detection {
		t.Errorf("got a silence of %v, want less than the detection time", worst)
	}
}

// Without the fast pace the same network looks dead now and then; else the test above would show nothing.
func TestTwentyPercentLossIsSilenceWithoutTheFastPace(t *testing.T) {
	w := newWorld(t, 8, 1, func(c *Config) { c.Fast = time.Hour })
	w.run(time.Second)
	w.lost = func(string, string) bool { return w.rand.IntN(5) == 0 }
	if worst := w.worstSilence(time.Minute); worst <= detection {
		t.Errorf("got a silence of %v, want more than the detection time", worst)
	}
}

func TestAPauseOfLessThanTheGateIsNotSilence(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(t, 4, seed, nil)
		w.run(time.Second)
		w.sleep("n00", 400*time.Millisecond)
		if worst := w.worstSilence(2 * time.Second); worst > detection+slack {
			t.Errorf("seed %d: got a silence of %v, want at most %v", seed, worst, detection+slack)
		}
	}
}

// When a whole machine with all its nodes stands still, nobody may think of the others as silent.
func TestSilenceCountsOnlyWhileWeListen(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(t, 4, seed, nil)
		w.run(time.Second)
		for _, name := range w.names {
			w.sleep(name, time.Second)
		}
		w.run(time.Second)
		for _, name := range w.names { // whichever comes first, a beat, a timer or a look
			w.nodes[name].look(w.now)
		}
		if worst := w.worstSilence(time.Second); worst > 300*time.Millisecond {
			t.Errorf("seed %d: got a silence of %v, want at most about two beats", seed, worst)
		}
	}
	w := newWorld(t, 4, 1, nil)
	w.run(time.Second)
	w.kill("n01")
	w.sleep("n00", 300*time.Millisecond)
	w.run(900 * time.Millisecond)
	if silent := w.silence("n00", "n01"); silent <= detection+slack || silent > 700*time.Millisecond {
		t.Errorf("the dead node is silent for %v, want the 900ms but for the pause", silent)
	}
}

func TestAfterAResetOldBeatsCountNoMore(t *testing.T) {
	w := newWorld(t, 3, 1, nil)
	w.run(time.Second)
	w.sleep("n00", 3*time.Second)
	w.run(time.Second)
	w.kill("n01") // its beats lie in the socket of n00
	w.run(1900 * time.Millisecond)
	w.nodes["n00"].reset(77)
	if p := w.peer("n00", "n02"); p.Heard != 0 || p.Confirmed != 0 || p.Hears != nil || p.Said.Voting {
		t.Errorf("right after the reset: got %+v, want nothing", p)
	}
	w.run(110 * time.Millisecond)
	w.say("n00", cluster.Announcement{})
	w.run(110 * time.Millisecond)
	if p := w.peer("n00", "n01"); p.Heard != 0 {
		t.Errorf("the dead n01 was heard at %d, want never", p.Heard)
	}
	if silent := w.silence("n00", "n02"); silent > 110*time.Millisecond {
		t.Errorf("the living n02 has not been heard for %v, want at most a beat", silent)
	}
}

func TestOutOfOrderNothingGoesBack(t *testing.T) {
	w := newWorld(t, 2, 3, nil)
	w.late = func() time.Duration { return time.Duration(w.rand.Int64N(int64(300 * time.Millisecond))) }
	var last uint64
	for claim := range uint64(500) {
		w.say("n00", cluster.Announcement{Claim: claim + 1})
		w.run(20 * time.Millisecond)
		got := w.peer("n01", "n00").Said.Claim
		if got < last {
			t.Fatalf("n01 went back from claim %d to %d", last, got)
		}
		last = got
	}
	w.run(time.Second)
	if got := w.peer("n01", "n00").Said.Claim; got != 500 {
		t.Errorf("got claim %d, want the newest, 500", got)
	}
	if w.nodes["n01"].stats.Refused[Stale] == 0 {
		t.Error("nothing was overtaken, so nothing was shown")
	}
}

func TestNewsIsSentAtOnce(t *testing.T) {
	w := newWorld(t, 8, 1, nil)
	w.run(time.Second)
	arrived := func(claim uint64) (count int) {
		for _, name := range w.names[1:] {
			if w.peer(name, "n00").Said.Claim == claim {
				count++
			}
		}
		return count
	}
	before := w.nodes["n03"].news
	w.say("n00", cluster.Announcement{Claim: 1})
	w.run(time.Millisecond)
	w.say("n00", cluster.Announcement{Claim: 2})
	w.run(900 * time.Microsecond)
	if arrived(1) != 7 {
		t.Errorf("after 1.9ms the first news is at %d, want 7", arrived(1))
	}
	w.run(700 * time.Microsecond)
	if arrived(2) != 7 {
		t.Errorf("2ms after the first the second news is at %d, want 7", arrived(2))
	}
	if got := w.nodes["n03"].news - before; got != 2 {
		t.Errorf("n03 was told of %d changes, want 2", got)
	}
	before = w.nodes["n03"].news
	w.say("n00", cluster.Announcement{Claim: 2, Mirrors: []cluster.Mirror{{Role: "mail", Lag: time.Second}}})
	w.run(time.Second)
	w.say("n00", cluster.Announcement{Claim: 2, Mirrors: []cluster.Mirror{{Role: "mail", Lag: 2 * time.Second}}})
	w.run(time.Second)
	if got := w.nodes["n03"].news - before; got != 1 {
		t.Errorf("n03 was told of %d changes, want 1: a lag that grows is none", got)
	}
	if got := w.peer("n03", "n00").Said.Mirrors[0].Lag; got != 2*time.Second {
		t.Errorf("got a lag of %v, want the newest, 2s", got)
	}
}

// Whoever takes over needs to know that a majority has noticed, so all tell each other as soon as they have.
func TestSilenceIsToldAsSoonAsItIsLongEnough(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 4, seed, nil)
		w.run(time.Second + time.Duration(seed)*7*time.Millisecond)
		w.lost = func(from, _ string) bool { return from == "n00" }
		w.run(500*time.Millisecond + 3*time.Millisecond)
		for _, other := range []string{"n02", "n03"} {
			if ago := w.peer("n01", other).Hears["n00"]; ago < 500*time.Millisecond {
				t.Errorf("seed %d: after 503ms %s is known to have heard n00 %v ago", seed, other, ago)
			}
		}
	}
}

// From a look until the next announcement nothing newer than what was seen is named, and so confirmed.
func TestWhatIsConfirmedIsWhatTheAnnouncementWasDecidedOn(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.run(time.Second)
	n := w.nodes["n00"]
	n.look(w.now)
	seen := n.peers["n01"].heard
	w.run(150 * time.Millisecond)
	n.look(w.now) // somebody else, for another purpose
	w.run(150 * time.Millisecond)
	if got := w.peer("n01", "n00").Confirmed; got > seen {
		t.Errorf("n00 confirmed a beat sent at %d, before it said what it decided on what it heard until %d", got, seen)
	}
	if got := w.peer("n01", "n00").Hears["n01"]; got < 200*time.Millisecond {
		t.Errorf("a beat ago n00 said that it heard n01 %v ago, want the age of what it named, 200ms or more", got)
	}
	w.say("n00", cluster.Announcement{Claim: 1})
	w.run(time.Millisecond)
	if ago := w.now.Since(w.peer("n01", "n00").Confirmed); ago > 102*time.Millisecond {
		t.Errorf("after the announcement n01 is confirmed as of %v ago, want at most a beat", ago)
	}
}

func TestASnapshotStaysAsItWas(t *testing.T) {
	w := newWorld(t, 3, 1, nil)
	w.say("n00", cluster.Announcement{Mirrors: []cluster.Mirror{{Role: "mail", Lag: time.Second}}})
	w.run(time.Second)
	before := w.peer("n01", "n00")
	lag, hears := before.Said.Mirrors[0].Lag, before.Hears["n02"]
	w.kill("n02")
	w.say("n00", cluster.Announcement{Mirrors: []cluster.Mirror{{Role: "mail", Lag: time.Minute}}})
	w.run(time.Second)
	if before.Said.Mirrors[0].Lag != lag || before.Hears["n02"] != hears {
		t.Error("a snapshot has changed after it was taken")
	}
	if after := w.peer("n01", "n00"); after.Said.Mirrors[0].Lag != time.Minute || after.Hears["n02"] < 800*time.Millisecond {
		t.Errorf("got %+v, want the newest lag and a silence of about a second", after)
	}
}

func TestNothingIsSentBeforeTheFirstSay(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.nodes["n00"].reset(5)
	w.seen = func(f flight) {
		if f.from == w.nodes["n00"].addr {
			t.Fatal("a node that has said nothing sent a beat")
		}
	}
	w.run(time.Second)
}

func TestRoundsDoNotDrift(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.run(time.Second)
	before := w.nodes["n00"].stats.Received.Packets
	w.run(time.Hour)
	if got := w.nodes["n00"].stats.Received.Packets - before; got < 35999 || got > 36001 {
		t.Errorf("got %d beats in an hour, want 36000", got)
	}
}

func TestOneWayCut(t *testing.T) {
	w := newWorld(t, 3, 1, nil)
	w.run(time.Second)
	cut := w.now
	w.lost = func(from, to string) bool { return from == "n00" && to == "n01" }
	w.run(2 * time.Second)
	if silent := w.silence("n00", "n01"); silent > 101*time.Millisecond {
		t.Errorf("n00 has not heard n01 for %v, want at most a beat: that direction works", silent)
	}
	if p := w.peer("n00", "n01"); p.Confirmed > cut || p.Hears["n00"] < 1900*time.Millisecond {
		t.Errorf("got %+v, want nothing confirmed after the cut at %d, and that n01 does not hear n00", p, cut)
	}
	if got := w.peer("n02", "n01").Hears["n00"]; got < 1900*time.Millisecond {
		t.Errorf("n02 believes that n01 heard n00 %v ago, want the time since the cut", got)
	}
	if w.silence("n01", "n00") < 2*time.Second {
		t.Error("n01 hears n00 through a cut")
	}
}

// traffic is how many datagrams go from one node to another in a time.
func (w *world) traffic(from, to string, d time.Duration) (count int) {
	before := w.seen
	w.seen = func(f flight) {
		if f.from == w.nodes[from].addr && f.to == w.nodes[to].addr {
			count++
		}
	}
	w.run(d)
	w.seen = before
	return count
}

func TestBothSidesHurryForAWhile(t *testing.T) {
	w := newWorld(t, 3, 1, nil)
	w.run(time.Second)
	w.lost = func(from, to string) bool { return from == "n00" && to == "n01" }
	w.run(300 * time.Millisecond)
	for _, pair := range [][2]string{{"n00", "n01"}, {"n01", "n00"}} {
		if got := w.traffic(pair[0], pair[1], time.Second); got < 50 || got > 62 {
			t.Errorf("%v: got %d beats a second after two were lost, want one every 20ms besides the regular ones", pair, got)
		}
	}
	if got := w.traffic("n00", "n02", time.Second); got != 10 {
		t.Errorf("got %d beats a second to the one who hears, want 10", got)
	}
	w.run(5 * time.Second)
	for _, pair := range [][2]string{{"n00", "n01"}, {"n01", "n00"}} {
		if got := w.traffic(pair[0], pair[1], time.Second); got != 10 {
			t.Errorf("%v: got %d beats a second after ten detection times, want 10", pair, got)
		}
	}
	w.lost = func(string, string) bool { return false }
	w.run(time.Second)
	if got := w.nodes["n00"].peers["n01"].missing; got != 0 {
		t.Errorf("n00 misses beats since %d although all arrive", got)
	}
}

// paced is a large roster: four roles of eight.
func paced(t testing.TB, change func(*Config)) *world {
	roles := map[string]string{}
	for i := range 32 {
		roles[fmt.Sprintf("n%02d", i)] = []string{"lb", "web", "mail", "repo"}[i/8]
	}
	return newWorld(t, 32, 1, func(c *Config) {
		c.Roles = roles
		if change != nil {
			change(c)
		}
	})
}

func TestALargeRosterHasTwoPaces(t *testing.T) {
	w := paced(t, nil)
	w.run(5 * time.Second)
	w.say("n20", cluster.Announcement{Holds: []cluster.Hold{{Duty: "mail", Epoch: 1, State: cluster.Held}}})
	w.run(5 * time.Second)
	count := map[[2]string]int{}
	w.seen = func(f flight) { count[[2]string{w.nameOf(f.from), w.nameOf(f.to)}]++ }
	w.run(5 * time.Second)
	for _, tt := range []struct {
		from, to string
		want     int
	}{{"n00", "n01", 50}, {"n00", "n08", 10}, {"n08", "n00", 10}, {"n20", "n00", 50}, {"n00", "n20", 50}} {
		if got := count[[2]string{tt.from, tt.to}]; got != tt.want {
			t.Errorf("%s to %s: got %d beats in 5s, want %d", tt.from, tt.to, got, tt.want)
		}
		if got, want := w.peer(tt.to, tt.from).Every, 5*time.Second/time.Duration(tt.want); got != want {
			t.Errorf("%s believes that %s sends every %v, want %v", tt.to, tt.from, got, want)
		}
	}
	for at, of := range w.pairs {
		if missed := w.nodes[at].peers[of].stats.Missed; missed != 0 && at != "n20" && of != "n20" {
			t.Errorf("%s missed beats of %s %d times although none was lost", at, of, missed)
		}
	}
	small := newWorld(t, 20, 1, nil)
	small.run(5 * time.Second)
	if got := small.traffic("n00", "n19", 5*time.Second); got != 50 {
		t.Errorf("a roster of 20: got %d beats in 5s, want 50", got)
	}
}

func TestAPeerIsFollowedToWhereItSpeaksFrom(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.run(time.Second)
	given, moved := w.nodes["n01"].addr, netip.MustParseAddrPort("10.9.9.9:7946")
	w.move("n01", moved)
	w.run(time.Second)
	if got := w.nodes["n00"].peers["n01"].addr; got != moved {
		t.Errorf("got %v, want %v", got, moved)
	}
	if silent := w.silence("n01", "n00"); silent > 101*time.Millisecond {
		t.Errorf("the moved node has not heard the other for %v", silent)
	}
	w.kill("n01")
	w.run(2 * time.Second)
	if got := w.nodes["n00"].peers["n01"].addr; got != given {
		t.Errorf("a silent peer is sought at %v, want where it should be, %v", got, given)
	}
	other := netip.MustParseAddrPort("10.9.9.8:7946")
	w.nodes["n00"].setPeers(map[string]netip.AddrPort{"n00": {}, "n01": other})
	if got := w.nodes["n00"].peers["n01"].addr; got != other {
		t.Errorf("got %v, want the newly given %v", got, other)
	}
	if got := len(w.nodes["n00"].order); got != 1 {
		t.Errorf("got %d peers, want 1: a node is not its own", got)
	}
	w.nodes["n00"].setPeers(nil)
	if got := w.nodes["n00"].snapshot(); len(got) != 0 {
		t.Errorf("got %v, want no peers", got)
	}
}

func TestAPeerWithoutAnAddressIsFoundByItsBeats(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.nodes["n00"].setPeers(map[string]netip.AddrPort{"n01": {}})
	w.run(time.Second)
	if silent := w.silence("n01", "n00"); silent > 101*time.Millisecond {
		t.Errorf("got a silence of %v, want at most a beat", silent)
	}
}

func TestPeersAreInOrder(t *testing.T) {
	w := newWorld(t, 12, 1, nil)
	names := []string{}
	for _, p := range w.nodes["n03"].order {
		names = append(names, p.name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("got %v, want ascending names, as the wire format has them", names)
	}
}
