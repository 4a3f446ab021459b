package delta

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

// small is a block with which small files have many.
const small = window

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// random is content in which no stretch occurs twice.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// told is what Diff says of a new version.
func told(t testing.TB, old, new []byte, block int) ([]byte, Result) {
	t.Helper()
	s, err := sign(section(old), block)
	if err != nil {
		t.Fatal(err)
	}
	wire, _ := s.AppendBinary(nil)
	if s, err = ParseSignature(wire); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r, err := Diff(s, bytes.NewReader(new), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), r
}

// sent checks that the old version becomes the new one, and returns how.
func sent(t testing.TB, old, new []byte, block int) Result {
	t.Helper()
	stream, diffed := told(t, old, new, block)
	var got bytes.Buffer
	patched, err := Patch(section(old), bytes.NewReader(stream), &got, int64(len(new)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), new) {
		t.Fatalf("a version of %d bytes arrived as %d others", len(new), got.Len())
	}
	if want := blake3.Sum256(new); diffed.Sum != want || diffed != patched {
		t.Fatalf("told %+v, done %+v, want both with %x", diffed, patched, want)
	}
	return diffed
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	old := random(1, 1<<20)
	with := func(edits ...[]byte) []byte { return slices.Concat(edits...) }
	hole := make([]byte, 64<<10)
	for _, c := range []struct {
		name           string
		old, new       []byte
		literal, zeros int // at most, at least
	}{
		{"nothing changed", old, old, 0, 0},
		{"both empty", nil, nil, 0, 0},
		{"new", nil, old, len(old), 0},
		{"emptied", old, nil, 0, 0},
		{"a byte", old, with(old[:500_000], []byte{old[500_000] ^ 1}, old[500_001:]), minBlock, 0},
		{"a byte inserted at the front", old, with([]byte{7}, old), 1, 0},
		{"a byte deleted at the front", old, old[1:], minBlock, 0},
		{"bytes inserted in the middle", old, with(old[:500_000], []byte("understudy"), old[500_000:]), minBlock + 10, 0},
		{"bytes deleted in the middle", old, with(old[:500_000], old[500_100:]), 2 * minBlock, 0},
		{"appended", old[:1_000_000], old, len(old) - 1_000_000 + minBlock, 0},
		{"cut off", old, old[:1_000_000], minBlock, 0},
		{"halves exchanged", old, with(old[512<<10:], old[:512<<10]), 0, 0},
		{"halves exchanged, no whole blocks", old[:1<<20-100], with(old[500_000:1<<20-100], old[:500_000]), 2 * minBlock, 0},
		{"overwritten in place", old, with(old[:256<<10], random(2, 64<<10), old[320<<10:]), 64 << 10, 0},
		{"much that is new, then all of the old", old, with(random(2, 4<<20+100), old), 4<<20 + 4<<20/patience + 2*minBlock, 0},
		{"a hole", old, with(old[:256<<10], hole, old[256<<10:]), 0, 64 << 10},
		{"a hole that begins within a page", old, with(old[:256<<10+100], hole, old[256<<10+100:]), 2*page + minBlock, 56 << 10},
		{"a hole that was one", with(old, hole), with(old, hole), 0, 0},
		{"all zeros, of nothing", nil, make([]byte, 3<<20), 0, 3 << 20},
		{"only the short last block is left", old[:1000], with([]byte("begin"), old[:1000]), 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := sent(t, c.old, c.new, minBlock)
			if got.Literal > int64(c.literal) || got.Zeros < int64(c.zeros) {
				t.Errorf("sent %d bytes and told %d as zeros, want at most %d and at least %d", got.Literal, got.Zeros, c.literal, c.zeros)
			}
		})
	}
}

