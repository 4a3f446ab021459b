package control

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// parsedCommit is a commit object split without losing or re-encoding a byte.
type parsedCommit struct {
	tree      plumbing.Hash
	parents   []plumbing.Hash
	when      time.Time // of the committer
	subject   string
	message   string
	payload   []byte // the object's bytes without the signature header: what was signed
	signature []byte // its value with a line end after each line; nil when there is none
}

// header is one header of a commit with its continuation lines.
type header struct {
	key   string
	value []byte // continuation lines without their leading space, joined by newlines
	raw   []byte // the bytes it was read from, line ends included
}

// parseCommit splits a raw commit object. It accepts only what git writes: tree, parents, author and
// committer first, in this order and once each, then any others; at most one gpgsig, and no
// gpgsig-sha256 (of git's transition to SHA-256), whose bytes nothing would have signed. Wherever two
// readers of the format could disagree on what was signed, the commit is refused, with
// ErrMalformed: see CVE-2026-45022 for what happens otherwise.
func parseCommit(raw []byte) (parsedCommit, error) {
	var c parsedCommit
	if bytes.IndexByte(raw, 0) >= 0 {
		return c, fmt.Errorf("%w: NUL byte", ErrMalformed)
	}
	headers, message, err := splitHeaders(raw)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	rest, err := c.takeStandard(headers)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for _, h := range headers[:len(headers)-len(rest)] {
		c.payload = append(c.payload, h.raw...)
	}
	for _, h := range rest {
		switch h.key {
		case "tree", "parent", "author", "committer":
			return c, fmt.Errorf("%w: header %q is out of place", ErrMalformed, h.key)
		case "gpgsig-sha256":
			return c, fmt.Errorf("%w: header gpgsig-sha256 is not supported", ErrMalformed)
		case "gpgsig":
			if c.signature != nil {
				return c, fmt.Errorf("%w: more than one signature", ErrMalformed)
			}
			c.signature = append(bytes.Clone(h.value), '\n')
		default:
			c.payload = append(c.payload, h.raw...)
		}
	}
	c.payload = append(append(c.payload, '\n'), message...)
	c.message = string(message)
	subject, _, _ := strings.Cut(strings.TrimLeft(string(message), "\n"), "\n")
	c.subject = strings.ToValidUTF8(subject[:min(200, len(subject))], "\uFFFD")
	return c, nil
}

// splitHeaders returns the headers and what follows the empty line that ends them.
func splitHeaders(raw []byte) (headers []header, message []byte, err error) {
	for n := 1; ; n++ {
		end := bytes.IndexByte(raw, '\n')
		if end < 0 {
			return nil, nil, errors.New("no empty line ends the headers")
		}
		line, whole := raw[:end], raw[:end+1]
		raw = raw[end+1:]
		if len(line) == 0 {
			return headers, raw, nil
		}
		if bytes.IndexByte(line, '\r') >= 0 {
			return nil, nil, fmt.Errorf("line %d: carriage return in a header", n)
		}
		if line[0] == ' ' {
			if len(headers) == 0 {
				return nil, nil, fmt.Errorf("line %d: continues nothing", n)
			}
			h := &headers[len(headers)-1]
			h.value = append(append(h.value, '\n'), line[1:]...)
			h.raw = append(h.raw, whole...)
			continue
		}
		key, value, ok := bytes.Cut(line, []byte(" "))
		if !ok || !printable(key) {
			return nil, nil, fmt.Errorf("line %d: not a header", n)
		}
		headers = append(headers, header{string(key), bytes.Clone(value), bytes.Clone(whole)})
	}
}

func printable(key []byte) bool {
	for _, b := range key {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return len(key) > 0
}

// takeStandard reads the headers every commit starts with, and returns the others.
func (c *parsedCommit) takeStandard(headers []header) ([]header, error) {
	next := func(key string) (header, bool) {
		if len(headers) == 0 || headers[0].key != key {
			return header{}, false
		}
		h := headers[0]
		headers = headers[1:]
		return h, true
	}
	tree, ok := next("tree")
	if !ok || !isHash(string(tree.value)) {
		return nil, errors.New("it does not start with a tree")
	}
	c.tree = plumbing.NewHash(string(tree.value))
	for {
		parent, ok := next("parent")
		if !ok {
			break
		}
		if !isHash(string(parent.value)) {
			return nil, errors.New("a parent is no hash")
		}
		c.parents = append(c.parents, plumbing.NewHash(string(parent.value)))
	}
	author, ok := next("author")
	if !ok {
		return nil, errors.New("no author after the tree and parents")
	}
	if _, err := stamp(author.value); err != nil {
		return nil, fmt.Errorf("author: %w", err)
	}
	committer, ok := next("committer")
	if !ok {
		return nil, errors.New("no committer after the author")
	}
	when, err := stamp(committer.value)
	if err != nil {
		return nil, fmt.Errorf("committer: %w", err)
	}
	c.when = when
	return headers, nil
}

// stamp reads the time from "Name <address> seconds zone".
func stamp(ident []byte) (time.Time, error) {
	end := bytes.LastIndex(ident, []byte("> "))
	if end < 0 || bytes.IndexByte(ident, '<') < 0 || bytes.IndexByte(ident, '\n') >= 0 {
		return time.Time{}, errors.New("not in the form Name <address> time zone")
	}
	seconds, zone, ok := strings.Cut(string(ident[end+2:]), " ")
	if !ok || len(zone) != 5 || zone[0] != '+' && zone[0] != '-' || strings.Trim(zone[1:], "0123456789") != "" ||
		strings.Trim(seconds, "0123456789") != "" {
		return time.Time{}, errors.New("not a time and a zone")
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || n > 1<<40 {
		return time.Time{}, errors.New("not a time")
	}
	return time.Unix(n, 0).UTC(), nil
}

// treeOf reads only the tree, from any commit; zero when it is malformed.
func treeOf(raw []byte) plumbing.Hash {
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	value, ok := bytes.CutPrefix(line, []byte("tree "))
	if !ok || !isHash(string(value)) {
		return plumbing.ZeroHash
	}
	return plumbing.NewHash(string(value))
}

// parentsOf reads only the parents, from any commit of the history that git itself would read: old
// commits were never verified and need not have the form that parseCommit wants.
func parentsOf(raw []byte) []plumbing.Hash {
	var parents []plumbing.Hash
	for line := range bytes.Lines(raw) {
		value, isParent := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("parent "))
		switch {
		case isParent && isHash(string(value)):
			parents = append(parents, plumbing.NewHash(string(value)))
		case !bytes.HasPrefix(line, []byte("tree ")):
			return parents // the parents directly follow the tree
		}
	}
	return parents
}
