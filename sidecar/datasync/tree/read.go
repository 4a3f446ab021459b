//go:build linux

package tree

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/zeebo/blake3"
)

// tries is how often a file that changes while being read is read.
const tries = 3

// job is a file that must be read. The reader owns both until the walk is over.
type job struct {
	file *os.File
	node *node
	path string
	old  *Hash // what the content ought to be, where it is read only to see whether it is; nil: nobody knows
}

// file makes the node of a file. Unless the index knows it, a reader fills it in.
func (w *walker) file(ctx context.Context, dir int, path, name string, old *node, st status, now int64) (*node, error) {
	n := w.node(name, st, now)
	if w.known != nil && w.known.Size == st.size && w.known.Kind == File {
		n.hash, n.flags = w.known.Hash, n.flags&^racy
		if x := w.known.Xattrs; len(x) > 0 {
			n.more = &more{xattrs: x}
		}
		return n, nil
	}
	if old != nil && old.unchanged(st) {
		n.hash, n.flags = old.hash, n.flags|old.flags&doubted
		if x := old.xattrs(); len(x) > 0 {
			n.more = &more{xattrs: x}
		}
		if !w.options.Verify {
			return n, nil
		}
	}
	w.start(ctx)
	if n.has(linked) {
		if w.handed[n.inode] {
			n.flags |= borrowed
			return n, nil
		}
		w.handed[n.inode] = true
	}
	f, err := openFile(dir, name)
	if err != nil {
		return w.failed(path, name, File, err), nil
	}
	j := job{file: f, node: n, path: path}
	if w.options.Verify && old != nil && old.unchanged(st) {
		j.old = &old.hash
	}
	select {
	case w.jobs <- j:
		return n, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), f.Close())
	}
}

// readAll takes jobs until there are no more. The error is the context's.
func (w *walker) readAll(ctx context.Context) error {
	var r *reader
	for j := range w.jobs {
		if r == nil { // most walks of one path read nothing
			r = readers.Get().(*reader)
			r.walker = w
			defer func() {
				r.walker = nil
				readers.Put(r)
			}()
		}
		err := r.read(ctx, j)
		j.file.Close() // it was only read
		if err != nil {
			return err
		}
	}
	return nil
}

var readers = sync.Pool{New: func() any { return &reader{sum: blake3.New(), buf: make([]byte, 128<<10)} }}

type reader struct {
	*walker
	sum *blake3.Hasher
	buf []byte
}

// read fills in a node from one state of its file.
func (r *reader) read(ctx context.Context, j job) error {
	why := "keeps changing while it is read"
	for range tries {
		now := clock()
		before, err := statOpen(int(j.file.Fd()))
		if err == nil && kindOf(before) != File {
			break // something else came in its place
		}
		var x []Xattr
		if err == nil {
			x, err = xattrs(int(j.file.Fd()))
		}
		var hash Hash
		var size int64
		if err == nil {
			hash, size, err = r.content(ctx, j.file)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.reading != nil {
			r.reading(j.path)
		}
		after, statErr := statOpen(int(j.file.Fd()))
		if err = errors.Join(err, statErr); err != nil {
			why = "cannot be read: " + err.Error()
			if j.old != nil {
				r.rotten(j.path, why)
				return nil
			}
			break
		}
		if after.same(before) && size == before.size {
			r.settle(j, before, now, hash, x)
			return nil
		}
	}
	r.problem(j.path, why)
	j.node.flags |= unsettled
	j.node.hash = Hash{}
	return nil
}

func (r *reader) settle(j job, st status, now int64, hash Hash, x []Xattr) {
	n := j.node
	// Whose it is was asked before it was opened; if it is another one by now, the next scan asks again.
	moved := st.ctime != n.ctime || st.inode != n.inode
	n.size, n.mtime, n.ctime, n.inode, n.mode = st.size, st.mtime, st.ctime, st.inode, st.mode
	n.flags &^= racy
	if moved || racily(st, now) {
		n.flags |= racy
	}
	n.hash, n.more = hash, nil
	if len(x) > 0 {
		n.more = &more{xattrs: x}
	}
	if j.old != nil && !moved && *j.old != hash {
		r.rotten(j.path, "the content changed though no time did: a failing disk, or somebody who writes past the filesystem")
	}
}

// verifyPause is the pause before each read of at most 128 KiB, with Options.Verify: no more than 64 MiB a second.
const verifyPause = 2 * time.Millisecond

// content hashes a whole file.
func (r *reader) content(ctx context.Context, f *os.File) (hash Hash, size int64, err error) {
	r.sum.Reset()
	for ctx.Err() == nil {
		if r.options.Verify { // there is no hurry, and others read and write, too
			time.Sleep(verifyPause)
		}
		n, err := f.ReadAt(r.buf, size)
		if _, err := r.sum.Write(r.buf[:n]); err != nil {
			return Hash{}, 0, err
		}
		size += int64(n)
		if err == io.EOF {
			r.sum.Sum(hash[:0])
			return hash, size, nil
		}
		if err != nil {
			return Hash{}, 0, err
		}
	}
	return Hash{}, 0, ctx.Err()
}
