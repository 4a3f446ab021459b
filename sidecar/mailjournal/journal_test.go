package mailjournal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func options(dir string) Options { return Options{Dir: dir, Log: slog.New(slog.DiscardHandler)} }

func open(t testing.TB, o Options) *Journal {
	t.Helper()
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func finish(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func entry(body string) Entry {
	return Entry{
		Meta:  Meta{ID: NewID(), Epoch: 7, Time: time.Unix(1_700_000_000, 123)},
		Queue: "4dKx2z1Wqz9", From: "ann@elsewhere.example", FromArgs: []string{"BODY=8BITMIME", "SIZE=12"},
		To:      []Recipient{{"alice@blog.example", nil}, {"bob@blog.example", []string{"NOTIFY=NEVER"}}},
		Message: []byte("Subject: hi\r\n\r\n" + body + "\r\n"),
	}
}

func appendTo(t testing.TB, j *Journal, e Entry) Entry {
	t.Helper()
	if err := j.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	return e
}

// same compares but for the size, which the journal knows better.
func same(a, b Entry) bool {
	return a.ID == b.ID && a.Epoch == b.Epoch && a.Time.Equal(b.Time) && bytes.Equal(a.encode(), b.encode())
}

func check(t testing.TB, read func(ID) (Entry, error), want Entry) {
	t.Helper()
	if got, err := read(want.ID); err != nil || !same(got, want) {
		t.Errorf("entry %v: got %+v, %v; want %+v", want.ID, got, err, want)
	}
}

func ids(list []Meta) (out []ID) {
	for _, m := range list {
		out = append(out, m.ID)
	}
	return out
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWhatWasAppendedAndNotClosedIsThereAfterwards(t *testing.T) {
	o := options(t.TempDir())
	j := open(t, o)
	first, second, third := appendTo(t, j, entry("one")), appendTo(t, j, entry("two")), appendTo(t, j, entry(""))
	if err := j.Finish(t.Context(), second.ID, Relayed); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		check(t, j.Read, first)
		check(t, j.Read, third)
		if _, err := j.Read(second.ID); !errors.Is(err, ErrUnknown) {
			t.Errorf("a closed entry: got %v, want ErrUnknown", err)
		}
		appendTo(t, j, second) // late, and without effect
		appendTo(t, j, first)
		if got := len(j.Pending()); got != 2 {
			t.Errorf("got %d open entries, want 2", got)
		}
		finish(t, j)
		j = open(t, o)
		if len(j.Damage()) > 0 {
			t.Errorf("damage: got %v, want none", j.Damage())
		}
	}
	finish(t, j)
	if err := j.Append(t.Context(), entry("late")); !errors.Is(err, errEnded) {
		t.Errorf("after Close: got %v, want errEnded", err)
	}
}

func TestAJournalHasOneOwner(t *testing.T) {
	o := options(t.TempDir())
	j := open(t, o)
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v, want a refusal", err)
	}
	finish(t, j)
	finish(t, open(t, o))
}

// faulty is a segment in memory that fails as told.
type faulty struct {
	file
	fault *fault
}

type fault struct {
	mu    sync.Mutex
	syncs int
	slow  chan struct{} // a sync waits for it
	sync  error
	write func(p []byte) (int, error)
}

func (f faulty) Write(p []byte) (int, error) {
	f.fault.mu.Lock()
	write := f.fault.write
	f.fault.mu.Unlock()
	if write != nil {
		return write(p)
	}
	return f.file.Write(p)
}

func (f faulty) Sync() error {
	f.fault.mu.Lock()
	f.fault.syncs++
	slow, err := f.fault.slow, f.fault.sync
	f.fault.mu.Unlock()
	if slow != nil {
		<-slow
	}
	return errors.Join(err, f.file.Sync())
}

func (f *fault) options(dir string) Options {
	o := options(dir)
	o.create = func(path string) (file, error) {
		real, err := createFile(path)
		return faulty{real, f}, err
	}
	return o
}

func (f *fault) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// hangs waits until a sync waits for slow.
func (f *fault) hangs(t testing.TB) {
	t.Helper()
	for range 5000 {
		f.mu.Lock()
		n := f.syncs
		f.mu.Unlock()
		if n > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("there was no sync")
}

func TestConcurrentAppendsShareASync(t *testing.T) {
	f := &fault{slow: make(chan struct{})}
	j := open(t, f.options(t.TempDir()))
	defer finish(t, j)
	const n = 200
	var g errgroup.Group
	for i := range n {
		g.Go(func() error { return j.Append(t.Context(), entry(fmt.Sprint(i))) })
		if i == 0 {
			f.hangs(t)
		}
	}
	for len(j.store.requests) < n-1 {
		time.Sleep(time.Millisecond)
	}
	close(f.slow)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if f.syncs != 2 {
		t.Errorf("got %d syncs for %d appends, want one for the first and one for all others", f.syncs, n)
	}
	if got := len(j.Pending()); got != n {
		t.Errorf("got %d entries, want %d", got, n)
	}
}

func TestNothingIsAcknowledgedBeforeItsSync(t *testing.T) {
	f := &fault{slow: make(chan struct{})}
	j := open(t, f.options(t.TempDir()))
	defer finish(t, j)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e := entry("x")
	if err := j.Append(ctx, e); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the disk hangs: got %v, want context.DeadlineExceeded", err)
	}
	close(f.slow)
	if err := j.Finish(t.Context(), e.ID, Refused); err != nil {
		t.Fatal(err)
	}
	if got := j.Pending(); len(got) != 0 { // the closing comes after the append that was given up
		t.Errorf("got %v, want nothing open", got)
	}
}

func TestAFailureIsAnErrorAndTheSegmentGetsNothingMore(t *testing.T) {
	full := func(p []byte) (int, error) { return 0, syscall.ENOSPC }
	for name, tt := range map[string]struct {
		break_ func(*fault)
		want   error
	}{
		"the sync fails":           {func(f *fault) { f.sync = syscall.EIO }, syscall.EIO},
		"the disk is full":         {func(f *fault) { f.write = full }, syscall.ENOSPC},
		"a write is short":         {func(f *fault) { f.write = func(p []byte) (int, error) { return len(p) / 2, nil } }, io.ErrShortWrite},
		"full, and only sync says": {func(f *fault) { f.sync = syscall.ENOSPC }, syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := new(fault), t.TempDir()
			j := open(t, f.options(dir))
			before := appendTo(t, j, entry("before"))
			f.set(func() { tt.break_(f) })
			lost := entry("lost")
			if err := j.Append(t.Context(), lost); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			f.set(func() { f.sync, f.write = nil, nil })
			after := appendTo(t, j, entry("after"))
			if got := len(segments(t, dir)); got != 2 {
				t.Errorf("got %d segments, want a new one", got)
			}
			finish(t, j)
			j = open(t, options(dir))
			defer finish(t, j)
			if got, want := ids(j.Pending()), 2; len(got) != want || slices.Contains(got, lost.ID) {
				t.Errorf("got %v, want %v and %v", got, before.ID, after.ID)
			}
			check(t, j.Read, before)
			check(t, j.Read, after)
		})
	}
}

