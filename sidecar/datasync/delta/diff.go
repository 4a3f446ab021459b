package delta

import (
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"
)

// patience bounds what is spent on searching new content, byte by byte, for old: after this many blocks in which there was none,
// only every second one is searched, after twice as many every third, and so on. So at most one byte more than is new is sent
// for as many as this.
const patience = 32

// page is the unit in which runs of zeros are looked for and holes are made: what file systems allocate by.
const page = 4 << 10

// Diff reads a new version to its end and writes the instructions that make it from the version signed. It holds no more of the
// file than 256 KiB or four blocks. Errors are the reader's and the writer's; part of the instructions may have been written.
func Diff(s *Signature, r io.Reader, w io.Writer) (Result, error) {
	d := &differ{index: newIndex(s), r: r, out: newEncoder(w), sum: blake3.New(), buf: make([]byte, max(256<<10, 4*s.block))}
	if err := d.run(); err != nil {
		return Result{}, err
	}
	return d.out.result, nil
}

// differ slides over the new version. In buf, [lit, p) is to be sent as literals and [p, end) is ahead.
type differ struct {
	*index
	r           io.Reader
	eof         bool
	out         *encoder
	sum         *blake3.Hasher
	buf         []byte
	base        int64 // the place of buf[0] in the file
	lit, p, end int
	next        int // the block of the old version that should be at p
	missed      int // blocks that were not found since the last one that was
	skip        int // of which so many more are not searched
	credit      int // of the search
}

func (d *differ) run() error {
	for {
		if err := d.fill(); err != nil {
			return err
		}
		if d.end-d.p < d.block {
			break
		}
		if err := d.step(); err != nil {
			return err
		}
	}
	if err := d.finish(); err != nil {
		return err
	}
	return d.out.end([32]byte(d.sum.Sum(nil)))
}

// fill makes sure that two blocks lie ahead, or all that there is.
func (d *differ) fill() error {
	if d.eof || d.end-d.p >= 2*d.block {
		return nil
	}
	// What is begun of a page stays, lest a run of zeros be cut here.
	if err := d.flush(max(d.lit, d.p-int(d.base+int64(d.p))&(page-1))); err != nil {
		return err
	}
	kept := d.lit
	d.end = copy(d.buf, d.buf[kept:d.end])
	d.base, d.lit, d.p = d.base+int64(kept), 0, d.p-kept
	n, err := io.ReadFull(d.r, d.buf[d.end:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		d.eof, err = true, nil
	}
	if err != nil {
		return fmt.Errorf("read the new version: %w", err)
	}
	_, _ = d.sum.Write(d.buf[d.end : d.end+n]) // a hash takes everything
	d.end += n
	return nil
}

// step passes at least one byte and at most one block.
func (d *differ) step() error {
	ahead := d.buf[d.p:d.end]
	switch {
	case d.is(d.next, ahead[:d.block]):
		return d.copy(d.next)
	case zero(ahead[:d.block]): // nothing to search for; flush will find it
		d.p += d.block
		d.next++
		return nil
	case len(ahead) >= 2*d.block && d.is(d.next+1, ahead[d.block:2*d.block]): // overwritten in place, which is common: the same
		d.p += d.block
		d.next++
		return nil
	}
	if d.skip--; d.skip < 0 {
		d.skip = d.missed / patience
		d.credit = min(d.credit+16, 256) // hashing 16 blocks takes about as long as rolling over one
		if at, block, found := d.find(ahead, d.block, &d.credit); found {
			d.p += at
			return d.copy(block)
		}
	}
	d.p += d.block
	d.next++
	d.missed++
	return nil
}

// copy tells that the old version's block is at p.
func (d *differ) copy(block int) error {
	if err := d.flush(d.p); err != nil {
		return err
	}
	d.p += d.block
	d.lit, d.next, d.missed, d.skip = d.p, block+1, 0, 0
	return d.out.copy(int64(block)*int64(d.block), int64(d.block))
}

// finish sends what is left, less than a block. The old version's last one may be its end.
func (d *differ) finish() error {
	rest, tail := d.end-d.p, d.tail()
	d.p = d.end
	if tail == 0 || rest < tail || xxh3.Hash128(d.buf[d.end-tail:d.end]) != d.strong[d.whole()] {
		return d.flush(d.p)
	}
	d.p -= tail
	if err := d.flush(d.p); err != nil {
		return err
	}
	return d.out.copy(int64(d.whole())*int64(d.block), int64(tail))
}

// flush sends the literals before a place in buf, whole pages of zeros among them as such.
func (d *differ) flush(to int) error {
	b, at := d.buf[d.lit:to], d.base+int64(d.lit)
	d.lit = to
	for len(b) > 0 {
		from, to := zeroPages(b, at)
		if err := d.out.literal(b[:from]); err != nil {
			return err
		}
		if err := d.out.zeros(int64(to - from)); err != nil {
			return err
		}
		b, at = b[to:], at+int64(to)
	}
	return nil
}
