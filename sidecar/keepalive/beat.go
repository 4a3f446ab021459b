//go:build linux

package keepalive

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

var errBody = errors.New("beat cannot be read")

// body is a beat without what its datagram adds.
type body struct {
	said  []byte // by appendAnnouncement
	lags  []lag
	heard []entry // sorted by peer, each once
}

// entry is what a beat says about one other member.
type entry struct {
	cluster.Heard               // Session zero: nothing heard
	Every         time.Duration // pace of the sender's beats to that member
}

// silence is how long the sender had not heard the member.
func (e entry) silence() time.Duration {
	if e.Session == 0 {
		return cluster.Forever
	}
	return e.Ago
}

// about finds what a beat says about one member. Nothing is the zero entry.
func (b *body) about(name string) entry {
	i, found := slices.BinarySearchFunc(b.heard, name, func(e entry, name string) int { return cmp.Compare(e.Peer, name) })
	if !found {
		return entry{}
	}
	return b.heard[i]
}

func appendBody(b []byte, v *body) []byte {
	b = binary.AppendUvarint(b, uint64(len(v.said)))
	b = append(b, v.said...)
	b = appendList(b, v.lags, appendLag)
	b = binary.AppendUvarint(b, uint64(len(v.heard)))
	before := ""
	for _, e := range v.heard {
		shared := sharedPrefix(before, e.Peer)
		b = appendString(append(b, byte(shared)), e.Peer[shared:])
		b = appendDuration(b, e.Every)
		b = binary.BigEndian.AppendUint64(b, e.Session)
		if e.Session != 0 {
			b = appendDuration(binary.AppendUvarint(b, e.Seq), e.Ago)
		}
		before = e.Peer
	}
	return b
}

// decodeBody reads a body into v, whose slices it uses again; v.said points into b. Names that intern knows cost no memory.
// The error is errBody; v is then worth nothing.
func decodeBody(b []byte, v *body, intern func([]byte) string) (more []byte, err error) {
	r := &reader{rest: b}
	v.said = r.bytes(r.varint())
	v.lags, v.heard = v.lags[:0], v.heard[:0]
	for n := r.count(); n > 0 && !r.bad; n-- {
		v.lags = append(v.lags, r.lag())
	}
	var name [255]byte
	length := 0
	for n := r.count(); n > 0 && !r.bad; n-- {
		length = r.name(&name, length)
		e := entry{Heard: cluster.Heard{Peer: intern(name[:length])}, Every: r.duration()}
		if e.Session = r.uint64(); e.Session != 0 {
			e.Seq, e.Ago = r.varint(), r.duration()
		}
		v.heard = append(v.heard, e)
	}
	if r.bad {
		return nil, errBody
	}
	return r.rest, nil
}

// name replaces a name by the next one and returns its length. The next one must be greater, and no byte of what the two
// share may be repeated.
func (r *reader) name(name *[255]byte, length int) int {
	shared, rest := int(r.octet()), r.bytes(r.varint())
	if shared > length || shared+len(rest) > len(name) || len(rest) == 0 || shared < length && rest[0] <= name[shared] {
		r.bad = true
		return 0
	}
	return shared + copy(name[shared:], rest)
}

func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && n < 255 && a[n] == b[n] {
		n++
	}
	return n
}
