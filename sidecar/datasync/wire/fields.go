//go:build linux

package wire

import (
	"encoding/binary"
	"strings"

	"understudy/sidecar/datasync/tree"
)

func (m Hello) append(b []byte) []byte {
	return appendNumber(appendString(appendNumber(b, m.Version), m.Set), m.Epoch)
}

func (m *Hello) read(f *fields) { m.Version, m.Set, m.Epoch = f.number(), f.string(), f.number() }

func (m Offer) append(b []byte) []byte { return append(appendNumber(b, m.Epoch), m.Root[:]...) }
func (m *Offer) read(f *fields)        { m.Epoch, m.Root = f.number(), f.hash() }

func (m Accept) append(b []byte) []byte {
	return appendNumber(appendNumber(append(appendFlag(b, m.First), m.Root[:]...), m.Entries), m.Bytes)
}

func (m *Accept) read(f *fields) {
	m.First, m.Root, m.Entries, m.Bytes = f.flag(), f.hash(), f.number(), f.number()
}

func (m Refusal) append(b []byte) []byte { return appendString(b, m.Why) }
func (m *Refusal) read(f *fields)        { m.Why = f.string() }

func (m Ask) append(b []byte) []byte { return appendString(b, m.Path) }
func (m *Ask) read(f *fields)        { m.Path = f.path() }

func (m Children) append(b []byte) []byte {
	b = appendNumber(appendString(b, m.Path), uint64(len(m.Children)))
	for _, c := range m.Children {
		b = appendFlag(append(appendString(b, c.Name), byte(c.Kind)), c.Unsettled)
		b = append(b, c.Sum[:]...)
		if c.Kind == tree.Directory {
			b = append(b, c.Digest[:]...)
		}
	}
	return appendFlag(b, m.Last)
}

// childLeast is the least that a child takes.
const childLeast = 1 + 1 + 1 + 1 + 32

func (m *Children) read(f *fields) {
	m.Path = f.path()
	n := f.count(childLeast)
	m.Children = make([]tree.Child, 0, n)
	for range n {
		c := tree.Child{Name: f.name(), Kind: f.entryKind(), Unsettled: f.flag(), Sum: f.hash()}
		if c.Kind == tree.Directory {
			c.Digest = f.hash()
		}
		if i := len(m.Children); i > 0 && m.Children[i-1].Name >= c.Name {
			f.fail("names out of order")
		}
		m.Children = append(m.Children, c)
	}
	m.Last = f.flag()
}

func (m Sign) append(b []byte) []byte { return appendString(b, m.Path) }
func (m *Sign) read(f *fields)        { m.Path = f.path() }

func (m Data) append(b []byte) []byte { return append(b, m.Bytes...) }

func (m *Data) read(f *fields) {
	if len(f.b) > MaxData {
		f.fail("too much data")
	}
	m.Bytes, f.b = f.b, nil
}

func (m Packed) append(b []byte) []byte {
	return append(appendNumber(appendNumber(b, m.Size), uint64(len(m.Bytes))), m.Bytes...)
}

func (m *Packed) read(f *fields) {
	m.Size = f.number()
	n := f.count(1)
	if m.Size == 0 || m.Size > MaxData || n > MaxData {
		f.fail("too much data, or none")
	}
	m.Bytes = f.bytes(n)
}

func (m Put) append(b []byte) []byte   { return appendEntry(b, m.Entry) }
func (m *Put) read(f *fields)          { m.Entry = f.entry() }
func (m Patch) append(b []byte) []byte { return appendEntry(b, m.Entry) }
func (m *Patch) read(f *fields)        { m.Entry = f.entry() }
func (m Make) append(b []byte) []byte  { return appendEntry(b, m.Entry) }
func (m *Make) read(f *fields)         { m.Entry = f.entry() }
func (m Set) append(b []byte) []byte   { return appendEntry(b, m.Entry) }
func (m *Set) read(f *fields)          { m.Entry = f.entry() }

func (m Take) append(b []byte) []byte { return appendEntry(appendString(b, m.From), m.Entry) }
func (m *Take) read(f *fields)        { m.From, m.Entry = f.path(), f.entry() }

func (m Remove) append(b []byte) []byte { return appendString(b, m.Path) }
func (m *Remove) read(f *fields)        { m.Path = f.path() }
func (m Keep) append(b []byte) []byte   { return appendString(b, m.Path) }
func (m *Keep) read(f *fields)          { m.Path = f.path() }

