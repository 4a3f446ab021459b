package delta

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// MaxLiteral is how many bytes one instruction may bring. It bounds the memory of a decoder.
const MaxLiteral = 64 << 10

// An instruction is one byte that says which, and its numbers as uvarints.
const (
	opCopy    = 'c' // offset in the old version, length
	opLiteral = 'l' // length, bytes
	opZeros   = 'z' // length
	opEnd     = 'e' // length of the new version, its BLAKE3-256
)

// encoder writes instructions. The last copy or zeros are held back, because what follows may adjoin them.
type encoder struct {
	w      *bufio.Writer
	held   instruction // op 0: nothing
	head   []byte
	result Result
}

// instruction is one, decoded. Data is valid until the next one.
type instruction struct {
	op      byte
	from, n int64
	data    []byte // a literal, or the hash
}

func newEncoder(w io.Writer) *encoder { return &encoder{w: bufio.NewWriterSize(w, MaxLiteral)} }

func (e *encoder) copy(from, n int64) error {
	e.result.Copied += n
	if e.held.op == opCopy && e.held.from+e.held.n == from {
		e.held.n += n
		return nil
	}
	err := e.release()
	e.held = instruction{op: opCopy, from: from, n: n}
	return err
}

func (e *encoder) zeros(n int64) error {
	e.result.Zeros += n
	if n == 0 || e.held.op == opZeros {
		e.held.n += n
		return nil
	}
	err := e.release()
	e.held = instruction{op: opZeros, n: n}
	return err
}

func (e *encoder) literal(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := e.release(); err != nil {
		return err
	}
	e.result.Literal += int64(len(b))
	for len(b) > 0 {
		n := min(len(b), MaxLiteral)
		e.head = binary.AppendUvarint(append(e.head[:0], opLiteral), uint64(n))
		if err := e.write(e.head); err != nil {
			return err
		}
		if err := e.write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// end writes the last instruction and everything that is still buffered.
func (e *encoder) end(sum [32]byte) error {
	if err := e.release(); err != nil {
		return err
	}
	e.result.Size, e.result.Sum = e.result.Copied+e.result.Literal+e.result.Zeros, sum
	e.head = append(binary.AppendUvarint(append(e.head[:0], opEnd), uint64(e.result.Size)), sum[:]...)
	if err := e.write(e.head); err != nil {
		return err
	}
	if err := e.w.Flush(); err != nil {
		return fmt.Errorf("write instructions: %w", err)
	}
	return nil
}

// release writes what was held back.
func (e *encoder) release() error {
	if e.held.op == 0 {
		return nil
	}
	e.head = append(e.head[:0], e.held.op)
	if e.held.op == opCopy {
		e.head = binary.AppendUvarint(e.head, uint64(e.held.from))
	}
	e.head = binary.AppendUvarint(e.head, uint64(e.held.n))
	e.held = instruction{}
	return e.write(e.head)
}

func (e *encoder) write(b []byte) error {
	if _, err := e.w.Write(b); err != nil {
		return fmt.Errorf("write instructions: %w", err)
	}
	return nil
}

// byteReader is what a decoder reads from. It never asks for a byte beyond the last instruction.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// decoder reads instructions.
type decoder struct {
	r   byteReader
	buf []byte
}

func newDecoder(r io.Reader) *decoder {
	d := &decoder{buf: make([]byte, MaxLiteral)}
	if b, ok := r.(byteReader); ok {
		d.r = b
	} else {
		d.r = bufio.NewReaderSize(r, MaxLiteral)
	}
	return d
}

// next reads one instruction. It is ErrMalformed if there is no such one, or it brings nothing.
func (d *decoder) next() (i instruction, err error) {
	if i.op, err = d.r.ReadByte(); err != nil {
		return i, d.broken(err)
	}
	if i.op == opCopy {
		if i.from, err = d.number(); err != nil {
			return i, err
		}
	}
	if i.n, err = d.number(); err != nil {
		return i, err
	}
	switch {
	case i.op == opEnd:
		i.data = d.buf[:32]
	case i.n == 0:
		return i, fmt.Errorf("%w: instruction %q about no bytes", ErrMalformed, i.op)
	case i.op == opLiteral && i.n <= MaxLiteral:
		i.data = d.buf[:i.n]
	case i.op != opCopy && i.op != opZeros:
		return i, fmt.Errorf("%w: instruction %q about %d bytes", ErrMalformed, i.op, i.n)
	}
	if _, err := io.ReadFull(d.r, i.data); err != nil {
		return i, d.broken(err)
	}
	return i, nil
}

// number reads a uvarint of at most 63 bits.
func (d *decoder) number() (n int64, err error) {
	for shift := 0; shift < 63; shift += 7 {
		c, err := d.r.ReadByte()
		if err != nil {
			return 0, d.broken(err)
		}
		n |= int64(c&0x7f) << shift
		if c < 0x80 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: a number above %d", ErrMalformed, int64(math.MaxInt64))
}

// broken is about instructions that end before their end.
func (d *decoder) broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read instructions: %w", err)
}
