//go:build linux

package datasync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"understudy/sidecar/datasync/apply"
	"understudy/sidecar/datasync/delta"
	"understudy/sidecar/datasync/pack"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/wire"
)

// Set is one directory that is kept on two machines.
type Set struct {
	Name     string // what both sides call it
	Root     string
	Index    string // file in which the tree is remembered, outside of Root
	Policy   tree.Policy
	Accounts *tree.Accounts
}

// MirrorState is how far a mirror has come.
type MirrorState struct {
	// Position is what the directory holds.
	Position apply.Position
	// Following: there is a session.
	Following bool
	// Equal: after the newest batch both trees were equal, as far as the source knew.
	Equal bool
	At    time.Time // when the newest batch was durable; zero: none was since the start
	Kept  int       // paths put into lost+found since the start
	// Rotten are files whose content is known to have rotted, until it has come again.
	Rotten []string
}

// Mirror follows one source after another. Follow is for one goroutine at a time, State for any.
type Mirror struct {
	set   Set
	log   *slog.Logger
	files *apply.Mirror
	scan  *tree.Scanner
	dir   *os.File
	tree  *tree.Tree
	stale bool // there may be what the tree does not know: a part of a batch, or what somebody else has written since the last session

	saved time.Time // the index; see keep

	mu    sync.Mutex
	state MirrorState
}

// OpenMirror reads what is there, and marks a directory that is new. One that is not mounted is a *tree.Refusal. The index of an earlier process spares it the content; a damaged one does not matter.
func OpenMirror(ctx context.Context, log *slog.Logger, set Set) (m *Mirror, err error) {
	m = &Mirror{set: set, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := set.Accounts.Refresh(); err != nil {
		return m, err
	}
	if err := markRoot(set); err != nil {
		return m, err
	}
	if m.files, err = apply.Open(set.Root, set.Accounts); err != nil {
		return m, err
	}
	if m.dir, err = os.Open(set.Root); err != nil {
		return m, err
	}
	if m.scan, err = tree.NewScanner(m.dir, tree.Options{Policy: set.Policy, Names: set.Accounts}); err != nil {
		return m, err
	}
	known, err := tree.Load(set.Index)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the index cannot be used; everything is read once", "path", set.Index, "err", err)
	}
	m.state.Rotten = rottenPaths(set.Index)
	for _, path := range m.state.Rotten {
		if known != nil { // else it is read now, and differs if it has rotted
			known.Doubt(path)
		}
	}
	if err := m.rescan(ctx, known); err != nil {
		return m, err
	}
	m.state.Position = m.files.Position()
	return m, nil
}

// rescan looks at everything.
func (m *Mirror) rescan(ctx context.Context, known *tree.Tree) error {
	found, problems, err := m.scan.Scan(ctx, known)
	if err != nil {
		return fmt.Errorf("scan %s: %w", m.set.Root, err)
	}
	for _, p := range problems.List {
		m.log.Warn("not mirrored", "path", p.Path, "reason", p.Why)
	}
	m.tree, m.stale = found, false
	return nil
}

// Close remembers the tree and ends it.
func (m *Mirror) Close() error {
	var errs []error
	if m.tree != nil {
		errs = append(errs, m.tree.Save(m.set.Index))
	}
	if m.files != nil {
		errs = append(errs, m.files.Close())
	}
	if m.dir != nil {
		errs = append(errs, m.dir.Close())
	}
	return errors.Join(errs...)
}

// State is how far it has come.
func (m *Mirror) State() MirrorState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// RefusedError is what the other side said before it ended the session.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "refused by the other side: " + e.Why }

