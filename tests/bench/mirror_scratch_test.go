//go:build linux

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is where the benchmarks of mirrors write: /tmp may be memory, and a node's data are not. The programs of the other sides run
// as root, so their files are as a node's, too.
const disk = "/var/tmp"

// scratchPrefix begins the name of every directory there; the pid of its maker follows.
const scratchPrefix = "understudy-bench-"

// scratch lets the benchmark's temporary files lie on the disk.
func scratch(b *testing.B) {
	b.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil {
		b.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		b.Fatalf("%s is memory (tmpfs): mount a disk there, since what is durable is measured", disk)
	}
	dir, err := os.MkdirTemp(disk, fmt.Sprintf("%s%d-", scratchPrefix, os.Getpid()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	b.Setenv("TMPDIR", dir)
}

// sweepScratch removes what runs that were killed have left.
func sweepScratch(b *testing.B) {
	b.Helper()
	entries, err := os.ReadDir(disk)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), scratchPrefix)
		id, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(id)
		if !ours || err != nil || pid == os.Getpid() || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(disk, e.Name())); err != nil {
			b.Fatal(err)
		}
	}
}
