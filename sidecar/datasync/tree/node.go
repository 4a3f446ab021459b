//go:build linux

package tree

import (
	"cmp"
	"slices"
	"strings"
)

// node is an entry as it is kept: 112 bytes, besides its name, for a plain file. It holds what an index needs, too.
type node struct {
	name    string // the root's is "."
	parent  *node  // nil for the root, and until the node is adopted
	account *account
	more    *more // nil: nothing more
	size    int64
	mtime   int64
	ctime   int64
	inode   uint64
	hash    Hash
	mode    uint16
	kind    Kind
	flags   flags
}

// more is what few files have and every directory.
type more struct {
	children     []*node // sorted by name
	xattrs       []Xattr
	target, link string
}

type flags uint8

const (
	unsettled flags = 1 << iota
	racy            // what was read may be older than the times say, see racily
	linked          // the inode had more than one name
	stale           // of a directory: the digest must be computed again; its ancestors are stale, too
	borrowed        // another name of the inode is being read; regroup fills this one in
	doubted         // see Tree.Doubt; never in an index
)

// account is who owns a node. Nodes share them.
type account struct{ owner, group string }

func compareName(n *node, name string) int { return cmp.Compare(n.name, name) }

// child is nil where there is none.
func (n *node) child(name string) *node {
	if n == nil || n.more == nil {
		return nil
	}
	if i, ok := slices.BinarySearchFunc(n.more.children, name, compareName); ok {
		return n.more.children[i]
	}
	return nil
}

func (n *node) children() []*node {
	if n == nil || n.more == nil {
		return nil
	}
	return n.more.children
}

func (n *node) has(f flags) bool { return n.flags&f != 0 }

func (n *node) xattrs() []Xattr {
	if n.more == nil {
		return nil
	}
	return n.more.xattrs
}

func (n *node) link() string {
	if n.more == nil {
		return ""
	}
	return n.more.link
}

func (n *node) target() string {
	if n.more == nil {
		return ""
	}
	return n.more.target
}

// extra gives room for what few nodes have.
func (n *node) extra() *more {
	if n.more == nil {
		n.more = &more{}
	}
	return n.more
}

// path goes up to the root.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	size := -1
	for at := n; at.parent != nil; at = at.parent {
		size += 1 + len(at.name)
	}
	b := make([]byte, size)
	for at := n; at.parent != nil; at = at.parent {
		size -= len(at.name)
		copy(b[size:], at.name)
		if size--; size >= 0 {
			b[size] = '/'
		}
	}
	return string(b)
}

func (n *node) entry(path string) Entry {
	e := Entry{Path: path, Kind: n.kind, Unsettled: n.has(unsettled), Mode: n.mode, MTime: n.mtime,
		Hash: n.hash, Target: n.target(), Xattrs: n.xattrs(), Link: n.link()}
	if n.kind == File {
		e.Size = n.size
	}
	if n.has(doubted) {
		for i := range e.Hash {
			e.Hash[i] ^= 0xff
		}
	}
	if n.account != nil {
		e.Owner, e.Group = n.account.owner, n.account.group
	}
	return e
}

// adopt tells what lies below a node where it lies. A directory's children were all made anew, or are all those of the node
// that it replaces, so the first tells of the others.
func (n *node) adopt() {
	for _, c := range n.children() {
		c.parent = n
		if below := c.children(); len(below) > 0 && below[0].parent != c {
			c.adopt()
		}
	}
}

// touch makes the digests from a directory up to the root stale.
func (n *node) touch() {
	for ; n != nil && !n.has(stale); n = n.parent {
		n.flags |= stale
	}
}

// each calls visit for a node and all below it, parents first, by name.
func (n *node) each(path string, visit func(path string, n *node) bool) bool {
	if n == nil {
		return true
	}
	if !visit(path, n) {
		return false
	}
	for _, c := range n.children() {
		if !c.each(join(path, c.name), visit) {
			return false
		}
	}
	return true
}

// leaves is each without paths and directories.
func (n *node) leaves(visit func(n *node)) {
	if n == nil {
		return
	}
	if n.kind == File || n.kind == Symlink {
		visit(n)
	}
	for _, c := range n.children() {
		c.leaves(visit)
	}
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// split is the reverse of join. Of the root: "" and ".".
func split(path string) (dir, name string) {
	if path == "." {
		return "", path
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return ".", path
}

// Valid says whether a path may stand in an entry: relative, no empty, "." or ".." element (but "." alone), no NUL, no name
// above 255 bytes.
func Valid(path string) bool {
	if path == "." {
		return true
	}
	for name := range strings.SplitSeq(path, "/") {
		if !validName(name) {
			return false
		}
	}
	return len(path) <= maxPath
}

func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
}
