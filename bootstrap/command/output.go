package command

import (
	"bytes"
	"fmt"
	"strings"
)

// capture keeps the first and the last half of a stream in bounded memory.
type capture struct {
	max   int // bytes kept in all, at least 1
	head  []byte
	tail  []byte // at most 2 × (max - max/2) long; only its end counts
	total int64
}

func (k *capture) write(p []byte) {
	k.total += int64(len(p))
	if room := k.max/2 - len(k.head); room > 0 {
		n := min(room, len(p))
		k.head = append(k.head, p[:n]...)
		p = p[n:]
	}
	half := k.max - k.max/2
	k.tail = append(k.tail, p[max(0, len(p)-half):]...)
	if len(k.tail) > 2*half {
		k.tail = append(k.tail[:0], k.tail[len(k.tail)-half:]...)
	}
}

// omitted is how many bytes are in neither half.
func (k *capture) omitted() int64 {
	return max(0, k.total-int64(k.max))
}

// bytes returns the stream, with a line in the place of what is missing.
func (k *capture) bytes() []byte {
	half := k.max - k.max/2
	tail := k.tail[max(0, len(k.tail)-half):]
	if k.omitted() == 0 {
		return append(bytes.Clone(k.head), tail...)
	}
	gap := fmt.Sprintf("\n[… %d bytes left out …]\n", k.omitted())
	return append(append(bytes.Clone(k.head), gap...), tail...)
}

// splitter cuts a stream into lines of bounded length.
type splitter struct {
	line []byte
	cut  bool // the rest of this line is being dropped
}

// write calls emit for each line that p completes.
func (s *splitter) write(p []byte, emit func(string)) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		room := MaxLine - len(s.line)
		s.cut = s.cut || len(part) > room
		s.line = append(s.line, part[:min(room, len(part))]...)
		if end < 0 {
			return
		}
		emit(s.take())
		p = p[end+1:]
	}
}

// close calls emit for a last line that has no line end.
func (s *splitter) close(emit func(string)) {
	if len(s.line) > 0 {
		emit(s.take())
	}
}

func (s *splitter) take() string {
	line := string(s.line)
	if s.cut {
		line += "…"
	}
	s.line, s.cut = s.line[:0], false
	return strings.ToValidUTF8(strings.TrimSuffix(line, "\r"), "\uFFFD")
}
