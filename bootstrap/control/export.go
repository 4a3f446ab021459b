package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sync/errgroup"
)

// keepReleases is how many releases stay on disk, the newest ones and always the one just exported: the
// one in force, the one before it to go back to, and one more.
const keepReleases = 3

// Export writes the tree of a fetched commit to Releases/<hash> and returns that path. The directory
// appears whole and durable or not at all, so one that is there is used as it is. Files have mode 0644 or
// 0755, directories 0755; symbolic links inside the tree are kept. Older releases beyond the last three
// are removed, by the time of their last export; those of the commits in keep never are.
//
// The error wraps a *TreeError when the tree is refused, ErrDiskFull, ErrBroken when the local copy turned
// out damaged (it was thrown away: fetch again), or the context's error. No release was changed then.
//
// Whether the commit may be used is not asked here: call Verify and Descends first.
func (r *Repo) Export(ctx context.Context, c Commit, keep ...string) (dir string, err error) {
	if !isHash(c.Hash) {
		return "", fmt.Errorf("export: %q is not a full commit hash", c.Hash)
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir = filepath.Join(r.Releases, c.Hash)
	if err := r.release(ctx, c, dir); err != nil {
		return "", fmt.Errorf("export %.12s: %w", c.Hash, diskFull(err))
	}
	if err := r.prune(append(keep, c.Hash)); err != nil {
		// The release is complete; what could not be removed only takes room, and the next export tries again.
		r.opts.Log.Warn("cannot remove old releases", "err", err)
	}
	return dir, nil
}

func (r *Repo) release(ctx context.Context, c Commit, dir string) error {
	if err := os.MkdirAll(r.Releases, 0o755); err != nil {
		return err
	}
	if err := removeTemps(r.Releases, tempPrefix, os.RemoveAll); err != nil {
		return err
	}
	if info, err := os.Lstat(dir); err == nil && info.IsDir() {
		return os.Chtimes(dir, time.Now(), time.Now())
	} else if err == nil {
		return fmt.Errorf("%s is in the way: remove it", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.MkdirTemp(r.Releases, tempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // gone already unless something fails below
	if err := r.fill(ctx, c, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncDir(r.Releases)
}

// fill writes the commit's tree into an empty directory and makes it durable.
func (r *Repo) fill(ctx context.Context, c Commit, temp string) error {
	s, done := r.reader()
	return done(func() error {
		commit, _, err := s.commit(plumbing.NewHash(c.Hash))
		if err != nil {
			return err
		}
		root, err := os.OpenRoot(temp)
		if err != nil {
			return err
		}
		defer root.Close()
		w := writer{ctx: ctx, store: s, files: r.opts.MaxFiles, bytes: r.opts.MaxBytes}
		defer w.abandon()
		if err := w.directory(root, "", commit.tree); err != nil {
			return err
		}
		return w.sync()
	}())
}

// writer exports one tree.
type writer struct {
	ctx   context.Context
	store *store
	files int   // entries that may still be written
	bytes int64 // bytes that may still be written

	unsynced []*os.File // files and directories that are written and not yet durable
}

const (
	// syncBatch is how many files wait, open, to be made durable together.
	syncBatch = 256
	// syncAtOnce is how many fsyncs are under way at a time. The file system's journal takes many in one
	// commit: 300 files take a third of the time that one after the other does. One syncfs(2) would do
	// as well, but waits for whatever else is being written on the machine, which at boot is much.
	syncAtOnce = 16
)

// later makes a file or directory durable and closes it, at the latest when sync is called.
func (w *writer) later(f *os.File) error {
	w.unsynced = append(w.unsynced, f)
	if len(w.unsynced) < syncBatch {
		return nil
	}
	return w.sync()
}

func (w *writer) sync() error {
	var g errgroup.Group
	g.SetLimit(syncAtOnce)
	for _, f := range w.unsynced {
		g.Go(func() error { return errors.Join(f.Sync(), f.Close()) })
	}
	w.unsynced = w.unsynced[:0]
	return g.Wait()
}

// abandon closes what an error left open.
func (w *writer) abandon() {
	for _, f := range w.unsynced {
		f.Close()
	}
}

// directory writes a tree into dir, which is empty. Each directory is written through an os.Root of its
// own, so that no name and no link can lead anywhere else, whatever the checks overlooked.
func (w *writer) directory(dir *os.Root, at string, tree plumbing.Hash) error {
	raw, err := w.store.read(tree, plumbing.TreeObject, maxTree)
	if err != nil {
		return tooLarge(at, err)
	}
	entries, err := parseTree(raw)
	if err != nil {
		return inside(at, err)
	}
	for _, e := range entries {
		if err := context.Cause(w.ctx); err != nil {
			return err
		}
		if err := checkName(e.name); err != nil {
			return inside(at, err)
		}
		if w.files--; w.files < 0 {
			return &TreeError{Reason: "it has more files than the limit"}
		}
		if err := w.entry(dir, join(at, e.name), e); err != nil {
			return err
		}
	}
	self, err := dir.Open(".")
	if err != nil {
		return err
	}
	if err := self.Chmod(0o755); err != nil { // whatever the umask is
		self.Close()
		return err
	}
	return w.later(self)
}

func (w *writer) entry(dir *os.Root, at string, e entry) error {
	if len(at) > maxPath {
		return &TreeError{at[:maxPath], "the path is too long"}
	}
	switch e.kind {
	case submodule:
		return &TreeError{at, "submodules are not supported: put their files into the repository"}
	case directory:
		if strings.Count(at, "/") >= maxDepth {
			return &TreeError{at, fmt.Sprintf("more than %d directories inside each other", maxDepth)}
		}
		if err := dir.Mkdir(e.name, 0o755); err != nil {
			return err
		}
		sub, err := dir.OpenRoot(e.name)
		if err != nil {
			return err
		}
		defer sub.Close()
		return w.directory(sub, at, e.hash)
	}
	data, err := w.store.read(e.hash, plumbing.BlobObject, w.bytes)
	if err != nil {
		return tooLarge(at, err)
	}
	w.bytes -= int64(len(data))
	switch e.kind {
	case symlink:
		if err := checkTarget(at, string(data)); err != nil {
			return err
		}
		return dir.Symlink(string(data), e.name)
	case executable:
		return w.file(dir, e.name, data, 0o755)
	}
	return w.file(dir, e.name, data, 0o644)
}

func (w *writer) file(dir *os.Root, name string, data []byte, mode os.FileMode) error {
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil { // whatever the umask is
		f.Close()
		return err
	}
	return w.later(f)
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "/" + name
}

// inside puts the place of a tree before what is wrong in it.
func inside(at string, err error) error {
	if t, ok := errors.AsType[*TreeError](err); ok {
		return &TreeError{strings.Trim(at+"/"+t.Path, "/"), t.Reason}
	}
	return err
}

// tooLarge makes a size limit a reason to refuse the tree.
func tooLarge(at string, err error) error {
	if errors.Is(err, ErrTooLarge) {
		return &TreeError{at, "it, or the tree with it, has more bytes than the limit"}
	}
	return err
}

// prune removes releases beyond the newest, never one of keep, whose last is the current one. Each is renamed first, so that one
// removed in part is not taken for a release.
func (r *Repo) prune(keep []string) error {
	entries, err := os.ReadDir(r.Releases)
	if err != nil {
		return err
	}
	type release struct {
		name string
		used time.Time
	}
	var others []release
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || !isHash(e.Name()) || e.Name() == keep[len(keep)-1] {
			continue
		}
		others = append(others, release{e.Name(), info.ModTime()})
	}
	slices.SortFunc(others, func(a, b release) int {
		return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.name, b.name))
	})
	for _, old := range others[min(keepReleases-1, len(others)):] {
		if slices.Contains(keep, old.name) {
			continue
		}
		trash := filepath.Join(r.Releases, tempPrefix+old.name)
		if err := os.Rename(filepath.Join(r.Releases, old.name), trash); err != nil {
			return err
		}
		if err := os.RemoveAll(trash); err != nil {
			return err
		}
		r.opts.Log.Info("removed an old release", "commit", old.name)
	}
	return nil
}
