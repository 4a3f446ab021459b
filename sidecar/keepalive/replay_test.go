//go:build linux

package keepalive

import (
	"slices"
	"testing"
	"time"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
)

// record keeps every datagram between two nodes while time passes.
func (w *world) record(d time.Duration) (all []flight) {
	w.seen = func(f flight) { all = append(all, f) }
	w.run(d)
	w.seen = nil
	return all
}

// replay sends recorded datagrams to a node again, each as if it came from where it did.
func (w *world) replay(to string, all []flight) {
	for _, f := range all {
		if f.to == w.nodes[to].addr {
			w.arrive(w.nodes[to], f)
		}
	}
}

func TestARepeatIsRefused(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	all := w.record(time.Second)
	w.kill("n01")
	w.run(time.Second)
	before := w.peer("n00", "n01")
	w.replay("n00", all)
	if after := w.peer("n00", "n01"); after.Heard != before.Heard {
		t.Errorf("a repeat was heard at %d, want nothing since %d", after.Heard, before.Heard)
	}
	if w.nodes["n00"].stats.Refused[Stale] == 0 {
		t.Error("nothing was refused as stale, so nothing was shown")
	}
}

// What was recorded of a node's earlier life must neither bring it back nor displace its present one, even if we ourselves
// begin a new session. The recording holds beats that never arrived, too.
func TestARecordedSessionDoesNotBeginAgain(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 2, seed, nil)
		w.lost = func(from, to string) bool { return from == "n01" && w.rand.IntN(2) == 0 }
		all := w.record(5 * time.Second)
		w.lost = func(string, string) bool { return false }
		w.revive("n01")
		w.say("n01", cluster.Announcement{Claim: 2})
		w.run(time.Second)
		for range 3 {
			sessions := w.nodes["n00"].peers["n01"].stats.Sessions
			w.replay("n00", all)
			w.run(50 * time.Millisecond)
			w.replay("n00", all)
			if got := w.nodes["n00"].peers["n01"]; got.stats.Sessions != sessions || got.said.Claim != 2 {
				t.Fatalf("seed %d: %d sessions began by a replay, and claim %d is believed, want 2", seed, got.stats.Sessions-sessions, got.said.Claim)
			}
			w.run(time.Second)
			if silent := w.silence("n00", "n01"); silent > 101*time.Millisecond {
				t.Fatalf("seed %d: the living node has been displaced for %v", seed, silent)
			}
		}
		w.kill("n01")
		w.run(50 * time.Millisecond)
		w.nodes["n00"].reset(99)
		w.say("n00", cluster.Announcement{})
		w.replay("n00", all)
		w.run(time.Second)
		w.replay("n00", all)
		if got := w.peer("n00", "n01").Heard; got != 0 {
			t.Fatalf("seed %d: the dead node was heard at %d by a replay", seed, got)
		}
	}
}

func TestARestartedNodeIsHeardAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 3, seed, nil)
		w.run(time.Second)
		w.kill("n01")
		w.run(10 * time.Second)
		w.revive("n01")
		first := w.nodes["n01"].wake
		w.run(first.Sub(w.now) + 2*time.Millisecond) // 1.5 round trips of up to 0.8 ms each
		for _, pair := range [][2]string{{"n00", "n01"}, {"n01", "n00"}, {"n02", "n01"}, {"n01", "n02"}} {
			if silent := w.silence(pair[0], pair[1]); silent > 101*time.Millisecond {
				t.Errorf("seed %d: 2ms after the first beat of n01 %s has not heard %s for %v", seed, pair[0], pair[1], silent)
			}
		}
	}
}

func TestSessionsBeginUnderLoss(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(t, 4, seed, nil)
		w.lost = func(string, string) bool { return w.rand.IntN(2) == 0 }
		w.run(3 * time.Second)
		for at, of := range w.pairs {
			if w.peer(at, of).Heard == 0 {
				t.Errorf("seed %d: %s has not heard %s after 3s of half the datagrams lost", seed, at, of)
			}
		}
	}
}

func TestForeignersAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(c *Config)
		want   Reason
	}{
		"another key":  {func(c *Config) { c.Key = secrets.NewSecret("another") }, Forged},
		"no key":       {func(c *Config) { c.Key = secrets.Secret{} }, Forged},
		"another name": {func(c *Config) { c.Self = "x" }, Stranger},
	} {
		w := newWorld(t, 2, 1, nil)
		w.run(time.Second)
		w.kill("n01")
		cfg := testConfig("n01")
		tt.change(&cfg)
		w.start("n01", cfg)
		before := w.nodes["n00"].stats.Refused[tt.want]
		heard := w.peer("n00", "n01").Heard
		w.run(time.Second)
		if got := w.peer("n00", "n01").Heard; got != heard {
			t.Errorf("%s: heard at %d", name, got)
		}
		if w.nodes["n00"].stats.Refused[tt.want] == before {
			t.Errorf("%s: got %v, want some %q", name, w.nodes["n00"].stats.Refused, tt.want)
		}
	}
}

func TestOnesOwnBeatsAreRefused(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	all := w.record(time.Second)
	n := w.nodes["n00"]
	before := n.stats.Refused[Stranger]
	count := uint64(0)
	for _, f := range all {
		if f.from == n.addr {
			n.receive(f.packet, f.from, w.now)
			count++
		}
	}
	if got := n.stats.Refused[Stranger] - before; got != count || count == 0 {
		t.Errorf("got %d of %d refused, want all", got, count)
	}
}

// No byte of a beat may be changed, cut or added.
func TestADamagedBeatIsRefused(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.run(time.Second)
	w.lost = func(from, to string) bool { return to == "n00" }
	var good flight
	for good.packet == nil {
		for _, f := range w.record(100 * time.Millisecond) {
			if f.to == w.nodes["n00"].addr {
				good = f
			}
		}
	}
	n := w.nodes["n00"]
	try := func(what string, at int, packet []byte) {
		received, heard := n.peers["n01"].stats.Received, n.peers["n01"].heard
		if n.receive(packet, good.from, w.now); n.peers["n01"].stats.Received != received || n.peers["n01"].heard != heard {
			t.Fatalf("a beat with byte %d %s was taken", at, what)
		}
	}
	for i := range good.packet {
		for _, bit := range []byte{1, 0x80} {
			bad := slices.Clone(good.packet)
			bad[i] ^= bit
			try("changed", i, bad)
		}
		try("cut", i, good.packet[:i])
	}
	try("added", len(good.packet), append(slices.Clone(good.packet), 0))
	received := n.peers["n01"].stats.Received
	if n.receive(good.packet, good.from, w.now); n.peers["n01"].stats.Received != received+1 {
		t.Error("the good beat was refused, so nothing was shown")
	}
}

// A member that seals well and writes nonsense is refused, too, and costs nobody else anything.
func TestNonsenseOfAMemberIsRefused(t *testing.T) {
	w := newWorld(t, 2, 1, nil)
	w.run(time.Second)
	from, to := w.nodes["n01"], w.nodes["n00"]
	before := w.peer("n00", "n01")
	for i, plain := range [][]byte{nil, {0xff}, {0, 0, 0}, appendBody(nil, &body{said: []byte("no announcement")})} {
		from.seq++
		packet := from.mine.seal(appendHeader(nil, "n01", from.mine.session, from.seq), from.seq, plain)
		to.receive(packet, from.addr, w.now)
		if got := to.stats.Refused[Malformed]; got != uint64(i+1) {
			t.Errorf("%x: got %v, want %d malformed", plain, to.stats.Refused, i+1)
		}
	}
	if after := w.peer("n00", "n01"); after.Heard != before.Heard || !after.Said.Voting {
		t.Errorf("got %+v, want all as before", after)
	}
}

func FuzzReceive(f *testing.F) {
	w := newWorld(f, 2, 1, nil)
	for i, fl := range w.record(time.Second) {
		if i%10 == 0 {
			f.Add(fl.packet)
		}
	}
	w.kill("n01")
	w.run(time.Second)
	heard := w.peer("n00", "n01").Heard
	f.Fuzz(func(t *testing.T, packet []byte) {
		w.nodes["n00"].receive(packet, address(1), w.now)
		if got := w.peer("n00", "n01").Heard; got != heard {
			t.Fatalf("%x was heard", packet)
		}
	})
}
