//go:build linux

package tree

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Own is the directory at the root of a set that belongs to the synchronisation itself and is never part of a tree.
const Own = ".understudy"

// Policy is what a role wants of its data. Patterns are those of path.Match: one without a slash is held against the name of
// everything, one with a slash against the whole path. What lies below a match goes with it. The zero value: everything, in
// any order.
type Policy struct {
	// Ignore is never looked at on either side. The mirror keeps what it has there, until the directory around it goes.
	Ignore []string
	// Last is what must come after everything else, in this order: an index after what it names.
	Last []string
}

// Maildir leaves out what Dovecot makes again by itself, and what two machines must not share.
func Maildir() Policy {
	return Policy{Ignore: []string{"dovecot-uidlist", "dovecot-uidlist.*", "dovecot.index*", "dovecot.list.index*", "*.lock"}}
}

// AptRepository sends packages before the indices that name them, and what is signed last.
func AptRepository() Policy {
	return Policy{
		Ignore: []string{"*.lock", "lockfile"},
		Last:   []string{"dists", "dists/*/Release", "dists/*/Release.gpg", "dists/*/InRelease"},
	}
}

// Validate reports all problems at once.
func (p Policy) Validate() error {
	var errs []error
	for _, list := range [][]string{p.Ignore, p.Last} {
		for _, pattern := range list {
			if _, err := path.Match(pattern, ""); err != nil || strings.HasPrefix(pattern, "/") || pattern == "" {
				errs = append(errs, fmt.Errorf("pattern %q: must be a name or a relative path, with *, ? and [a-z]", pattern))
			}
		}
	}
	return errors.Join(errs...)
}

// ignored looks at one path, whose directory is not ignored.
func (p Policy) ignored(name string) bool {
	if name == Own {
		return true
	}
	for _, pattern := range p.Ignore {
		if matches(pattern, name) {
			return true
		}
	}
	return false
}

// Ignored looks at a path and the directories around it.
func (p Policy) Ignored(name string) bool {
	for at := name; at != "" && at != "."; at, _ = split(at) {
		if p.ignored(at) {
			return true
		}
	}
	return false
}

// Rank orders transfers: smaller first. Zero is what Last does not name.
func (p Policy) Rank(name string) int {
	for i := len(p.Last); i > 0; i-- {
		for at := name; at != "" && at != "."; at, _ = split(at) {
			if matches(p.Last[i-1], at) {
				return i
			}
		}
	}
	return 0
}

func matches(pattern, name string) bool {
	if !strings.Contains(pattern, "/") {
		_, name = split(name)
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
