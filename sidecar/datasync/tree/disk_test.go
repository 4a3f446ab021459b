//go:build linux

package tree

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// numbers are Names without names.
type numbers struct{}

func (numbers) Refresh() error          { return nil }
func (numbers) Owner(uid uint32) string { return fmt.Sprint("#", uid) }
func (numbers) Group(gid uint32) string { return fmt.Sprint("#", gid) }

func scanner(t testing.TB, root string, o Options) *Scanner {
	t.Helper()
	d, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if o.Names == nil {
		o.Names = numbers{}
	}
	s, err := NewScanner(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func scan(t interface {
	Helper()
	Fatalf(string, ...any)
}, s *Scanner, previous *Tree) *Tree {
	t.Helper()
	got, problems, err := s.Scan(background, previous)
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	if problems.Count > 0 {
		t.Fatalf("scan: %v", problems.List)
	}
	return got
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// age makes the times of everything old enough not to be racy; only waiting does that for ctimes.
func age() { time.Sleep(2*tick + 5*time.Millisecond) }

var oddNames = []string{"a", "b", "c", "d", "line\nbreak", "\xff\xfe not UTF-8", " ", "-rf", "*", strings.Repeat("n", 255)}

// editor changes a directory at random.
type editor struct {
	t      *rapid.T
	root   string
	xattrs bool
}

// paths are those in the directory, and new ones beside them.
func (e *editor) existing(only func(fs.DirEntry) bool) []string {
	var all []string
	err := filepath.WalkDir(e.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == e.root {
			return err
		}
		if only(d) {
			all = append(all, p[len(e.root)+1:])
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func (e *editor) any() string {
	return pick(e.t, e.existing(func(fs.DirEntry) bool { return true }))
}

func pick(t *rapid.T, all []string) string {
	if len(all) == 0 {
		return ""
	}
	return rapid.SampledFrom(all).Draw(t, "path")
}

func (e *editor) fresh() string {
	dirs := append(e.existing(fs.DirEntry.IsDir), ".")
	dirs = slices.DeleteFunc(dirs, func(p string) bool { return strings.Count(p, "/") > 3 })
	return join(rapid.SampledFrom(dirs).Draw(e.t, "dir"), rapid.SampledFrom(oddNames).Draw(e.t, "name"))
}

// edit does one thing and returns the paths that a watcher would name.
func (e *editor) edit() []string {
	full := func(p string) string { return e.root + "/" + p }
	path := e.fresh()
	info, statErr := os.Lstat(full(path))
	switch rapid.SampledFrom([]string{"write", "write", "write", "mkdir", "mkdir", "symlink", "link", "link", "remove", "rename", "mode", "time", "owner", "xattr", "append", "sparse"}).Draw(e.t, "edit") {
	case "write":
		if statErr != nil || info.Mode().IsRegular() {
			e.must(os.WriteFile(full(path), []byte(rapid.SampledFrom([]string{"", "one", "two", "some more"}).Draw(e.t, "content")), 0o644))
			return []string{path}
		}
	case "sparse":
		if statErr != nil {
			e.must(os.WriteFile(full(path), nil, 0o600))
			e.must(os.Truncate(full(path), 1<<20))
			return []string{path}
		}
	case "mkdir":
		if statErr != nil {
			e.must(os.Mkdir(full(path), 0o755))
			return []string{path}
		}
	case "symlink":
		if statErr != nil {
			e.must(os.Symlink(rapid.SampledFrom([]string{"nowhere", "/etc", "..", "a", "\xff\n"}).Draw(e.t, "target"), full(path)))
			return []string{path}
		}
	case "link":
		old := pick(e.t, e.existing(func(d fs.DirEntry) bool { return !d.IsDir() }))
		if statErr != nil && old != "" {
			e.must(os.Link(full(old), full(path)))
			return []string{path}
		}
	case "remove":
		if old := e.any(); old != "" {
			e.must(os.RemoveAll(full(old)))
			return []string{old}
		}
	case "rename":
		if old := e.any(); old != "" && statErr != nil && !strings.HasPrefix(path, old) {
			e.must(os.Rename(full(old), full(path)))
			return []string{path, old}
		}
	default:
		return e.describe(full)
	}
	return nil
}

// describe changes what is not content; of symlinks and files alike.
func (e *editor) describe(full func(string) string) []string {
	path := pick(e.t, e.existing(func(d fs.DirEntry) bool { return d.Type()&fs.ModeSymlink == 0 }))
	if path == "" {
		return nil
	}
	switch rapid.IntRange(0, 3).Draw(e.t, "what") {
	case 0:
		e.must(unix.Chmod(full(path), rapid.SampledFrom([]uint32{0o4755, 0o2750, 0o1777, 0o600, 0o700}).Draw(e.t, "mode")))
	case 1:
		e.must(os.Chtimes(full(path), time.Time{}, time.Unix(rapid.Int64Range(-10, 1<<31).Draw(e.t, "seconds"), 123456789)))
	case 2:
		if os.Geteuid() == 0 {
			e.must(os.Lchown(full(path), rapid.IntRange(0, 3).Draw(e.t, "uid"), rapid.IntRange(0, 3).Draw(e.t, "gid")))
		}
	case 3:
		if e.xattrs {
			e.must(unix.Setxattr(full(path), rapid.SampledFrom([]string{"user.one", "user.two"}).Draw(e.t, "xattr"), []byte("v\x00"), 0))
		}
	}
	return []string{path}
}

func (e *editor) must(err error) {
	if err != nil {
		e.t.Fatal(err)
	}
}

// hasXattrs says so loudly where the filesystem of the tests has none: nothing about them is shown then.
func hasXattrs(t testing.TB, dir string) bool {
	err := unix.Setxattr(dir, "user.try", []byte("1"), 0)
	if err != nil {
		t.Logf("!!! NO EXTENDED ATTRIBUTES in %s (%v): they are not tested; set TMPDIR to an ext4, xfs or btrfs", dir, err)
		return false
	}
	if err := unix.Removexattr(dir, "user.try"); err != nil {
		t.Fatal(err)
	}
	return true
}

// applier does what a Plan says, in the plainest way.
type applier struct{ source, mirror string }

func (a applier) apply(p Plan) error {
	for _, op := range p.Ops {
		if err := a.do(op); err != nil {
			return fmt.Errorf("%d %q: %w", op.Action, op.Entry.Path, err)
		}
	}
	for _, e := range p.Deletions {
		if err := os.RemoveAll(a.mirror + "/" + e.Path); err != nil {
			return err
		}
	}
	for _, e := range p.Directories {
		if err := a.describe(e); err != nil {
			return fmt.Errorf("describe %q: %w", e.Path, err)
		}
	}
	return nil
}

func (a applier) do(op Op) error {
	at := a.mirror + "/" + op.Entry.Path
	if op.Replaces || op.Action == Point || op.Action == Join || op.Action == Write {
		// A directory goes only where that was announced.
		remove := os.Remove
		if op.Replaces {
			remove = os.RemoveAll
		}
		if err := remove(at); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	switch op.Action {
	case Make:
		return os.Mkdir(at, 0o700)
	case Write:
		content, err := os.ReadFile(a.source + "/" + op.Entry.Path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(at, content, 0o600); err != nil {
			return err
		}
	case Point:
		if err := os.Symlink(op.Entry.Target, at); err != nil {
			return err
		}
	case Join:
		return os.Link(a.mirror+"/"+op.Entry.Link, at)
	}
	return a.describe(op.Entry)
}

func (a applier) describe(e Entry) error {
	at := a.mirror + "/" + e.Path
	uid, err := strconv.Atoi(e.Owner[1:])
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(e.Group[1:])
	if err != nil {
		return err
	}
	if err := os.Lchown(at, uid, gid); err != nil {
		return err
	}
	if e.Kind != Symlink {
		if err := unix.Chmod(at, uint32(e.Mode)); err != nil {
			return err
		}
		for _, name := range []string{"user.one", "user.two"} {
			if err := unix.Removexattr(at, name); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
				return err
			}
		}
		for _, x := range e.Xattrs {
			if err := unix.Setxattr(at, x.Name, []byte(x.Value), 0); err != nil {
				return err
			}
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(e.MTime)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, times, unix.AT_SYMLINK_NOFOLLOW)
}
