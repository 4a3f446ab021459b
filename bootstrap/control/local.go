package control

import (
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// localRemote reads a repository on this machine, such as the copy baked into the image, without running
// git: the copy may belong to another user (git's safe.directory), and git need not be installed.
type localRemote struct {
	store  storer.EncodedObjectStorer
	repo   *git.Repository
	closer io.Closer
}

func openLocal(path string) (r *localRemote, err error) {
	defer contain(&err)
	if _, err := os.Stat(path); err != nil {
		return nil, noSuchPlace(path, err)
	}
	repo, err := git.PlainOpenWithOptions(path, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, fmt.Errorf("%w: %s is not one", ErrNoRepository, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	r = &localRemote{store: repo.Storer, repo: repo}
	r.closer, _ = repo.Storer.(io.Closer)
	return r, nil
}

func (r *localRemote) close() {
	if r.closer != nil {
		r.closer.Close()
	}
}

func (r *localRemote) refs(context.Context) (ad *packp.AdvRefs, err error) {
	defer contain(&err)
	ad = packp.NewAdvRefs()
	if err := ad.Capabilities.Set(capability.Shallow); err != nil {
		return nil, err
	}
	branches, err := r.repo.Branches()
	if err != nil {
		return nil, err
	}
	if ad.Shallows, err = r.repo.Storer.Shallow(); err != nil {
		return nil, err
	}
	return ad, branches.ForEach(ad.AddReference)
}

// pack selects what is reachable from the wanted commits and not from those that are there already.
func (r *localRemote) pack(ctx context.Context, req *packp.UploadPackRequest, w io.Writer) (u packp.ShallowUpdate, err error) {
	defer contain(&err)
	cut, err := r.repo.Storer.Shallow()
	if err != nil {
		return u, err
	}
	walk := newWalker(ctx, r.store, cut)
	for _, h := range req.Haves {
		if err := walk.exclude(h, req.Shallows); err != nil {
			return u, err
		}
	}
	depth, _ := req.Depth.(packp.DepthCommits) // zero, which is no limit, for the kinds we never ask for
	if u.Shallows, err = walk.commits(req.Wants, int(depth)); err != nil {
		return u, err
	}
	return u, writePack(ctx, w, r.store, walk.found)
}

// walker lists objects, each once, in an order in which nothing depends on what is not listed.
type walker struct {
	ctx   context.Context
	store storer.EncodedObjectStorer
	stop  map[plumbing.Hash]bool // commits whose parents are not there or not wanted
	seen  map[plumbing.Hash]bool
	found []plumbing.Hash
}

// newWalker begins to list. The parents of the commits in cut are not in the store.
func newWalker(ctx context.Context, from storer.EncodedObjectStorer, cut []plumbing.Hash) walker {
	w := walker{ctx: ctx, store: from, seen: map[plumbing.Hash]bool{}, stop: map[plumbing.Hash]bool{}}
	for _, h := range cut {
		w.stop[h] = true
	}
	return w
}

// exclude marks a commit and its tree as there already, and the commits before it up to where the asker's history is cut off: what
// is in their trees may have come back since. A commit that this repository does not know is left alone.
func (w *walker) exclude(have plumbing.Hash, cut []plumbing.Hash) error {
	if w.store.HasEncodedObject(have) != nil {
		return nil
	}
	raw, err := w.read(plumbing.CommitObject, have)
	if err != nil {
		return err
	}
	if err := w.tree(treeOf(raw)); err != nil {
		return err
	}
	w.found = nil
	for queue := []plumbing.Hash{have}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if w.seen[h] {
			continue
		}
		if raw, err = w.read(plumbing.CommitObject, h); err != nil {
			return err
		}
		w.seen[h] = true
		if !w.stop[h] && !slices.Contains(cut, h) {
			queue = append(queue, parentsOf(raw)...)
		}
	}
	return context.Cause(w.ctx)
}

// commits lists the history of the wanted commits, at most depth generations of it unless that is zero,
// and returns those whose parents were left out.
func (w *walker) commits(wanted []plumbing.Hash, depth int) (cut []plumbing.Hash, err error) {
	for generation := 1; len(wanted) > 0; generation++ {
		var next []plumbing.Hash
		for _, h := range wanted {
			if w.seen[h] {
				continue
			}
			raw, err := w.read(plumbing.CommitObject, h)
			if err != nil {
				return nil, err
			}
			if err := w.add(h); err != nil {
				return nil, err
			}
			if err := w.tree(treeOf(raw)); err != nil {
				return nil, err
			}
			switch parents := parentsOf(raw); {
			case len(parents) == 0:
			case w.stop[h] || generation == depth:
				cut = append(cut, h)
			default:
				next = append(next, parents...)
			}
		}
		wanted = next
	}
	return cut, nil
}

// tree lists a tree and what is in it. One that is malformed is listed and not looked into: what is wrong
// with it is for the export to say. The zero hash, of a malformed commit, is no tree.
func (w *walker) tree(h plumbing.Hash) error {
	if w.seen[h] || h.IsZero() {
		return nil
	}
	raw, err := w.read(plumbing.TreeObject, h)
	if err != nil {
		return err
	}
	if err := w.add(h); err != nil {
		return err
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		switch {
		case e.kind == directory:
			err = w.tree(e.hash)
		case e.kind != submodule && !w.seen[e.hash]: // a submodule's commit is elsewhere
			err = w.add(e.hash)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read returns a commit or tree, whose hash it checks.
func (w *walker) read(t plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	o, err := w.store.EncodedObject(t, h)
	if err != nil {
		return nil, fmt.Errorf("%w: %v %s: %w", ErrBroken, t, h, err)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, fmt.Errorf("%w: %v %s: %w", ErrBroken, t, h, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxTree+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %v %s: %w", ErrBroken, t, h, err)
	}
	if len(raw) > maxTree {
		return nil, fmt.Errorf("%w: %v %s", ErrTooLarge, t, h)
	}
	if plumbing.ComputeHash(t, raw) != h {
		return nil, fmt.Errorf("%w: %v %s has another content", ErrBroken, t, h)
	}
	return raw, nil
}

func (w *walker) add(h plumbing.Hash) error {
	w.seen[h] = true
	w.found = append(w.found, h)
	return context.Cause(w.ctx)
}

// writePack writes objects as a pack without deltas (gitformat-pack(5)), holding one object at a time.
func writePack(ctx context.Context, out io.Writer, from storer.EncodedObjectStorer, hashes []plumbing.Hash) error {
	sum := hash.New(hash.CryptoType)
	w := io.MultiWriter(out, sum)
	head := append([]byte("PACK\x00\x00\x00\x02"), binary.BigEndian.AppendUint32(nil, uint32(len(hashes)))...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	z := zlib.NewWriter(w)
	for _, h := range hashes {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := writeObject(w, z, from, h); err != nil {
			return err
		}
	}
	_, err := out.Write(sum.Sum(nil))
	return err
}

// writeObject checks the hash of what it writes; that is too late for the object, and in time for the pack, which has no end then.
func writeObject(w io.Writer, z *zlib.Writer, from storer.EncodedObjectStorer, h plumbing.Hash) error {
	o, err := from.EncodedObject(plumbing.AnyObject, h)
	if err != nil {
		return fmt.Errorf("%w: object %s: %w", ErrBroken, h, err)
	}
	size := uint64(o.Size())
	head := []byte{byte(o.Type())<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		head[len(head)-1] |= 0x80
		head = append(head, byte(size&127))
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	r, err := o.Reader()
	if err != nil {
		return fmt.Errorf("%w: object %s: %w", ErrBroken, h, err)
	}
	defer r.Close()
	z.Reset(w)
	sum := plumbing.NewHasher(o.Type(), o.Size())
	if _, err := io.Copy(io.MultiWriter(z, sum), r); err != nil {
		return err
	}
	if sum.Sum() != h {
		return fmt.Errorf("%w: object %s has another content", ErrBroken, h)
	}
	return z.Close()
}
