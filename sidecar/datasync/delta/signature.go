package delta

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/zeebo/xxh3"
)

const (
	// MaxBlocks bounds a signature, and with it the memory of both sides: blocks grow with the file.
	MaxBlocks = 128 << 10
	// MaxSignature is the length in bytes of the longest signature on the wire.
	MaxSignature = 2 + binary.MaxVarintLen64 + MaxBlocks*signedBlock

	minBlock = 2 << 10
	// maxBlock bounds the window that Diff keeps. What a file has beyond MaxBlocks of these, 1 TiB, is sent and not looked for.
	maxBlock = 8 << 20

	signatureVersion = 1
	signedBlock      = 4 + 16 // bytes of one on the wire
)

// Signature describes a version of a file block by block. All blocks have one length but the last, which may be shorter. The zero
// value does not work; Empty is the signature of nothing.
type Signature struct {
	size   int64
	block  int // bytes; a power of two
	weak   []uint32
	strong []xxh3.Uint128
}

// Empty is the signature of an empty file, against which Diff sends everything.
func Empty() *Signature { return &Signature{block: minBlock} }

// Sign reads an old version, once. A version that is shorter than it was announced is an error.
func Sign(old *io.SectionReader) (*Signature, error) { return sign(old, blockFor(old.Size())) }

// blockFor is the smallest block of which at most MaxBlocks make up size bytes.
func blockFor(size int64) int {
	perBlock := uint64(max(size-1, 0)) / MaxBlocks
	return min(max(1<<bits.Len64(perBlock), minBlock), maxBlock)
}

// count is the number of blocks that are signed.
func count(size int64, block int) int {
	n := size / int64(block)
	if size%int64(block) != 0 {
		n++
	}
	return int(min(n, MaxBlocks))
}

func sign(old *io.SectionReader, block int) (*Signature, error) {
	n := count(old.Size(), block)
	s := &Signature{size: old.Size(), block: block, weak: make([]uint32, 0, n), strong: make([]xxh3.Uint128, 0, n)}
	buf := make([]byte, max(block, 256<<10)) // blocks are powers of two: a number of whole ones
	left := min(s.size, int64(n)*int64(block))
	for at := int64(0); left > 0; {
		b := buf[:min(int64(len(buf)), left)]
		if got, err := old.ReadAt(b, at); got < len(b) {
			if err == io.EOF {
				err = fmt.Errorf("it ends at byte %d of %d: %w", at+int64(got), s.size, io.ErrUnexpectedEOF)
			}
			return nil, fmt.Errorf("sign the old version: %w", err)
		}
		at, left = at+int64(len(b)), left-int64(len(b))
		for len(b) > 0 {
			one := b[:min(block, len(b))]
			s.weak, s.strong = append(s.weak, anchor(one)), append(s.strong, xxh3.Hash128(one))
			b = b[len(one):]
		}
	}
	return s, nil
}

// Size is the length in bytes of the version that was signed.
func (s *Signature) Size() int64 { return s.size }

// whole is the number of blocks of full length.
func (s *Signature) whole() int { return int(min(s.size/int64(s.block), int64(len(s.strong)))) }

// tail is the length of the short last block; 0: there is none.
func (s *Signature) tail() int {
	if len(s.strong) == s.whole() {
		return 0
	}
	return int(s.size % int64(s.block))
}

// AppendBinary appends the form for the wire, at most MaxSignature bytes. It returns no error.
func (s *Signature) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, signatureVersion, byte(bits.TrailingZeros(uint(s.block))))
	b = binary.AppendUvarint(b, uint64(s.size))
	for i, h := range s.strong {
		b = binary.LittleEndian.AppendUint32(b, s.weak[i])
		b = binary.LittleEndian.AppendUint64(b, h.Lo)
		b = binary.LittleEndian.AppendUint64(b, h.Hi)
	}
	return b, nil
}

// ParseSignature reads what AppendBinary has written; anything else is ErrMalformed. It keeps nothing of b.
func ParseSignature(b []byte) (*Signature, error) {
	if len(b) < 3 || b[0] != signatureVersion || b[1] > 62 {
		return nil, fmt.Errorf("%w: no signature of version %d: %.16x", ErrMalformed, signatureVersion, b)
	}
	size, n := binary.Uvarint(b[2:])
	block := 1 << b[1]
	if n <= 0 || size > 1<<62 || block < window || block > maxBlock {
		return nil, fmt.Errorf("%w: a signature of %d bytes in blocks of %d", ErrMalformed, size, block)
	}
	s := &Signature{size: int64(size), block: block}
	b = b[2+n:]
	blocks := count(s.size, block)
	if len(b) != blocks*signedBlock {
		return nil, fmt.Errorf("%w: a signature of %d blocks has %d bytes for them, want %d", ErrMalformed, blocks, len(b), blocks*signedBlock)
	}
	s.weak, s.strong = make([]uint32, blocks), make([]xxh3.Uint128, blocks)
	for i := range blocks {
		one := b[i*signedBlock:]
		s.weak[i] = binary.LittleEndian.Uint32(one)
		s.strong[i] = xxh3.Uint128{Lo: binary.LittleEndian.Uint64(one[4:]), Hi: binary.LittleEndian.Uint64(one[12:])}
	}
	return s, nil
}
