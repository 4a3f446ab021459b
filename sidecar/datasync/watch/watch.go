// Package watch tells which paths below a directory have changed, soon after they have settled, and never misses one: what it
// may have missed (a queue of the kernel's that ran over, a directory it could not watch) it reports as such, and the caller
// compares again.
//
// It stands on inotify(7) by way of fsnotify, which has neither recursion nor the closing of a file. So:
//
//   - A new directory is watched first and reported afterwards as a whole, so that what appeared in it before the watch is found
//     by whoever scans it then (lsyncd issue 226 is what becomes of the other order).
//   - A path is reported when nothing has happened to it for a moment, longer for one that has been written to for long; one that
//     is never left alone is reported all the same, every MostUnsettled. Whoever reads it must check that it did not change meanwhile.
//   - Directories move, and others take their places, before anybody has heard of it. fsnotify keeps its books by path and mixes the two up
//     then (1.10: two generations of a path, and a watch whose path is not where it is). So it is given each directory under a name that is
//     never used again (directories.go), and which path that is stands in our own books.
//   - The kernel keeps the order of events, over all directories. A file made in a directory of our own therefore says, once it is seen,
//     that everything from before has been seen: see Barrier.
package watch

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Own is the directory at the root that is never reported. Its directory barrier is the watcher's.
const Own = ".understudy"

const barriers = Own + "/barrier"

// Options are a watcher's. Their zero values are the defaults.
type Options struct {
	// Settle is how long nothing must have happened to a path. Default: 2 ms.
	Settle time.Duration
	// MostUnsettled is after which time a path is reported that is never left alone. Default: 5 s.
	MostUnsettled time.Duration
	// MostPending bounds the paths that wait. With more, everything counts as changed. Default: 100,000.
	MostPending int
	// LookAtRoot is how often it is checked that the root is still the same directory. Default: 2 s.
	LookAtRoot time.Duration
	// Skip says that a directory, by its path below the root, is none of ours. Nil: none is.
	Skip func(dir string) bool
}

// Changes are what has happened since the Changes before.
type Changes struct {
	// Paths have changed, appeared or gone, in the order in which they settled. They are relative to the root; "." is the root itself.
	Paths []string
	// Trees are directories that are new here with all that is in them.
	Trees []string
	// All: anything may have changed. Paths and Trees are empty then.
	All bool
	// Barrier is the newest barrier before which nothing is left out of this and all Changes before. Zero: there was none.
	Barrier uint64
}

func (c *Changes) empty() bool { return len(c.Paths)+len(c.Trees) == 0 && !c.All && c.Barrier == 0 }

// State is how well a watcher watches.
type State struct {
	Watched   int    // directories
	Unwatched int    // directories that could not be watched: only a comparison sees what happens there
	Why       string // of the newest one that could not be, for people
	Overflows int    // how often the kernel's queue ran over
}

// RootLostError says that the root is no longer the directory it was: unmounted, moved or removed.
type RootLostError struct {
	Root string
	Err  error // nil: another directory is there now
}

func (e *RootLostError) Error() string {
	if e.Err == nil {
		return e.Root + " is another directory than it was: something was mounted there, unmounted, or put in its place"
	}
	return fmt.Sprintf("%s is gone: %v", e.Root, e.Err)
}

func (e *RootLostError) Unwrap() error { return e.Err }

// Watcher watches one directory. Run must be called once.
type Watcher struct {
	root string
	o    Options
	log  *slog.Logger
	fs   *fsnotify.Watcher
	self os.FileInfo // of the root
	at   int         // descriptor of the root
	pump errgroup.Group
	errs chan error // the first of a kind

	// What follows belongs to Run.
	books books
	marks map[string]*mark
	queue marks
	wake  *time.Timer

	mu      sync.Mutex // guards what follows
	ready   Changes
	known   map[string]bool // what ready has
	state   State
	barrier uint64 // newest one asked for
	missed  map[string]string

	news  chan struct{} // has one element while ready is not empty
	flush chan struct{}
}

// New begins to watch root and everything below it; when it returns, no change from then on is missed. The caller compares the tree
// once after that. Directories that cannot be watched are no error, see State; a root that cannot be is.
func New(log *slog.Logger, root string, o Options) (*Watcher, error) {
	o.Settle = cmp.Or(o.Settle, 2*time.Millisecond)
	o.MostUnsettled = cmp.Or(o.MostUnsettled, 5*time.Second)
	o.MostPending = cmp.Or(o.MostPending, 100_000)
	o.LookAtRoot = cmp.Or(o.LookAtRoot, 2*time.Second)
	if o.Skip == nil {
		o.Skip = func(string) bool { return false }
	}
	self, err := os.Lstat(root)
	if err == nil && !self.IsDir() {
		err = &fs.PathError{Op: "watch", Path: root, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	notify, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", root, err)
	}
	w := &Watcher{
		root: filepath.Clean(root), o: o, log: log, fs: notify, self: self, at: -1, marks: map[string]*mark{}, known: map[string]bool{},
		missed: map[string]string{}, errs: make(chan error, 1), wake: time.NewTimer(time.Hour), news: make(chan struct{}, 1), flush: make(chan struct{}, 1),
	}
	w.pump.Go(w.takeErrors)
	if err := w.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", root, err), w.close())
	}
	return w, nil
}

