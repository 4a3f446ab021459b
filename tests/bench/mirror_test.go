//go:build linux

package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/tests/netns/wire"
)

// mirrors is a source and its mirror, on two hosts, and the side that is to make them equal.
type mirrors struct {
	*wire.Wire
	b              *testing.B
	source, mirror string // directories, here on ext4 as on a node
	conf           string // what the side is configured by; both hosts see it
	runs           map[string][]*wire.Process
}

// The hosts, and what addresses they have.
const (
	sourceHost, mirrorHost       = "source", "mirror"
	sourceAddress, mirrorAddress = "10.9.0.1", "10.9.0.2"
)

// A mirrorer is one side. Everything that it runs, it runs in the hosts. Its programs are started once and stopped by the caller.
type mirrorer interface {
	// serve starts what has to run before anything can be synced.
	serve(m *mirrors)
}

// passer is a side that syncs when it is told to. Sync makes the mirror equal, durably if that is what this side promises, and
// returns how long that took.
type passer interface {
	mirrorer
	sync(m *mirrors) time.Duration
}

// follower is a side that follows every change by itself. Follow begins that and returns its process on the source's host, which
// is the one that watches.
type follower interface {
	mirrorer
	follow(m *mirrors) *wire.Process
}

// The sides, by the names of the sub-benchmarks. Ours, "understudy", belongs into both lists; the table's rows name it.
var (
	passers = map[string]passer{
		"rsync":       rsync{},
		"rsync-fsync": rsync{options: []string{"--fsync"}},
		"rsync-ssh":   rsync{ssh: true},
	}
	followers = map[string]follower{
		"lsyncd":            lsyncd{},
		"lsyncd,delay=1":    lsyncd{delay: 1},
		"syncthing":         syncthing{},
		"syncthing,delay=1": syncthing{delay: 1},
	}
)

