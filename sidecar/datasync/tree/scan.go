//go:build linux

package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Options may be zero.
type Options struct {
	Policy Policy
	Names  Names // nil: NewAccounts("/etc")
	// Readers is how many files are read at once, zero: 2. So many more wait open.
	Readers int
	// Verify reads every file, whatever the index says: see Problems.Rotten.
	Verify bool
}

// Scanner looks at one directory. Its methods may not run at once.
type Scanner struct {
	root    *os.File
	options Options
	reading func(path string) // tests: called after a file was read
}

// NewScanner works on an open directory, which stays the caller's and must stay open; from an *os.Root it is had by Open(".").
// No path leads out of it: every name is opened relative to the directory that holds it, by openat2(2), without following
// symlinks or entering mounts. Where the directory itself was moved to meanwhile does not matter.
func NewScanner(root *os.File, o Options) (*Scanner, error) {
	if err := o.Policy.Validate(); err != nil {
		return nil, err
	}
	if o.Names == nil {
		o.Names = NewAccounts("/etc")
	}
	if o.Readers <= 0 {
		o.Readers = 2
	}
	return &Scanner{root: root, options: o}, nil
}

// Extent is how much of a directory is looked at.
type Extent int

const (
	Itself  Extent = iota // a directory's own entry; of one that is not known, all
	Alone                 // the same; one that is not known is taken to be empty
	Listing               // and what lies right in it
	Subtree               // and all below
)

// Scan makes the tree of all there is. What previous knows is not read again; nil knows nothing. It changes neither the files
// nor previous. Whatever cannot be read is in the tree as Unsettled and among the problems; an error means that there is no
// tree: the root cannot be read, names cannot be found out, or the context ended.
func (s *Scanner) Scan(ctx context.Context, previous *Tree) (*Tree, Problems, error) {
	t := newTree()
	var old *node
	if previous != nil {
		old = previous.root
	}
	problems, err := s.walk(ctx, t, func(ctx context.Context, w *walker) error {
		root, err := w.root(ctx, old, Subtree)
		if err == nil {
			t.root = root
		}
		return err
	})
	if err != nil {
		return nil, problems, err
	}
	t.root.adopt()
	t.regroup(t.enlink(t.root))
	t.regrouped = nil
	return t, problems, nil
}

// Updated says what an update has looked at.
type Updated struct {
	// Top is the path: the one that was asked for, or the highest directory above it that the tree did not know, or that is not the one
	// any more that the tree knew. All below it was looked at then, too.
	Top      string
	Problems Problems
}

// Update looks at one path again and brings the tree up to date, in place, along with the directory around it and the other
// names of the same inode. What is gone is taken out; a directory that the tree does not know is scanned whole, whatever the
// extent, and so is the one around it where that is unknown, too. After an error the tree is as it was.
func (s *Scanner) Update(ctx context.Context, t *Tree, path string, extent Extent) (Updated, error) {
	return s.update(ctx, t, path, extent, nil)
}

// Adopt is Update for a file that the caller has just written: its content and attributes are believed, and not read.
func (s *Scanner) Adopt(ctx context.Context, t *Tree, e Entry) (Updated, error) {
	return s.update(ctx, t, e.Path, Itself, &e)
}

// Stat makes the entry of one path without a tree; a directory's Hash is zero then, and so is every Link. Nothing there:
// fs.ErrNotExist.
func (s *Scanner) Stat(ctx context.Context, path string) (Entry, error) {
	t := newTree()
	if !Valid(path) || s.options.Policy.Ignored(path) {
		return Entry{}, fmt.Errorf("look at %q: %w", path, fs.ErrNotExist)
	}
	var n *node
	_, err := s.walk(ctx, t, func(ctx context.Context, w *walker) (err error) {
		if path == "." {
			n, err = w.root(ctx, t.root, Itself)
			return err
		}
		dir, name := split(path)
		d, err := s.descend(dir)
		if err != nil {
			return fmt.Errorf("look at %q: %w", path, err)
		}
		defer d.Close()
		n, err = w.visit(ctx, int(d.Fd()), path, &node{name: name, kind: Directory}, Itself)
		return err
	})
	switch {
	case err != nil:
		return Entry{}, err
	case n == nil:
		return Entry{}, fmt.Errorf("look at %q: %w", path, fs.ErrNotExist)
	}
	return n.entry(path), nil
}

// Open opens a file of the tree for reading; what else lies at the path is fs.ErrNotExist. The time of access is left alone where the
// kernel lets us.
func (s *Scanner) Open(path string) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, fmt.Errorf("open %q: %w", path, err) }
	if !Valid(path) || path == "." || s.options.Policy.Ignored(path) {
		return fail(fs.ErrNotExist)
	}
	dir, name := split(path)
	d, err := s.descend(dir)
	if err != nil {
		return fail(err)
	}
	defer d.Close()
	f, err := openFile(int(d.Fd()), name)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a symlink, a socket
		err = fs.ErrNotExist
	}
	if err != nil {
		return fail(err)
	}
	st, err := statOpen(int(f.Fd()))
	if err == nil && kindOf(st) != File {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fail(errors.Join(err, f.Close()))
	}
	return f, nil
}

