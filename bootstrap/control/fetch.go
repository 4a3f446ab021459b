package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"golang.org/x/sys/unix"
)

// maxPacks is how many packs the repository may grow to before it is cloned anew instead of updated.
// Every fetch adds one, and every look-up may have to ask each.
const maxPacks = 50

// Fetch brings the newest commit of a branch, or that of Options.Pin, with its whole tree and, when Options.Oldest is set, the
// history that Descends needs. Sources are tried in order; the first that has the branch decides, even
// when its commit is older than one that was fetched before. What is there already is not transferred
// again; a local copy that is damaged, or that cannot be updated, is cloned anew beside and exchanged.
//
// The error is a *FetchError when no source did, wraps ErrDiskFull when there is no room, or the
// context's error. The state on disk is then as before. Only one call changes a Repo at a time.
func (r *Repo) Fetch(ctx context.Context, sources []Source, branch string) (Commit, error) {
	if err := plumbing.NewBranchReferenceName(branch).Validate(); err != nil || branch == "" {
		return Commit{}, fmt.Errorf("branch %q of the control repo: not a branch name", branch)
	}
	if len(sources) == 0 {
		return Commit{}, errors.New("no source of the control repo is configured")
	}
	for _, s := range sources {
		if err := s.check(); err != nil {
			return Commit{}, err
		}
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return Commit{}, err
	}
	defer unlock()
	if err := r.removeLeftovers(); err != nil {
		return Commit{}, diskFull(err)
	}
	failed := &FetchError{Branch: branch}
	for _, s := range sources {
		c, err := r.fetchFrom(ctx, s, branch)
		if err == nil && r.opts.Pin != "" {
			c, err = r.pinned(c)
		}
		if err == nil {
			return c, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return Commit{}, fmt.Errorf("fetch from %v: stopped: %w", s, cause)
		}
		if err = classify(err); errors.Is(err, ErrDiskFull) {
			return Commit{}, fmt.Errorf("fetch from %v: %w", s, err)
		}
		r.opts.Log.Warn("source of the control repo failed", "source", s.String(), "err", err)
		failed.Attempts = append(failed.Attempts, Attempt{s.String(), err})
	}
	return Commit{}, failed
}

// Bring is Fetch from one source for a branch that is being followed: accepted is the newest of its commits that was accepted
// here. What it brings includes the history that shows whether the newest one descends from accepted. It leaves the local
// branch, which is what this machine may serve to others, at accepted: Point moves it, once the new commit is accepted, too.
func (r *Repo) Bring(ctx context.Context, s Source, branch, accepted string) (Commit, error) {
	if !isHash(accepted) {
		return Commit{}, fmt.Errorf("bring: %q is not a full commit hash", accepted)
	}
	held := *r
	held.opts.Oldest, held.hold = accepted, true
	return held.Fetch(ctx, []Source{s}, branch)
}

// Point moves the local branch to a commit that is here.
func (r *Repo) Point(ctx context.Context, branch string, c Commit) error {
	unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, done := r.reader()
	tip := plumbing.NewHash(c.Hash)
	if s.tip(branch) == tip {
		return done(nil)
	}
	parsed, _, err := s.commit(tip)
	if err == nil {
		err = s.whole(parsed.tree)
	}
	if err == nil {
		err = s.setTip(branch, tip)
	}
	if err := done(err); err != nil {
		return fmt.Errorf("point the branch %q to %.12s: %w", branch, c.Hash, diskFull(err))
	}
	return nil
}

// removeLeftovers deletes what a killed Fetch left beside and inside the repository.
func (r *Repo) removeLeftovers() error {
	if err := removeTemps(filepath.Dir(r.Dir), filepath.Base(r.Dir)+tempPrefix, removeUnserved); err != nil {
		return err
	}
	return removeTemps(filepath.Join(r.Dir, "objects", "pack"), tempPrefix, os.Remove)
}

// fetchFrom makes the local branch equal to that of one source.
func (r *Repo) fetchFrom(ctx context.Context, s Source, branch string) (_ Commit, err error) {
	limit := or(s.Timeout, DefaultSourceTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() != nil { // else the error may only speak of a closed connection
			err = fmt.Errorf("%w: not done after %v: %w", ErrNoNetwork, limit, err)
		}
	}()
	began := time.Now()
	t, err := r.open(ctx, s, branch)
	if err != nil {
		return Commit{}, err
	}
	c, err := r.current(branch, t.tip)
	if err != nil {
		c, err = r.update(ctx, t)
	}
	t.remote.close()
	if err == nil || !errors.Is(err, errCloneAnew) {
		return c, err
	}
	r.opts.Log.Info("cloning the control repo", "source", s.String(), "reason", err.Error())
	if t, err = r.open(ctx, s, branch); err != nil { // a stream serves one request only
		return Commit{}, err
	}
	defer t.remote.close()
	if c, err = r.clone(ctx, t); err != nil {
		return Commit{}, err
	}
	r.opts.Log.Info("cloned the control repo", "source", s.String(), "commit", c.Hash, "took", time.Since(began))
	return c, nil
}

