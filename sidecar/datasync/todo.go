//go:build linux

package datasync

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/wire"
)

// todo is what makes the mirror equal to the tree. Paths may be in it twice; send.go orders it.
type todo struct {
	makes     []string             // directories, those above before those below
	files     []string             // files and symbolic links
	names     []string             // further names of files
	describes []string             // files of which only the metadata changed
	removes   []string             // nothing
	sets      map[string]bool      // directories, whose own entry comes last
	kept      map[string]bool      // of files and removes: the mirror's version goes to lost+found
	gone      map[tree.Hash]string // files that may have moved, by content
}

func (d *todo) bring(e tree.Entry) {
	if e.Link != "" {
		d.names = append(d.names, e.Path)
	} else {
		d.files = append(d.files, e.Path)
	}
	d.touch(path.Dir(e.Path))
}

// held is a path that must come after others (tree.Policy.Last), which may not have been told of yet.
type held struct {
	sum     tree.Hash // of the version that waits
	barrier uint64    // behind which everything has been told that happened before it was looked at; zero: not asked for yet
	keep    bool      // see todo.keep
}

// bring lets a file or symbolic link be sent: at once, or when all has been told of that it may stand for.
func (s *sourceSession) bring(e tree.Entry) {
	if s.set.Policy.Rank(e.Path) == 0 {
		s.todo.bring(e)
		return
	}
	if s.held == nil {
		s.held = map[string]held{}
	}
	s.held[e.Path] = held{sum: e.Sum(), keep: s.todo.kept[e.Path] || s.held[e.Path].keep}
}

// hold asks for the barriers behind which what is held goes.
func (s *sourceSession) hold() error {
	var n uint64
	for at, h := range s.held {
		if h.barrier > 0 {
			continue
		}
		if n == 0 {
			var err error
			if n, err = s.watch.Barrier(); err != nil {
				return err
			}
		}
		h.barrier = n
		s.held[at] = h
	}
	return nil
}

// release lets go what a barrier was waited for. What has changed again meanwhile waits for another.
func (s *sourceSession) release(ctx context.Context, barrier uint64) error {
	for at, h := range s.held {
		if h.barrier == 0 || h.barrier > barrier {
			continue
		}
		u, err := s.scan.Update(ctx, s.tree, at, tree.Itself)
		if err != nil {
			return fmt.Errorf("look at %q: %w", at, err)
		}
		s.warn(u.Problems)
		e, found := s.tree.Peek(at)
		if u.Top != at || !found || e.Unsettled || e.Kind == tree.Directory {
			delete(s.held, at)
			if err := s.whole(ctx, u.Top); err != nil {
				return err
			}
			continue
		}
		if e.Sum() != h.sum {
			s.bring(e)
			continue
		}
		delete(s.held, at)
		s.todo.bring(e)
		if h.keep {
			s.todo.keep(at)
		}
	}
	return nil
}

func (d *todo) remove(at string) {
	d.removes = append(d.removes, at)
	d.touch(path.Dir(at))
}

// keep lets the mirror's version of a path go to lost+found.
func (d *todo) keep(at string) {
	if d.kept == nil {
		d.kept = map[string]bool{}
	}
	d.kept[at] = true
}

// touch lets a directory's own entry be sent, because something changed in it, here or there.
func (d *todo) touch(dir string) {
	if d.sets == nil {
		d.sets = map[string]bool{}
	}
	d.sets[dir] = true
}

// worthTaking is from which size on it is looked for a file that was moved, in bytes: below, its content is sent as quickly.
const worthTaking = 4 << 10

// leave notes the content of what is about to be removed, in case that it was moved.
func (d *todo) leave(e tree.Entry) {
	if e.Kind != tree.File || e.Unsettled || e.Link != "" || e.Size < worthTaking {
		return
	}
	if d.gone == nil {
		d.gone = map[tree.Hash]string{}
	}
	d.gone[e.Hash] = e.Path
}

// window is how many directories are asked for at once.
const window = 64

// compare finds out in what the mirror differs at and below a directory of the tree. The answers come in the order of the questions, so
// many are on their way at once.
func (s *sourceSession) compare(ctx context.Context, top string) error {
	queue, asked := []string{top}, 0
	s.todo.touch(top)
	for len(queue) > 0 {
		for ; asked < len(queue) && asked < window; asked++ {
			s.inbox.ask()
			if err := s.w.Write(&wire.Ask{Path: queue[asked]}); err != nil {
				return fmt.Errorf("ask the mirror: %w", err)
			}
		}
		if err := s.w.Flush(); err != nil {
			return fmt.Errorf("ask the mirror: %w", err)
		}
		l, err := s.inbox.listed(ctx)
		if err != nil {
			return err
		}
		dir := queue[0]
		queue, asked = queue[1:], asked-1
		if l.path != dir {
			return fmt.Errorf("%w: %q for %q", wire.ErrMalformed, l.path, dir)
		}
		queue = append(queue, s.compareOne(dir, l.children)...)
	}
	return nil
}

// compareOne notes what one directory needs, and returns those in it that must be looked into.
func (s *sourceSession) compareOne(dir string, mirror []tree.Child) (descend []string) {
	kinds := make(map[string]tree.Kind, len(mirror))
	for _, c := range mirror {
		kinds[c.Name] = c.Kind
	}
	for _, f := range tree.Compare(s.tree.Children(dir), mirror) {
		at := f.Name
		if dir != "." {
			at = dir + "/" + f.Name
		}
		if s.found(at, f.Verdict, kinds[f.Name]) && f.Descend {
			descend = append(descend, at)
		}
	}
	return descend
}

