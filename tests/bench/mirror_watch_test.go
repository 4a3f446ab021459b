//go:build linux

package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inotify is a watch of the benchmark itself, see inotify(7).
type inotify struct {
	b   *testing.B
	fd  int
	buf [64 << 10]byte
}

// watch tells of files that appear in directories whole: by a rename, or when who wrote them has closed them.
func watch(b *testing.B, dirs ...string) *inotify {
	b.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			b.Error(err)
		}
	})
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO); err != nil {
			b.Fatalf("watch %s: %v", dir, err)
		}
	}
	return &inotify{b: b, fd: fd}
}

// read waits for names. None: there was nothing within the time. Over: the kernel has dropped some.
func (w *inotify) read(within time.Duration) (names []string, over bool) {
	w.b.Helper()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(within.Milliseconds())); err != nil && err != unix.EINTR {
		w.b.Fatal(err)
	}
	n, err := unix.Read(w.fd, w.buf[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil, false
	}
	if err != nil {
		w.b.Fatal(err)
	}
	for b := w.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:length], []byte{0})
		names = append(names, string(name))
		over = over || binary.NativeEndian.Uint32(b[4:])&unix.IN_Q_OVERFLOW != 0
		b = b[length:]
	}
	return names, over
}

// ranOver reads what was queued and tells whether that was all but not everything.
func (w *inotify) ranOver() bool {
	w.b.Helper()
	for {
		names, over := w.read(0)
		if over || len(names) == 0 {
			return over
		}
	}
}

// arrivals notes when files of one directory have become the same in the mirror. The kernel tells of a file; a look at it tells
// whether it is the same.
type arrivals struct {
	*inotify
	m  *mirrors
	at map[string]time.Time // zero: not yet
}

func (m *mirrors) arrivals() *arrivals {
	m.b.Helper()
	return &arrivals{inotify: watch(m.b, m.mirror), m: m, at: map[string]time.Time{}}
}

// await looks until a moment, or until everything has arrived if that is asked for.
func (a *arrivals) await(until time.Time, all bool) {
	a.b.Helper()
	missing := 0
	for _, at := range a.at {
		if at.IsZero() {
			missing++
		}
	}
	for left := time.Until(until); left > 0 && (missing > 0 || !all); left = time.Until(until) {
		names, over := a.read(left)
		if over {
			a.b.Fatal("the kernel has dropped what the benchmark was to see")
		}
		for _, name := range names {
			if at, mine := a.at[name]; mine && at.IsZero() && same(filepath.Join(a.m.source, name), filepath.Join(a.m.mirror, name)) == nil {
				a.at[name] = time.Now()
				missing--
			}
		}
	}
}

// arrived writes single files and returns how long each took to be the same in the mirror.
func (m *mirrors) arrived() (took []time.Duration) {
	m.b.Helper()
	a := m.arrivals()
	closed := map[string]time.Time{}
	for i := range singles {
		name := fmt.Sprintf("single%03d", i)
		a.at[name] = time.Time{}
		m.put(name, small(i))
		closed[name] = time.Now()
		a.await(closed[name].Add(singleEvery), false)
	}
	a.await(time.Now().Add(patience), true)
	for name, at := range a.at {
		if at.IsZero() {
			m.b.Fatalf("%s has not arrived within %v", name, patience)
		}
		took = append(took, at.Sub(closed[name]))
	}
	return took
}

// promised writes single files and returns how long each took until the side said that it was durable, if that was true.
func (m *mirrors) promised(side promiser) (took []time.Duration) {
	m.b.Helper()
	for i := range singles {
		name := fmt.Sprintf("single%03d", i)
		m.put(name, small(i))
		closed := time.Now()
		side.durable(m)
		took = append(took, time.Since(closed))
		if err := same(filepath.Join(m.source, name), filepath.Join(m.mirror, name)); err != nil {
			m.b.Fatalf("it was promised to be durable on the mirror: %v", err)
		}
		<-time.After(time.Until(closed.Add(singleEvery)))
	}
	return took
}

// directories are those in a tree, itself too.
func directories(b *testing.B, root string) (dirs []string) {
	b.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return dirs
}

// thorough says how trees are compared.
type thorough int

const (
	sizes    thorough = iota // names, kinds, permissions, sizes and times of change of files, to the second
	contents                 // these and every byte
)

// own are names that sides keep for themselves in what they mirror.
var own = []string{".understudy", ".stfolder"}

// alike returns the first difference that it finds.
func alike(source, mirror string, how thorough) error {
	there, err := names(source)
	if err != nil {
		return err
	}
	here, err := names(mirror)
	if err != nil {
		return err
	}
	if extra := len(here) - len(there); extra > 0 {
		return fmt.Errorf("the mirror has %d files and directories too many", extra)
	}
	for name, a := range there {
		b := here[name]
		switch {
		case b == nil:
			return fmt.Errorf("%s is missing", name)
		case a.Mode() != b.Mode():
			return fmt.Errorf("%s is %v, want %v", name, b.Mode(), a.Mode())
		case a.IsDir():
		case a.Size() != b.Size() || a.ModTime().Unix() != b.ModTime().Unix():
			return fmt.Errorf("%s has %d bytes of %v, want %d of %v", name, b.Size(), b.ModTime(), a.Size(), a.ModTime())
		case how == contents:
			if err := same(filepath.Join(source, name), filepath.Join(mirror, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// names reads a tree. What vanishes meanwhile is not there.
func names(root string) (map[string]fs.FileInfo, error) {
	all := map[string]fs.FileInfo{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if slices.Contains(own, d.Name()) {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err == nil {
			all[strings.TrimPrefix(path, root)] = info
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return all, err
}

// same compares two files.
func same(source, mirror string) error {
	a, err := os.Open(source)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(mirror)
	if err != nil {
		return err
	}
	defer b.Close()
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, x)
		k, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:k]) {
			return fmt.Errorf("%s is another file than %s", mirror, source)
		}
		ended := errA == io.EOF || errA == io.ErrUnexpectedEOF
		switch {
		case ended && (errB == io.EOF || errB == io.ErrUnexpectedEOF):
			return nil
		case errA != nil && !ended:
			return errA
		case errB != nil:
			return errB
		}
	}
}
