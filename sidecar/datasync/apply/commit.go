//go:build linux

package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"understudy/sidecar/datasync/tree"
)

// few is how many files and directories are synced one by one. For more, one syncfs(2) is quicker; it also waits for what others have
// written to the file system.
const few = 4

// Failure is a change that could not be made, because of what lies in its place or does not lie where it should.
type Failure struct {
	Path string
	Err  error
}

// Commit makes the batch visible and durable: Apply and Settle. Failures are errors.
func (b *Batch) Commit() error {
	failures, err := b.Apply()
	for _, f := range failures {
		err = errors.Join(err, fmt.Errorf("%q: %w", f.Path, f.Err))
	}
	if err != nil {
		return err
	}
	return b.m.Settle()
}

// Bulky says that Apply makes everything before the batch durable, too.
func (b *Batch) Bulky() bool { return b.files > few }

// Apply makes the batch visible, in the order in which its changes were added; directories get their times in the end. The files' content is
// durable before they get their names; the names themselves need Settle. A change that cannot be made where it should be is left out, and
// told. After an error some changes are there, and the mirror must be compared again.
func (b *Batch) Apply() (failures []Failure, err error) {
	if len(b.steps) == 0 {
		return nil, nil
	}
	defer func() { err = errors.Join(err, b.Abandon()) }()
	if err := b.syncStaged(); err != nil {
		return nil, fmt.Errorf("make the staged files durable: %w", err)
	}
	touched := b.m.touched // directories whose names have changed
	for i := range b.steps {
		s := &b.steps[i]
		if err := b.do(s); out(err) {
			failures = append(failures, Failure{s.entry.Path, err})
			continue
		} else if err != nil {
			return failures, fmt.Errorf("%q: %w", s.entry.Path, err)
		}
		s.staged = place{}
		if s.kind != set {
			touched[path.Dir(s.entry.Path)] = true
		}
		if s.kind == taken {
			touched[path.Dir(s.from)] = true
		}
	}
	more, err := b.dressDirectories(touched)
	return append(failures, more...), err
}

// out says that an error is about one path, and no reason to end.
func out(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.EXDEV, syscall.ENAMETOOLONG, syscall.EBUSY,
		syscall.EPERM, syscall.EMLINK, errKind} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Settle makes the names of all batches that were applied durable.
func (m *Mirror) Settle() error {
	if err := m.syncTouched(); err != nil {
		return fmt.Errorf("make the names durable: %w", err)
	}
	clear(m.touched)
	return nil
}

