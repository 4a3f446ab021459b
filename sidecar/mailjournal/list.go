package mailjournal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// list is a file of IDs that Postfix has been handed since the beginning of a reign, so that a sidecar which is started again
// does not hand them over once more: what is for elsewhere would go out each time. It is not synced: a line that is lost
// costs a duplicate.
type list struct {
	mu    sync.Mutex
	file  *os.File
	known map[ID]bool
}

// openList reads what was noted in the reign that began with epoch first; an older file is begun anew.
func openList(path string, first uint64) (*list, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &list{file: f, known: make(map[ID]bool)}
	head := fmt.Sprintf("reign %d", first)
	lines := bufio.NewScanner(f)
	if lines.Scan() && lines.Text() == head {
		for lines.Scan() {
			if id, err := ParseID(lines.Text()); err == nil { // a line may be torn
				l.known[id] = true
			}
		}
	} else if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(head+"\n"), 0)
	}
	_, seek := f.Seek(0, io.SeekEnd)
	if err := errors.Join(err, seek, lines.Err()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *list) has(id ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[id]
}

func (l *list) add(id ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[id] = true
	_, err := l.file.WriteString(id.String() + "\n")
	return err
}

// close of none is nothing.
func (l *list) close() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}
