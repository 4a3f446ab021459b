//go:build linux

package tree

import (
	"encoding/binary"

	"github.com/zeebo/blake3"
)

// Digest is that of the root, over everything that is mirrored; see the package comment. It costs as much as there are
// entries in the directories that changed since it was last asked for, and their ancestors.
func (t *Tree) Digest() Hash {
	t.freshen()
	sum := t.root.sum(nil)
	return blake3.Sum256(append(sum[:], t.root.hash[:]...))
}

// freshen computes the digests that are stale.
func (t *Tree) freshen() {
	if t.root.has(stale) {
		freshen(t.root, &buffers{})
	}
}

type buffers struct{ record, list []byte }

func freshen(dir *node, b *buffers) {
	for _, c := range dir.children() {
		if c.has(stale) {
			freshen(c, b)
		}
	}
	b.list = b.list[:0]
	for _, c := range dir.children() {
		b.list = appendString(b.list, c.name)
		sum := c.sum(b)
		b.list = append(b.list, sum[:]...)
		if c.kind == Directory {
			b.list = append(b.list, c.hash[:]...)
		}
	}
	dir.hash = blake3.Sum256(b.list)
	dir.flags &^= stale
}

// Sum is the digest of an entry without its name and, of a directory, without what lies in it.
func (e Entry) Sum() Hash { return blake3.Sum256(appendRecord(nil, e)) }

func (n *node) sum(b *buffers) Hash {
	if b == nil {
		b = &buffers{}
	}
	b.record = appendRecord(b.record[:0], n.entry(""))
	return blake3.Sum256(b.record)
}

// appendRecord writes what is compared. Its layout is in the package comment.
func appendRecord(b []byte, e Entry) []byte {
	b = append(b, byte(e.Kind))
	if e.Unsettled {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint16(b, e.Mode)
	b = appendString(appendString(b, e.Owner), e.Group)
	b = binary.BigEndian.AppendUint64(b, uint64(e.MTime))
	switch e.Kind {
	case File:
		b = append(binary.BigEndian.AppendUint64(b, uint64(e.Size)), e.Hash[:]...)
	case Symlink:
		b = appendString(b, e.Target)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		b = appendString(appendString(b, x.Name), x.Value)
	}
	return appendString(b, e.Link)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