func (b *Batch) syncStaged() error {
	switch {
	case b.files == 0:
		return nil
	case b.Bulky():
		err := b.m.syncAll()
		if err == nil {
			clear(b.m.touched)
		}
		return err
	}
	for _, s := range b.steps {
		if s.staged == (place{}) {
			continue
		}
		f, err := openBeneath(s.staged.dir, s.staged.name, unix.O_RDWR)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// syncTouched makes names durable. A directory that is gone by now needs none.
func (m *Mirror) syncTouched() error {
	if len(m.touched) > few {
		return m.syncAll()
	}
	for dir := range m.touched {
		if err := syncDirectory(m.root, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// do carries one change out.
func (b *Batch) do(s *step) error {
	switch s.kind {
	case placed:
		return b.place(s)
	case made:
		return b.makeDirectory(s.entry)
	case named:
		return b.link(s.entry)
	case set:
		if s.entry.Kind == tree.Directory {
			return nil // in the end
		}
		return b.m.dressPath(s.entry)
	case taken:
		return b.take(s)
	case removed:
		return b.away(s.entry.Path, b.trashDir())
	case kept:
		return b.away(s.entry.Path, lost+"/"+strconv.FormatUint(s.epoch, 10))
	}
	panic(fmt.Sprintf("a step of kind %d", s.kind))
}

// place gives a staged file, or a symbolic link, its name.
func (b *Batch) place(s *step) error {
	to, err := b.ready(s.entry.Path, false)
	if err != nil {
		return err
	}
	if s.entry.Kind == tree.File {
		return s.staged.rename(to)
	}
	at := b.m.beside()
	if err := at.fail("symlink", unix.Symlinkat(s.entry.Target, at.dir, at.name)); err != nil {
		return err
	}
	if err := errors.Join(b.m.dressLink(at, s.entry)); err != nil {
		return errors.Join(err, at.remove())
	}
	return at.rename(to)
}

// ready makes sure that a path can be taken: its parents are directories, and no directory is in its place. One that is, where it is
// not wanted, goes into the trash with all that lies in it.
func (b *Batch) ready(p string, directory bool) (place, error) {
	to, err := b.m.at(p)
	if err != nil {
		return to, err
	}
	st, err := to.stat()
	if errors.Is(err, fs.ErrNotExist) {
		return to, nil
	}
	if err != nil || isDir(st) == directory {
		return to, err
	}
	if err := b.away(p, b.trashDir()); err != nil {
		return to, err
	}
	return b.m.at(p)
}

func (b *Batch) makeDirectory(e tree.Entry) error {
	if e.Path == "." {
		return nil // only dressed
	}
	to, err := b.ready(e.Path, true)
	if err != nil {
		return err
	}
	err = to.fail("mkdir", unix.Mkdirat(to.dir, to.name, 0o700))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// link gives a file another name, by way of a staged one, so that there is always something at the path.
func (b *Batch) link(e tree.Entry) error {
	from, err := b.m.at(e.Link)
	if err != nil {
		return err
	}
	at := b.m.beside()
	if err := from.fail("link", unix.Linkat(from.dir, from.name, at.dir, at.name, 0)); err != nil {
		return err
	}
	to, err := b.ready(e.Path, false)
	if err == nil {
		err = at.rename(to)
	}
	if left := at.remove(); !errors.Is(left, fs.ErrNotExist) { // rename(2) leaves it if both are the same file already
		err = errors.Join(err, left)
	}
	return err
}

func (b *Batch) take(s *step) error {
	from, err := b.m.at(s.from)
	if err != nil {
		return err
	}
	at := b.m.beside()
	if err := from.rename(at); err != nil {
		return err
	}
	to, err := b.ready(s.entry.Path, false)
	if err == nil {
		err = at.rename(to)
	}
	if err != nil {
		return errors.Join(err, at.remove()) // the source has it
	}
	return b.m.dressPath(s.entry)
}

// trashDir is where the batch's rubbish goes: its name says when.
func (b *Batch) trashDir() string {
	if b.trash == "" {
		b.trash = fmt.Sprintf("%s/%s-%d", trash, time.Now().UTC().Format(trashTime), b.m.batches)
	}
	return b.trash
}

// away moves a path below a directory of ours, under the path that it had. What is there from an earlier batch of the same name stays.
func (b *Batch) away(p, under string) error {
	from, err := b.m.at(p)
	if err == nil {
		_, err = from.stat()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := b.m.root.MkdirAll(path.Join(under, path.Dir(p)), 0o700); err != nil {
		return err
	}
	dir, err := b.m.open(path.Join(under, path.Dir(p)), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	to := place{int(dir.Fd()), path.Base(p), path.Join(under, p)}
	for n := 2; ; n++ {
		free, err := to.empty()
		if err != nil {
			return err
		}
		if free {
			break
		}
		base := path.Base(p)
		to.name = base[:min(len(base), 240)] + "~" + strconv.Itoa(n) // names have at most 255 bytes
	}
	if err := from.rename(to); err != nil {
		return err
	}
	b.m.forget()
	return nil
}

// dressDirectories gives directories their metadata when nothing happens in them any more, the deepest first. One whose names have
// changed and of which nothing was said has a new time now; the next comparison finds that.
func (b *Batch) dressDirectories(touched map[string]bool) (failures []Failure, err error) {
	said := map[string]tree.Entry{}
	for _, s := range b.steps {
		if s.entry.Kind == tree.Directory && (s.kind == made || s.kind == set) {
			said[s.entry.Path] = s.entry
		}
	}
	paths := slices.SortedFunc(maps.Keys(said), func(a, c string) int { return strings.Count(c, "/") - strings.Count(a, "/") })
	for _, p := range paths {
		if err := b.m.dressPath(said[p]); out(err) {
			failures = append(failures, Failure{p, err})
			continue
		} else if err != nil {
			return failures, fmt.Errorf("%q: %w", p, err)
		}
		if p != "." {
			touched[p] = true
		}
	}
	return failures, nil
}