// transfer is what one source offers for one branch.
type transfer struct {
	remote remote
	ad     *packp.AdvRefs
	branch string
	tip    plumbing.Hash
}

func (r *Repo) open(ctx context.Context, s Source, branch string) (*transfer, error) {
	rem, err := s.dial(ctx, r.traffic)
	if err != nil {
		return nil, err
	}
	ad, err := rem.refs(ctx)
	if err != nil {
		rem.close()
		return nil, err
	}
	tip, ok := ad.References[plumbing.NewBranchReferenceName(branch).String()]
	if !ok {
		rem.close()
		return nil, fmt.Errorf("%w %q (%d others are there)", ErrNoBranch, branch, len(ad.References))
	}
	return &transfer{rem, ad, branch, tip}, nil
}

// errCloneAnew says that the local copy does not serve, and why; it never leaves this file.
var errCloneAnew = errors.New("clone anew")

// current returns the local commit when it is the wanted one and everything asked for is there. Where the branch is held, the
// wanted one may have been brought before and be no branch's.
func (r *Repo) current(branch string, want plumbing.Hash) (Commit, error) {
	s := openStore(r.Dir)
	defer s.close()
	if have := s.tip(branch); have != want && (!r.hold || have.IsZero()) {
		return Commit{}, errCloneAnew
	}
	return r.finish(s, want)
}

// finish checks that what a branch is about to point to, or points to, is all there.
func (r *Repo) finish(s *store, tip plumbing.Hash) (Commit, error) {
	c, _, err := s.commit(tip)
	if err != nil {
		return Commit{}, err
	}
	if err := s.whole(c.tree); err != nil {
		return Commit{}, err
	}
	for _, err := range []error{descends(s, tip, r.opts.Oldest), s.holds(tip, r.opts.Pin)} {
		if errors.Is(err, ErrNoHistory) {
			return Commit{}, fmt.Errorf("%w: %w", errCloneAnew, err)
		} else if err != nil && !errors.Is(err, ErrTooOld) {
			return Commit{}, err // too old is for Descends to say, and for pinned
		}
	}
	return Commit{Hash: tip.String(), When: c.when, Subject: c.subject}, nil
}

// holds is descends for an ancestor that must be here itself, and not only be named where the history is cut off.
func (s *store) holds(tip plumbing.Hash, ancestor string) error {
	if err := descends(s, tip, ancestor); err != nil || ancestor == "" {
		return err
	}
	here, err := s.has(plumbing.NewHash(ancestor))
	if err == nil && !here {
		err = fmt.Errorf("%w %.12s: %w", ErrTooOld, ancestor, ErrNoHistory)
	}
	return err
}

// pinned takes the commit of Options.Pin out of the history of the newest one.
func (r *Repo) pinned(newest Commit) (Commit, error) {
	s, done := r.reader()
	c, err := func() (parsedCommit, error) {
		if err := s.holds(plumbing.NewHash(newest.Hash), r.opts.Pin); errors.Is(err, ErrTooOld) {
			return parsedCommit{}, fmt.Errorf("%w %.12s (its newest is %.12s)", ErrNoCommit, r.opts.Pin, newest.Hash)
		} else if err != nil {
			return parsedCommit{}, err
		}
		c, _, err := s.commit(plumbing.NewHash(r.opts.Pin))
		if err != nil {
			return c, err
		}
		return c, s.whole(c.tree)
	}()
	return Commit{Hash: r.opts.Pin, When: c.when, Subject: c.subject}, done(err)
}

// update adds what is new to the local repository. Every failure that a clone may not meet is an
// errCloneAnew.
func (r *Repo) update(ctx context.Context, t *transfer) (Commit, error) {
	s := openStore(r.Dir)
	defer s.close()
	have := s.tip(t.branch)
	if have.IsZero() {
		return Commit{}, fmt.Errorf("%w: no copy of the branch is there", errCloneAnew)
	}
	if have == t.tip {
		return Commit{}, fmt.Errorf("%w: the copy is damaged or has too little history", errCloneAnew)
	}
	if packs, err := filepath.Glob(filepath.Join(r.Dir, "objects/pack/*.pack")); err != nil || len(packs) >= maxPacks {
		return Commit{}, fmt.Errorf("%w: the copy has %d packs", errCloneAnew, len(packs))
	}
	if _, err := r.finish(s, have); err != nil {
		return Commit{}, fmt.Errorf("%w: the copy: %w", errCloneAnew, err)
	}
	c, err := r.receive(ctx, s, t, have, 0)
	if err == nil {
		r.opts.Log.Info("updated the control repo", "commit", c.Hash, "from", have.String())
		return c, nil
	}
	if context.Cause(ctx) != nil || errors.Is(classify(err), ErrDiskFull) || errors.Is(classify(err), ErrNoNetwork) {
		return Commit{}, err
	}
	return Commit{}, fmt.Errorf("%w: %w", errCloneAnew, err)
}

