package watch

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// books say which directory fsnotify knows by which name. A name is a number in a directory of ours: a symbolic link that exists only
// while the watch is being added.
type books struct {
	names string // the directory of names
	next  uint64
	at    map[string]*dir // by path below the root
	by    map[string]*dir // by name
	is    map[inode]*dir
}

// dir is a directory that is watched.
type dir struct {
	path, name string
	inode      inode
}

type inode struct{ dev, ino uint64 }

func newBooks() (books, error) {
	names, err := os.MkdirTemp("", "understudy-watch-")
	return books{names: names, at: map[string]*dir{}, by: map[string]*dir{}, is: map[inode]*dir{}}, err
}

func (b *books) close() error {
	if b.names == "" {
		return nil
	}
	return os.RemoveAll(b.names)
}

// resolve is the path that an event tells of; false: the directory has been given up.
func (b *books) resolve(event string) (string, bool) {
	rest, ok := strings.CutPrefix(event, b.names+"/")
	if !ok {
		return "", false
	}
	name, below, _ := strings.Cut(rest, "/")
	d := b.by[name]
	switch {
	case d == nil:
		return "", false
	case below != "":
		return join(d.path, below), true
	}
	return ".", d.path == "." // others are told of by the directory they lie in
}

func (b *books) remove(d *dir) {
	if b.at[d.path] == d {
		delete(b.at, d.path)
	}
	delete(b.by, d.name)
	if b.is[d.inode] == d {
		delete(b.is, d.inode)
	}
}

// below watches all directories in a watched one that are not watched yet. Each is watched before it is read.
func (w *Watcher) below(dir string) {
	todo := []string{dir}
	for len(todo) > 0 {
		dir, todo = todo[len(todo)-1], todo[:len(todo)-1]
		entries, err := os.ReadDir(w.full(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			w.cannot(dir, err)
		}
		for _, e := range entries {
			if path := join(dir, e.Name()); e.IsDir() && path != Own && !w.o.Skip(path) && w.add(path) {
				todo = append(todo, path)
			}
		}
	}
}

// add watches one directory, and says whether there is one.
func (w *Watcher) add(path string) bool {
	fd, err := unix.Openat2(w.at, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false // it comes as another event
	case errors.Is(err, unix.EXDEV):
		err = errors.New("something else is mounted there")
	case errors.Is(err, unix.EAGAIN): // something was renamed meanwhile, see openat2(2)
		return w.add(path)
	}
	if err == nil {
		err = errors.Join(w.watch(path, fd), unix.Close(fd))
	}
	if err != nil {
		w.cannot(path, err)
		return true
	}
	w.mu.Lock()
	delete(w.missed, path)
	w.mu.Unlock()
	return true
}

// watch watches the directory behind a descriptor, always anew: the watch of one that has moved here ends as soon as fsnotify reads that it
// has, which may be at any time.
func (w *Watcher) watch(path string, fd int) error {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return err
	}
	b := &w.books
	for _, old := range []*dir{b.at[path], b.is[inode{s.Dev, s.Ino}]} {
		if old != nil && b.by[old.name] == old {
			w.forget(old)
		}
	}
	b.next++
	d := &dir{path: path, name: strconv.FormatUint(b.next, 10), inode: inode{s.Dev, s.Ino}}
	link := b.names + "/" + d.name
	if err := os.Symlink("/proc/self/fd/"+strconv.Itoa(fd), link); err != nil {
		return err
	}
	err := w.fs.Add(link)
	if errors.Is(err, syscall.ENOSPC) {
		err = errors.New("the kernel's limit of watches is reached; raise fs.inotify.max_user_watches")
	}
	if err == nil {
		b.at[path], b.by[d.name], b.is[d.inode] = d, d, d
	}
	return errors.Join(err, os.Remove(link))
}

// forget gives one directory up.
func (w *Watcher) forget(d *dir) {
	w.books.remove(d)
	err := w.fs.Remove(w.books.names + "/" + d.name)
	if err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) && !errors.Is(err, syscall.EINVAL) {
		w.log.Warn("a watch stays behind", "path", w.full(d.path), "err", err)
	}
}

// drop gives a directory and all below it up.
func (w *Watcher) drop(path string) {
	w.mu.Lock()
	maps.DeleteFunc(w.missed, func(p, _ string) bool { return p == path || strings.HasPrefix(p, path+"/") })
	w.mu.Unlock()
	if w.books.at[path] == nil || path == "." {
		return
	}
	for p, d := range w.books.at {
		if p == path || strings.HasPrefix(p, path+"/") {
			w.forget(d)
		}
	}
}

// dropAll gives everything up but the root.
func (w *Watcher) dropAll() {
	for p, d := range w.books.at {
		if p != "." {
			w.forget(d)
		}
	}
	w.mu.Lock()
	clear(w.missed)
	w.mu.Unlock()
}

// cannot remembers a directory whose changes will not be told.
func (w *Watcher) cannot(path string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.missed[path] == "" {
		w.log.Warn("a directory is not watched; its changes are found by comparisons only", "path", w.full(path), "err", err)
	}
	w.missed[path] = err.Error()
	w.state.Why = err.Error()
}
