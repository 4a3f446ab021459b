//go:build linux

package tree

import (
	"cmp"
	"slices"
)

// Action is what makes one path of the mirror like the source's.
type Action uint8

const (
	Make     Action = iota + 1 // a directory; what its entry says comes last, see Plan
	Write                      // a file, whole, as a new inode
	Point                      // a symlink, as a new inode
	Join                       // a hard link to Entry.Link
	Describe                   // only owner, mode, mtime or xattrs, in place
)

// Op is one step. Replaces: something of another kind lies there and must go first, with all below it.
type Op struct {
	Action   Action
	Entry    Entry
	Replaces bool
}

// Plan makes a mirror equal to its source when Ops are done in order, then the Deletions, then Describe for each of the
// Directories. Its parts can be done again.
type Plan struct {
	// Ops: directories before what lies in them and before all else; files and symlinks by the policy's rank, a hard link
	// after its first path.
	Ops []Op
	// Deletions are on the mirror only; of a directory only itself, and all below it goes. The path may hold ignored files.
	Deletions []Entry
	// Directories whose entry differs, or in which something was done that changes their mtime. Deepest first.
	Directories []Entry
	// Held stay as they are on the mirror: the source does not know what they are.
	Held []string
}

// Diff compares two whole trees.
func Diff(source, mirror *Tree, policy Policy) Plan {
	source.freshen()
	mirror.freshen()
	d := &differ{policy: policy, touched: map[*node]string{}, b: &buffers{}}
	if source.root.sum(d.b) != mirror.root.sum(d.b) {
		d.touched[source.root] = "."
	}
	d.directory(".", source.root, mirror.root)
	return d.finish()
}

type differ struct {
	policy       Policy
	plan         Plan
	makes, files []Op
	touched      map[*node]string
	b            *buffers
}

func (d *differ) directory(path string, source, mirror *node) {
	if mirror != nil && source.hash == mirror.hash {
		return
	}
	a, b := source.children(), mirror.children()
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].name < b[0].name:
			d.both(join(path, a[0].name), a[0], nil)
			a = a[1:]
		case len(a) == 0 || a[0].name > b[0].name:
			at := join(path, b[0].name)
			d.plan.Deletions = append(d.plan.Deletions, b[0].entry(at))
			d.touched[source] = path
			b = b[1:]
		default:
			d.both(join(path, a[0].name), a[0], b[0])
			a, b = a[1:], b[1:]
		}
	}
}

// both looks at one path; mirror is nil where there is nothing.
func (d *differ) both(path string, source, mirror *node) {
	if source.has(unsettled) {
		d.plan.Held = append(d.plan.Held, path)
		return
	}
	replaces := mirror != nil && (mirror.kind != source.kind || mirror.has(unsettled))
	if replaces {
		mirror = nil
	}
	op := Op{Entry: source.entry(path), Replaces: replaces}
	changed := mirror == nil || source.sum(d.b) != mirror.sum(d.b)
	if source.kind == Directory {
		if mirror == nil {
			op.Action = Make
			d.makes = append(d.makes, op)
			d.touched[source.parent] = parentPath(path)
		}
		if changed {
			d.touched[source] = path
		}
		d.directory(path, source, mirror)
		return
	}
	if !changed {
		return
	}
	op.Action = action(source, mirror)
	if op.Action != Describe {
		d.touched[source.parent] = parentPath(path)
	}
	d.files = append(d.files, op)
}

func parentPath(path string) string {
	dir, _ := split(path)
	return dir
}

// action chooses for what is no directory and differs. One whose links differ is never changed in place: the inode has other
// names on the mirror.
func action(source, mirror *node) Action {
	switch {
	case source.link() != "":
		return Join
	case mirror != nil && mirror.link() == "" && source.hash == mirror.hash && source.target() == mirror.target() &&
		(source.kind != File || source.size == mirror.size):
		return Describe
	case source.kind == Symlink:
		return Point
	}
	return Write
}

// finish puts everything in its order.
func (d *differ) finish() Plan {
	rank := func(op Op) int {
		r := d.policy.Rank(op.Entry.Path)
		if op.Action == Join {
			r = max(r, d.policy.Rank(op.Entry.Link))
		}
		return r
	}
	ranks := make(map[string]int, len(d.files))
	for _, op := range d.files {
		ranks[op.Entry.Path] = rank(op)
	}
	slices.SortStableFunc(d.files, func(a, b Op) int {
		return cmp.Or(cmp.Compare(ranks[a.Entry.Path], ranks[b.Entry.Path]), cmp.Compare(later(a), later(b)))
	})
	d.plan.Ops = append(d.makes, d.files...)
	for n, path := range d.touched {
		d.plan.Directories = append(d.plan.Directories, n.entry(path))
	}
	// A path sorts after what it begins with.
	slices.SortFunc(d.plan.Directories, func(a, b Entry) int {
		if a.Path == "." || b.Path == "." {
			return cmp.Compare(b2i(a.Path == "."), b2i(b.Path == "."))
		}
		return cmp.Compare(b.Path, a.Path)
	})
	return d.plan
}

func later(op Op) int { return b2i(op.Action == Join) }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
