package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
)

// maxHistory bounds the commits looked at to prove a descent.
const maxHistory = 1_000_000

// Descends returns nil when c is the commit oldest or has it among its ancestors, and when oldest is
// empty. Otherwise the error wraps ErrTooOld, together with ErrNoHistory when the history at hand ends
// before that can be known. ErrBroken means that the local copy was thrown away: fetch again.
func (r *Repo) Descends(c Commit, oldest string) error {
	if oldest == "" {
		return nil
	}
	if !isHash(c.Hash) || !isHash(oldest) {
		return fmt.Errorf("%w: %q or %q is not a full commit hash", ErrTooOld, c.Hash, oldest)
	}
	s, done := r.reader()
	err := descends(s, plumbing.NewHash(c.Hash), oldest)
	return done(err)
}

// reader opens the repository; done closes it, and throws a damaged one away so that the next Fetch
// does not build on it.
func (r *Repo) reader() (s *store, done func(error) error) {
	s = openStore(r.Dir)
	return s, func(err error) error {
		s.close()
		if errors.Is(err, ErrBroken) {
			r.discard()
		}
		return err
	}
}

// discard makes a damaged repository unusable in one step: without its branches it is cloned anew. It
// takes no lock; at worst it makes a copy that another process just made be cloned once more.
func (r *Repo) discard() {
	if err := os.RemoveAll(filepath.Join(r.Dir, "refs", "heads")); err != nil {
		r.opts.Log.Warn("cannot throw the damaged control repo away", "err", err)
	}
}

// descends looks for oldest among tip and its ancestors, nearest first.
func descends(s *store, tip plumbing.Hash, oldest string) error {
	if oldest == "" || tip.String() == oldest {
		return nil
	}
	target := plumbing.NewHash(oldest)
	shallow, err := s.shallow()
	if err != nil {
		return err
	}
	cut := make(map[plumbing.Hash]bool, len(shallow))
	for _, h := range shallow {
		cut[h] = true
	}
	queue, seen, ended := []plumbing.Hash{tip}, map[plumbing.Hash]bool{tip: true}, false
	for len(queue) > 0 {
		h := queue[0]
		queue = queue[1:]
		raw, err := s.read(h, plumbing.CommitObject, maxCommit)
		if err != nil {
			return err
		}
		if cut[h] {
			// Its parents are named but are not here. One of them may still be the target.
			ended = true
		}
		for _, p := range parentsOf(raw) {
			if p == target {
				return nil
			}
			if !cut[h] && !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
		if len(seen) > maxHistory {
			return fmt.Errorf("%w: %w after %d commits", ErrTooOld, ErrNoHistory, maxHistory)
		}
	}
	if ended {
		return fmt.Errorf("%w %.12s: %w", ErrTooOld, oldest, ErrNoHistory)
	}
	return fmt.Errorf("%w %.12s: was the branch rewritten or reset? push a commit on top of it", ErrTooOld, oldest)
}
