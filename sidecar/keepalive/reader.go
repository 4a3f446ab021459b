//go:build linux

package keepalive

import (
	"encoding/binary"
	"net/netip"
	"time"

	"understudy/sidecar/cluster"
)

// reader takes a body apart. What it cannot read sets bad, and everything after that reads as zero, so that decoders check
// once, at their end. It refuses every form that the writers below do not write.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) octet() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// upTo reads a byte that must not be above limit.
func (r *reader) upTo(limit byte) byte {
	b := r.octet()
	r.bad = r.bad || b > limit
	return b
}

func (r *reader) flag() bool { return r.upTo(1) == 1 }

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) varint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 { // cut short, above 64 bits, or longer than it need be
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) string() string { return string(r.bytes(r.varint())) }

func (r *reader) duration() time.Duration {
	ms := r.varint()
	if ms > uint64(cluster.Forever/time.Millisecond) {
		r.bad = true
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func (r *reader) addr() netip.Addr {
	n := r.octet()
	if n != 0 && n != 4 && n != 16 {
		r.bad = true
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(r.bytes(uint64(n))) // no bytes: the zero Addr, which stands for none
	return a
}

// count reads the length of a list whose items take at least one byte each, so that no number of bytes can ask for more
// memory than a small multiple of itself.
func (r *reader) count() int {
	n := r.varint()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return 0
	}
	return int(n)
}

// list reads a list; an empty one is nil.
func list[T any](r *reader, item func(*reader) T) []T {
	n := r.count()
	if n == 0 {
		return nil
	}
	items := make([]T, 0, min(n, 64))
	for ; n > 0 && !r.bad; n-- {
		items = append(items, item(r))
	}
	return items
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendFlag(b []byte, flag bool) []byte {
	if flag {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendDuration(b []byte, d time.Duration) []byte {
	return binary.AppendUvarint(b, uint64(min(max(d, 0), cluster.Forever)/time.Millisecond))
}

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

func appendList[T any](b []byte, items []T, item func([]byte, T) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(items)))
	for _, x := range items {
		b = item(b, x)
	}
	return b
}
