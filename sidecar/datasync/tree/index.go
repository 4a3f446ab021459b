//go:build linux

package tree

import (
	"bufio"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zeebo/blake3"

	"understudy/bootstrap/durable"
)

// ErrDamaged is an index that cannot be read: cut, altered, or of another version. The caller says so and scans without.
var ErrDamaged = errors.New("the index is damaged or of another version")

const magic = "ustree\x00\x01" // the last byte is the version

// Save writes the tree as an index: to a file beside path that then takes its name, both synced. After an error the earlier
// index is still there.
func (t *Tree) Save(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return fmt.Errorf("save the index: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("save the index: %w", err), f.Close(), os.Remove(f.Name()))
		}
	}()
	if err = t.write(f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return errors.Join(f.Close(), durable.SyncDir(filepath.Dir(path)))
}

// Load reads what Save wrote. The error is ErrDamaged, or that of opening the file: fs.ErrNotExist the first time.
func Load(path string) (*Tree, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load the index: %w", err)
	}
	defer f.Close()
	t, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("load the index %s: %w", path, err)
	}
	return t, nil
}

func (t *Tree) write(w io.Writer) error {
	sum := blake3.New()
	b := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	var record []byte
	var put func(n *node) error
	put = func(n *node) error {
		record = appendNode(record[:0], n)
		if _, err := b.Write(record); err != nil {
			return err
		}
		for _, c := range n.children() {
			if err := put(c); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := b.WriteString(magic); err != nil {
		return err
	}
	if err := put(t.root); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

func appendNode(b []byte, n *node) []byte {
	b = append(appendString(b, n.name), byte(n.kind), byte(n.flags&(unsettled|racy|linked)))
	var a account
	if n.account != nil {
		a = *n.account
	}
	b = binary.BigEndian.AppendUint16(b, n.mode)
	b = appendString(appendString(b, a.owner), a.group)
	for _, v := range []int64{n.size, n.mtime, n.ctime, int64(n.inode)} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	b = binary.AppendUvarint(b, uint64(len(n.xattrs())))
	for _, x := range n.xattrs() {
		b = appendString(appendString(b, x.Name), x.Value)
	}
	switch n.kind {
	case File:
		b = append(b, n.hash[:]...)
	case Symlink:
		b = appendString(b, n.target())
	case Directory:
		b = binary.AppendUvarint(b, uint64(len(n.children())))
	}
	return b
}

// read decodes an index and believes it only when its sum is right. Memory is taken as bytes come, never for a count.
func read(f io.Reader) (*Tree, error) {
	d := &decoder{in: bufio.NewReaderSize(f, 64<<10), sum: blake3.New(), tree: newTree()}
	if string(d.bytes(len(magic))) != magic {
		return nil, ErrDamaged
	}
	root := d.node(0)
	d.flush()
	want := d.sum.Sum(nil)
	var got [32]byte
	if _, err := io.ReadFull(d.in, got[:]); err != nil || d.bad || subtle.ConstantTimeCompare(got[:], want) == 0 {
		return nil, ErrDamaged
	}
	if _, err := d.in.ReadByte(); err != io.EOF || root.name != "." || root.kind != Directory {
		return nil, ErrDamaged
	}
	d.tree.root = root
	root.adopt()
	d.tree.regroup(d.tree.enlink(root))
	d.tree.regrouped = nil
	return d.tree, nil
}

// decoder remembers the first thing that is wrong; from then on everything is zero.
type decoder struct {
	in   *bufio.Reader
	sum  *blake3.Hasher
	tree *Tree
	buf  []byte // read and not in the sum yet
	room [64 << 10]byte
	bad  bool
}

func (d *decoder) flush() {
	if _, err := d.sum.Write(d.buf); err != nil {
		d.bad = true
	}
	d.buf = d.buf[:0]
}

// bytes are good until the next call. At most 64 KiB, more than the kernel lets any of them have.
func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.room) {
		d.bad = true
		return nil
	}
	b := d.room[:n]
	if _, err := io.ReadFull(d.in, b); err != nil {
		d.bad = true
		return nil
	}
	if d.buf = append(d.buf, b...); len(d.buf) > 64<<10 {
		d.flush()
	}
	return b
}

func (d *decoder) octet() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) int64() int64 {
	if b := d.bytes(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) uvarint() (v uint64) {
	for shift := 0; shift < 63; shift += 7 {
		c := d.octet()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	d.bad = true
	return 0
}

func (d *decoder) string() string { return string(d.bytes(int(min(d.uvarint(), 1<<20)))) }

func (d *decoder) node(depth int) *node {
	n := &node{name: d.string(), kind: Kind(d.octet()), flags: flags(d.octet())}
	if mode := d.bytes(2); mode != nil {
		n.mode = binary.BigEndian.Uint16(mode)
	}
	n.account = d.tree.account(account{d.string(), d.string()})
	n.size, n.mtime, n.ctime, n.inode = d.int64(), d.int64(), d.int64(), uint64(d.int64())
	for count := d.uvarint(); count > 0 && !d.bad; count-- {
		more := n.extra()
		more.xattrs = append(more.xattrs, Xattr{d.string(), d.string()})
	}
	if n.kind > Symlink || n.kind == 0 && !n.has(unsettled) || n.flags&^(unsettled|racy|linked) != 0 || n.mode > 0o7777 || n.size < 0 ||
		depth > maxDepth || depth > 0 && !validName(n.name) || depth == 0 && n.name != "." {
		d.bad = true
	}
	switch n.kind {
	case File:
		copy(n.hash[:], d.bytes(len(n.hash)))
	case Symlink:
		n.extra().target = d.string()
	case Directory:
		n.flags |= stale
		d.children(n, depth)
	}
	return n
}

func (d *decoder) children(n *node, depth int) {
	more := n.extra()
	last := ""
	for count := d.uvarint(); count > 0 && !d.bad; count-- {
		c := d.node(depth + 1)
		d.bad = d.bad || c.name <= last
		last = c.name
		more.children = append(more.children, c)
	}
}
