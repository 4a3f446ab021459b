package control

import (
	"fmt"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"
)

// Read returns a commit that is here, and its message. The error wraps ErrBroken when it is not (the local copy was thrown
// away: fetch again), or ErrMalformed.
func (r *Repo) Read(hash string) (c Commit, message string, err error) {
	if !isHash(hash) {
		return Commit{}, "", fmt.Errorf("read: %q is not a full commit hash", hash)
	}
	s, done := r.reader()
	parsed, _, err := s.commit(plumbing.NewHash(hash))
	if err := done(err); err != nil {
		return Commit{}, "", fmt.Errorf("read: %w", err)
	}
	return Commit{Hash: hash, When: parsed.when, Subject: parsed.subject}, parsed.message, nil
}

// File returns the content of one file at the top of a commit's tree. The error wraps fs.ErrNotExist when the commit has no such
// file, is a *TreeError when it is none or has more than limit bytes, and else as of Read.
func (r *Repo) File(c Commit, name string, limit int64) (data []byte, err error) {
	if !isHash(c.Hash) {
		return nil, fmt.Errorf("read: %q is not a full commit hash", c.Hash)
	}
	s, done := r.reader()
	defer func() { err = done(err) }()
	parsed, _, err := s.commit(plumbing.NewHash(c.Hash))
	if err != nil {
		return nil, err
	}
	raw, err := s.read(parsed.tree, plumbing.TreeObject, maxTree)
	if err != nil {
		return nil, tooLarge("", err)
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch {
		case e.name != name:
		case e.kind != file && e.kind != executable:
			return nil, &TreeError{name, "it is not a regular file"}
		default:
			data, err := s.read(e.hash, plumbing.BlobObject, limit)
			return data, tooLarge(name, err)
		}
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}
