package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

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

// Since returns the messages of a commit and of those of its ancestors that descend from the commit oldest themselves. What came in by a
// branch that was begun before oldest is not among them: it may be older, and where the history is not whole nobody can tell. Errors are
// as of Read, and ErrNoHistory where too many commits would have to be looked at.
func (r *Repo) Since(c Commit, oldest string) (messages []string, err error) {
	if !isHash(c.Hash) || !isHash(oldest) {
		return nil, fmt.Errorf("%q or %q is not a full commit hash", c.Hash, oldest)
	}
	s, done := r.reader()
	defer func() { err = done(err) }()
	children, message, err := s.until(plumbing.NewHash(c.Hash), plumbing.NewHash(oldest))
	if err != nil {
		return nil, err
	}
	queue := slices.Clone(children[plumbing.NewHash(oldest)])
	for seen := map[plumbing.Hash]bool{}; len(queue) > 0; queue = queue[1:] {
		if h := queue[0]; !seen[h] {
			seen[h] = true
			messages = append(messages, message[h])
			queue = append(queue, children[h]...)
		}
	}
	slices.Reverse(messages) // the newest first
	return messages, nil
}

// until goes back from a commit as far as the history here goes, but not beyond another one. It returns the children and the messages of
// what it met.
func (s *store) until(tip, end plumbing.Hash) (children map[plumbing.Hash][]plumbing.Hash, message map[plumbing.Hash]string, err error) {
	cut, err := s.shallow()
	if err != nil {
		return nil, nil, err
	}
	children, message = map[plumbing.Hash][]plumbing.Hash{}, map[plumbing.Hash]string{}
	for queue := []plumbing.Hash{tip}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if _, seen := message[h]; seen || h == end {
			continue
		}
		parsed, raw, err := s.commit(h)
		if err != nil {
			return nil, nil, err
		}
		message[h] = parsed.message
		if slices.Contains(cut, h) {
			continue // its parents are named but are not here
		}
		for _, p := range parentsOf(raw) {
			children[p] = append(children[p], h)
			queue = append(queue, p)
		}
		if len(message) > maxHistory {
			return nil, nil, fmt.Errorf("%w after %d commits", ErrNoHistory, maxHistory)
		}
	}
	return children, message, nil
}
