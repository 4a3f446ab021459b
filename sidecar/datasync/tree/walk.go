//go:build linux

package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// root is visit for the top, which may be a mount point and must be readable.
func (w *walker) root(ctx context.Context, old *node, extent Extent) (*node, error) {
	d, err := openDir(int(w.Scanner.root.Fd()), ".")
	if err != nil {
		return nil, fmt.Errorf("open the root of the tree: %w", err)
	}
	defer d.Close()
	n, err := w.directory(d, old, clock())
	if err != nil {
		return nil, fmt.Errorf("look at the root of the tree: %w", err)
	}
	n.name = "."
	if err := w.fill(ctx, d, ".", n, old, extent); err != nil {
		return nil, err
	}
	if n.has(unsettled) {
		return nil, errors.New("list the root of the tree: it cannot be read")
	}
	return n, nil
}

// visit makes the node of one name in an open directory, and of what lies below as far as the extent goes. Nothing there, or
// nothing that is mirrored: nil. Errors are those of the context.
func (w *walker) visit(ctx context.Context, dir int, path string, old *node, extent Extent) (*node, error) {
	_, name := split(path)
	if old != nil {
		name = old.name // one copy, also while two trees exist
	}
	now := clock()
	st, err := statAt(dir, name, 0)
	if err != nil {
		return w.failed(path, name, 0, err), nil
	}
	switch {
	case st.mount:
		w.problem(path, "a mount point; what is mounted there is not mirrored, name it as data of its own")
		return &node{name: name, kind: kindOf(st), flags: unsettled}, nil
	case len(path) > maxPath:
		w.problem(path, "the path is too long")
		return &node{name: name, kind: kindOf(st), flags: unsettled}, nil
	}
	switch kindOf(st) {
	case Directory:
		return w.enter(ctx, dir, path, name, old, extent)
	case File:
		return w.file(ctx, dir, path, name, old, st, now)
	case Symlink:
		return w.symlink(dir, path, name, st, now), nil
	}
	w.problem(path, "a "+special(st)+"; only directories, files and symlinks are mirrored")
	return nil, nil
}

func kindOf(st status) Kind {
	switch st.kind {
	case unix.S_IFDIR:
		return Directory
	case unix.S_IFREG:
		return File
	case unix.S_IFLNK:
		return Symlink
	}
	return 0
}

func special(st status) string {
	switch st.kind {
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// failed is what comes of a name that cannot be looked at: nothing if it went away meanwhile.
func (w *walker) failed(path, name string, kind Kind, err error) *node {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	w.problem(path, "cannot be read: "+err.Error())
	return &node{name: name, kind: kind, flags: unsettled}
}

// enter visits a directory.
func (w *walker) enter(ctx context.Context, dir int, path, name string, old *node, extent Extent) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.depth >= maxDepth {
		w.problem(path, "too deep")
		return &node{name: name, kind: Directory, flags: unsettled}, nil
	}
	now := clock()
	d, err := openDir(dir, name)
	if err != nil {
		return w.failed(path, name, Directory, err), nil
	}
	defer d.Close()
	n, err := w.directory(d, old, now)
	if err != nil {
		return w.failed(path, name, Directory, err), nil
	}
	n.name = name
	w.depth++
	defer func() { w.depth-- }()
	return n, w.fill(ctx, d, path, n, old, extent)
}

// directory makes the node of an open directory, without its name and children.
func (w *walker) directory(d *os.File, old *node, now int64) (*node, error) {
	st, err := statOpen(int(d.Fd()))
	if err != nil {
		return nil, err
	}
	n := w.node("", st, now)
	n.flags |= stale
	n.size = 0
	n.more = &more{}
	if old != nil && old.kind == Directory && old.unchanged(st) {
		n.more.xattrs = old.xattrs()
		return n, nil
	}
	n.more.xattrs, err = xattrs(int(d.Fd()))
	return n, err
}

// fill gives a directory its children.
func (w *walker) fill(ctx context.Context, d *os.File, path string, n, old *node, extent Extent) error {
	known := old != nil && old.kind == Directory && !old.has(unsettled)
	switch {
	case extent == Itself && known:
		n.more.children = old.children()
		return nil
	case extent == Alone:
		if known {
			n.more.children = old.children()
		}
		return nil
	case !known:
		extent = Subtree
	}
	if w.buf == nil {
		w.buf = make([]byte, 32<<10)
	}
	all, err := names(int(d.Fd()), w.buf)
	if err != nil {
		w.problem(path, "cannot be listed: "+err.Error())
		n.flags |= unsettled
		return nil
	}
	below := Subtree
	if extent == Listing {
		below = Itself
	}
	n.more.children = make([]*node, 0, len(all))
	for _, name := range all {
		at := join(path, name)
		if w.options.Policy.ignored(at) {
			continue
		}
		c, err := w.visit(ctx, int(d.Fd()), at, old.child(name), below)
		if err != nil {
			return err
		}
		if c != nil {
			n.more.children = append(n.more.children, c)
		}
	}
	return nil
}

// node makes one from what the kernel says; now is from before it was asked.
func (w *walker) node(name string, st status, now int64) *node {
	n := &node{name: name, size: st.size, mtime: st.mtime, ctime: st.ctime, inode: st.inode, mode: st.mode, kind: kindOf(st)}
	if w.device == 0 && st.several {
		if root, err := statOpen(int(w.Scanner.root.Fd())); err == nil {
			w.device = root.device
		}
	}
	if racily(st, now) {
		n.flags |= racy
	}
	// Where files of one tree have several devices (overlayfs), an inode's number says nothing.
	if st.several && st.device == w.device && n.kind != Directory {
		n.flags |= linked
	}
	id := [2]uint32{st.uid, st.gid}
	if n.account = w.accounts[id]; n.account == nil {
		n.account = w.tree.account(account{w.options.Names.Owner(st.uid), w.options.Names.Group(st.gid)})
		w.accounts[id] = n.account
	}
	return n
}

// unchanged says whether what was read of a node still holds.
func (n *node) unchanged(st status) bool {
	return !n.has(unsettled|racy) && n.kind == kindOf(st) && n.inode == st.inode && n.mtime == st.mtime && n.ctime == st.ctime &&
		(n.kind == Directory || n.size == st.size)
}

// symlink reads the target until it belongs to what was looked at; an inode's target never changes.
func (w *walker) symlink(dir int, path, name string, st status, now int64) *node {
	for range tries {
		target, err := readlink(dir, name)
		if err != nil {
			break
		}
		after, err := statAt(dir, name, 0)
		if err == nil && after.same(st) {
			n := w.node(name, st, now)
			n.size, n.mode = 0, 0o777
			n.more = &more{target: strings.Clone(target)}
			return n
		}
		if err != nil || kindOf(after) != Symlink {
			break
		}
		st = after
	}
	if _, err := statAt(dir, name, 0); errors.Is(err, unix.ENOENT) {
		return nil
	}
	w.problem(path, "keeps changing")
	return &node{name: name, kind: Symlink, flags: unsettled}
}