func TestAboveItsLimitItRefusesUntilEntriesAreClosed(t *testing.T) {
	o := options(t.TempDir())
	o.Limit, o.Segment, o.MaxEntry = 64<<10, 8<<10, 16<<10
	j := open(t, o)
	defer finish(t, j)
	if err := j.Append(t.Context(), entry(strings.Repeat("x", 17<<10))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	var kept []ID
	for {
		e := entry(strings.Repeat("x", 4<<10))
		err := j.Append(t.Context(), e)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil || len(kept) > 16 {
			t.Fatalf("after %d: %v", len(kept), err)
		}
		kept = append(kept, e.ID)
	}
	for _, id := range kept {
		if err := j.Finish(t.Context(), id, Delivered); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(segments(t, o.Dir)); got > 2 {
		t.Errorf("all closed: got %d segments, want at most two", got)
	}
	appendTo(t, j, entry("again"))
}

func TestOldOpenEntriesAreCarriedOver(t *testing.T) {
	o := options(t.TempDir())
	o.Segment = 4 << 10
	j := open(t, o)
	old := appendTo(t, j, entry("the relay refuses it for days"))
	for range 500 {
		e := appendTo(t, j, entry(strings.Repeat("x", 1000)))
		if err := j.Finish(t.Context(), e.ID, Delivered); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(segments(t, o.Dir)); got > maxSegments+1 {
		t.Errorf("got %d segments, want at most %d", got, maxSegments+1)
	}
	for range 2 {
		check(t, j.Read, old)
		if got := len(j.Pending()); got != 1 {
			t.Errorf("got %d open entries, want 1", got)
		}
		if got := len(j.store.places); got > 100 {
			t.Errorf("it remembers %d entries, want only those of the segments left", got)
		}
		finish(t, j)
		j = open(t, o)
	}
	finish(t, j)
}

// sample is a journal of one segment: its name, its bytes, what it holds, and where each record ends.
func sample(t *testing.T) (name string, data []byte, entries []Entry, ends []int64) {
	t.Helper()
	o := options(t.TempDir())
	j := open(t, o)
	for i := range 5 {
		entries = append(entries, appendTo(t, j, entry(strings.Repeat("y", 20*i))))
		ends = append(ends, j.store.segments[0].size)
	}
	finish(t, j)
	name = segments(t, o.Dir)[0]
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(name), data, entries, ends
}

// recovered opens a journal with that one segment.
func recovered(t *testing.T, name string, data []byte) *Journal {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, options(dir))
}

func TestCutAnywhereAllWholeRecordsAreThere(t *testing.T) {
	name, data, entries, ends := sample(t)
	for n := range data {
		j := recovered(t, name, data[:n])
		whole := 0
		for whole < len(ends) && ends[whole] <= int64(n) {
			check(t, j.Read, entries[whole])
			whole++
		}
		if got := len(j.Pending()); got != whole {
			t.Errorf("cut at %d: got %d entries, want %d", n, got, whole)
		}
		boundary := n == segmentHead || slices.Contains(ends, int64(n))
		if got := len(j.Damage()); got != 1 && !boundary || got != 0 && boundary {
			t.Errorf("cut at %d: got damage %v, want it said once unless between records", n, j.Damage())
		}
		more := appendTo(t, j, entry("more"))
		dir := j.store.o.Dir
		finish(t, j)
		j = open(t, options(dir))
		check(t, j.Read, more)
		if len(j.Damage()) > 0 && n >= segmentHead {
			t.Errorf("cut at %d: got %v again, want it cut off", n, j.Damage())
		}
		finish(t, j)
	}
}

func TestAFlippedByteCostsOneRecordAndIsSaid(t *testing.T) {
	name, data, entries, ends := sample(t)
	for n := range data {
		bad := slices.Clone(data)
		bad[n] ^= 1 << (n % 8)
		j := recovered(t, name, bad)
		hit, _ := slices.BinarySearch(ends, int64(n)+1)
		if n < segmentHead {
			hit = -1
		}
		for i, e := range entries {
			if i != hit {
				check(t, j.Read, e)
			} else if _, err := j.Read(e.ID); err == nil {
				t.Errorf("byte %d: record %d was taken as it is", n, i)
			}
		}
		if len(j.Damage()) != 1 {
			t.Errorf("byte %d: got %v, want one damage", n, j.Damage())
		}
		finish(t, j)
	}
}

func TestARecordInsideADamagedMessageIsNotTakenForOne(t *testing.T) {
	forged := entry("forged")
	o := options(t.TempDir())
	j := open(t, o)
	carrier := entry("")
	for salt := range uint64(3) { // no sender knows the segment's salt
		carrier.Message = forged.record().append(carrier.Message, salt)
	}
	appendTo(t, j, carrier)
	last := appendTo(t, j, entry("last"))
	finish(t, j)
	name := segments(t, o.Dir)[0]
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[segmentHead] ^= 1 // so that the next record is searched for
	j = recovered(t, filepath.Base(name), data)
	defer finish(t, j)
	if got := ids(j.Pending()); len(got) != 1 || got[0] != last.ID {
		t.Errorf("got %v, want only %v", got, last.ID)
	}
}

// TestAnyHistoryOfCrashes appends, closes, and tears the newest segment, and compares with a plain map.
func TestAnyHistoryOfCrashes(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		o := options(t.TempDir())
		o.Segment = 2 << 10
		j := open(t, o)
		want := make(map[ID]Entry)
		for range 60 {
			switch n := random.IntN(10); {
			case n < 5:
				e := appendTo(t, j, entry(strings.Repeat("z", random.IntN(600))))
				want[e.ID] = e
			case n < 8 && len(want) > 0:
				list := slices.SortedFunc(maps.Keys(want), func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
				id := list[random.IntN(len(list))]
				if err := j.Finish(t.Context(), id, Delivered); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				delete(want, id)
			default:
				finish(t, j)
				tear(t, random, o.Dir)
				j = open(t, o)
			}
		}
		if got := len(j.Pending()); got != len(want) {
			t.Errorf("seed %d: got %d open entries, want %d", seed, got, len(want))
		}
		for _, e := range want {
			check(t, j.Read, e)
		}
		finish(t, j)
	}
}

// tear leaves part of a record behind the newest segment, as if the power had gone during a write that nobody saw acknowledged.
func tear(t *testing.T, random *rand.Rand, dir string) {
	t.Helper()
	names := segments(t, dir)
	if len(names) == 0 {
		return
	}
	f, err := os.OpenFile(names[len(names)-1], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	var seg segment
	fmt.Sscanf(filepath.Base(f.Name()), namePattern, &seg.sequence, &seg.salt)
	part := entry("torn").record().append(nil, seg.salt)
	part = part[:random.IntN(len(part))]
	if random.IntN(3) == 0 {
		clear(part) // the size was on the disk, the data not
	}
	if _, err := f.Write(part); err != nil {
		t.Fatal(err)
	}
	finish(t, f)
}

func FuzzEntry(f *testing.F) {
	f.Add(entry("x").encode())
	f.Add([]byte{entryVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(Meta{}, data)
		if err != nil {
			return
		}
		again, err := decodeEntry(Meta{}, e.encode())
		if err != nil || !same(e, again) {
			t.Errorf("got %+v, %v; want %+v", again, err, e)
		}
	})
}

func FuzzSegment(f *testing.F) {
	f.Add(entry("x").record().append(make([]byte, segmentHead), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		covered := int64(0)
		damage, _ := scan("s", data, 1, func(offset int64, r record) { covered += r.size() })
		for _, d := range damage {
			if d.Offset > 0 || len(data) < segmentHead {
				covered += d.Length
			}
		}
		if want := int64(len(data)); len(data) >= segmentHead && covered+int64(segmentHead) != want || len(data) < segmentHead && covered != want {
			t.Errorf("%d of %d bytes were read or said to be damaged", covered, want)
		}
	})
}