// Follow takes changes from one source until the connection ends, which is always an error, or ctx does. What was durable stays so.
func (m *Mirror) Follow(ctx context.Context, conn net.Conn) error {
	if m.stale {
		if err := m.rescan(ctx, m.tree); err != nil {
			return err
		}
	}
	m.stale = true
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // which ends the reading
	s := &mirrorSession{Mirror: m, ctx: ctx, r: wire.NewReader(conn), w: wire.NewWriter(conn), unstaged: map[string]bool{}}
	err := s.run()
	if s.batch != nil {
		err = errors.Join(err, s.batch.Abandon())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// mirrorSession is one connection.
type mirrorSession struct {
	*Mirror
	ctx     context.Context // of the connection
	r       *wire.Reader
	w       *wire.Writer
	batch   *apply.Batch
	changed []func() error // of the tree, after the batch is visible
	packer  *pack.Packer   // nil until something comes packed
	long    []byte         // what was unpacked last
	kept    int            // paths put into lost+found since the newest report
	applied uint64         // the batch that is visible and not durable yet
	// unstaged are the paths that could not be, as long as nothing better has come for them: the trees are not equal meanwhile.
	unstaged map[string]bool
}

func (s *mirrorSession) run() error {
	if err := s.greet(); err != nil {
		return err
	}
	defer s.tell(func(st *MirrorState) { st.Following, st.Equal = false, false })
	for {
		m, err := s.r.Read()
		if err != nil {
			return fmt.Errorf("hear the source: %w", err)
		}
		if err := s.take(m); err != nil {
			return err
		}
	}
}

// greet says what is here, and hears who offers data.
func (s *mirrorSession) greet() error {
	if err := s.say(&wire.Hello{Version: wire.Version, Set: s.set.Name, Epoch: s.files.Position().Epoch}); err != nil {
		return err
	}
	m, err := s.r.Read()
	if err != nil {
		return fmt.Errorf("hear the source: %w", err)
	}
	offer, ok := m.(*wire.Offer)
	if !ok {
		return unexpected(m)
	}
	first, err := s.files.Accept(offer.Epoch)
	if err != nil {
		return errors.Join(err, s.say(&wire.Refusal{Why: err.Error()}))
	}
	s.tell(func(st *MirrorState) { st.Following, st.Position = true, s.files.Position() })
	totals := s.tree.Totals(".")
	return s.say(&wire.Accept{First: first, Root: s.tree.Digest(), Entries: uint64(totals.Entries()), Bytes: uint64(totals.Bytes)})
}

// tell changes what anybody may ask for.
func (m *Mirror) tell(change func(*MirrorState)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.state)
}

func unexpected(m wire.Message) error {
	if r, ok := m.(*wire.Refusal); ok {
		return &RefusedError{r.Why}
	}
	return fmt.Errorf("%w: %T was not expected now", wire.ErrMalformed, m)
}

func (s *mirrorSession) say(m wire.Message) error {
	if err := errors.Join(s.w.Write(m), s.w.Flush()); err != nil {
		return fmt.Errorf("answer the source: %w", err)
	}
	return nil
}

// What was removed lies in the trash for so long, and no more bytes than this.
const (
	trashAge  = 7 * 24 * time.Hour
	trashMost = 1 << 30
)

// keep saves the index now and then, and empties the trash. Neither is a reason to end.
func (m *Mirror) keep() {
	if time.Since(m.saved) < saveEvery {
		return
	}
	m.saved = time.Now()
	_, err := m.files.Purge(m.saved, trashAge, trashMost)
	if err := errors.Join(err, m.tree.Save(m.set.Index)); err != nil {
		m.log.Warn("the mirror's housekeeping failed", "path", m.set.Root, "err", err)
	}
}

// take does what one message says.
func (s *mirrorSession) take(m wire.Message) error {
	switch m := m.(type) {
	case *wire.Ask:
		return s.children(m.Path)
	case *wire.Sign:
		return s.sign(m.Path)
	case *wire.Put:
		return s.stage(m.Entry, s.open().Put)
	case *wire.Patch:
		return s.stage(m.Entry, s.open().Patch)
	case *wire.Make:
		return s.change(m.Entry.Path, tree.Alone, s.open().Make(m.Entry))
	case *wire.Set:
		return s.change(m.Entry.Path, tree.Alone, s.open().Set(m.Entry))
	case *wire.Take:
		return s.move(m.From, m.Entry)
	case *wire.Remove:
		return s.change(m.Path, tree.Itself, s.open().Remove(m.Path))
	case *wire.Keep:
		s.kept++
		return s.change(m.Path, tree.Itself, s.open().Keep(m.Path, s.files.Position().Epoch))
	case *wire.Commit:
		return s.commit(m)
	}
	return unexpected(m)
}

// open is the batch that is open.
func (s *mirrorSession) open() *apply.Batch {
	if s.batch == nil {
		s.batch = s.files.Begin()
	}
	return s.batch
}

// mostChildren is how many names go into one message: with hashes and names of 255 bytes they fit a frame.
const mostChildren = 2000

func (s *mirrorSession) children(path string) error {
	all := s.tree.Children(path)
	for {
		n := min(len(all), mostChildren)
		m := &wire.Children{Path: path, Children: all[:n], Last: n == len(all)}
		if err := s.w.Write(m); err != nil {
			return fmt.Errorf("answer the source: %w", err)
		}
		if all = all[n:]; m.Last {
			return s.w.Flush()
		}
	}
}

// sign sends the signature of the version that is here, or nothing.
func (s *mirrorSession) sign(path string) error {
	body, err := s.signature(path)
	if err != nil {
		s.log.Warn("a file comes whole, because it cannot be signed", "path", path, "err", err)
	}
	for len(body) > 0 {
		n := min(len(body), wire.MaxData)
		if err := s.w.Write(&wire.Data{Bytes: body[:n]}); err != nil {
			return fmt.Errorf("answer the source: %w", err)
		}
		body = body[n:]
	}
	return s.say(&wire.Data{})
}

func (s *mirrorSession) signature(path string) (body []byte, err error) {
	f, err := s.open().Old(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sig, err := delta.Sign(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return nil, err
	}
	return sig.AppendBinary(nil)
}

// stage takes a file's content. One that cannot be staged is named, and the session goes on behind it; where nothing can be staged any more
// it ends.
func (s *mirrorSession) stage(e tree.Entry, how func(tree.Entry, io.Reader) error) error {
	content := &dataReader{r: s.r, unpack: s.unpack}
	err := how(e, content)
	if content.err != nil && content.err != io.EOF {
		return fmt.Errorf("hear the source: %w", content.err)
	}
	if err := content.drain(); err != nil {
		return fmt.Errorf("hear the source: %w", err)
	}
	if apply.Full(err) { // nothing else will fit either
		return errors.Join(err, s.say(&wire.Refusal{Why: fmt.Sprintf("%s: %.300v", s.set.Root, err)}))
	}
	if err != nil {
		return s.failed(e.Path, err)
	}
	delete(s.unstaged, e.Path)
	s.changed = append(s.changed, func() error { return s.look(s.scan.Adopt(s.ctx, s.tree, e)) })
	return nil
}

func (s *mirrorSession) failed(path string, err error) error {
	s.unstaged[path] = true
	s.log.Warn("a change could not be made", "path", path, "err", err)
	return s.say(&wire.Failed{Path: path, Why: fmt.Sprintf("%.500v", err)})
}

// move stages that a file goes to another place, if it is the one that is meant.
func (s *mirrorSession) move(from string, e tree.Entry) error {
	have, found := s.tree.Peek(from)
	if !found || have.Kind != tree.File || have.Hash != e.Hash || len(s.tree.OtherNames(from)) > 0 {
		return s.failed(e.Path, fmt.Errorf("%q is another file here", from))
	}
	if err := s.open().Take(from, e); err != nil {
		return s.failed(e.Path, err)
	}
	delete(s.unstaged, e.Path)
	s.changed = append(s.changed,
		func() error { return s.look(s.scan.Update(s.ctx, s.tree, from, tree.Itself)) },
		func() error { return s.look(s.scan.Adopt(s.ctx, s.tree, e)) })
	return nil
}

// change notes where the tree must be looked at again.
func (s *mirrorSession) change(path string, extent tree.Extent, err error) error {
	if err != nil {
		return s.failed(path, err)
	}
	delete(s.unstaged, path)
	s.changed = append(s.changed, func() error { return s.look(s.scan.Update(s.ctx, s.tree, path, extent)) })
	return nil
}

func (s *mirrorSession) look(u tree.Updated, err error) error {
	for _, p := range u.Problems.List {
		s.log.Warn("not mirrored", "path", p.Path, "reason", p.Why)
	}
	return err
}

// commit makes the batch visible and durable, and then says so. If more follows, the next batch's sync makes it durable.
func (s *mirrorSession) commit(c *wire.Commit) error {
	if err := s.apply(); err != nil {
		return errors.Join(err, s.say(&wire.Refusal{Why: err.Error()}))
	}
	if s.applied > 0 {
		if err := s.say(&wire.Durable{Seq: s.applied}); err != nil {
			return err
		}
		s.applied = 0
	}
	if c.More {
		s.applied = c.Seq
		return nil
	}
	equal := c.Complete && len(s.unstaged) == 0
	err := s.files.Settle()
	if err == nil && equal {
		err = s.files.Complete()
	}
	if err != nil {
		return errors.Join(err, s.say(&wire.Refusal{Why: err.Error()}))
	}
	s.tell(func(st *MirrorState) { st.Position, st.Equal, st.At = s.files.Position(), equal, time.Now() })
	if equal {
		s.mended()
	}
	s.report()
	err = s.say(&wire.Durable{Seq: c.Seq})
	s.keep()
	return err
}

// mended forgets what had rotted: the trees are equal, so it has come again.
func (s *mirrorSession) mended() {
	rotten := s.State().Rotten
	if len(rotten) == 0 {
		return
	}
	if err := noteRotten(s.set.Index, nil); err != nil {
		s.log.Warn("it stays noted that files have rotted, though they have come again; the next full reading says better", "path", s.set.Root, "err", err)
	}
	s.tell(func(st *MirrorState) { st.Rotten = nil })
	s.log.Info("what had rotted has come again", "path", s.set.Root, "files", len(rotten))
}

// report tells what was put aside, once for many.
func (s *mirrorSession) report() {
	if s.kept == 0 {
		return
	}
	epoch := s.files.Position().Epoch
	s.log.Warn("what only this node had, or had otherwise than the primary, was put aside", "path", s.files.LostAndFound(epoch), "epoch", epoch, "count", s.kept)
	kept := s.kept
	s.tell(func(st *MirrorState) { st.Kept += kept })
	s.kept = 0
}

// apply makes the batch visible. What was applied before is durable then.
func (s *mirrorSession) apply() error {
	if s.applied > 0 && (s.batch == nil || !s.batch.Bulky()) {
		if err := s.files.Settle(); err != nil {
			return err
		}
	}
	if s.batch == nil {
		return nil
	}
	failures, err := s.batch.Apply()
	if err != nil {
		return err
	}
	for _, f := range failures {
		if err := s.failed(f.Path, f.Err); err != nil {
			return err
		}
	}
	for _, look := range s.changed {
		if err := look(); err != nil {
			return err
		}
	}
	s.batch, s.changed = nil, nil
	return nil
}

// unpack makes what was packed long again. What it returns is good until the next call.
func (s *mirrorSession) unpack(m *wire.Packed) (b []byte, err error) {
	if s.packer == nil {
		if s.packer, err = pack.New(); err != nil {
			return nil, err
		}
	}
	s.long, err = s.packer.Unpack(s.long[:0], m.Bytes, int(m.Size))
	return s.long, err
}

// dataReader reads Data messages up to the empty one.
type dataReader struct {
	r      *wire.Reader
	unpack func(*wire.Packed) ([]byte, error)
	rest   []byte
	err    error
}

func (d *dataReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		m, err := d.r.Read()
		if err != nil {
			d.err = err
			continue
		}
		switch m := m.(type) {
		case *wire.Data:
			if d.rest = m.Bytes; len(d.rest) == 0 {
				d.err = io.EOF
			}
		case *wire.Packed:
			d.rest, d.err = d.unpack(m)
		default:
			d.err = unexpected(m)
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// drain reads what nobody wanted.
func (d *dataReader) drain() error {
	_, err := io.Copy(io.Discard, d)
	return err
}
