//go:build linux

package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/sidecar/datasync/tree"
)

// few is how many files and directories are synced one by one. For more, one syncfs(2) is quicker; it also waits for what others have
// written to the file system.
const few = 4

// Commit makes the batch durable and visible, in the order in which its changes were added; directories get their times in the end. After
// an error some changes are there, and the mirror must be compared again.
func (b *Batch) Commit() (err error) {
	if len(b.steps) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.discard())
		}
	}()
	if err := b.syncStaged(); err != nil {
		return fmt.Errorf("make the staged files durable: %w", err)
	}
	touched := map[string]bool{} // directories whose names have changed
	for i := range b.steps {
		s := &b.steps[i]
		if err := b.do(s); err != nil {
			return fmt.Errorf("%q: %w", s.entry.Path, err)
		}
		s.staged = ""
		if s.kind != set {
			touched[path.Dir(s.entry.Path)] = true
		}
		if s.kind == taken {
			touched[path.Dir(s.from)] = true
		}
	}
	if err := b.dressDirectories(touched); err != nil {
		return err
	}
	if err := b.syncTouched(touched); err != nil {
		return fmt.Errorf("make the names durable: %w", err)
	}
	return nil
}

// discard throws away what is staged still.
func (b *Batch) discard() error {
	var errs []error
	for _, s := range b.steps {
		if s.staged != "" {
			errs = append(errs, b.m.root.Remove(s.staged))
		}
	}
	return errors.Join(errs...)
}

func (b *Batch) syncStaged() error {
	switch {
	case b.files == 0:
		return nil
	case b.files > few:
		return b.m.syncAll()
	}
	for _, s := range b.steps {
		if s.kind != placed || s.staged == "" {
			continue
		}
		f, err := b.m.root.OpenFile(s.staged, os.O_RDWR, 0)
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
func (b *Batch) syncTouched(touched map[string]bool) error {
	if len(touched) > few {
		return b.m.syncAll()
	}
	for dir := range touched {
		if err := syncDirectory(b.m.root, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
	if err := b.ready(s.entry.Path, false); err != nil {
		return err
	}
	if s.entry.Kind == tree.File {
		return b.m.root.Rename(s.staged, s.entry.Path)
	}
	b.m.next++
	name := staged + "/" + strconv.FormatUint(b.m.next, 10)
	if err := b.m.root.Symlink(s.entry.Target, name); err != nil {
		return err
	}
	if err := b.m.dressLink(name, s.entry); err != nil {
		return errors.Join(err, b.m.root.Remove(name))
	}
	return b.m.root.Rename(name, s.entry.Path)
}

// ready makes sure that a path can be taken: its parents are directories, and no directory is in its place. One that is, where it is
// not wanted, goes into the trash with all that lies in it.
func (b *Batch) ready(p string, directory bool) error {
	if err := b.parents(p); err != nil {
		return err
	}
	info, err := b.m.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || info.IsDir() == directory {
		return err
	}
	return b.away(p, b.trashDir())
}

func (b *Batch) makeDirectory(e tree.Entry) error {
	if e.Path == "." {
		return nil // only dressed
	}
	if err := b.ready(e.Path, true); err != nil {
		return err
	}
	if err := b.m.root.Mkdir(e.Path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	b.real[e.Path] = true
	return nil
}

// link gives a file another name, by way of a staged one, so that there is always something at the path.
func (b *Batch) link(e tree.Entry) error {
	if err := errors.Join(b.ready(e.Path, false), b.parents(e.Link)); err != nil {
		return err
	}
	b.m.next++
	name := staged + "/" + strconv.FormatUint(b.m.next, 10)
	if err := b.m.root.Link(e.Link, name); err != nil {
		return err
	}
	if err := b.m.root.Rename(name, e.Path); err != nil {
		return err
	}
	err := b.m.root.Remove(name) // rename(2) leaves it if both are the same file already
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (b *Batch) take(s *step) error {
	if err := errors.Join(b.ready(s.entry.Path, false), b.parents(s.from)); err != nil {
		return err
	}
	if err := b.m.root.Rename(s.from, s.entry.Path); err != nil {
		return err
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
func (b *Batch) away(p, to string) error {
	if err := b.parents(p); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if _, err := b.m.root.Lstat(p); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir := path.Join(to, path.Dir(p))
	if err := b.m.root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	target := path.Join(to, p)
	for n := 2; ; n++ {
		if _, err := b.m.root.Lstat(target); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		target = path.Join(to, p) + "~" + strconv.Itoa(n)
	}
	maps.DeleteFunc(b.real, func(dir string, _ bool) bool { return dir == p || strings.HasPrefix(dir, p+"/") })
	return b.m.root.Rename(p, target)
}

// dressDirectories gives directories their metadata when nothing happens in them any more, the deepest first. One whose names have
// changed and of which nothing was said has a new time now; the next comparison finds that.
func (b *Batch) dressDirectories(touched map[string]bool) error {
	said := map[string]tree.Entry{}
	for _, s := range b.steps {
		if s.entry.Kind == tree.Directory && (s.kind == made || s.kind == set) {
			said[s.entry.Path] = s.entry
		}
	}
	paths := slices.SortedFunc(maps.Keys(said), func(a, c string) int { return strings.Count(c, "/") - strings.Count(a, "/") })
	for _, p := range paths {
		if err := b.m.dressPath(said[p]); err != nil && !errors.Is(err, fs.ErrNotExist) { // it was removed by a later step
			return fmt.Errorf("%q: %w", p, err)
		}
		if p != "." {
			touched[p] = true
		}
	}
	return nil
}
