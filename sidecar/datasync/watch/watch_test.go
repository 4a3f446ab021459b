package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follower knows a tree by what a watcher tells, and by looking at what that names, and nothing else.
type follower struct {
	t     *testing.T
	w     *Watcher
	root  string
	knows map[string]string // path → what is there
	all   int
}

// follow begins to watch an existing tree.
func follow(t *testing.T, root string, o Options) *follower {
	t.Helper()
	w, err := New(slog.New(slog.DiscardHandler), root, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &follower{t: t, w: w, root: root, knows: look(t, root, ".")}
}

// look is all that is at and below a path.
func look(t *testing.T, root, path string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, path), func(at string, d fs.DirEntry, err error) error {
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		if below == Own {
			return fs.SkipDir
		}
		if what := one(t, root, below); what != "" {
			all[below] = what
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// one is what is at a path; empty: nothing.
func one(t *testing.T, root, path string) string {
	t.Helper()
	at := filepath.Join(root, path)
	info, err := os.Lstat(at)
	if absent(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	what := info.Mode().String()
	switch {
	case info.Mode().IsRegular():
		text, err := os.ReadFile(at)
		if err != nil && !absent(err) {
			t.Fatal(err)
		}
		what += " " + string(text)
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(at)
		if err != nil && !absent(err) {
			t.Fatal(err)
		}
		what += " " + to
	}
	return what
}

// take looks at what changes name.
func (f *follower) take(c Changes) {
	if c.All {
		f.all++
		f.knows = look(f.t, f.root, ".")
		return
	}
	for _, path := range c.Paths {
		what := one(f.t, f.root, path)
		if what == "" || what[0] != 'd' {
			maps.DeleteFunc(f.knows, func(k, _ string) bool { return strings.HasPrefix(k, path+"/") })
		}
		if delete(f.knows, path); what != "" {
			f.knows[path] = what
		}
	}
	for _, path := range c.Trees {
		maps.DeleteFunc(f.knows, func(k, _ string) bool { return k == path || strings.HasPrefix(k, path+"/") })
		maps.Copy(f.knows, look(f.t, f.root, path))
	}
}

// catchUp takes all changes up to a barrier, and holds the law: what is known is what is there.
func (f *follower) catchUp() {
	f.t.Helper()
	n, err := f.w.Barrier()
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	for passed := uint64(0); passed < n; {
		c, err := f.w.Next(ctx)
		if err != nil {
			f.t.Fatalf("no barrier: %v", err)
		}
		f.take(c)
		passed = max(passed, c.Barrier)
	}
	if want := look(f.t, f.root, "."); !maps.Equal(f.knows, want) {
		for _, path := range slices.Sorted(maps.Keys(want)) {
			if f.knows[path] != want[path] {
				f.t.Errorf("%q: told %q, is %q", path, f.knows[path], want[path])
			}
		}
		for path := range f.knows {
			if want[path] == "" {
				f.t.Errorf("%q: told %q, is gone", path, f.knows[path])
			}
		}
		f.t.FailNow()
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit does something at random, as programs do.
func edit(t *testing.T, r *rand.Rand, root string) {
	t.Helper()
	names := []string{"a", "b", "c\n", "d\xff", "e"}
	path := func() string {
		p := root
		for range 1 + r.IntN(4) {
			p += "/" + names[r.IntN(len(names))]
		}
		return p
	}
	at, to := path(), path()
	var err error
	switch r.IntN(9) {
	case 0, 1:
		err = os.WriteFile(at, fmt.Append(nil, r.IntN(1000)), 0o644)
	case 2, 3:
		err = os.MkdirAll(at, 0o755)
	case 4:
		if err = os.MkdirAll(at+"/x/y", 0o755); err == nil {
			err = os.WriteFile(at+"/x/y/z", fmt.Append(nil, r.IntN(1000)), 0o644)
		}
	case 5, 6:
		err = os.Rename(at, to)
	case 7:
		if r.IntN(2) == 0 {
			err = os.RemoveAll(at)
		} else {
			err = os.Remove(at)
		}
	case 8:
		if r.IntN(2) == 0 {
			err = os.Symlink("/nowhere/"+names[r.IntN(len(names))], at)
		} else {
			err = os.Chmod(at, fs.FileMode(0o700|r.IntN(0o100)))
		}
	}
	_ = err // what cannot be done at a place is no edit
}

func TestWhatIsToldIsWhatIsThere(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			root := t.TempDir()
			for range r.IntN(30) {
				edit(t, r, root)
			}
			f := follow(t, root, Options{})
			for range 6 {
				for range r.IntN(60) {
					edit(t, r, root)
					if r.IntN(20) == 0 {
						time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond) // a pace, not a wait
					}
				}
				f.catchUp()
			}
		})
	}
}

func TestNothingIsMissedWhenDirectoriesAppearQuickly(t *testing.T) {
	root := t.TempDir()
	f := follow(t, root, Options{})
	for i := range 40 {
		deep := filepath.Join(root, fmt.Sprint(i), "b", "c", "d", "e")
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, deep+"/f", "x")
	}
	f.catchUp()
	if f.all > 0 {
		t.Errorf("everything was compared %d times", f.all)
	}
}

func TestAnOverflowIsToldAndMissesNothing(t *testing.T) {
	root := t.TempDir()
	w, err := New(slog.New(slog.DiscardHandler), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, w: w, root: root, knows: look(t, root, ".")}
	// Nobody reads the queue, whose length is the kernel's.
	limit := 16384
	if text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		fmt.Sscan(string(text), &limit)
	}
	for i := 0; i < limit+8192; i++ { // the reader takes some thousands ahead
		write(t, fmt.Sprintf("%s/%d", root, i%3000), fmt.Sprint(i))
	}
	if err := os.MkdirAll(root+"/late/r", 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	f.catchUp()
	if s := w.State(); s.Overflows == 0 || f.all == 0 {
		t.Errorf("got %+v, and everything %d times; want an overflow", s, f.all)
	}
	write(t, root+"/late/r/afterwards", "y")
	f.catchUp()
}

func TestTooMuchAtOnceIsEverything(t *testing.T) {
	root := t.TempDir()
	f := follow(t, root, Options{MostPending: 50, Settle: 50 * time.Millisecond})
	for i := range 200 {
		write(t, fmt.Sprintf("%s/%d", root, i), "x")
	}
	f.catchUp()
	if f.all == 0 {
		t.Error("200 changes were told one by one, of at most 50")
	}
}

// A file that is being written to is told when it is left alone, and now and then if it never is.
func TestAFileIsToldWhenItIsLeftAlone(t *testing.T) {
	root := t.TempDir()
	f := follow(t, root, Options{Settle: 300 * time.Millisecond, MostUnsettled: 700 * time.Millisecond})
	began := time.Now()
	log, err := os.Create(root + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	told := make(chan time.Duration, 10)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := f.w.Next(ctx); err != nil {
				return
			}
			told <- time.Since(began)
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		<-tick.C
		if _, err := log.WriteString("line\n"); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	<-done
	close(told)
	var all []time.Duration
	for at := range told {
		all = append(all, at)
	}
	if len(all) == 0 || len(all) > 4 || all[0] < 600*time.Millisecond {
		t.Errorf("2 s of writing were told after %v, want two or three times, every 0.7 s", all)
	}
}

func TestALostRootEndsTheWatch(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, root string){
		"moved":    func(t *testing.T, root string) { must(t, os.Rename(root, root+".old")) },
		"replaced": func(t *testing.T, root string) { must(t, os.Rename(root, root+".old")); must(t, os.Mkdir(root, 0o755)) },
		"removed":  func(t *testing.T, root string) { must(t, os.RemoveAll(root)) },
	} {
		root := filepath.Join(t.TempDir(), "data")
		must(t, os.Mkdir(root, 0o755))
		w, err := New(slog.New(slog.DiscardHandler), root, Options{LookAtRoot: 10 * time.Millisecond})
		must(t, err)
		lose(t, root)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if lost, ok := errors.AsType[*RootLostError](w.Run(ctx)); !ok || lost.Root != root {
			t.Errorf("%s: got %v", name, lost)
		}
		cancel()
	}
}

func TestARootThatCannotBeWatchedIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "x")
	must(t, os.Symlink(dir, dir+"/link"))
	for _, root := range []string{dir + "/none", dir + "/file", dir + "/link"} {
		if _, err := New(slog.New(slog.DiscardHandler), root, Options{}); err == nil {
			t.Errorf("%s is watched", root)
		}
	}
}

func TestSkippedDirectoriesAreNotTold(t *testing.T) {
	root := t.TempDir()
	f := follow(t, root, Options{Skip: func(dir string) bool { return filepath.Base(dir) == "cache" }})
	must(t, os.MkdirAll(root+"/a/cache/deep", 0o755))
	write(t, root+"/a/cache/deep/x", "x")
	write(t, root+"/a/y", "y")
	n, err := f.w.Barrier()
	must(t, err)
	for {
		c, err := f.w.Next(t.Context())
		must(t, err)
		for _, path := range slices.Concat(c.Paths, c.Trees) {
			if strings.Contains(path, "cache") {
				t.Errorf("told of %q", path)
			}
		}
		if c.Barrier == n {
			break
		}
	}
	if got := f.w.State().Watched; got != 2 {
		t.Errorf("%d directories are watched, want 2", got)
	}
}

// A barrier of a process that was killed may lie there still.
func TestAnOldBarrierIsNoMatter(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/"+barriers, 0o700))
	for i := range 4 {
		write(t, fmt.Sprintf("%s/%s/%d", root, barriers, i), "")
	}
	f := follow(t, root, Options{})
	write(t, root+"/a", "1")
	f.catchUp()
	f.catchUp()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
