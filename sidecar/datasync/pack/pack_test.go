package pack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

// line is a connection and what is sent over it.
type line struct {
	name    string
	wire    float64 // ns per byte written
	ratio   float64 // of what is sent
	packing float64 // ns per byte packed
	want    float64 // the share of stretches that should be packed: at most this far from it
}

// send plays n stretches of 64 KiB and counts those that were packed.
func (l line) send(p Policy, n int) (Policy, int) {
	const size = 64 << 10
	packed := 0
	for range n {
		s := Stretch{Bytes: size, Tried: p.Pack, Blocked: time.Duration(size * l.wire)}
		if p.Pack {
			packed++
			s.Packing, s.Blocked = time.Duration(size*l.packing), time.Duration(size*l.ratio*l.wire)
		}
		p = p.After(s)
	}
	return p, packed
}

func TestPacksWhereItHelps(t *testing.T) {
	for _, l := range []line{
		{"loopback, text", 0.5, 0.3, 2, 0},
		{"1 Gbit/s, text", 8, 0.3, 2, 1},
		{"1 Gbit/s, pictures", 8, 1, 1, 0},
		{"1 Gbit/s, nearly pictures", 8, 0.95, 1, 0},
		{"10 Gbit/s, text", 0.8, 0.3, 2, 0},
		{"5 Gbit/s, text, slow to pack", 1.6, 0.3, 2, 0},
		{"100 Mbit/s, text", 80, 0.3, 2, 1},
		{"100 Mbit/s, little to gain, still worth it", 80, 0.8, 2, 1},
	} {
		t.Run(l.name, func(t *testing.T) {
			const n = 64_000
			_, packed := l.send(Policy{}, n)
			if got := float64(packed) / n; got < l.want-0.03 || got > l.want+0.03 {
				t.Errorf("packed %.3f of the stretches, want %.0f within 0.03", got, l.want)
			}
		})
	}
}

func TestChangesWithWhatIsSent(t *testing.T) {
	text, pictures := line{wire: 8, ratio: 0.3, packing: 2}, line{wire: 8, ratio: 1, packing: 2}
	loopback := line{wire: 0.1, ratio: 0.3, packing: 2}
	p := Policy{}
	for _, step := range []struct {
		name     string
		line     line
		min, max int // of 6,400, which are 200 rounds
	}{
		{"text", text, 6_000, 6_400},
		{"then pictures", pictures, 0, 640},
		{"then text again: found by a trial", text, 4_000, 6_400},
		{"then a line that does not wait", loopback, 0, 2_400},
	} {
		var packed int
		if p, packed = step.line.send(p, 6_400); packed < step.min || packed > step.max {
			t.Errorf("%s: packed %d of 6400, want %d to %d", step.name, packed, step.min, step.max)
		}
	}
}

func TestLearnsNothingFromLittle(t *testing.T) {
	p := Policy{Plain: 8}
	if got := p.After(Stretch{Bytes: little - 1, Blocked: time.Second}); got != p {
		t.Errorf("a small write that took a second made %+v of %+v", got, p)
	}
}

func TestUnpackReturnsWhatWasPacked(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		want := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(rt, "piece"), rapid.IntRange(1, 1000).Draw(rt, "times"))
		head := []byte("head")
		packed, ok := p.Pack(head, want)
		if !ok {
			if len(packed) != len(head) {
				rt.Fatalf("left %d bytes behind", len(packed)-len(head))
			}
			return
		}
		if len(packed)-len(head) >= len(want) {
			rt.Fatalf("%d bytes became %d", len(want), len(packed)-len(head))
		}
		got, err := p.Unpack([]byte("x"), packed[len(head):], len(want))
		if err != nil || !bytes.Equal(got[1:], want) || got[0] != 'x' {
			rt.Fatalf("got %d other bytes of %d: %v", len(got)-1, len(want), err)
		}
	})
}

func TestWhatCannotBeShorterIsNotPacked(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, MaxStretch)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	if packed, ok := p.Pack(nil, b); ok {
		t.Errorf("random bytes became %d of %d", len(packed), len(b))
	}
}

func TestUnpackRefuses(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	packed, ok := p.Pack(nil, []byte(strings.Repeat("understudy ", 100)))
	if !ok {
		t.Fatal("not packed")
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := e.EncodeAll(make([]byte, 100<<20), nil)
	for _, c := range []struct {
		name   string
		packed []byte
		n      int
	}{
		{"more than was announced", packed, 1099},
		{"less than was announced", packed, 1101},
		{"cut short", packed[:len(packed)-3], 1100},
		{"garbage", []byte("garbage"), 1100},
		{"a negative length", packed, -1},
		{"a length above all", packed, MaxStretch + 1},
		{"a bomb", bomb, 1100},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := p.Unpack([]byte("head"), c.packed, c.n)
			if !errors.Is(err, ErrDamaged) || string(got) != "head" || cap(got) > 4*MaxStretch {
				t.Errorf("%d bytes, room for %d, %v; want none and %v", len(got), cap(got), err, ErrDamaged)
			}
		})
	}
}

// FuzzUnpack feeds it with anything.
func FuzzUnpack(f *testing.F) {
	p, err := New()
	if err != nil {
		f.Fatal(err)
	}
	packed, _ := p.Pack(nil, bytes.Repeat([]byte("understudy "), 100))
	f.Add(packed, 1100)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, packed []byte, n int) {
		if got, err := p.Unpack(nil, packed, n); err == nil && len(got) != n {
			t.Errorf("got %d bytes, want %d", len(got), n)
		}
	})
}
