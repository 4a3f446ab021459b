//go:build linux

package datasync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"understudy/sidecar/datasync/delta"
	"understudy/sidecar/datasync/pack"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/wire"
)

// batch is what was sent since the last Commit.
type batch struct {
	changes int
	bytes   int64
	began   time.Time // when the first of it was noticed
}

const (
	// A batch is committed when it has so many changes or bytes: the mirror's syncs are shared by many, and lag is known in steps.
	batchChanges = 2000
	batchBytes   = 64 << 20
	// batchesAhead is how many may be on their way.
	batchesAhead = 4
	// worthPatching is the size in bytes from which on the mirror's version is asked for first.
	worthPatching = 256 << 10
)

// deliver sends all that is to be sent. The order lets the mirror never have a name without what it stands for: directories, files by rank,
// further names of those, then removals, and in the end the directories' own entries, whose times all else has changed.
func (s *sourceSession) deliver(ctx context.Context) error {
	d := s.todo
	s.todo = todo{}
	taken := map[string]bool{}
	for _, at := range d.makes {
		if err := s.make(ctx, &d, at); err != nil {
			return err
		}
	}
	for _, at := range s.ranked(d.files) {
		if err := s.file(ctx, &d, taken, at); err != nil {
			return err
		}
	}
	for _, at := range slices.Concat(unique(d.describes), s.ranked(d.names)) {
		if err := s.entry(ctx, &d, at); err != nil {
			return err
		}
	}
	for _, at := range unique(d.removes) {
		if _, back := s.tree.Peek(at); back || taken[at] {
			continue
		}
		var m wire.Message = &wire.Remove{Path: at}
		if d.kept[at] {
			m = &wire.Keep{Path: at}
		}
		if err := s.put(ctx, m, 0); err != nil {
			return err
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(d.sets)) {
		if e, found := s.tree.Peek(dir); found && e.Kind == tree.Directory && !e.Unsettled {
			if err := s.put(ctx, &wire.Set{Entry: e}, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func unique(paths []string) []string {
	slices.Sort(paths)
	return slices.Compact(paths)
}

// ranked orders paths by the policy, and by name.
func (s *sourceSession) ranked(paths []string) []string {
	paths = unique(paths)
	if len(s.set.Policy.Last) > 0 {
		slices.SortStableFunc(paths, func(a, b string) int { return cmp.Compare(s.set.Policy.Rank(a), s.set.Policy.Rank(b)) })
	}
	return paths
}

// put sends one change, and a Commit when there are enough.
func (s *sourceSession) put(ctx context.Context, m wire.Message, bytes int64) error {
	if err := s.w.Write(m); err != nil {
		return fmt.Errorf("tell the mirror: %w", err)
	}
	return s.count(ctx, bytes)
}

func (s *sourceSession) count(ctx context.Context, bytes int64) error {
	s.sent.changes++
	s.sent.bytes += bytes
	if s.sent.changes < batchChanges && s.sent.bytes < batchBytes {
		return nil
	}
	return s.commit(ctx, batchesAhead, partly)
}

// extent of a Commit.
type progress int

const (
	partly progress = iota // more follows
	all                    // nothing more is known
)

// commit ends a batch and waits until no more than so many are on their way.
func (s *sourceSession) commit(ctx context.Context, ahead int, p progress) error {
	s.seq++
	if err := s.say(&wire.Commit{Seq: s.seq, Complete: p == all && len(s.waiting) == 0 && len(s.held) == 0, More: p == partly}); err != nil {
		return err
	}
	s.commits = append(s.commits, committed{seq: s.seq, batch: s.sent})
	s.sent = batch{began: s.sent.began}
	if n := len(s.commits); n > ahead {
		until := s.commits[n-1-ahead].seq
		if err := s.inbox.await(ctx, func() bool { return s.inbox.durable >= until }); err != nil {
			return err
		}
	}
	if err := s.heard(); err != nil {
		return err
	}
	if p == partly {
		s.tell(s.underway)
	}
	return nil
}

// make sends a directory, without which nothing below it can be sent.
func (s *sourceSession) make(ctx context.Context, d *todo, at string) error {
	e, found := s.tree.Peek(at)
	if !found || e.Kind != tree.Directory || e.Unsettled {
		return nil // it has changed again
	}
	if err := s.spare(ctx, d, at); err != nil {
		return err
	}
	return s.put(ctx, &wire.Make{Entry: e}, 0)
}

// spare sends the mirror's version of a path to lost+found, where that is wanted.
func (s *sourceSession) spare(ctx context.Context, d *todo, at string) error {
	if !d.kept[at] {
		return nil
	}
	return s.put(ctx, &wire.Keep{Path: at}, 0)
}

// entry sends what needs no content: a further name, or new metadata.
func (s *sourceSession) entry(ctx context.Context, d *todo, at string) error {
	e, found := s.tree.Peek(at)
	if !found || e.Kind == tree.Directory || e.Unsettled {
		return nil
	}
	if err := s.spare(ctx, d, at); err != nil {
		return err
	}
	if e.Link != "" {
		return s.put(ctx, &wire.Make{Entry: e}, 0)
	}
	return s.put(ctx, &wire.Set{Entry: e}, 0)
}

// file sends a file or a symbolic link.
func (s *sourceSession) file(ctx context.Context, d *todo, taken map[string]bool, at string) error {
	e, found := s.tree.Peek(at)
	if !found || e.Kind == tree.Directory || e.Unsettled {
		return nil
	}
	from := d.gone[e.Hash]
	moved := from != "" && e.Kind == tree.File && e.Link == "" && e.Size >= worthTaking && !d.kept[from] && !d.kept[at]
	if _, there := s.tree.Peek(from); moved && !there && s.waiting[from] == nil {
		delete(d.gone, e.Hash)
		taken[from] = true
		return s.put(ctx, &wire.Take{From: from, Entry: e}, 0)
	}
	var message wire.Message = &wire.Put{Entry: e}
	if e.Kind == tree.Symlink || e.Link != "" {
		message = &wire.Make{Entry: e}
	}
	if e.Kind == tree.Symlink || e.Link != "" {
		if err := s.spare(ctx, d, at); err != nil {
			return err
		}
		return s.put(ctx, message, 0)
	}
	return s.content(ctx, d, e)
}

// content sends a file with what is in it. If it has changed since it was looked at, the mirror finds that by the hash, and the file is
// sent again.
func (s *sourceSession) content(ctx context.Context, d *todo, e tree.Entry) (err error) {
	f, err := s.scan.Open(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		s.later(e.Path, "it went away while it was being sent")
		return nil
	}
	if err != nil {
		s.later(e.Path, err.Error())
		return nil
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var old *delta.Signature
	if e.Size >= worthPatching {
		if old, err = s.signature(ctx, e.Path); err != nil {
			return err
		}
	}
	if err := s.spare(ctx, d, e.Path); err != nil {
		return err
	}
	sent, readErr, err := s.stream(f, e, old)
	if err != nil {
		return err
	}
	if err := s.w.Write(&wire.Data{}); err != nil {
		return fmt.Errorf("tell the mirror: %w", err)
	}
	if readErr != nil { // the mirror will not take what it has got
		s.later(e.Path, readErr.Error())
	}
	return s.count(ctx, sent)
}

// stream sends a file's content or the way to it. The first error is that of reading the file.
func (s *sourceSession) stream(f *os.File, e tree.Entry, old *delta.Signature) (sent int64, readErr, err error) {
	var head wire.Message = &wire.Put{Entry: e}
	if old != nil {
		head = &wire.Patch{Entry: e}
	}
	if err := s.w.Write(head); err != nil {
		return 0, nil, fmt.Errorf("tell the mirror: %w", err)
	}
	out := &dataWriter{s: s}
	in := &fileReader{r: io.LimitReader(f, e.Size)}
	if old != nil {
		_, err = delta.Diff(old, in, out)
	} else {
		if s.buf == nil {
			s.buf = make([]byte, wire.MaxData)
		}
		_, err = io.CopyBuffer(out, in, s.buf)
	}
	if in.err != nil {
		return out.n, in.err, nil
	}
	if err != nil {
		return out.n, nil, fmt.Errorf("send %q: %w", e.Path, err)
	}
	return out.n, nil, nil
}

// signature asks for that of the mirror's version. Nil: there is none that helps.
func (s *sourceSession) signature(ctx context.Context, at string) (*delta.Signature, error) {
	if err := s.say(&wire.Sign{Path: at}); err != nil {
		return nil, err
	}
	body, err := s.inbox.signatureOf(ctx)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	return delta.ParseSignature(body)
}

// fileReader tells the errors of reading from those of sending.
type fileReader struct {
	r   io.Reader
	err error
}

func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// dataWriter sends what is written to it as Data messages, packed where that makes it arrive sooner.
type dataWriter struct {
	s *sourceSession
	n int64
}

func (d *dataWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), wire.MaxData)]
		if err := d.s.part(part); err != nil {
			return n, err
		}
		n, p = n+len(part), p[len(part):]
		d.n += int64(len(part))
	}
	return n, nil
}

// part sends one Data or Packed message, and learns from how long that took.
func (s *sourceSession) part(b []byte) error {
	var message wire.Message = &wire.Data{Bytes: b}
	stretch := pack.Stretch{Bytes: len(b), Tried: s.packing.Pack}
	began := time.Now()
	if stretch.Tried {
		if s.packer == nil {
			var err error
			if s.packer, err = pack.New(); err != nil {
				return err
			}
		}
		var shorter bool
		if s.short, shorter = s.packer.Pack(s.short[:0], b); shorter {
			message = &wire.Packed{Size: uint64(len(b)), Bytes: s.short}
		}
		stretch.Packing = time.Since(began)
	}
	err := s.w.Write(message)
	stretch.Blocked = time.Since(began) - stretch.Packing
	s.packing = s.packing.After(stretch)
	return err
}
