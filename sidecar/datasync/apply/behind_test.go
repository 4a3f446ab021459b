//go:build linux

package apply

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// limited is a disk that becomes full.
type limited struct {
	bytes.Buffer
	left int
}

var errFull = errors.New("full")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errFull
	}
	return l.Buffer.Write(p)
}

func TestWhatIsWrittenBehindIsWhatWasWritten(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	for _, most := range []int{len(content), len(content) / 2, 0} {
		disk := &limited{left: most}
		b := writeBehind(disk)
		_, err := io.CopyBuffer(b, onlyReader{bytes.NewReader(content)}, make([]byte, 300_001))
		end := b.end()
		if most == len(content) {
			if err != nil || end != nil || !bytes.Equal(disk.Bytes(), content) {
				t.Errorf("got %v, %v and %d bytes, want %d", err, end, disk.Len(), len(content))
			}
			continue
		}
		if !errors.Is(end, errFull) {
			t.Errorf("room for %d bytes: got %v and %v, want %v in the end", most, err, end, errFull)
		}
	}
}

type onlyReader struct{ io.Reader }
