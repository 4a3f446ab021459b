package delta

import (
	"math/bits"

	"github.com/zeebo/xxh3"
)

// window is how many bytes the rolling hash covers: as many as it has bits, because each byte is shifted out by those after it.
const window = 64

// gear gives every byte value 64 random bits. They are part of the format: both sides must have the same.
var gear = splitMix(0x756e6465727374)

// splitMix is the generator of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
func splitMix(state uint64) (t [256]uint64) {
	for i := range t {
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		t[i] = z ^ z>>31
	}
	return t
}

// roll is the hash of b, which has at most window bytes.
func roll(b []byte) (h uint64) {
	for _, c := range b {
		h = h<<1 + gear[c]
	}
	return h
}

// anchor is what a block is looked for by: the hash of its first bytes. The upper half of it, which all of them have reached.
func anchor(block []byte) uint32 { return uint32(roll(block[:min(window, len(block))]) >> 32) }

// index finds blocks by their anchors.
type index struct {
	*Signature
	filter []uint64 // a bit for each value of the anchor's upper bits; asked first, for every byte, so it must fit a cache
	shift  int      // of an anchor, to the number of its bit
	heads  []int32  // by the same bits without the last four: the newest block with these, -1: none
	older  []int32  // per block: the next with the same
}

// longest bounds the blocks that are compared for one anchor.
const longest = 64

func newIndex(s *Signature) *index {
	n := s.whole()
	bitsOf := max(bits.Len(uint(n))+5, 10) // so that a random anchor finds its bit set in 1 of 32 to 64 cases
	x := &index{Signature: s, filter: make([]uint64, 1<<(bitsOf-6)), shift: 32 - bitsOf, heads: make([]int32, 1<<(bitsOf-4)), older: make([]int32, n)}
	for i := range x.heads {
		x.heads[i] = -1
	}
	zeros := xxh3.Hash128(make([]byte, s.block)) // told as such; to look for them would find one at every byte of a run
	for i := n - 1; i >= 0; i-- {                // so that the first of equal ones is found first
		if s.strong[i] == zeros {
			continue
		}
		v := s.weak[i] >> x.shift
		x.filter[v>>6] |= 1 << (v & 63)
		x.older[i], x.heads[v>>4] = x.heads[v>>4], int32(i)
	}
	return x
}

// is tells whether b, of a block's length, is the old version's block number i. There need not be one.
func (x *index) is(i int, b []byte) bool { return i < x.whole() && xxh3.Hash128(b) == x.strong[i] }

// find looks for the first place below limit at which b has a block of the old version. Each place where one seemed to begin
// and did not costs a unit of credit; without any, it gives up: a file can be made so that all places look like that.
func (x *index) find(b []byte, limit int, credit *int) (at, block int, ok bool) {
	limit = min(limit, len(b)-x.block+1)
	if limit <= 0 || len(x.older) == 0 {
		return 0, 0, false
	}
	h := roll(b[:window-1])
	filter, shift := x.filter, uint(32+x.shift)&63
	for i, c := range b[window-1:][:limit] {
		h = h<<1 + gear[c]
		if v := h >> shift; filter[v>>6]>>(v&63)&1 == 0 {
			continue
		}
		block, tried := x.lookUp(uint32(h>>32), b[i:i+x.block])
		if block >= 0 {
			return i, block, true
		}
		if tried {
			if *credit--; *credit <= 0 {
				return 0, 0, false
			}
		}
	}
	return 0, 0, false
}

// lookUp returns the block of the old version that b is, or -1. Tried: b had to be hashed to know.
func (x *index) lookUp(weak uint32, b []byte) (block int, tried bool) {
	var h xxh3.Uint128
	n := 0
	for i := x.heads[weak>>x.shift>>4]; i >= 0 && n < longest; i, n = x.older[i], n+1 {
		if x.weak[i] != weak {
			continue
		}
		if !tried {
			h, tried = xxh3.Hash128(b), true
		}
		if x.strong[i] == h {
			return int(i), true
		}
	}
	return -1, tried
}
