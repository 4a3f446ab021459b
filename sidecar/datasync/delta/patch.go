package delta

import (
	"bytes"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// Patch writes the new version, of at most limit bytes, that instructions make from the old one. What it has written counts only
// if it returns nil: the hash comes last. It is ErrMalformed if an instruction leaves the old version or the limit, or the lengths
// do not add up, and ErrMismatch if the hash does not; the caller throws away what was written.
//
// Beyond the last instruction nothing is read of an io.ByteReader, such as a bufio.Reader; any other reader is read ahead.
func Patch(old *io.SectionReader, instructions io.Reader, w io.Writer, limit int64) (Result, error) {
	p := &patcher{old: old, in: newDecoder(instructions), out: w, sum: blake3.New(), limit: limit}
	for {
		i, err := p.in.next()
		if err != nil {
			return Result{}, err
		}
		if i.op == opEnd {
			return p.finish(i)
		}
		if i.n > p.limit-p.result.Size {
			return Result{}, fmt.Errorf("%w: %d bytes more after %d are above the limit of %d", ErrMalformed, i.n, p.result.Size, p.limit)
		}
		if err := p.follow(i); err != nil {
			return Result{}, err
		}
		p.result.Size += i.n
	}
}

type patcher struct {
	old    *io.SectionReader
	in     *decoder
	out    io.Writer
	sum    *blake3.Hasher
	buf    []byte // of what is copied; nil until something is
	limit  int64
	result Result
}

func (p *patcher) follow(i instruction) error {
	switch i.op {
	case opCopy:
		p.result.Copied += i.n
		return p.copy(i.from, i.n)
	case opZeros:
		p.result.Zeros += i.n
		for i.n > 0 {
			n := min(i.n, int64(len(nothing)))
			if err := p.write(nothing[:n]); err != nil {
				return err
			}
			i.n -= n
		}
		return nil
	}
	p.result.Literal += i.n
	return p.write(i.data)
}

func (p *patcher) copy(from, n int64) error {
	if from > p.old.Size() || n > p.old.Size()-from {
		return fmt.Errorf("%w: copies %d bytes at %d of an old version of %d", ErrMalformed, n, from, p.old.Size())
	}
	if p.buf == nil {
		p.buf = make([]byte, 256<<10)
	}
	for n > 0 {
		b := p.buf[:min(n, int64(len(p.buf)))]
		if got, err := p.old.ReadAt(b, from); got < len(b) {
			return fmt.Errorf("read the old version: %w", err)
		}
		if err := p.write(b); err != nil {
			return err
		}
		from, n = from+int64(len(b)), n-int64(len(b))
	}
	return nil
}

func (p *patcher) write(b []byte) error {
	_, _ = p.sum.Write(b) // a hash takes everything
	if _, err := p.out.Write(b); err != nil {
		return fmt.Errorf("write the new version: %w", err)
	}
	return nil
}

func (p *patcher) finish(end instruction) (Result, error) {
	if end.n != p.result.Size {
		return Result{}, fmt.Errorf("%w: instructions for %d bytes say that they were %d", ErrMalformed, p.result.Size, end.n)
	}
	copy(p.result.Sum[:], p.sum.Sum(nil))
	if !bytes.Equal(p.result.Sum[:], end.data) {
		return Result{}, fmt.Errorf("%w: its BLAKE3 is %x, want %x", ErrMismatch, p.result.Sum, end.data)
	}
	return p.result, nil
}