// found notes what one name needs, and says whether it is a directory on both sides afterwards.
func (s *sourceSession) found(at string, v tree.Verdict, mirror tree.Kind) bool {
	d := &s.todo
	e, _ := s.tree.Peek(at)
	switch v {
	case tree.Held:
		s.later(at, "it cannot be read here")
		return false
	case tree.Extra:
		if s.first {
			d.keep(at)
		}
		d.remove(at)
		return false
	case tree.Contents:
		return true
	}
	another := v == tree.Missing || mirror != e.Kind
	if s.first && v == tree.Differs && (another || e.Kind != tree.Directory) {
		d.keep(at)
	}
	if e.Kind != tree.Directory {
		s.bring(e)
		return false
	}
	if another {
		d.makes = append(d.makes, at)
		d.touch(path.Dir(at))
	}
	d.touch(at)
	return true
}

// change looks at a path that has changed.
func (s *sourceSession) change(ctx context.Context, at string, extent tree.Extent) error {
	old, had := s.tree.Peek(at)
	if had {
		s.leaves(old)
	}
	dir := path.Dir(at)
	above, _ := s.tree.Peek(dir)
	u, err := s.scan.Update(ctx, s.tree, at, extent)
	if err != nil {
		return fmt.Errorf("look at %q: %w", at, err)
	}
	s.warn(u.Problems)
	if now, found := s.tree.Peek(dir); found && now.Sum() != above.Sum() {
		s.todo.touch(dir)
	}
	if u.Top != at || extent != tree.Itself {
		return s.whole(ctx, u.Top)
	}
	now, has := s.tree.Peek(at)
	forced := s.waiting[at] != nil
	switch {
	case !has && !had && !forced:
	case had && has && !forced && !now.Unsettled && !old.Unsettled && now.Kind == old.Kind:
		s.differs(old, now)
	default:
		return s.whole(ctx, at)
	}
	return nil
}

// leaves notes what may be about to go. That it looks at the disk before the scanner does is only to spare it directories that stay.
func (s *sourceSession) leaves(e tree.Entry) {
	if e.Kind == tree.Directory {
		if _, err := os.Lstat(filepath.Join(s.set.Root, e.Path)); err == nil {
			return
		}
	}
	for below := range s.tree.Below(e.Path) {
		s.todo.leave(below)
	}
}

// differs notes what has become of an entry whose kind is the same.
func (s *sourceSession) differs(old, now tree.Entry) {
	if now.Sum() == old.Sum() {
		return // nothing that is mirrored
	}
	switch {
	case now.Kind == tree.Directory:
		s.todo.touch(now.Path)
	case now.Kind == tree.File && now.Hash == old.Hash && now.Size == old.Size && now.Link == old.Link:
		s.todo.describes = append(s.todo.describes, now.Path)
	default:
		s.bring(now)
	}
}

// whole lets the mirror get all that the tree has at a path, whatever is there.
func (s *sourceSession) whole(ctx context.Context, at string) error {
	delete(s.waiting, at)
	e, found := s.tree.Peek(at)
	switch {
	case !found:
		s.todo.remove(at)
		return nil
	case e.Unsettled:
		s.later(at, "it cannot be read here")
		return nil
	case e.Kind != tree.Directory:
		s.bring(e)
		for _, other := range s.tree.OtherNames(at) { // it comes as a new inode
			if o, _ := s.tree.Peek(other); !o.Unsettled {
				s.bring(o)
			}
		}
		return nil
	}
	if at != "." {
		s.todo.makes = append(s.todo.makes, at)
		s.todo.touch(path.Dir(at))
	}
	return s.compare(ctx, at)
}

// regrouped sends the other names of inodes of which one has changed.
func (s *sourceSession) regrouped() {
	for _, at := range s.tree.TakeRegrouped() {
		if e, found := s.tree.Peek(at); found && !e.Unsettled {
			s.bring(e)
		} else if found {
			s.later(at, "it cannot be read here")
		}
	}
}

// shrinkage is what the tree had when a minute began: what is removed bit by bit is removed.
type shrinkage struct {
	began   time.Time
	entries int
	had     tree.Totals
}

// rails refuses to go on when the source looks like one that was lost. The error is a *tree.Refusal.
func (s *sourceSession) rails(had tree.Totals) error {
	root, err := openRoot(s.set)
	if err != nil {
		return err
	}
	defer root.Close()
	marker, err := marked(root, s.set)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	has := s.tree.Totals(".")
	deletes := tree.Totals{Files: max(had.Entries()-has.Entries(), 0)}
	if err := (tree.Situation{Marker: marker, Source: has, Mirror: had, Deletes: deletes, Allowed: s.allowed}).Check(); err != nil {
		return err
	}
	s.allowed = 0
	return nil
}

// visible is from how many entries on a shrinking directory is looked at while it is followed. Below it a person sees at a glance what
// happened, and the trash holds it.
const visible = 20

// shrunk is rails for what is removed while it is followed.
func (s *sourceSession) shrunk(began time.Time) error {
	if began.Sub(s.minute.began) > time.Minute {
		s.minute = shrinkage{began, s.tree.Entries(), s.tree.Totals(".")}
	}
	if n := s.minute.entries; n < visible || 2*s.tree.Entries() >= n {
		return nil
	}
	if err := s.rails(s.minute.had); err != nil {
		return err
	}
	s.minute = shrinkage{} // it was allowed
	return nil
}