func (s *Scanner) update(ctx context.Context, t *Tree, path string, extent Extent, known *Entry) (Updated, error) {
	if !Valid(path) {
		return Updated{}, fmt.Errorf("look at %q: not a path within the tree", path)
	}
	if s.options.Policy.Ignored(path) {
		return Updated{Top: path}, nil
	}
	for dir, _ := split(path); dir != "" && dir != "."; dir, _ = split(dir) {
		if n := t.at(dir); n == nil || n.kind != Directory || n.has(unsettled) {
			path, extent, known = dir, Subtree, nil
		}
	}
	if path == "." {
		problems, err := s.updateRoot(ctx, t, extent)
		return Updated{path, problems}, err
	}
	dir, name := split(path)
	d, err := s.descend(dir)
	if err != nil { // something else came in the place of a directory above
		return s.update(ctx, t, dir, Subtree, nil)
	}
	defer d.Close()
	parent := t.at(dir)
	var n *node
	problems, err := s.walk(ctx, t, func(ctx context.Context, w *walker) (err error) {
		w.known = known
		n, err = w.visit(ctx, int(d.Fd()), path, parent.child(name), extent)
		return err
	})
	if err != nil {
		return Updated{path, problems}, err
	}
	left := t.graft(parent, name, n)
	if err := s.retouch(t, parent, d); err != nil {
		return Updated{path, problems}, err
	}
	for _, inode := range left {
		if names := t.inodes[inode]; len(names) > 0 {
			if err := s.lookAgain(ctx, t, names[0]); err != nil {
				return Updated{path, problems}, err
			}
		}
	}
	return Updated{path, problems}, nil
}

// lookAgain looks at a name of an inode of which another name has gone.
func (s *Scanner) lookAgain(ctx context.Context, t *Tree, n *node) error {
	path, before := n.path(), n.identity()
	if _, err := s.update(ctx, t, path, Itself, nil); err != nil {
		return err
	}
	if n := t.at(path); n != nil && n.identity() != before {
		t.note(n)
	}
	return nil
}

// retouch brings a directory's own entry up to date: its mtime changes with every name in it.
func (s *Scanner) retouch(t *Tree, dir *node, d *os.File) error {
	w := newWalker(s, t)
	now, err := w.directory(d, dir, clock())
	if err != nil {
		return nil // it is going away, of which we shall hear
	}
	now.name, now.parent, now.flags = dir.name, dir.parent, now.flags|stale
	now.extra().children = dir.children()
	dir.touch()
	*dir = *now
	return nil
}

func (s *Scanner) updateRoot(ctx context.Context, t *Tree, extent Extent) (Problems, error) {
	var root *node
	problems, err := s.walk(ctx, t, func(ctx context.Context, w *walker) (err error) {
		root, err = w.root(ctx, t.root, extent)
		return err
	})
	if err != nil {
		return problems, err
	}
	touched := t.unlink(t.root)
	t.root, t.entries = root, 0
	root.adopt()
	t.regroup(append(touched, t.enlink(root)...))
	return problems, nil
}

// descend opens a directory of the tree, name by name: a path may be longer than one call takes.
func (s *Scanner) descend(path string) (*os.File, error) {
	dir, err := openDir(int(s.root.Fd()), ".")
	for rest := path; err == nil && rest != "." && rest != ""; {
		name := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			name, rest = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		above := dir
		dir, err = openDir(int(above.Fd()), name)
		above.Close()
	}
	return dir, err
}

// walk waits for the readers that a walk needs.
func (s *Scanner) walk(ctx context.Context, t *Tree, visit func(context.Context, *walker) error) (Problems, error) {
	if err := s.options.Names.Refresh(); err != nil {
		return Problems{}, err
	}
	w := newWalker(s, t)
	w.readers, ctx = errgroup.WithContext(ctx)
	err := visit(ctx, w)
	if w.jobs == nil { // most walks of one path read nothing
		return w.problems, err
	}
	close(w.jobs)
	err = errors.Join(err, w.readers.Wait())
	for j := range w.jobs { // what no reader took
		err = errors.Join(err, j.file.Close())
	}
	return w.problems, err
}

// walker is one walk.
type walker struct {
	*Scanner
	device   uint64
	accounts map[[2]uint32]*account
	tree     *Tree
	readers  *errgroup.Group
	jobs     chan job        // nil: there are no readers
	handed   map[uint64]bool // inodes with several names that were given to the readers
	known    *Entry          // see Adopt
	buf      []byte
	depth    int

	mu       sync.Mutex // of what follows
	problems Problems
}

func newWalker(s *Scanner, t *Tree) *walker {
	return &walker{Scanner: s, tree: t, accounts: map[[2]uint32]*account{}}
}

// start starts the readers.
func (w *walker) start(ctx context.Context) {
	if w.jobs != nil {
		return
	}
	w.jobs, w.handed = make(chan job, w.options.Readers), map[uint64]bool{}
	for range w.options.Readers {
		w.readers.Go(func() error { return w.readAll(ctx) })
	}
}

func (w *walker) problem(path, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems.add(path, why)
}

func (w *walker) rotten(path, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems.add(path, why)
	w.problems.Rotten = append(w.problems.Rotten, path)
}
