// Package delta sends a new version of a file to somebody who has an old one. The holder of the old version signs it (Sign),
// the holder of the new one reads that once against the signature and writes instructions (Diff), and the first follows them
// (Patch). Memory is bounded on both sides, whatever the size of the file and whatever the other side sends; the BLAKE3 of the
// new version goes with the instructions and is checked by Patch over what it has written.
//
// The algorithm is rsync's (Tridgell, "Efficient Algorithms for Sorting and Synchronization", 1999, chapter 3) with two changes.
// A block is first looked for where the last match says that it should be, for which one fast hash of the block is enough; bytes
// are searched one by one only where that fails. And the rolling hash covers the first 64 bytes of a block, not all of it, so that
// making a signature costs no rolling at all, and a hash without the byte that leaves will do (gear: Xia et al., "Ddelta", 2014).
//
// Content-defined chunks (FastCDC) were measured beside it and lost, in CPU and in bytes: see BenchmarkSteps.
package delta

import "errors"

// Why Patch or a parser refuses. Neither says anything about the file whose version is the old one; it was only read.
var (
	// ErrMalformed says that the other side does not speak this format, or asks for what cannot be: ends the session.
	ErrMalformed = errors.New("malformed delta")
	// ErrMismatch says that the instructions were in order and the result is not the new version: the old one was changed
	// after it was signed, or two blocks had one hash. Send the whole file.
	ErrMismatch = errors.New("what was put together is not the new version")
)

// Result says what a new version consists of. Its parts add up to Size.
type Result struct {
	Size    int64    // bytes
	Sum     [32]byte // BLAKE3-256 of them
	Copied  int64    // bytes taken from the old version
	Literal int64    // bytes sent
	Zeros   int64    // bytes told as zeros
}