// clone makes a new repository beside the old one and puts it in its place. It brings one commit without
// history where that is sound.
func (r *Repo) clone(ctx context.Context, t *transfer) (Commit, error) {
	fresh, err := os.MkdirTemp(filepath.Dir(r.Dir), filepath.Base(r.Dir)+tempPrefix)
	if err != nil {
		return Commit{}, err
	}
	defer removeUnserved(fresh) // what is there by then: the old one, after the exchange
	if err := os.Chmod(fresh, 0o755); err != nil {
		return Commit{}, err
	}
	if err := initStore(fresh, t.branch); err != nil {
		return Commit{}, err
	}
	depth := 1
	for _, ancestor := range []string{r.opts.Oldest, r.opts.Pin} {
		if ancestor != "" && ancestor != t.tip.String() {
			depth = 0
		}
	}
	s := openStore(fresh)
	defer s.close()
	c, err := r.receive(ctx, s, t, plumbing.ZeroHash, depth)
	if errors.Is(err, errCloneAnew) {
		err = fmt.Errorf("the source itself has too little history: %w", ErrNoHistory)
	}
	if err != nil {
		return Commit{}, err
	}
	if err := s.syncTree(); err != nil {
		return Commit{}, err
	}
	return c, exchange(fresh, r.Dir)
}

// receive transfers what is missing between have and the tip, all of the history unless depth limits it,
// checks it, and points the branch to it.
func (r *Repo) receive(ctx context.Context, s *store, t *transfer, have plumbing.Hash, depth int) (Commit, error) {
	req := packp.NewUploadPackRequestFromCapabilities(t.ad.Capabilities)
	req.Wants = []plumbing.Hash{t.tip}
	if !have.IsZero() {
		req.Haves = []plumbing.Hash{have}
	}
	cut, err := s.shallow()
	if err != nil {
		return Commit{}, err
	}
	if !t.ad.Capabilities.Supports(capability.Shallow) {
		if len(cut) > 0 {
			return Commit{}, errors.New("the source cannot continue a history that is cut off")
		}
		depth = 0
	}
	req.Shallows, req.Depth = cut, packp.DepthCommits(depth)
	for _, c := range []capability.Capability{capability.Shallow, capability.NoProgress} {
		if t.ad.Capabilities.Supports(c) {
			if err := req.Capabilities.Set(c); err != nil {
				return Commit{}, err
			}
		}
	}
	var change packp.ShallowUpdate
	err = s.receive(r.opts.MaxPack, func(w io.Writer) (err error) {
		change, err = t.remote.pack(ctx, req, w)
		return err
	})
	if err != nil {
		return Commit{}, err
	}
	if depth == 0 {
		change.Shallows = append(change.Shallows, t.ad.Shallows...) // where the source's own history ends
	}
	if err := s.cutAt(cut, change); err != nil {
		return Commit{}, err
	}
	c, err := r.finish(s, t.tip)
	if err != nil {
		return Commit{}, err
	}
	if !r.hold {
		return c, s.setTip(t.branch, t.tip)
	}
	held := plumbing.NewHash(r.opts.Oldest)
	if _, err := r.finish(s, held); err != nil {
		return c, nil // a clone of a branch that was rewritten: nothing of what was accepted is there to be pointed to
	}
	return c, s.setTip(t.branch, held)
}

// cutAt records where the history ends: where it did, and where the source says it does, as far as these
// commits are here.
func (s *store) cutAt(old []plumbing.Hash, change packp.ShallowUpdate) error {
	var now []plumbing.Hash
	for _, h := range append(slices.Clone(old), change.Shallows...) {
		here, err := s.has(h)
		if err != nil {
			return err
		}
		if here && !slices.Contains(change.Unshallows, h) {
			now = append(now, h)
		}
	}
	return s.setShallow(now)
}

// exchange puts fresh in the place of dir, in one step where the file system can. Where it cannot, a
// crash in between leaves no repository, and the next fetch clones.
func exchange(fresh, dir string) error {
	err := os.Rename(fresh, dir) // when there is none yet, or an empty directory
	if err != nil {
		err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		err = os.Rename(fresh, dir)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}
