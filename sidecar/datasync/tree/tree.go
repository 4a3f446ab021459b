//go:build linux

package tree

import (
	"iter"
	"slices"
)

// Tree is a directory and all below it, as it was when it was scanned. It is its own index: Scan takes from an earlier tree
// what needs not be read again. It is not safe for concurrent use.
type Tree struct {
	root     *node // never nil
	accounts map[account]*account
	inodes   map[uint64][]*node // files and symlinks; nil until one has two names
	// regrouped: see TakeRegrouped. It grows with the tree at most.
	regrouped map[*node]bool
	entries   int // below the root, kept up to date once somebody has asked; zero: nobody has
}

func newTree() *Tree {
	return &Tree{root: &node{name: ".", kind: Directory, flags: stale, more: &more{}}, accounts: map[account]*account{}}
}

// account returns the one that nodes share.
func (t *Tree) account(a account) *account {
	shared := t.accounts[a]
	if shared == nil {
		shared = &a
		t.accounts[a] = shared
	}
	return shared
}

// at finds the node of a path, or nil.
func (t *Tree) at(path string) *node {
	if path == "." {
		return t.root
	}
	dir, name := split(path)
	return t.at(dir).child(name)
}

// Doubt gives a file's entry a hash that no content has, until other content comes for it: what lies there is known to have rotted. What Save
// writes, and a scan finds to be unchanged, is the content that ought to be there. Nothing at the path: nothing is doubted.
func (t *Tree) Doubt(path string) {
	if !Valid(path) {
		return
	}
	n := t.at(path)
	if n == nil || n.kind != File || n.parent == nil {
		return
	}
	names := []*node{n}
	if n.has(linked) && t.inodes != nil {
		names = t.inodes[n.inode]
	}
	for _, n := range names {
		n.flags |= doubted
		n.parent.touch()
	}
}

// Lookup finds one entry.
func (t *Tree) Lookup(path string) (e Entry, found bool) {
	if !Valid(path) {
		return Entry{}, false
	}
	n := t.at(path)
	if n == nil {
		return Entry{}, false
	}
	if n.kind == Directory {
		t.freshen()
	}
	return n.entry(path), true
}

// Peek is Lookup without the digests of directories, whose Hash is worth nothing then; it costs the same in any tree.
func (t *Tree) Peek(path string) (e Entry, found bool) {
	if !Valid(path) {
		return Entry{}, false
	}
	n := t.at(path)
	if n == nil {
		return Entry{}, false
	}
	return n.entry(path), true
}

// TakeRegrouped returns the paths whose entries have changed since the last call because another name of their inode did, or came, or
// went; of a path that was updated itself it may tell, too.
func (t *Tree) TakeRegrouped() []string {
	paths := make([]string, 0, len(t.regrouped))
	for n := range t.regrouped {
		if path := n.path(); t.at(path) == n { // else it has left the tree
			paths = append(paths, path)
		}
	}
	t.regrouped = nil
	slices.Sort(paths)
	return paths
}

// OtherNames are the paths of the same inode within the tree but path itself, sorted.
func (t *Tree) OtherNames(path string) (all []string) {
	n := t.at(path)
	if n == nil || !n.has(linked) || t.inodes == nil {
		return nil
	}
	for _, o := range t.inodes[n.inode] {
		if o != n && o.has(linked) && o.kind == n.kind {
			all = append(all, o.path())
		}
	}
	slices.Sort(all)
	return all
}

// Below is every entry at and below a path, without the digests of directories. The tree must not change meanwhile.
func (t *Tree) Below(path string) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		if Valid(path) {
			t.at(path).each(path, func(at string, n *node) bool { return yield(n.entry(at)) })
		}
	}
}

// List is the entries of one directory without itself, by name; nothing where there is no such directory.
func (t *Tree) List(path string) []Entry {
	if !Valid(path) {
		return nil
	}
	t.freshen()
	children := t.at(path).children()
	entries := make([]Entry, 0, len(children))
	for _, c := range children {
		entries = append(entries, c.entry(join(path, c.name)))
	}
	return entries
}

// All is every entry, the root first, directories before what lies in them, else by name. The tree must not change meanwhile.
func (t *Tree) All() iter.Seq[Entry] {
	t.freshen()
	return func(yield func(Entry) bool) {
		t.root.each(".", func(path string, n *node) bool { return yield(n.entry(path)) })
	}
}

// Totals counts what lies at and below a path, the root of the tree excepted. Nothing there: zero.
func (t *Tree) Totals(path string) (sum Totals) {
	if !Valid(path) {
		return Totals{}
	}
	t.at(path).each(path, func(_ string, n *node) bool {
		if n == t.root {
			return true
		}
		switch n.kind {
		case Directory:
			sum.Directories++
		case File:
			sum.Files++
			sum.Bytes += n.size
		case Symlink:
			sum.Symlinks++
		}
		if n.has(unsettled) {
			sum.Unsettled++
		}
		return true
	})
	return sum
}

// Entries is how many paths there are, without the root. Only the first call counts them.
func (t *Tree) Entries() int {
	if t.entries == 0 {
		t.entries = t.root.count() - 1
	}
	return t.entries
}

// count is how many nodes there are at and below one.
func (n *node) count() int {
	if n == nil {
		return 0
	}
	nodes := 1
	for _, c := range n.children() {
		nodes += c.count()
	}
	return nodes
}

// Remove takes out a path and all below it. What is not there is no error; the root stays.
func (t *Tree) Remove(path string) {
	if dir, name := split(path); Valid(path) && path != "." {
		t.graft(t.at(dir), name, nil)
	}
}

// sameChildren says that one directory took over what lies in another.
func sameChildren(a, b *node) bool {
	x, y := a.children(), b.children()
	return a != nil && b != nil && len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0])
}

// graft puts a node, or nothing, in the place of a child. It returns the inodes of which names have left the tree and others are there:
// what happened through the names that left nobody has told of the others.
func (t *Tree) graft(dir *node, name string, n *node) (left []uint64) {
	if dir == nil {
		return nil
	}
	old := dir.child(name)
	if old == nil && n == nil {
		return nil
	}
	if t.entries > 0 && !sameChildren(old, n) {
		t.entries += n.count() - old.count()
	}
	touched := t.unlink(old)
	left = slices.Clone(touched)
	children := &dir.extra().children
	i, found := slices.BinarySearchFunc(*children, name, compareName)
	switch {
	case n == nil:
		*children = slices.Delete(*children, i, i+1)
	case found:
		(*children)[i] = n
	default:
		*children = slices.Insert(*children, i, n)
	}
	if n != nil {
		n.parent = dir
		n.adopt()
	}
	dir.touch()
	come := t.enlink(n)
	t.regroup(append(touched, come...))
	return slices.DeleteFunc(left, func(inode uint64) bool { return slices.Contains(come, inode) })
}
