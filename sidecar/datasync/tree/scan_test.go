//go:build linux

package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

func TestScanTellsWhatLiesThere(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/dir/file", "hello")
	write(t, root+"/"+Own+"/marker", "id")
	write(t, root+"/sub/"+Own, "only the top one is our own")
	write(t, root+"/dovecot-uidlist", "1")
	write(t, root+"/deep/dovecot.index.log", "1")
	at := time.Unix(1700000000, 123456789)
	for _, err := range []error{
		os.Symlink("../..\xff", root+"/link"), unix.Chmod(root+"/dir/file", 0o4711), os.Chtimes(root+"/dir/file", at, at),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := scan(t, scanner(t, root, Options{Policy: Maildir()}), nil)
	var paths []string
	for e := range got.All() {
		paths = append(paths, e.Path)
	}
	if want := []string{".", "deep", "dir", "dir/file", "link", "sub", "sub/" + Own}; !slices.Equal(paths, want) {
		t.Errorf("got %q, want %q", paths, want)
	}
	file, _ := got.Lookup("dir/file")
	owner, group := numbers{}.Owner(uint32(os.Geteuid())), numbers{}.Group(uint32(os.Getegid()))
	if want := (Entry{Path: "dir/file", Kind: File, Mode: 0o4711, Owner: owner, Group: group, MTime: at.UnixNano(), Size: 5,
		Hash: blake3.Sum256([]byte("hello"))}); !reflect.DeepEqual(file, want) {
		t.Errorf("got %+v, want %+v", file, want)
	}
	if link, _ := got.Lookup("link"); link.Target != "../..\xff" || link.Kind != Symlink || link.Mode != 0o777 {
		t.Errorf("got %+v", link)
	}
	if totals := got.Totals("."); totals != (Totals{Directories: 3, Files: 2, Symlinks: 1, Bytes: 5 + 27}) {
		t.Errorf("got %+v", totals)
	}
}

func TestWhatIsNotMirroredIsReported(t *testing.T) {
	root := t.TempDir()
	for range 150 {
		if err := unix.Mkfifo(filepath.Join(root, "fifo"+strings.Repeat("x", 150-len(mustList(t, root)))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, problems, err := scanner(t, root, Options{}).Scan(t.Context(), nil)
	if err != nil || problems.Count != 150 || len(problems.List) != problemsKept || got.Totals(".") != (Totals{}) {
		t.Errorf("got %d problems, %d kept, %+v, %v", problems.Count, len(problems.List), got.Totals("."), err)
	}
	if !strings.Contains(problems.List[0].Why, "fifo") {
		t.Errorf("got %v", problems.List[0])
	}
}

func mustList(t *testing.T, dir string) []os.DirEntry {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestOnlyWhatTheIndexDoesNotKnowIsRead(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/old", "old")
	write(t, root+"/new", "new")
	age()
	s := scanner(t, root, Options{})
	before := scan(t, s, nil)
	var mu sync.Mutex
	var read []string
	s.reading = func(path string) {
		mu.Lock()
		defer mu.Unlock()
		read = append(read, path)
	}
	// The same size and mtime: only ctime tells.
	info, err := os.Stat(root + "/new")
	if err != nil {
		t.Fatal(err)
	}
	write(t, root+"/new", "NEW")
	if err := os.Chtimes(root+"/new", info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	after := scan(t, s, before)
	if want := []string{"new"}; !slices.Equal(read, want) {
		t.Errorf("read %q, want %q", read, want)
	}
	if e, _ := after.Lookup("new"); e.Hash != blake3.Sum256([]byte("NEW")) {
		t.Error("the change was not seen")
	}
	// It was read right after the change, so it may have changed once more: again.
	read = nil
	scan(t, s, after)
	if want := []string{"new"}; !slices.Equal(read, want) {
		t.Errorf("racily clean: read %q, want %q", read, want)
	}
}

func TestVerifyFindsContentThatChangedBehindTheTimes(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/file", "content")
	age()
	s := scanner(t, root, Options{})
	before := scan(t, s, nil)
	before.at("file").hash[0] ^= 1 // as if the disk had another content then
	if _, problems, err := s.Scan(t.Context(), before); err != nil || problems.Count != 0 {
		t.Fatalf("got %v, %v", problems, err)
	}
	after, problems, err := scanner(t, root, Options{Verify: true}).Scan(t.Context(), before)
	if err != nil || problems.Count != 1 || !slices.Equal(problems.Rotten, []string{"file"}) {
		t.Errorf("got %v, %v", problems, err)
	}
	if e, _ := after.Lookup("file"); e.Hash != blake3.Sum256([]byte("content")) {
		t.Error("the content as it is now must be in the tree")
	}
}

func TestVerifyNamesEveryFileThatHasRotted(t *testing.T) {
	const files = problemsKept + 20
	root := t.TempDir()
	for i := range files {
		write(t, fmt.Sprintf("%s/%d", root, i), "content")
	}
	age()
	before := scan(t, scanner(t, root, Options{}), nil)
	for _, n := range before.root.children() {
		n.hash[0] ^= 1
	}
	_, problems, err := scanner(t, root, Options{Verify: true}).Scan(t.Context(), before)
	if err != nil || len(problems.Rotten) != files || len(problems.List) != problemsKept {
		t.Errorf("got %d, %d of them told, %v", len(problems.Rotten), len(problems.List), err)
	}
}

func TestAFileThatIsWrittenBeforeItsTurnToBeReadHasNotRotted(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		write(t, root+"/"+name, "content")
	}
	age()
	before := scan(t, scanner(t, root, Options{}), nil)
	s := scanner(t, root, Options{Verify: true, Readers: 1})
	s.reading = func(path string) {
		if path == "a" { // the others have been looked at, and wait
			time.Sleep(tick)
			write(t, root+"/b", "written")
			write(t, root+"/c", "written")
		}
	}
	_, problems, err := s.Scan(t.Context(), before)
	if err != nil || len(problems.Rotten) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
}

func TestWhatIsDoubtedDiffersUntilOtherContentComes(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/file", "content")
	if err := os.Link(root+"/file", root+"/name"); err != nil {
		t.Fatal(err)
	}
	age()
	s := scanner(t, root, Options{})
	sound := scan(t, s, nil)
	doubted := scan(t, s, sound)
	doubted.Doubt("name")
	for _, path := range []string{"none", ".", "../file", "name/file"} {
		doubted.Doubt(path)
	}
	if plan := Diff(sound, doubted, Policy{}); len(plan.Ops) != 2 || sound.Digest() == doubted.Digest() {
		t.Errorf("got %+v", plan)
	}
	doubted = scan(t, s, doubted)
	if plan := Diff(sound, doubted, Policy{}); len(plan.Ops) != 2 {
		t.Errorf("the doubt is gone after a scan: %+v", plan)
	}
	index := t.TempDir() + "/index"
	if err := doubted.Save(index); err != nil {
		t.Fatal(err)
	}
	if saved, err := Load(index); err != nil || saved.Digest() != sound.Digest() {
		t.Errorf("the index does not say what ought to be there: %v", err)
	}
	time.Sleep(tick)
	write(t, root+"/file", "changed")
	if again := scan(t, s, doubted); again.Digest() != scan(t, s, nil).Digest() {
		t.Error("other content is doubted, too")
	}
}

func TestAFileThatChangesWhileItIsRead(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes int
		settled bool
	}{{"twice", 2, true}, {"always", 100, false}} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root+"/file", "0")
			s := scanner(t, root, Options{})
			n := 0
			s.reading = func(string) {
				if n++; n <= c.changes {
					time.Sleep(tick) // a tick of the kernel's clock
					write(t, root+"/file", strings.Repeat("x", n))
				}
			}
			got, problems, err := s.Scan(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			e, _ := got.Lookup("file")
			if e.Unsettled == c.settled || (problems.Count == 0) != c.settled || n != tries {
				t.Errorf("got %+v after %d readings, %v", e, n, problems)
			}
			if c.settled && e.Hash != blake3.Sum256([]byte("xx")) {
				t.Error("the hash is not that of the last content")
			}
			plan := Diff(got, newTree(), Policy{})
			if held := len(plan.Held) == 1 && len(plan.Ops) == 0; held == c.settled {
				t.Errorf("got %+v", plan)
			}
		})
	}
}

// A directory that others swap for a symlink all the time never leads out of the root.
func TestASwappedDirectoryNeverLeadsOut(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	for _, name := range []string{"1", "2", "3"} {
		write(t, root+"/dir/"+name, "inside")
		write(t, outside+"/"+name, "SECRET")
	}
	if err := os.Symlink(outside, root+"/out"); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, root+"/dir", unix.AT_FDCWD, root+"/out", unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	s := scanner(t, root, Options{})
	secret := Hash(blake3.Sum256([]byte("SECRET")))
	seen := map[Kind]int{}
	kept := newTree()
	for range 1500 {
		tree, _, err := s.Scan(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Update(t.Context(), kept, "dir/1", Itself); err != nil {
			t.Fatal(err)
		}
		dir, _ := tree.Lookup("dir")
		seen[dir.Kind]++
		for _, tree := range []*Tree{tree, kept} {
			for e := range tree.All() {
				if e.Hash == secret {
					t.Fatalf("%q was read outside the root", e.Path)
				}
			}
		}
	}
	close(stop)
	swapping.Wait()
	if seen[Directory] == 0 || seen[Symlink] == 0 {
		t.Errorf("nothing was swapped: %v", seen)
	}
}

func TestMountsAreHeldAndNotEntered(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/mnt/under", "hidden")
	if err := unix.Mount("tmpfs", root+"/mnt", "tmpfs", 0, ""); err != nil {
		t.Logf("!!! NO RIGHT TO MOUNT (%v): the mount of procfs stands for one", err)
		tree, _, err := scanner(t, "/", Options{Policy: Policy{Ignore: []string{"[!p]*", "p[!r]*"}}}).Scan(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if e, _ := tree.Lookup("proc"); !e.Unsettled || len(tree.List("proc")) > 0 {
			t.Errorf("got %+v", e)
		}
		return
	}
	defer unix.Unmount(root+"/mnt", unix.MNT_DETACH)
	write(t, root+"/mnt/above", "mounted")
	s := scanner(t, root, Options{})
	got, problems, err := s.Scan(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if e, _ := got.Lookup("mnt"); !e.Unsettled || e.Kind != Directory || len(got.List("mnt")) > 0 || problems.Count != 1 {
		t.Errorf("got %+v, %v", e, problems)
	}
	if _, err := s.Update(t.Context(), got, "mnt/above", Itself); err != nil || len(got.List("mnt")) > 0 {
		t.Errorf("an update entered the mount: %v", err)
	}
	if _, err := s.Stat(t.Context(), "mnt/above"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v, want EXDEV", err)
	}
}

func TestStatAndAdopt(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/dir/file", "hello")
	s := scanner(t, root, Options{Policy: Policy{Ignore: []string{"dir/no"}}})
	tree := scan(t, s, nil)
	want, _ := tree.Lookup("dir/file")
	if got, err := s.Stat(t.Context(), "dir/file"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := s.Stat(t.Context(), "."); err != nil || got.Kind != Directory {
		t.Errorf("got %+v, %v", got, err)
	}
	write(t, root+"/dir/no", "ignored")
	for _, path := range []string{"nothing", "dir/no", "../x", "/etc", "", "dir//file", Own} {
		if _, err := s.Stat(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", path, err)
		}
	}
	write(t, root+"/dir/new", "content")
	vouched := Hash{1, 2, 3}
	for size, trusted := range map[int64]bool{7: true, 8: false} {
		entry := Entry{Path: "dir/new", Kind: File, Size: size, Hash: vouched, Xattrs: []Xattr{{"user.a", "b"}}}
		if _, err := s.Adopt(t.Context(), tree, entry); err != nil {
			t.Fatal(err)
		}
		if e, _ := tree.Lookup("dir/new"); (e.Hash == vouched && len(e.Xattrs) == 1) != trusted || e.Size != 7 {
			t.Errorf("of %d bytes: got %+v", size, e)
		}
		tree.Remove("dir/new")
	}
	if _, err := s.Update(t.Context(), tree, "../outside", Itself); err == nil {
		t.Error("a path out of the tree was taken")
	}
}

func TestAnEndedContextLeavesTheTreeAsItWas(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/dir/file", "hello")
	s := scanner(t, root, Options{})
	tree := scan(t, s, nil)
	before := tree.Digest()
	write(t, root+"/dir/more", "hello")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Scan(ctx, tree); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Update(ctx, tree, "dir", Subtree); !errors.Is(err, context.Canceled) || tree.Digest() != before {
		t.Errorf("got %v", err)
	}
}

func TestAccountsAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/passwd", "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad line\nvmail:x:1000:8::/:/bin/false\n")
	write(t, dir+"/group", "root:x:0:\nmail:x:8:vmail\n")
	a := NewAccounts(dir)
	if err := a.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got, want := []string{a.Owner(0), a.Owner(1000), a.Owner(7), a.Group(8), a.Group(9)},
		[]string{"root", "vmail", "#7", "mail", "#9"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	write(t, dir+"/passwd", "vmail:x:7:8::/:/bin/false\n")
	if err := a.Refresh(); err != nil || a.Owner(7) != "vmail" || a.Owner(1000) != "#1000" {
		t.Errorf("got %q, %q, %v", a.Owner(7), a.Owner(1000), err)
	}
	if err := os.Remove(dir + "/passwd"); err != nil {
		t.Fatal(err)
	}
	if err := a.Refresh(); err == nil {
		t.Error("names that cannot be read must stop a scan")
	}
}
