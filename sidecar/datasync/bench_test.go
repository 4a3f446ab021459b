//go:build linux

package datasync

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"understudy/sidecar/datasync/tree"
)

// BenchmarkSession measures both sides in one process without TLS; tests/bench has the real thing.
func BenchmarkSession(b *testing.B) {
	fill := func(b *testing.B, dir string, files, size int) {
		r := rand.NewChaCha8([32]byte{7})
		body := make([]byte, size)
		for i := range files {
			if _, err := r.Read(body); err != nil {
				b.Fatal(err)
			}
			at := fmt.Sprintf("%s/%d", dir, i%100)
			if err := os.MkdirAll(at, 0o755); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(fmt.Sprintf("%s/%d", at, i), body, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("file", func(b *testing.B) {
		p := newPair(b, tree.Policy{}, SourceOptions{})
		fill(b, p.from.Root, 1000, 100)
		p.connect()
		p.barrier()
		var all []time.Duration
		for i := 0; b.Loop(); i++ {
			began := time.Now()
			if err := os.WriteFile(fmt.Sprintf("%s/1/new%d", p.from.Root, i), bytes.Repeat([]byte{1}, 4000), 0o644); err != nil {
				b.Fatal(err)
			}
			want := fmt.Sprintf("%s/1/new%d", p.to.Root, i)
			for {
				if info, err := os.Stat(want); err == nil && info.Size() == 4000 {
					break
				}
				time.Sleep(50 * time.Microsecond)
			}
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	})
	b.Run("burst=1000", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			p := newPair(b, tree.Policy{}, SourceOptions{})
			p.connect()
			p.barrier()
			b.StartTimer()
			fill(b, p.from.Root, 1000, 4000)
			p.barrier()
			b.StopTimer()
			p.close()
			b.StartTimer()
		}
	})
	for _, c := range []struct {
		name        string
		files, size int
	}{{"first=10000", 10000, 8 << 10}, {"first=1GiB", 1, 1 << 30}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				p := newPair(b, tree.Policy{}, SourceOptions{})
				fill(b, p.from.Root, c.files, c.size)
				b.StartTimer()
				p.connect()
				p.barrier()
				b.StopTimer()
				p.close()
				b.StartTimer()
			}
		})
	}
	b.Run("unchanged=10000", func(b *testing.B) {
		p := newPair(b, tree.Policy{}, SourceOptions{})
		fill(b, p.from.Root, 10000, 8<<10)
		p.connect()
		p.barrier()
		for b.Loop() {
			p.close()
			p.open()
			p.connect()
			p.barrier()
		}
	})
}