func TestAdjoiningInstructionsAreOne(t *testing.T) {
	old := random(1, 1<<20)
	for _, c := range []struct {
		name     string
		old, new []byte
		want     int // bytes, e with its number and the hash included
	}{
		{"an unchanged file", old, old, 1 + 1 + 3 + 1 + 3 + 32},
		{"zeros", old, make([]byte, 3<<20), 1 + 4 + 1 + 4 + 32},
	} {
		if stream, _ := told(t, c.old, c.new, minBlock); len(stream) != c.want {
			t.Errorf("%s takes %d bytes of instructions, want %d", c.name, len(stream), c.want)
		}
	}
}

func TestHolesAreWholePages(t *testing.T) {
	file := func(n, from, to int) []byte { // of ones, with zeros
		b := bytes.Repeat([]byte{1}, n)
		clear(b[from:to])
		return b
	}
	for _, c := range []struct {
		name         string
		b            []byte
		at           int64
		from, length int
	}{
		{"none", file(4*page, 0, 0), 0, 4 * page, 0},
		{"all", file(4*page, 0, 4*page), 0, 0, 4 * page},
		{"one page", file(4*page, page, 2*page), 0, page, page},
		{"a byte short of one", file(4*page, page+1, 2*page), 0, 4 * page, 0},
		{"a page that is none of the file's", file(4*page, page, 2*page), 100, 4 * page, 0},
		{"two pages of which one is the file's", file(4*page, page, 3*page), 100, 2*page - 100, page},
		{"at the end", file(4*page, 3*page, 4*page), 7 * page, 3 * page, page},
		{"less than a page", file(100, 0, 100), 0, 100, 0},
	} {
		if from, to := zeroPages(c.b, c.at); from != c.from || to-from != c.length {
			t.Errorf("%s: %d bytes at %d, want %d at %d", c.name, to-from, from, c.length, c.from)
		}
	}
}

// edited draws a version of old: pieces of it, of itself, of fresh content, of few different bytes, and of zeros.
func edited(t *rapid.T, old []byte) []byte {
	var new []byte
	for range rapid.IntRange(0, 12).Draw(t, "pieces") {
		piece := func(of []byte) []byte {
			from := rapid.IntRange(0, len(of)).Draw(t, "from")
			return of[from : from+rapid.IntRange(0, len(of)-from).Draw(t, "length")]
		}
		n := rapid.SampledFrom([]int{1, 7, 63, 64, 65, 1000, page, 3 * page, 20_000}).Draw(t, "n")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0, 1:
			new = append(new, piece(old)...)
		case 2:
			new = append(new, random(rapid.Byte().Draw(t, "seed"), n)...)
		case 3:
			new = append(new, bytes.Repeat([]byte("ab\x00"), n/3)...)
		case 4:
			new = append(new, make([]byte, n)...)
		}
	}
	return new
}

func TestPatchMakesTheNewVersion(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		old := edited(rt, random(3, 30_000))
		new := edited(rt, old)
		block := rapid.SampledFrom([]int{small, 4 * small, minBlock, 2 * page}).Draw(rt, "block")
		sent(t, old, new, block)
	})
}

