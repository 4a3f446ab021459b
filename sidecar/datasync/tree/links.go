//go:build linux

package tree

import (
	"cmp"
	"slices"
)

// unlink forgets the inodes of what leaves the tree and returns those of which other names may remain.
func (t *Tree) unlink(old *node) (touched []uint64) {
	if t.inodes == nil {
		return nil
	}
	old.leaves(func(n *node) {
		names := slices.DeleteFunc(t.inodes[n.inode], func(m *node) bool { return m == n })
		if len(names) == 0 {
			delete(t.inodes, n.inode)
			return
		}
		t.inodes[n.inode] = names
		touched = append(touched, n.inode)
	})
	return touched
}

// enlink is the reverse of unlink, for what has come into the tree. The index by inode is made when the first file with two
// names comes: few trees have any.
func (t *Tree) enlink(come *node) (touched []uint64) {
	several := false
	come.leaves(func(n *node) {
		if n.has(linked) {
			several = true
			touched = append(touched, n.inode)
		}
	})
	if t.inodes == nil {
		if several {
			t.inodes = map[uint64][]*node{}
			t.root.leaves(func(n *node) { t.inodes[n.inode] = append(t.inodes[n.inode], n) })
		}
		return touched
	}
	come.leaves(func(n *node) {
		names := append(t.inodes[n.inode], n)
		t.inodes[n.inode] = names
		if len(names) > 1 {
			touched = append(touched, n.inode)
		}
	})
	return touched
}

// regroup settles which names belong to one inode, and gives all of them what was seen last of it: a change made through one
// name is a change of the others, of which no event tells.
func (t *Tree) regroup(inodes []uint64) {
	slices.Sort(inodes)
	for _, inode := range slices.Compact(inodes) {
		if len(t.inodes[inode]) > 0 {
			t.regroupNames(t.inodes[inode])
		}
	}
}

// regroupNames settles the names of one inode and remembers those that changed.
func (t *Tree) regroupNames(names []*node) {
	before := make([]identity, len(names))
	for i, n := range names {
		before[i] = n.identity()
	}
	regroup(names)
	for i, n := range names {
		if n.identity() != before[i] {
			t.note(n)
		}
	}
}

// note remembers a node for TakeRegrouped.
func (t *Tree) note(n *node) {
	if t.regrouped == nil {
		t.regrouped = map[*node]bool{}
	}
	t.regrouped[n] = true
}

// identity is what a name takes over from its group.
type identity struct {
	link               string
	mtime, ctime, size int64
	hash               Hash
	mode               uint16
	account            *account
	unsettled          bool
}

func (n *node) identity() identity {
	return identity{n.link(), n.mtime, n.ctime, n.size, n.hash, n.mode, n.account, n.has(unsettled)}
}

func regroup(names []*node) {
	newest := slices.MaxFunc(names, func(a, b *node) int {
		if a.has(borrowed) != b.has(borrowed) {
			return cmp.Compare(b.flags&borrowed, a.flags&borrowed)
		}
		return cmp.Compare(a.ctime, b.ctime)
	})
	if newest.has(borrowed) { // the name that was read is another file by now
		newest.flags = newest.flags&^borrowed | unsettled
		newest.parent.touch()
	}
	// The number of a removed file is soon used again, and its removal may not have come to us yet.
	var group []*node
	for _, n := range names {
		if n == newest || newest.has(linked) && n.kind == newest.kind {
			group = append(group, n)
		} else {
			n.setLink("")
		}
	}
	paths := make(map[*node]string, len(group))
	for _, n := range group {
		paths[n] = n.path()
	}
	slices.SortFunc(group, func(a, b *node) int { return cmp.Compare(paths[a], paths[b]) })
	for _, n := range group {
		n.become(newest)
		if n == group[0] {
			n.setLink("")
		} else {
			n.setLink(paths[group[0]])
		}
	}
}

func (n *node) setLink(first string) {
	if n.link() != first {
		n.extra().link = first
		n.parent.touch()
	}
}

// become takes over what another name of the inode knows.
func (n *node) become(o *node) {
	if n == o {
		return
	}
	n.size, n.mtime, n.ctime, n.hash = o.size, o.mtime, o.ctime, o.hash
	n.account, n.mode, n.flags = o.account, o.mode, o.flags
	if o.more != nil || n.more != nil {
		more := n.extra()
		more.xattrs, more.target = o.xattrs(), o.target()
	}
	n.parent.touch()
}
