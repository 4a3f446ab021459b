//go:build linux

package delta

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// fileSize is that of the files in the benchmark, of which each change touches 1 %.
const fileSize = 1 << 30

// changes make a new version of a file in three ways that files change in.
var changes = []struct {
	name string
	make func(old io.Reader, new io.Writer, r *rand.Rand) error
}{
	{"pages", pages},
	{"shifts", shifts},
	{"region", region},
}

// pages overwrites 1 % of the pages, at random, in place: a database.
func pages(old io.Reader, new io.Writer, r *rand.Rand) error {
	n := fileSize / page
	changed := map[int]bool{}
	for len(changed) < n/100 {
		changed[r.IntN(n)] = true
	}
	b, source := make([]byte, page), rand.NewChaCha8([32]byte{1})
	for i := range n {
		if _, err := io.ReadFull(old, b); err != nil {
			return err
		}
		if changed[i] {
			_, _ = source.Read(b)
		}
		if _, err := new.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// shifts inserts or deletes up to 16 bytes at as many places: everything behind each has moved.
func shifts(old io.Reader, new io.Writer, r *rand.Rand) error {
	var places []int64
	for range fileSize / page / 100 {
		places = append(places, r.Int64N(fileSize-16))
	}
	slices.Sort(places)
	at := int64(0)
	for i, place := range append(places, fileSize) {
		n, err := io.CopyN(new, old, max(place-at, 0))
		if err != nil {
			return err
		}
		at += n
		length := int64(1 + r.IntN(16))
		switch {
		case place == fileSize:
		case i%2 == 0:
			if _, err := new.Write(bytes.Repeat([]byte{byte(i)}, int(length))); err != nil {
				return err
			}
		default:
			n, err := io.CopyN(io.Discard, old, length)
			if err != nil {
				return err
			}
			at += n
		}
	}
	return nil
}

// region overwrites one contiguous piece.
func region(old io.Reader, new io.Writer, r *rand.Rand) error {
	const piece = fileSize / 100
	if _, err := io.CopyN(new, old, fileSize/3); err != nil {
		return err
	}
	if _, err := io.CopyN(new, rand.NewChaCha8([32]byte{2}), piece); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, old, piece); err != nil {
		return err
	}
	_, err := io.Copy(new, old)
	return err
}

// versions writes both versions of a file.
func versions(b *testing.B, change func(io.Reader, io.Writer, *rand.Rand) error) (old, new *os.File) {
	b.Helper()
	dir := b.TempDir()
	old, new = create(b, filepath.Join(dir, "old")), create(b, filepath.Join(dir, "new"))
	if _, err := io.CopyN(old, rand.NewChaCha8([32]byte{}), fileSize); err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(new, 1<<20)
	if err := change(bufio.NewReaderSize(io.NewSectionReader(old, 0, fileSize), 1<<20), w, rand.New(rand.NewPCG(1, 2))); err != nil {
		b.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	return old, new
}

// cpu is what this process has used, in seconds.
func cpu(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkDelta is everything that happens to a file of 1 GiB of which 1 % has changed: its signature, and then, side by side
// over a pipe, delta and patch into a new file.
func BenchmarkDelta(b *testing.B) {
	for _, change := range changes {
		b.Run(change.name, func(b *testing.B) {
			old, new := versions(b, change.make)
			out := create(b, filepath.Join(b.TempDir(), "out"))
			source := io.NewSectionReader(old, 0, fileSize)
			var literal int64
			b.ReportAllocs()
			spent := cpu(b)
			for b.Loop() {
				if _, err := out.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				s, err := Sign(source)
				if err != nil {
					b.Fatal(err)
				}
				var g errgroup.Group
				r, w := io.Pipe()
				g.Go(func() error {
					told, err := Diff(s, io.NewSectionReader(new, 0, 2*fileSize), w)
					literal = told.Literal
					return w.CloseWithError(err)
				})
				if _, err := Patch(source, r, out, 2*fileSize); err != nil {
					b.Fatal(err)
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpu(b)-spent)/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(literal)/1e6, "literal-MB")
		})
	}
}

// BenchmarkSteps is each step of it by itself: what it reads is cached, what it writes is dropped. Measured on one busy core of a
// 2-core machine, in seconds of CPU and MB of literals, and beside it FastCDC (PlakarKorp/go-cdc-chunkers 1.1.0, chunks of 2, 8
// and at most 64 KiB, the same two hashes, a map of chunks):
//
//	         signature     delta        patch   literals
//	         ours   CDC    ours   CDC   ours    ours  CDC
//	pages    0.17   1.09   0.43  1.28   0.39    21.4  53.8
//	shifts   0.13   1.10   0.66  1.60   0.37    21.3  27.1
//	region   0.16   1.07   0.54  1.40   0.42    10.8  10.8
//
// Chunks of 4 to 16 KiB send more (59.9, 28.4, 10.8). The chunker has a trap besides: it returns the last chunk together with
// io.EOF if that is short, and without it if not.
func BenchmarkSteps(b *testing.B) {
	for _, change := range changes {
		old, new := versions(b, change.make)
		source := io.NewSectionReader(old, 0, fileSize)
		s, err := Sign(source)
		if err != nil {
			b.Fatal(err)
		}
		var told bytes.Buffer
		if _, err := Diff(s, io.NewSectionReader(new, 0, 2*fileSize), &told); err != nil {
			b.Fatal(err)
		}
		steps := []struct {
			name string
			do   func() error
		}{
			{"signature", func() error { _, err := Sign(source); return err }},
			{"delta", func() error { _, err := Diff(s, io.NewSectionReader(new, 0, 2*fileSize), io.Discard); return err }},
			{"patch", func() error {
				_, err := Patch(source, bytes.NewReader(told.Bytes()), io.Discard, 2*fileSize)
				return err
			}},
		}
		for _, step := range steps {
			b.Run(change.name+"/"+step.name, func(b *testing.B) {
				b.SetBytes(fileSize)
				b.ReportAllocs()
				spent := cpu(b)
				for b.Loop() {
					if err := step.do(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((cpu(b)-spent)/float64(b.N), "cpu-s/op")
			})
		}
	}
}
