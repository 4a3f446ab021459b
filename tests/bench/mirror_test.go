//go:build linux

package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"understudy/tests/netns/wire"
)

// mirrors is a source and its mirror, on two hosts, and the side that is to make them equal.
type mirrors struct {
	*wire.Wire
	*meter
	b              *testing.B
	side           mirrorer
	source, mirror string          // directories, on a disk as on a node
	conf           string          // what the side is configured by; both hosts see it
	ends           map[string]*end // the two processes of ours
	watched        int             // directories of which the kernel tells ours; 0: not known
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

// promiser is a side that can say when everything that was written before is durable on the peer. What it says is believed and
// then checked. Of the others it counts when a file is there whole, since they promise no more.
type promiser interface {
	durable(m *mirrors)
}

// The sides, by the names of the sub-benchmarks. The design's figures are from rsync --archive; with -HAX it keeps what ours keeps
// besides: hard links, access control lists and extended attributes.
var (
	hax     = []string{"--hard-links", "--acls", "--xattrs"}
	passers = map[string]passer{
		"understudy":      understudy{},
		"rsync":           rsync{},
		"rsync-HAX":       rsync{options: hax},
		"rsync-fsync":     rsync{options: []string{"--fsync"}},
		"rsync-fsync-HAX": rsync{options: append([]string{"--fsync"}, hax...)},
		"rsync-ssh":       rsync{ssh: true},
	}
	followers = map[string]follower{
		"understudy":        understudy{},
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
	scratch(b)
	m := &mirrors{Wire: wire.New(b, sourceHost, mirrorHost), meter: newMeter(b), b: b, side: side, ends: map[string]*end{}}
	sweepScratch(b) // now that wire.New has ended whatever may still write there
	dir := b.TempDir()
	m.source, m.mirror, m.conf = filepath.Join(dir, "source"), filepath.Join(dir, "mirror"), filepath.Join(dir, "conf")
	for _, d := range []string{m.source, m.mirror, m.conf} {
		if err := os.Mkdir(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	side.serve(m)
	return m
}

// report reports what a side took since it had used so much CPU.
func (m *mirrors) report(cpu float64) {
	m.b.Helper()
	used, memory := m.total()
	m.b.ReportMetric(used-cpu, "cpu-s")
	m.b.ReportMetric(memory, "MB")
	if m.watched > 0 {
		m.b.ReportMetric(float64(m.watched), "watches")
	}
	m.b.ReportMetric(0, "ns/op")
}

// pass measures one pass of some sides, after they have been prepared.
func pass(b *testing.B, prepare func(m *mirrors, side passer), names ...string) {
	for _, name := range append([]string{"understudy"}, names...) {
		b.Run(name, func(b *testing.B) {
			side := passers[name]
			m := newMirrors(b, side)
			prepare(m, side)
			syscall.Sync() // what was prepared is not written back at the cost of what is measured
			cpu := m.begin()
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
	pass(b, func(m *mirrors, _ passer) { m.fill(10_000) }, "rsync", "rsync-HAX", "rsync-fsync", "rsync-fsync-HAX")
}

// BenchmarkMirrorUnchanged is a sync of the same when nothing has changed.
func BenchmarkMirrorUnchanged(b *testing.B) {
	pass(b, func(m *mirrors, side passer) {
		m.fill(10_000)
		side.sync(m)
	}, "rsync", "rsync-HAX")
}

// BenchmarkMirrorMaildir is a sync of 100,000 mails in a hundred mailboxes after the mirror was away for some deliveries, flags and
// deletions.
func BenchmarkMirrorMaildir(b *testing.B) {
	pass(b, func(m *mirrors, side passer) {
		m.mail()
		side.sync(m)
		m.away()
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

// follow measures followers, once two files have shown that they follow: the first may have been found by the scan that they begin with.
func follow(b *testing.B, prepare func(m *mirrors), measure func(m *mirrors, watcher *wire.Process), names ...string) {
	for _, name := range append([]string{"understudy", "lsyncd", "lsyncd,delay=1"}, names...) {
		b.Run(name, func(b *testing.B) {
			side := followers[name]
			m := newMirrors(b, side)
			prepare(m)
			watcher := side.follow(m)
			for _, name := range []string{"first", "second"} {
				m.put(name, "it follows")
				wire.EventuallyEvery(b, 100*time.Millisecond, time.Minute, func() error { return alike(m.source, m.mirror, contents) })
			}
			syscall.Sync()
			cpu := m.begin()
			measure(m, watcher)
			m.report(cpu)
		})
	}
}

const (
	// singles are the files of BenchmarkMirrorLatency, and singleEvery their pace, which is no side's own: lsyncd and syncthing
	// collect changes for seconds.
	singles     = 200
	singleEvery = 250 * time.Millisecond
	// patience is how long a file, or the mirror, may take; a side that takes longer is reported with this.
	patience = 150 * time.Second
)

// BenchmarkMirrorLatency is from the close of a small file to the same file on the peer, in half of all cases, and in all but one
// of a hundred.
func BenchmarkMirrorLatency(b *testing.B) {
	follow(b, func(*mirrors) {}, func(m *mirrors, _ *wire.Process) {
		var took []time.Duration
		if side, ok := m.side.(promiser); ok {
			took = m.promised(side)
		} else {
			took = m.arrived()
		}
		slices.Sort(took)
		m.b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/p50")
		m.b.ReportMetric(float64(took[(len(took)-1)*99/100])/1e6, "ms/p99")
	}, "syncthing", "syncthing,delay=1")
}

// BenchmarkMirrorBurst is from the first of 1,000 small files that are written one after the other to the last one on the peer.
func BenchmarkMirrorBurst(b *testing.B) {
	follow(b, func(*mirrors) {}, func(m *mirrors, _ *wire.Process) {
		began := time.Now()
		for i := range 1000 {
			m.put(fmt.Sprintf("burst%04d", i), small(i))
		}
		m.b.ReportMetric(m.equalAgain(began), "s/burst")
	}, "syncthing", "syncthing,delay=1")
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
	}, "syncthing,delay=1") // with its default delay it can only be slower
}

// equalAgain waits until the mirror is the source, and returns for how many seconds it was not.
func (m *mirrors) equalAgain(since time.Time) float64 {
	m.b.Helper()
	if side, ok := m.side.(promiser); ok {
		side.durable(m)
		took := time.Since(since).Seconds()
		if err := alike(m.source, m.mirror, contents); err != nil {
			m.b.Fatalf("it was promised to be durable on the mirror: %v", err)
		}
		return took
	}
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

// put writes a file as a program does that knows its directory: nothing happens to it afterwards.
func (m *mirrors) put(name, text string) {
	m.b.Helper()
	if err := os.WriteFile(filepath.Join(m.source, name), []byte(text), 0o644); err != nil {
		m.b.Fatal(err)
	}
}

func (m *mirrors) dir(name string) {
	m.b.Helper()
	if err := os.MkdirAll(filepath.Join(m.source, name), 0o755); err != nil {
		m.b.Fatal(err)
	}
}

// fill writes n small files, or writes them anew, into a hundred directories.
func (m *mirrors) fill(n int) {
	m.b.Helper()
	for i := range 100 {
		m.dir(fmt.Sprintf("dir%02d", i))
	}
	for i := range n {
		m.put(fmt.Sprintf("dir%02d/file%05d", i%100, i), small(i))
	}
}

const mailboxes, mailsEach = 100, 1000

// mail fills mailboxes as maildir(5) has them.
func (m *mirrors) mail() {
	m.b.Helper()
	for i := range mailboxes {
		for _, part := range []string{"cur", "new", "tmp"} {
			m.dir(fmt.Sprintf("user%02d/%s", i, part))
		}
		for k := range mailsEach {
			m.put(oldMail(i, k), small(i*mailsEach+k))
		}
	}
}

func oldMail(box, k int) string {
	return fmt.Sprintf("user%02d/cur/17000%05d.M%06dP1.mail:2,S", box, k, k)
}

// away is what happens while the mirror is: in every mailbox two mails come, two are flagged and one is deleted.
func (m *mirrors) away() {
	m.b.Helper()
	for i := range mailboxes {
		for k := range 2 {
			m.put(fmt.Sprintf("user%02d/new/17100%05d.M%06dP1.mail", i, k, k), small(k))
			old := filepath.Join(m.source, oldMail(i, k))
			if err := os.Rename(old, old+"T"); err != nil {
				m.b.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(m.source, oldMail(i, 2))); err != nil {
			m.b.Fatal(err)
		}
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
