//go:build linux

// Package disturb changes directories at random, for the tests of the packages around it. It follows no symbolic link out of its root: those
// that it makes lead nowhere.
package disturb

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// names are few, so that edits meet; none is harmless to all programs.
var names = []string{"a", "b", "c", "line\nbreak", "\xff\xfe", "-rf", strings.Repeat("n", 255)}

// Path is one below root, at most three levels deep, at which there may be something.
func Path(r *rand.Rand, root string) string {
	p := root
	for range 1 + r.IntN(3) {
		p += "/" + names[r.IntN(len(names))]
	}
	return p
}

// Edit does one thing to what lies below root, as its users may. What cannot be done at a place is no edit. Large is up to how many bytes
// files have.
func Edit(r *rand.Rand, root string, large int) {
	at, to := Path(r, root), Path(r, root)
	info, err := os.Lstat(at)
	file := err == nil && info.Mode().IsRegular()
	switch r.IntN(13) {
	case 0, 1, 2:
		if file || err != nil {
			_ = os.WriteFile(at, bytes.Repeat([]byte{byte(r.IntN(3)), byte(r.IntN(3))}, r.IntN(1+large/2)), 0o644)
		}
	case 3, 4:
		_ = os.MkdirAll(at, 0o755)
	case 5:
		_ = os.Symlink("/nowhere/"+names[r.IntN(3)], at)
	case 6:
		if file {
			_ = os.Link(at, to)
		}
	case 7:
		_ = os.RemoveAll(at)
	case 8:
		_ = os.Rename(at, to)
	case 9:
		if err == nil && info.Mode()&os.ModeSymlink == 0 {
			_ = os.Chown(at, r.IntN(3), 40000+r.IntN(2))
			_ = unix.Chmod(at, uint32(0o700|r.IntN(0o10000)))
		}
	case 10:
		if err == nil && info.Mode()&os.ModeSymlink == 0 {
			_ = unix.Setxattr(at, "user."+names[r.IntN(3)], []byte{byte(r.IntN(9))}, 0)
		}
	case 11:
		if file {
			overwrite(r, at, info.Size())
		}
	case 12:
		if err == nil && info.Mode()&os.ModeSymlink == 0 {
			_ = os.Chtimes(at, time.Time{}, time.Unix(r.Int64N(2e9)-1e6, r.Int64N(1e9)))
		}
	}
}

// overwrite changes a part of a file in place, or cuts it.
func overwrite(r *rand.Rand, at string, size int64) {
	f, err := os.OpenFile(at, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if r.IntN(4) == 0 {
		_ = f.Truncate(r.Int64N(size*2 + 1))
		return
	}
	_, _ = f.WriteAt(bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(5000)), r.Int64N(size+1))
}
