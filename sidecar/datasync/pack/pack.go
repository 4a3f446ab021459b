// Package pack compresses what a session sends, where that makes it arrive sooner. When it does is decided by a pure policy from
// what was measured (Policy); how is zstd at its fastest level, a stretch at a time (Packer), so that one stretch can be packed
// and the next one not. Unpacking is bounded: a stretch never becomes longer than it was announced, nor than MaxStretch.
package pack

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// MaxStretch is how many bytes are packed at once.
const MaxStretch = 1 << 20

// ErrDamaged says that what was to be unpacked is not what a Packer makes of the announced number of bytes.
var ErrDamaged = errors.New("damaged compressed data")

// Packer packs and unpacks. It starts no goroutine and serves one at a time; New makes one.
type Packer struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// New returns a Packer, which takes its memory, some MB, with its first stretch.
func New() (*Packer, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(MaxStretch),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false)) // the stream has a MAC, the file a hash
	if err != nil {
		return nil, fmt.Errorf("prepare to compress: %w", err)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxStretch),
		zstd.WithDecoderMaxWindow(MaxStretch))
	if err != nil {
		return nil, fmt.Errorf("prepare to decompress: %w", err)
	}
	return &Packer{encoder: e, decoder: d}, nil
}

// Pack appends the packed form of a stretch to dst. It returns false, and dst as it was, if that would not be shorter.
func (p *Packer) Pack(dst, stretch []byte) ([]byte, bool) {
	if len(stretch) > MaxStretch {
		panic(fmt.Sprintf("a stretch of %d bytes, at most %d can be unpacked", len(stretch), MaxStretch))
	}
	packed := p.encoder.EncodeAll(stretch, dst)
	if len(packed)-len(dst) >= len(stretch) {
		return dst, false
	}
	return packed, true
}

// Unpack appends to dst the n bytes that were packed. Any other number of them, and what cannot be unpacked, is ErrDamaged.
func (p *Packer) Unpack(dst, packed []byte, n int) ([]byte, error) {
	if n < 0 || n > MaxStretch {
		return dst, fmt.Errorf("%w: a stretch of %d bytes, at most %d are allowed", ErrDamaged, n, MaxStretch)
	}
	got, err := p.decoder.DecodeAll(packed, dst)
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(got)-len(dst) != n {
		return dst, fmt.Errorf("%w: %d bytes were announced and %d were packed", ErrDamaged, n, len(got)-len(dst))
	}
	return got, nil
}
