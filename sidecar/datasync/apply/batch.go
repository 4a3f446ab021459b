//go:build linux

package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"understudy/sidecar/datasync/delta"
	"understudy/sidecar/datasync/tree"
)

// Batch is changes that become durable together. It is not one transaction: after a crash in the middle of Commit some of them are
// there, each of them whole.
type Batch struct {
	m     *Mirror
	steps []step
	files int // staged
	trash string
}

// step is one change, with its file staged.
type step struct {
	kind   stepKind
	entry  tree.Entry
	staged place  // where the content is; zero where there is none
	from   string // for taken: where it is now; for removed: nothing
	epoch  uint64 // for lost
}

type stepKind uint8

const (
	placed  stepKind = iota + 1 // a staged file, or a symbolic link
	made                        // a directory
	named                       // another name of a file
	set                         // metadata only
	taken                       // a file that lies elsewhere in the mirror
	removed                     // into the trash
	kept                        // into lost+found
)

// ErrContent says that what came is not what the entry says: the file changed under its reader, or the way was bad.
var ErrContent = errors.New("the content is not what was announced")

// Begin starts a batch. One is open at a time.
func (m *Mirror) Begin() *Batch {
	m.batches++
	return &Batch{m: m}
}

// Len is how many changes it has.
func (b *Batch) Len() int { return len(b.steps) }

// Put stages a file. Content must be e.Size bytes that hash to e.Hash, else it is ErrContent and nothing is staged.
func (b *Batch) Put(e tree.Entry, content io.Reader) error {
	if err := check(e, tree.File); err != nil {
		return err
	}
	return b.stage(e, func(w io.Writer) error {
		b.m.sum.Reset()
		n, err := io.CopyBuffer(onlyWriter{w}, io.TeeReader(io.LimitReader(content, e.Size+1), b.m.sum), b.m.buf)
		if err != nil {
			return err
		}
		if n != e.Size || tree.Hash(b.m.sum.Sum(nil)) != e.Hash {
			return fmt.Errorf("%w: %d bytes, of %d", ErrContent, n, e.Size)
		}
		return nil
	})
}

// onlyWriter hides what else a writer can do: io.CopyBuffer uses the buffer then.
type onlyWriter struct{ io.Writer }

// Patch stages a file whose content instructions make from the one that is there now. Errors are delta's, and ErrContent.
func (b *Batch) Patch(e tree.Entry, instructions io.Reader) error {
	if err := check(e, tree.File); err != nil {
		return err
	}
	old, err := b.Old(e.Path)
	if err != nil {
		return err
	}
	info, err := old.Stat()
	if err != nil {
		return errors.Join(err, old.Close())
	}
	err = b.stage(e, func(w io.Writer) error {
		r, err := delta.Patch(io.NewSectionReader(old, 0, info.Size()), instructions, w, e.Size)
		if err != nil {
			return err
		}
		if r.Size != e.Size || tree.Hash(r.Sum) != e.Hash {
			return fmt.Errorf("%w: %d bytes, of %d", ErrContent, r.Size, e.Size)
		}
		return nil
	})
	return errors.Join(err, old.Close())
}

// Old opens the version of a file that the mirror has.
func (b *Batch) Old(path string) (*os.File, error) {
	if err := valid(path); err != nil {
		return nil, err
	}
	f, err := b.m.open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it is no file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// stage writes a file's content and all that belongs to it. After an error it is gone.
func (b *Batch) stage(e tree.Entry, write func(io.Writer) error) (err error) {
	at := b.m.beside()
	f, err := at.create()
	if err != nil {
		return fmt.Errorf("stage %q: %w", e.Path, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fmt.Errorf("stage %q: %w", e.Path, err), at.remove())
		}
	}()
	sparse := &delta.Sparse{File: &early{File: f}}
	if e.Size < behindFrom {
		err = write(sparse)
	} else {
		later := writeBehind(sparse)
		err = write(later)
		err = errors.Join(err, later.end())
	}
	if err != nil {
		return err
	}
	if err := sparse.Finish(); err != nil {
		return err
	}
	if err := b.m.dress(int(f.Fd()), e, fresh); err != nil {
		return err
	}
	b.steps = append(b.steps, step{kind: placed, entry: e, staged: at})
	b.files++
	return nil
}

// Make adds a directory or a symbolic link, or another name of a file that has come already (e.Link). A directory that is there stays, with
// what lies in it.
func (b *Batch) Make(e tree.Entry) error {
	kind := made
	switch {
	case e.Kind == tree.File && e.Link != "":
		kind = named
	case e.Kind == tree.Symlink:
		kind = placed
	case e.Kind != tree.Directory:
		return fmt.Errorf("%q: a %v is not made, it comes with its content", e.Path, e.Kind)
	}
	if err := check(e, e.Kind); err != nil {
		return err
	}
	b.steps = append(b.steps, step{kind: kind, entry: e})
	return nil
}

// Set gives what is there the owner, mode, times and attributes of e.
func (b *Batch) Set(e tree.Entry) error {
	if err := check(e, e.Kind); err != nil {
		return err
	}
	b.steps = append(b.steps, step{kind: set, entry: e})
	return nil
}

// Take moves a file of the mirror, which has e's content, to where e says.
func (b *Batch) Take(from string, e tree.Entry) error {
	if err := errors.Join(check(e, tree.File), valid(from)); err != nil {
		return err
	}
	b.steps = append(b.steps, step{kind: taken, entry: e, from: from})
	return nil
}

// Remove puts what is at a path, and below it, into the trash. It may be gone already.
func (b *Batch) Remove(path string) error {
	if err := valid(path); err != nil {
		return err
	}
	b.steps = append(b.steps, step{kind: removed, entry: tree.Entry{Path: path}})
	return nil
}

// Keep puts what is at a path, and below it, into the lost+found of an epoch.
func (b *Batch) Keep(path string, epoch uint64) error {
	if err := valid(path); err != nil {
		return err
	}
	b.steps = append(b.steps, step{kind: kept, entry: tree.Entry{Path: path}, epoch: epoch})
	return nil
}

// Abandon throws away what was staged.
func (b *Batch) Abandon() error {
	var errs []error
	for _, s := range b.steps {
		if s.staged != (place{}) {
			errs = append(errs, s.staged.remove())
		}
	}
	b.steps, b.files = nil, 0
	return errors.Join(errs...)
}

// check refuses an entry that no tree has.
func check(e tree.Entry, kind tree.Kind) error {
	switch {
	case e.Kind != kind || e.Unsettled:
		return fmt.Errorf("%q: a settled %v is wanted, this is a %v", e.Path, kind, e.Kind)
	case e.Size < 0:
		return fmt.Errorf("%q has %d bytes", e.Path, e.Size)
	case e.Kind == tree.Directory && e.Path == ".":
		return nil
	case e.Kind == tree.Symlink && (e.Target == "" || strings.ContainsRune(e.Target, 0)):
		return fmt.Errorf("%q: a symbolic link to %q", e.Path, e.Target)
	case e.Link != "":
		return errors.Join(valid(e.Path), valid(e.Link))
	}
	return valid(e.Path)
}

// valid refuses paths that are none below the root, or are ours.
func valid(p string) error {
	if !tree.Valid(p) || p == "." || p == Own || strings.HasPrefix(p, Own+"/") {
		return fmt.Errorf("%q is no path of a mirror", p)
	}
	return nil
}