func (m Commit) append(b []byte) []byte {
	return appendFlag(appendFlag(appendNumber(b, m.Seq), m.Complete), m.More)
}
func (m *Commit) read(f *fields)         { m.Seq, m.Complete, m.More = f.number(), f.flag(), f.flag() }
func (m Durable) append(b []byte) []byte { return appendNumber(b, m.Seq) }
func (m *Durable) read(f *fields)        { m.Seq = f.number() }

func (m Failed) append(b []byte) []byte { return appendString(appendString(b, m.Path), m.Why) }
func (m *Failed) read(f *fields)        { m.Path, m.Why = f.path(), f.string() }

// appendEntry writes the fields of an entry, those without a meaning for its kind left out.
func appendEntry(b []byte, e tree.Entry) []byte {
	b = append(appendString(b, e.Path), byte(e.Kind))
	b = binary.BigEndian.AppendUint16(b, e.Mode)
	b = appendString(appendString(b, e.Owner), e.Group)
	b = binary.BigEndian.AppendUint64(b, uint64(e.MTime))
	switch e.Kind {
	case tree.File:
		b = append(appendNumber(b, uint64(e.Size)), e.Hash[:]...)
	case tree.Symlink:
		b = appendString(b, e.Target)
	}
	b = appendNumber(b, uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		b = appendString(appendString(b, x.Name), x.Value)
	}
	return appendString(b, e.Link)
}

func (f *fields) entry() (e tree.Entry) {
	e.Path, e.Kind = f.path(), f.entryKind()
	if b := f.bytes(2); b != nil {
		e.Mode = binary.BigEndian.Uint16(b)
	}
	e.Owner, e.Group = f.string(), f.string()
	if b := f.bytes(8); b != nil {
		e.MTime = int64(binary.BigEndian.Uint64(b))
	}
	switch e.Kind {
	case tree.File:
		size := f.number()
		if size > 1<<62 {
			f.fail("a size beyond all files")
		}
		e.Size, e.Hash = int64(size), f.hash()
	case tree.Symlink:
		e.Target = f.string()
	}
	if e.Mode > 0o7777 {
		f.fail("a mode with unknown bits")
	}
	if n := f.count(2); n > 0 {
		e.Xattrs = make([]tree.Xattr, n)
		for i := range e.Xattrs {
			e.Xattrs[i] = tree.Xattr{Name: f.string(), Value: f.string()}
		}
	}
	if e.Link = f.string(); e.Link != "" && !tree.Valid(e.Link) {
		f.fail("a link to no path")
	}
	return e
}

func appendNumber(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }
func appendString(b []byte, s string) []byte { return append(appendNumber(b, uint64(len(s))), s...) }

func appendFlag(b []byte, f bool) []byte {
	if f {
		return append(b, 1)
	}
	return append(b, 0)
}

// fields reads what the append functions write. After a failure everything is zero.
type fields struct {
	b   []byte
	err string
}

func (f *fields) fail(why string) {
	if f.err == "" {
		f.err = why
	}
	f.b = nil
}

func (f *fields) bytes(n int) []byte {
	if f.err != "" || n > len(f.b) {
		f.fail("it ends too early")
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) number() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.fail("no number where one should be")
		return 0
	}
	f.b = f.b[n:]
	return v
}

// count reads how many things follow, each of which takes at least so many bytes.
func (f *fields) count(least int) int {
	n := f.number()
	if n > uint64(len(f.b)/least) {
		f.fail("more things than there is room for")
		return 0
	}
	return int(n)
}

func (f *fields) string() string {
	n := f.number()
	if n > uint64(len(f.b)) {
		f.fail("a string beyond the end")
		return ""
	}
	return string(f.bytes(int(n)))
}

func (f *fields) path() string {
	p := f.string()
	if f.err == "" && !tree.Valid(p) {
		f.fail("no path")
	}
	return p
}

func (f *fields) name() string {
	p := f.path()
	if f.err == "" && (p == "." || strings.Contains(p, "/")) {
		f.fail("no name")
	}
	return p
}

func (f *fields) flag() bool {
	b := f.bytes(1)
	if b != nil && b[0] > 1 {
		f.fail("neither yes nor no")
	}
	return b != nil && b[0] == 1
}

func (f *fields) entryKind() tree.Kind {
	b := f.bytes(1)
	if b == nil {
		return 0
	}
	if k := tree.Kind(b[0]); k >= tree.Directory && k <= tree.Symlink {
		return k
	}
	f.fail("an unknown kind of entry")
	return 0
}

func (f *fields) hash() (h tree.Hash) {
	copy(h[:], f.bytes(len(h)))
	return h
}