// TestCorruptionIsDetected: every single byte of the instructions changed, every shorter stream, another old version. A change
// may happen to say the same in other words; nothing may come out that is not the new version.
func TestCorruptionIsDetected(t *testing.T) {
	old := random(1, 40*small)
	new := slices.Concat(old[:20*small], []byte("literal"), make([]byte, 2*page), old[20*small:])
	stream, _ := told(t, old, new, small)
	patch := func(old, stream []byte) error {
		var got bytes.Buffer
		_, err := Patch(section(old), bytes.NewReader(stream), &got, 1<<20)
		if err == nil && !bytes.Equal(got.Bytes(), new) {
			t.Errorf("other content was accepted")
		}
		return err
	}
	for i := range stream {
		for bit := range 8 {
			bad := bytes.Clone(stream)
			bad[i] ^= 1 << bit
			if err := patch(old, bad); err == nil {
				t.Errorf("bit %d of byte %d changed: no error", bit, i)
			}
		}
		if err := patch(old, stream[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v, want an unexpected end", i, err)
		}
	}
	bad := bytes.Clone(old)
	bad[100]++
	if err := patch(bad, stream); !errors.Is(err, ErrMismatch) {
		t.Errorf("another old version: %v, want %v", err, ErrMismatch)
	}
}

func TestPatchRefuses(t *testing.T) {
	end := "e\x04" + strings.Repeat("h", 32)
	for _, c := range []struct{ name, stream, want string }{
		{"no instructions", "", "unexpected EOF"},
		{"an unknown one", "x\x01", "instruction 'x'"},
		{"a copy of nothing", "c\x00\x00", "no bytes"},
		{"a copy beyond the end", "c\x08\x03", "copies 3 bytes at 8 of an old version of 10"},
		{"a copy from beyond the end", "c\x0b\x01", "copies 1 bytes at 11"},
		{"a copy whose end overflows", "c\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "above the limit"},
		{"a number that overflows", "z\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a number above"},
		{"a literal that is too long", "l\x81\x80\x04", "65537 bytes"},
		{"a literal cut short", "l\x04abc", "unexpected EOF"},
		{"zeros beyond the limit", "z\x65", "101 bytes more after 0 are above the limit of 100"},
		{"a length that does not add up", "z\x05" + end, "5 bytes say that they were 4"},
		{"a hash that is not its", "z\x04" + end, ErrMismatch.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Patch(section(make([]byte, 10)), strings.NewReader(c.stream), io.Discard, 100)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPatchReadsNothingBeyondItsEnd(t *testing.T) {
	stream, _ := told(t, nil, []byte("new"), minBlock)
	r := bytes.NewReader(append(stream, "next message"...))
	if _, err := Patch(section(nil), r, io.Discard, 3); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "next message" {
		t.Errorf("left %q", rest)
	}
}

func TestErrorsOfFilesAreReturned(t *testing.T) {
	broken := errors.New("broken disk")
	stream, _ := told(t, random(1, 10_000), random(1, 10_000), minBlock)
	if _, err := Sign(io.NewSectionReader(bytes.NewReader(nil), 0, 10)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an old version that became shorter: %v", err)
	}
	if _, err := Diff(Empty(), iotest.ErrReader(broken), io.Discard); !errors.Is(err, broken) {
		t.Errorf("a new version that cannot be read: %v", err)
	}
	if _, err := Diff(Empty(), bytes.NewReader(random(1, 1<<20)), full{broken}); !errors.Is(err, broken) {
		t.Errorf("instructions that cannot be written: %v", err)
	}
	if _, err := Patch(section(random(1, 10_000)), bytes.NewReader(stream), full{broken}, 1<<20); !errors.Is(err, broken) {
		t.Errorf("a new version that cannot be written: %v", err)
	}
	if _, err := Patch(section(nil), iotest.ErrReader(broken), io.Discard, 1<<20); !errors.Is(err, broken) {
		t.Errorf("instructions that cannot be read: %v", err)
	}
}

type full struct{ err error }

func (f full) Write([]byte) (int, error) { return 0, f.err }

func TestBlocksGrowWithTheFile(t *testing.T) {
	for _, c := range []struct {
		size          int64
		block, blocks int
	}{
		{0, minBlock, 0},
		{1, minBlock, 1},
		{256 << 20, minBlock, MaxBlocks},
		{256<<20 + 1, 2 * minBlock, MaxBlocks/2 + 1},
		{1 << 30, 8 << 10, MaxBlocks},
		{1 << 40, maxBlock, MaxBlocks},
		{1 << 50, maxBlock, MaxBlocks},
	} {
		if block := blockFor(c.size); block != c.block || count(c.size, block) != c.blocks {
			t.Errorf("%d bytes: %d blocks of %d, want %d of %d", c.size, count(c.size, block), block, c.blocks, c.block)
		}
	}
}

// TestRunsAreNotSearchedForever: in a file of one line repeated, every place looks like the beginning of a block.
func TestRunsAreNotSearchedForever(t *testing.T) {
	old := bytes.Repeat([]byte{'a'}, 64*page)
	new := bytes.Repeat([]byte("a"), page)
	new[page-1] = 'b'
	new = bytes.Repeat(new, 64)
	s, err := sign(section(old), page)
	if err != nil {
		t.Fatal(err)
	}
	x, credit := newIndex(s), 16
	if _, _, ok := x.find(new, len(new), &credit); ok || credit != 0 {
		t.Errorf("found %v with %d tries left, want nothing and none", ok, credit)
	}
	sent(t, old, new, page)
}

func TestSparseLeavesHoles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		content := edited(rt, random(3, 30_000))
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		file := &written{File: f}
		s := &Sparse{File: file}
		for rest := content; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "write")
			if wrote, err := s.Write(rest[:n]); wrote != n || err != nil {
				t.Fatalf("wrote %d of %d: %v", wrote, n, err)
			}
			rest = rest[n:]
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes were written, %d others read: %v", len(content), len(got), err)
		}
	})
	file := &written{File: create(t, filepath.Join(t.TempDir(), "f"))}
	s := &Sparse{File: file}
	if _, err := io.Copy(s, bytes.NewReader(slices.Concat(random(1, page), make([]byte, 1<<20), random(2, page)))); err != nil {
		t.Fatal(err)
	}
	if file.bytes != 2*page {
		t.Errorf("wrote %d bytes of two pages and a hole, want %d", file.bytes, 2*page)
	}
}