// newMirrors makes two hosts with an empty directory each.
func newMirrors(b *testing.B, side mirrorer) *mirrors {
	b.Helper()
	if b.N > 1 {
		b.Fatal("one measurement a run: use -benchtime=1x and -count, as make bench does")
	}
	dir := b.TempDir()
	m := &mirrors{
		Wire: wire.New(b, sourceHost, mirrorHost), b: b, runs: map[string][]*wire.Process{},
		source: filepath.Join(dir, "source"), mirror: filepath.Join(dir, "mirror"), conf: filepath.Join(dir, "conf"),
	}
	for _, d := range []string{m.source, m.mirror, m.conf} {
		if err := os.Mkdir(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	side.serve(m)
	return m
}

// report stops the side and reports what it took: the CPU since the measurement began, in seconds, of all its processes, and the
// peak memory of the largest one on either host, added up.
func (m *mirrors) report(cpu float64) {
	m.b.Helper()
	cpu = m.cpu() - cpu
	var memory float64
	for _, processes := range m.runs {
		var peak int64
		for _, p := range processes {
			if !p.Over() {
				p.Signal(m.b, syscall.SIGTERM)
				_ = p.Ended(m.b, 20*time.Second) // by the signal
			}
			peak = max(peak, p.Cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) // of those that it has waited for, too
		}
		memory += float64(peak) / 1024
	}
	m.b.ReportMetric(cpu, "cpu-s")
	m.b.ReportMetric(memory, "MB")
	m.b.ReportMetric(0, "ns/op")
}

// cpu is what the side's processes have used so far, and those that they have waited for, in seconds.
func (m *mirrors) cpu() (total float64) {
	m.b.Helper()
	running := map[int]bool{} // process groups
	for _, processes := range m.runs {
		for _, p := range processes {
			if p.Over() {
				total += (p.Cmd.ProcessState.UserTime() + p.Cmd.ProcessState.SystemTime()).Seconds()
			} else {
				running[p.Cmd.Process.Pid] = true
			}
		}
	}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // proc_pid_stat(5): from the third field on
		f := strings.Fields(rest)
		if group, err := strconv.Atoi(f[2]); err != nil || !running[group] {
			continue
		}
		for _, ticks := range f[11:15] { // utime, stime, cutime, cstime; USER_HZ is 100 on every Linux that Debian runs on
			v, err := strconv.ParseFloat(ticks, 64)
			if err != nil {
				m.b.Fatalf("%s: %q", file, text)
			}
			total += v / 100
		}
	}
	return total
}

// pass measures one pass of some sides, after they have been prepared.
func pass(b *testing.B, prepare func(m *mirrors, side passer), names ...string) {
	for _, name := range append([]string{"understudy"}, names...) {
		side, there := passers[name]
		if !there {
			continue
		}
		b.Run(name, func(b *testing.B) {
			m := newMirrors(b, side)
			prepare(m, side)
			syscall.Sync() // what was prepared is not written back at the cost of what is measured
			cpu := m.cpu()
			b.ReportMetric(side.sync(m).Seconds(), "s/sync")
			if err := alike(m.source, m.mirror, contents); err != nil {
				b.Fatal(err)
			}
			m.report(cpu)
		})
	}
}

// BenchmarkMirrorFirst is the first sync of 10,000 small files.
func BenchmarkMirrorFirst(b *testing.B) {
	pass(b, func(m *mirrors, _ passer) { m.fill(10_000) }, "rsync", "rsync-fsync")
}

// BenchmarkMirrorUnchanged is a sync of the same when nothing has changed.
func BenchmarkMirrorUnchanged(b *testing.B) {
	pass(b, func(m *mirrors, side passer) {
		m.fill(10_000)
		side.sync(m)
	}, "rsync")
}

// BenchmarkMirrorGiB is the first sync of one file of 1 GiB.
func BenchmarkMirrorGiB(b *testing.B) {
	pass(b, func(m *mirrors, _ passer) { m.large() }, "rsync", "rsync-ssh")
}

// BenchmarkMirrorChanged is a sync after 1 % of its pages have been overwritten.
func BenchmarkMirrorChanged(b *testing.B) {
	pass(b, func(m *mirrors, side passer) {
		m.large()
		side.sync(m)
		m.overwrite()
	}, "rsync")
}

// follow measures followers, once one file has shown that they follow.
func follow(b *testing.B, prepare func(m *mirrors), measure func(m *mirrors, watcher *wire.Process)) {
	names := []string{"understudy", "lsyncd", "lsyncd,delay=1", "syncthing", "syncthing,delay=1"}
	for _, name := range names {
		side, there := followers[name]
		if !there {
			continue
		}
		b.Run(name, func(b *testing.B) {
			m := newMirrors(b, side)
			prepare(m)
			watcher := side.follow(m)
			write(b, filepath.Join(m.source, "first"), "it follows", 0o644)
			wire.EventuallyEvery(b, 100*time.Millisecond, 2*time.Minute, func() error { return alike(m.source, m.mirror, contents) })
			syscall.Sync()
			cpu := m.cpu()
			measure(m, watcher)
			m.report(cpu)
		})
	}
}

const (
	// singles are the files of BenchmarkMirrorLatency, and singleEvery their pace, which is no side's own: lsyncd and syncthing
	// collect changes for seconds.
	singles     = 120
	singleEvery = 250 * time.Millisecond
	// patience is how long a file, or the mirror, may take; a side that takes longer is reported with this.
	patience = 4 * time.Minute
)

// BenchmarkMirrorLatency is from the close of a small file to the same file on the peer, in half of all cases, and in all but one
// of a hundred.
func BenchmarkMirrorLatency(b *testing.B) {
	follow(b, func(*mirrors) {}, func(m *mirrors, _ *wire.Process) {
		a := m.arrivals()
		closed := map[string]time.Time{}
		for i := range singles {
			name := fmt.Sprintf("single%03d", i)
			a.at[name] = time.Time{}
			write(m.b, filepath.Join(m.source, name), small(i), 0o644)
			closed[name] = time.Now()
			a.await(closed[name].Add(singleEvery), false)
		}
		a.await(time.Now().Add(patience), true)
		var took []time.Duration
		for name, at := range a.at {
			if at.IsZero() {
				m.b.Fatalf("%s has not arrived within %v", name, patience)
			}
			took = append(took, at.Sub(closed[name]))
		}
		slices.Sort(took)
		m.b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/p50")
		m.b.ReportMetric(float64(took[(len(took)-1)*99/100])/1e6, "ms/p99")
	})
}

// BenchmarkMirrorBurst is from the first of 1,000 small files that are written one after the other to the last one on the peer.
func BenchmarkMirrorBurst(b *testing.B) {
	follow(b, func(*mirrors) {}, func(m *mirrors, _ *wire.Process) {
		began := time.Now()
		for i := range 1000 {
			write(m.b, filepath.Join(m.source, fmt.Sprintf("burst%04d", i)), small(i), 0o644)
		}
		m.b.ReportMetric(m.equalAgain(began), "s/burst")
	})
}

// BenchmarkMirrorOverflow is from the moment that a watcher goes on, of whose queue the kernel has dropped the rest while it was
// stopped, to equal trees. Our own watch beside it, which reads nothing either, proves that the queue ran over.
func BenchmarkMirrorOverflow(b *testing.B) {
	follow(b, func(m *mirrors) { m.fill(100) }, func(m *mirrors, watcher *wire.Process) {
		w := watch(m.b, directories(m.b, m.source)...)
		group := -watcher.Cmd.Process.Pid
		if err := syscall.Kill(group, syscall.SIGSTOP); err != nil {
			m.b.Fatal(err)
		}
		m.fill(20_000)
		if !w.ranOver() {
			m.b.Fatal("20,000 changes fit the queue: lower fs.inotify.max_queued_events to the kernel's default of 16384")
		}
		began := time.Now()
		if err := syscall.Kill(group, syscall.SIGCONT); err != nil {
			m.b.Fatal(err)
		}
		m.b.ReportMetric(m.equalAgain(began), "s/equal")
	})
}

// equalAgain waits until the mirror is the source, and returns for how many seconds it was not.
func (m *mirrors) equalAgain(since time.Time) float64 {
	m.b.Helper()
	for {
		at := time.Now()
		err := alike(m.source, m.mirror, sizes)
		if err == nil {
			if err := alike(m.source, m.mirror, contents); err != nil {
				m.b.Fatal(err)
			}
			return at.Sub(since).Seconds()
		}
		if time.Since(since) > patience {
			m.b.Logf("gave up after %v: %v", patience, err)
			return patience.Seconds()
		}
		// Each look takes as long as the side would need for some files: wait for ten times that.
		<-time.After(10 * time.Since(at))
	}
}

// small is the content of a small file, about as long as a mail.
func small(i int) string {
	b := make([]byte, 1000+i*7919%7000)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b)
	return string(b)
}