// takeErrors passes errors on. fsnotify 1.10 waits for somebody to take one with its mutex held, which Add and Remove want, too.
func (w *Watcher) takeErrors() error {
	for err := range w.fs.Errors {
		if errors.Is(err, syscall.EINVAL) {
			continue // a watch that it removed was gone already
		}
		select {
		case w.errs <- err: // an overflow, nearly always; one that waits stands for all
		default:
		}
	}
	return nil
}

func (w *Watcher) close() error {
	err := errors.Join(w.fs.Close(), w.pump.Wait(), w.books.close())
	if w.at >= 0 {
		err = errors.Join(err, unix.Close(w.at))
	}
	return err
}

func (w *Watcher) begin() (err error) {
	if w.at, err = unix.Open(w.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	own := w.full(barriers)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	if err := w.fs.Add(own); err != nil { // it never moves
		return err
	}
	if w.books, err = newBooks(); err != nil {
		return err
	}
	if !w.add(".") || w.books.at["."] == nil {
		return errors.New(w.state.Why)
	}
	w.below(".")
	w.tellState()
	return nil
}

// full is the path of what lies at a path below the root.
func (w *Watcher) full(path string) string {
	if path == "." {
		return w.root
	}
	return w.root + "/" + path
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// Run watches until ctx ends, and then returns nil. Any other end is an error: RootLostError if the root is gone.
func (w *Watcher) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, w.close()) }()
	look := time.NewTicker(w.o.LookAtRoot)
	defer look.Stop()
	defer w.wake.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.fs.Events:
			if !ok {
				return errors.New("the watcher has ended by itself")
			}
			w.event(e)
		case err := <-w.errs:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch %s: %w", w.root, err)
			}
			w.overflow()
		case <-w.wake.C:
		case <-w.flush:
		case <-look.C:
			if err := w.lookAtRoot(); err != nil {
				return err
			}
		}
		w.settle(time.Now())
	}
}

func (w *Watcher) lookAtRoot() error {
	now, err := os.Lstat(w.root)
	if err != nil {
		return &RootLostError{w.root, err}
	}
	if !os.SameFile(now, w.self) {
		return &RootLostError{Root: w.root}
	}
	return nil
}

// overflow takes everything for changed. The watches may lack directories that appeared while nothing was told.
func (w *Watcher) overflow() {
	w.log.Warn("the kernel's queue of events ran over; everything is compared", "root", w.root)
	w.mu.Lock()
	w.state.Overflows++
	w.mu.Unlock()
	w.everything()
}

func (w *Watcher) everything() {
	w.dropAll()
	w.below(".")
	w.marks, w.queue = map[string]*mark{}, nil
	w.mu.Lock()
	w.ready = Changes{All: true, Barrier: w.barrier} // whose events may have been lost, too
	clear(w.known)
	w.mu.Unlock()
	w.tell()
}

// event takes one in.
func (w *Watcher) event(e fsnotify.Event) {
	if rest, ok := strings.CutPrefix(e.Name, w.full(barriers)+"/"); ok {
		if e.Has(fsnotify.Create) {
			w.passed(rest)
		}
		return
	}
	path, ok := w.books.resolve(e.Name)
	if !ok {
		return // of a directory that has been given up since; what it has become was looked at then
	}
	if path == Own || w.o.Skip(path) {
		return
	}
	tree := false
	if e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 {
		// Also if it is said to be gone: another may have come to its place by now.
		w.drop(path)
		if info, err := os.Lstat(w.full(path)); err == nil && info.IsDir() {
			w.add(path)
			w.below(path)
			tree = true
		}
	}
	w.mark(path, tree)
}

// tellState keeps the numbers that anybody may ask for.
func (w *Watcher) tellState() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Watched, w.state.Unwatched = len(w.books.at), len(w.missed)
	if len(w.missed) == 0 {
		w.state.Why = ""
	}
}

// State is how well it watches now.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Next waits for changes and takes them. It returns ctx's error when that ends first. One goroutine may wait at a time.
func (w *Watcher) Next(ctx context.Context) (Changes, error) {
	for {
		select {
		case <-ctx.Done():
			return Changes{}, ctx.Err()
		case <-w.news:
		}
		w.mu.Lock()
		got := w.ready
		w.ready = Changes{}
		clear(w.known)
		w.mu.Unlock()
		if !got.empty() {
			return got, nil
		}
	}
}

// tell wakes whoever waits in Next.
func (w *Watcher) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Barrier asks for a report of everything that has happened before: one of the next Changes has the number, or a higher one. What is not
// settled by then is reported as it is.
func (w *Watcher) Barrier() (uint64, error) {
	w.mu.Lock()
	w.barrier++
	n := w.barrier
	w.mu.Unlock()
	path := w.full(barriers + "/" + strconv.FormatUint(n, 10))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) { // of a process before this one
		if err = os.Remove(path); err == nil {
			f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("ask for a barrier: %w", err)
	}
	return n, errors.Join(f.Close(), os.Remove(path))
}

// passed notes that every event from before a barrier has been taken in, and makes all that waits due.
func (w *Watcher) passed(name string) {
	n, err := strconv.ParseUint(name, 10, 64)
	if err != nil {
		return // somebody else's file
	}
	w.mu.Lock()
	if n > w.barrier {
		w.mu.Unlock()
		return // of a process before this one
	}
	w.mu.Unlock()
	now := time.Now()
	for _, m := range slices.Clone(w.queue) {
		m.due = now
	}
	heap.Init(&w.queue)
	w.settle(now)
	w.mu.Lock()
	w.ready.Barrier = max(w.ready.Barrier, n)
	w.mu.Unlock()
	w.tell()
}