// written counts what is written into a file.
type written struct {
	*os.File
	bytes int
}

func (w *written) WriteAt(p []byte, at int64) (int, error) {
	w.bytes += len(p)
	return w.File.WriteAt(p, at)
}

func create(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestGarbageIsNoSignature(t *testing.T) {
	s, err := sign(section(random(1, 10_000)), minBlock)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := s.AppendBinary(nil)
	for n := range good {
		if _, err := ParseSignature(good[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	for _, bad := range [][]byte{
		append(bytes.Clone(good), 0),
		append([]byte{2}, good[1:]...),
		{1, 5, 0},                 // blocks shorter than the window
		{1, 24, 0},                // blocks longer than any
		{1, 11, 0xff, 0xff, 0x7f}, // the blocks are missing
		{1, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		if _, err := ParseSignature(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.16x: %v, want %v", bad, err, ErrMalformed)
		}
	}
}

// FuzzPatch feeds Patch with instructions from anywhere.
func FuzzPatch(f *testing.F) {
	old := random(1, 10*small)
	for _, new := range [][]byte{nil, old, old[5:], make([]byte, 2*page)} {
		stream, _ := told(f, old, new, small)
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var got bytes.Buffer
		r, err := Patch(section(old), bytes.NewReader(stream), &got, 1<<20)
		if got.Len() > 1<<20 {
			t.Errorf("wrote %d bytes, above the limit", got.Len())
		}
		if err == nil && (r.Sum != blake3.Sum256(got.Bytes()) || r.Size != int64(got.Len())) {
			t.Errorf("accepted %d bytes as %+v", got.Len(), r)
		}
	})
}

// FuzzSignature lets Diff work with signatures from anywhere: what it sends need not be of use, but must fit the signed size.
func FuzzSignature(f *testing.F) {
	new := random(1, 10*small)
	s, err := sign(section(new), small)
	if err != nil {
		f.Fatal(err)
	}
	good, _ := s.AppendBinary(nil)
	f.Add(good)
	f.Add([]byte{1, 11, 0})
	f.Fuzz(func(t *testing.T, wire []byte) {
		s, err := ParseSignature(wire)
		if err != nil {
			return
		}
		if again, _ := s.AppendBinary(nil); len(again) > len(wire) {
			t.Errorf("%d bytes became %d", len(wire), len(again))
		}
		var out bytes.Buffer
		if _, err := Diff(s, bytes.NewReader(new), &out); err != nil {
			t.Fatal(err)
		}
		old := io.NewSectionReader(bytes.NewReader(new), 0, s.Size())
		if _, err := Patch(old, &out, io.Discard, 1<<20); errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
	})
}
