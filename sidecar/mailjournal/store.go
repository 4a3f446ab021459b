package mailjournal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"understudy/bootstrap/durable"
)

// Options of a journal or a holder. Dir and Log are required.
type Options struct {
	// Dir is made if it is missing, mode 0700. Nothing else may use it, and only one process at a time.
	Dir string
	// Limit is how many bytes all segments may take; above it entries are refused with ErrFull. Zero: 1 GiB.
	Limit int64
	// Segment is the size in bytes at which a segment is followed by the next. Zero: 16 MiB.
	Segment int64
	// MaxEntry is the largest entry, in bytes: the message and its envelope. Zero: 64 MiB.
	MaxEntry int64
	Log      *slog.Logger

	// create makes the next segment. Nil: a real file. Tests give files that fail.
	create func(path string) (file, error)
}

func (o Options) withDefaults() Options {
	o.Limit = nonZero(o.Limit, 1<<30)
	o.Segment = nonZero(o.Segment, 16<<20)
	o.MaxEntry = nonZero(o.MaxEntry, 64<<20)
	if o.create == nil {
		o.create = createFile
	}
	return o
}

func nonZero[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

var (
	// ErrFull: the journal has reached its limit. It empties as messages are delivered.
	ErrFull = errors.New("the mail journal is full")
	// ErrTooLarge: the entry is above MaxEntry, and trying again is of no use.
	ErrTooLarge = errors.New("the message is larger than the mail journal takes")
	// ErrUnknown: there is no such entry, or it has been closed.
	ErrUnknown = errors.New("no such open entry")
	errEnded   = errors.New("the mail journal has been closed")
)

// file is what a segment is written through. Sync is fdatasync(2), which also brings the file's size to the disk.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return unix.Fdatasync(int(f.Fd())) }

func createFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	return osFile{f}, err
}

// store is a directory of segments with one goroutine that writes. Requests that arrive while it syncs share the next sync.
type store struct {
	o        Options
	requests chan request
	quit     chan struct{}
	ended    chan struct{}
	group    errgroup.Group
	lock     *os.File

	// Only the writing goroutine uses these. out is nil before the first append and after a failure: what the kernel does
	// with the pages after a failed fsync differs by file system, and a second fsync may succeed without having written
	// them (https://lwn.net/Articles/752063/), so that segment gets nothing more.
	out file

	mu       sync.Mutex
	segments []*segment // oldest first; out writes the last
	places   map[ID]place
	size     int64
	epoch    uint64
	damage   []Damage
}

type segment struct {
	sequence, salt uint64
	size           int64
	open           int // entries
}

// place is where the newest copy of an entry lies. Closed ones stay until their segment goes, so that a late copy does not revive them.
type place struct {
	in     *segment
	offset int64
	meta   Meta
	how    How
}

type request struct {
	record record
	done   chan error // with room for the one answer
}

const (
	namePattern = "%016x-%016x.segment" // sequence and salt
	// maxBatch bounds what one sync is waited for with.
	maxBatch = 8 << 20
	// maxSegments is how many there may be before the open entries of the oldest are carried over into the newest. Otherwise
	// a message that the relay refuses for days would keep everything behind it.
	maxSegments = 8
)

func openStore(o Options) (*store, error) {
	s := &store{o: o.withDefaults(), requests: make(chan request, 256), quit: make(chan struct{}), ended: make(chan struct{}),
		places: make(map[ID]place)}
	if s.o.MaxEntry+int64(recordHead)+int64(segmentHead) > s.o.Limit {
		return nil, fmt.Errorf("a mail journal of %d bytes cannot take an entry of %d: raise its limit", s.o.Limit, s.o.MaxEntry)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(o.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("%s is in use by another process: %w", o.Dir, err)
	} else {
		err = s.recover()
	}
	if err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("open the mail journal: %w", err)
	}
	s.group.Go(s.write)
	return s, nil
}

// close waits for what has been asked of the store. Later requests fail.
func (s *store) close() error {
	close(s.quit)
	err := s.group.Wait()
	return errors.Join(err, s.lock.Close())
}

// recover reads all segments. What is torn is cut off; nothing is ever appended to a segment of an earlier process.
func (s *store) recover() error {
	found, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return err
	}
	for _, entry := range found { // sorted by name, so by sequence
		var seg segment
		if n, _ := fmt.Sscanf(entry.Name(), namePattern, &seg.sequence, &seg.salt); n != 2 || seg.name() != entry.Name() {
			continue
		}
		if err := s.load(&seg); err != nil {
			return err
		}
	}
	return s.sweep()
}

