package delta

import (
	"bytes"
	"fmt"
	"io"
)

// nothing is a stretch of zeros to compare with and to write.
var nothing [64 << 10]byte

// zero tells whether b is nothing but zeros.
func zero(b []byte) bool {
	for len(b) > len(nothing) {
		if !bytes.Equal(b[:len(nothing)], nothing[:]) {
			return false
		}
		b = b[len(nothing):]
	}
	return bytes.Equal(b, nothing[:len(b)])
}

// zeroPages finds the first run of whole pages of zeros in b, which lies at this place of its file. None: it is empty, at b's end.
func zeroPages(b []byte, at int64) (from, to int) {
	for from = int(-at & (page - 1)); from+page <= len(b); from += page {
		if !zero(b[from : from+page]) {
			continue
		}
		for to = from + page; to+page <= len(b) && zero(b[to:to+page]); {
			to += page
		}
		return from, to
	}
	return len(b), len(b)
}

// Sparse writes a file from its beginning and leaves a hole for every whole page of zeros. The file must be empty; it has its
// length only after Finish.
type Sparse struct {
	File SparseFile
	at   int64
	end  int64 // of what was written
}

// SparseFile is what Sparse needs of an os.File.
type SparseFile interface {
	io.WriterAt
	Truncate(size int64) error
}

// Write implements io.Writer.
func (s *Sparse) Write(p []byte) (n int, err error) {
	for n < len(p) {
		from, to := zeroPages(p[n:], s.at)
		if from > 0 {
			wrote, err := s.File.WriteAt(p[n:n+from], s.at)
			if err != nil {
				return n + wrote, err
			}
			s.end = s.at + int64(from)
		}
		n, s.at = n+to, s.at+int64(to)
	}
	return n, nil
}

// Finish gives the file its length, which matters if it ends in a hole.
func (s *Sparse) Finish() error {
	if s.end == s.at {
		return nil
	}
	if err := s.File.Truncate(s.at); err != nil {
		return fmt.Errorf("set the length of a sparse file: %w", err)
	}
	return nil
}
