//go:build linux

package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// many makes a Maildir of n messages, in ten folders.
func many(b *testing.B, n int) string {
	root := b.TempDir()
	for i := range n {
		dir := fmt.Sprintf("%s/.Folder%d/cur", root, i%10)
		if i < 10 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		name := fmt.Sprintf("%s/17000%05d.M%06dP%05d.mail1.example.org,S=1234,W=1260:2,S", dir, i, i, i)
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

func BenchmarkScan(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		root := many(b, n)
		age()
		s := scanner(b, root, Options{})
		before := heap()
		warm := scan(b, s, nil)
		perFile := float64(heap()-before) / float64(n)
		b.Run(fmt.Sprintf("warm/files=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				warm = scan(b, s, warm)
			}
			b.ReportMetric(perFile, "B-kept/file")
		})
		b.Run(fmt.Sprintf("cold/files=%d", n), func(b *testing.B) {
			for b.Loop() {
				scan(b, s, nil)
			}
		})
		b.Run(fmt.Sprintf("digest/files=%d", n), func(b *testing.B) {
			for b.Loop() {
				warm.root.each(".", func(_ string, n *node) bool {
					if n.kind == Directory {
						n.flags |= stale
					}
					return true
				})
				warm.Digest()
			}
		})
		b.Run(fmt.Sprintf("update/files=%d", n), func(b *testing.B) {
			path := warm.root.child(".Folder3").child("cur").children()[7].path()
			for b.Loop() {
				if _, err := s.Update(background, warm, path, Itself); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("load/files=%d", n), func(b *testing.B) {
			index := filepath.Join(b.TempDir(), "index")
			if err := warm.Save(index); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := Load(index); err != nil {
					b.Fatal(err)
				}
			}
		})
		runtime.KeepAlive(warm)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