func (s *store) load(seg *segment) error {
	path := filepath.Join(s.o.Dir, seg.name())
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.segments = append(s.segments, seg)
	damage, epoch := scan(seg.name(), data, seg.salt, func(offset int64, r record) { s.index(seg, offset, r) })
	s.epoch = max(s.epoch, epoch)
	seg.size = int64(len(data))
	for _, d := range damage {
		s.o.Log.Warn("part of the mail journal is unreadable", "segment", d.Segment, "offset", d.Offset, "length", d.Length,
			"torn", d.Torn, "reason", d.Why)
		if d.Torn {
			if err := cut(path, d.Offset); err != nil {
				return err
			}
			seg.size = d.Offset
		}
	}
	s.damage = append(s.damage, damage...)
	s.size += seg.size
	return nil
}

// cut shortens the file to size, durably.
func cut(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

func (seg *segment) name() string { return fmt.Sprintf(namePattern, seg.sequence, seg.salt) }

// index notes a record that lies in seg.
func (s *store) index(seg *segment, offset int64, r record) {
	old, known := s.places[r.id]
	s.epoch = max(s.epoch, r.epoch)
	switch {
	case r.how == 0 && (!known || old.how == 0): // new, or carried over
		if known {
			old.in.open--
		}
		seg.open++
		s.places[r.id] = place{in: seg, offset: offset, meta: r.meta()}
	case r.how != 0 && known && old.how == 0:
		old.in.open--
		old.how = r.how
		s.places[r.id] = old
	}
}

// put makes r durable. An error other than ErrFull, ErrTooLarge and errEnded may come after the record has reached the disk.
func (s *store) put(ctx context.Context, r record) error {
	req, err := s.ask(ctx, r)
	if err != nil {
		return err
	}
	return s.wait(ctx, req)
}

// ask hands r over. What is asked for later is also done later: an entry and then its closing, say.
func (s *store) ask(ctx context.Context, r record) (request, error) {
	req := request{record: r, done: make(chan error, 1)}
	if int64(len(r.body)) > s.o.MaxEntry+sealing {
		return req, fmt.Errorf("%w (%d bytes, at most %d)", ErrTooLarge, len(r.body), s.o.MaxEntry)
	}
	select {
	case s.requests <- req:
		return req, nil
	case <-s.ended:
		return req, errEnded
	case <-ctx.Done():
		return req, ctx.Err()
	}
}

func (s *store) wait(ctx context.Context, req request) error {
	select {
	case err := <-req.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		select {
		case err := <-req.done:
			return err
		default:
			return errEnded
		}
	}
}

// write is the one goroutine that writes.
func (s *store) write() (err error) {
	defer close(s.ended)
	for {
		var batch []request
		select {
		case req := <-s.requests:
			batch = append(batch, req)
		case <-s.quit:
			if s.out != nil {
				err = s.out.Close()
			}
			return err
		}
		for size := batch[0].record.size(); size < maxBatch && len(s.requests) > 0; {
			req := <-s.requests
			batch, size = append(batch, req), size+req.record.size()
		}
		s.commit(batch)
	}
}

// commit writes what of the batch is new, syncs once, and answers everybody.
func (s *store) commit(batch []request) {
	fresh, records := s.admit(batch)
	err := s.flush(records)
	for _, req := range fresh {
		req.done <- err
	}
	if err == nil && len(records) > 0 {
		if err := s.tidy(); err != nil {
			s.o.Log.Warn("cannot tidy up the mail journal", "err", err)
		}
	}
}

// admit answers at once who need not or cannot be served. Repeated records of one batch are written once.
func (s *store) admit(batch []request) (fresh []request, records []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type key struct {
		id      ID
		closing bool
	}
	size, seen := s.size, make(map[key]bool)
	for _, req := range batch {
		r := req.record
		at, known := s.places[r.id]
		k := key{r.id, r.how != 0}
		switch {
		case r.how == 0 && known, r.how != 0 && known && at.how != 0, r.how != 0 && !known && !seen[key{id: r.id}]:
			req.done <- nil // is there already; is closed already; was never there, or is long gone
		case r.how == 0 && !seen[k] && size+r.size()+int64(segmentHead) > s.o.Limit: // a closing is taken always: it makes room
			req.done <- fmt.Errorf("%w (%d of %d bytes)", ErrFull, size, s.o.Limit)
		case seen[k]:
			fresh = append(fresh, req)
		default:
			seen[k], size = true, size+r.size()
			fresh, records = append(fresh, req), append(records, r)
		}
	}
	return fresh, records
}

// flush appends records to the newest segment, durably, and notes where they lie.
func (s *store) flush(records []record) error {
	if len(records) == 0 {
		return nil
	}
	if err := s.begin(); err != nil {
		return fmt.Errorf("begin a segment of the mail journal: %w", err)
	}
	seg := s.segments[len(s.segments)-1]
	var data []byte
	offsets := make([]int64, len(records))
	for i, r := range records {
		offsets[i] = seg.size + int64(len(data))
		data = r.append(data, seg.salt)
	}
	n, err := s.out.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = s.out.Sync()
	}
	if err != nil {
		// What may have arrived is taken away again, as far as it can be: its senders hear 4xx and will come back.
		err = errors.Join(err, s.out.Truncate(seg.size), s.out.Close())
		s.out = nil
		s.o.Log.Error("the disk refuses mail", "segment", seg.name(), "err", err)
		return fmt.Errorf("write the mail journal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		s.index(seg, offsets[i], r)
	}
	seg.size += int64(len(data))
	s.size += int64(len(data))
	return nil
}

// begin sees to it that out is a segment with room.
func (s *store) begin() error {
	var last segment
	if n := len(s.segments); n > 0 {
		last = *s.segments[n-1]
	}
	if s.out != nil && last.size < s.o.Segment {
		return nil
	}
	if s.out != nil {
		err := s.out.Close()
		s.out = nil
		if err != nil {
			return err
		}
	}
	var salt [8]byte
	rand.Read(salt[:])
	seg := &segment{sequence: last.sequence + 1, salt: binary.BigEndian.Uint64(salt[:]), size: int64(segmentHead)}
	path := filepath.Join(s.o.Dir, seg.name())
	out, err := s.o.create(path)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint64([]byte(segmentMagic), s.highest())
	if _, err = out.Write(binary.BigEndian.AppendUint32(head, checksum(seg.salt, head))); err == nil {
		err = durable.SyncDir(s.o.Dir) // the head itself goes with the first sync
	}
	if err != nil {
		return errors.Join(err, out.Close(), os.Remove(path))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out, s.segments, s.size = out, append(s.segments, seg), s.size+seg.size
	return nil
}

// tidy removes what is over, and lets no old segment stay for a few open entries.
func (s *store) tidy() error {
	if err := s.sweep(); err != nil {
		return err
	}
	// An oldest segment that is mostly open is not worth the copying: it would only move.
	if len(s.segments) <= maxSegments {
		return nil
	}
	oldest := s.segments[0]
	var records []record
	var size int64
	for _, at := range s.placed() {
		if at.in != oldest || at.how != 0 {
			continue
		}
		if size += at.meta.Size; size > oldest.size/2 {
			return nil
		}
		r, err := s.read(at)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	if err := s.flush(records); err != nil {
		return err
	}
	return s.sweep()
}

// sweep removes segments without open entries, the oldest first: then no closing goes before what it closes.
func (s *store) sweep() error {
	for {
		s.mu.Lock()
		if len(s.segments) == 0 || s.segments[0].open > 0 || len(s.segments) == 1 {
			s.mu.Unlock()
			return nil
		}
		seg := s.segments[0]
		s.mu.Unlock()
		if err := os.Remove(filepath.Join(s.o.Dir, seg.name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := durable.SyncDir(s.o.Dir); err != nil {
			return err
		}
		s.mu.Lock()
		s.segments, s.size = s.segments[1:], s.size-seg.size
		for id, at := range s.places {
			if at.in == seg {
				delete(s.places, id)
			}
		}
		s.mu.Unlock()
	}
}

// get reads an open entry.
func (s *store) get(id ID) (record, error) {
	s.mu.Lock()
	at, ok := s.places[id]
	s.mu.Unlock()
	if !ok || at.how != 0 {
		return record{}, fmt.Errorf("entry %v: %w", id, ErrUnknown)
	}
	r, err := s.read(at)
	if errors.Is(err, fs.ErrNotExist) { // closed or carried over meanwhile
		s.mu.Lock()
		again, ok := s.places[id]
		s.mu.Unlock()
		if !ok || again.how != 0 {
			return record{}, fmt.Errorf("entry %v: %w", id, ErrUnknown)
		}
		return s.read(again)
	}
	return r, err
}

func (s *store) read(at place) (r record, err error) {
	f, err := os.Open(filepath.Join(s.o.Dir, at.in.name()))
	if err != nil {
		return r, err
	}
	defer f.Close()
	data := make([]byte, at.meta.Size)
	if _, err = f.ReadAt(data, at.offset); err == nil {
		r, _, err = decodeRecord(data, at.in.salt)
	}
	if err != nil {
		return r, fmt.Errorf("read entry %v in %s: %w", at.meta.ID, at.in.name(), err)
	}
	return r, nil
}

// placed returns all places in the order of their epochs, times and IDs.
func (s *store) placed() []place {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]place, 0, len(s.places))
	for _, at := range s.places {
		list = append(list, at)
	}
	slices.SortFunc(list, func(a, b place) int { return compareMeta(a.meta, b.meta) })
	return list
}

// pending returns the open entries, oldest first.
func (s *store) pending() (list []Meta) {
	for _, at := range s.placed() {
		if at.how == 0 {
			list = append(list, at.meta)
		}
	}
	return list
}

// highest is the highest epoch that a record or the head of a segment had.
func (s *store) highest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// raise notes an epoch and returns the highest.
func (s *store) raise(epoch uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = max(s.epoch, epoch)
	return s.epoch
}