// fill writes n small files, or writes them anew, into a hundred directories.
func (m *mirrors) fill(n int) {
	m.b.Helper()
	for i := range n {
		write(m.b, filepath.Join(m.source, fmt.Sprintf("dir%02d", i%100), fmt.Sprintf("file%05d", i)), small(i), 0o644)
	}
}

// gib is the length of the large file.
const gib = 1 << 30

func (m *mirrors) large() {
	m.b.Helper()
	f, err := os.Create(filepath.Join(m.source, "large"))
	if err != nil {
		m.b.Fatal(err)
	}
	defer f.Close()
	b, random := make([]byte, 1<<20), rand.NewChaCha8([32]byte{})
	for range gib / len(b) {
		_, _ = random.Read(b)
		if _, err := f.Write(b); err != nil {
			m.b.Fatal(err)
		}
	}
}

// overwrite changes 1 % of the pages of the large file, at random, in place.
func (m *mirrors) overwrite() {
	m.b.Helper()
	const page = 4096
	f, err := os.OpenFile(filepath.Join(m.source, "large"), os.O_WRONLY, 0)
	if err != nil {
		m.b.Fatal(err)
	}
	defer f.Close()
	b, random := make([]byte, page), rand.NewChaCha8([32]byte{1})
	for range gib / page / 100 {
		_, _ = random.Read(b)
		if _, err := f.WriteAt(b, int64(random.Uint64()%(gib/page))*page); err != nil {
			m.b.Fatal(err)
		}
	}
}
