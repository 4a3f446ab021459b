package secrets

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// writerEnv tells a child process to write trees until it is killed.
const writerEnv = "UNDERSTUDY_TEST_SECRETS_WRITER"

// bundleOf makes a bundle whose every file in the groups common and mail holds text.
func bundleOf(text string, names ...string) Bundle {
	b := Bundle{Version: 1, ClusterKey: NewSecret(strings.Repeat("k", 40)), Files: map[string]map[string]Secret{"common": {}, "mail": {}, "web": {"other": NewSecret(canary)}}}
	for _, name := range names {
		b.Files["common"][name] = NewSecret(text)
		b.Files["mail"][name] = NewSecret(text)
	}
	return b
}

// tree reads a directory: "path mode" → content.
func tree(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, content := strings.TrimPrefix(p, dir), []byte("dir")
		if !d.IsDir() {
			if content, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		out[fmt.Sprintf("%s %v", rel, info.Mode())] = string(content)
		return nil
	})
	return out, err
}

func TestWriteFilesLeavesExactlyTheGroupsAsked(t *testing.T) {
	parent := t.TempDir()
	old := unix.Umask(0o777) // modes must not depend on it
	defer unix.Umask(old)
	dir := filepath.Join(parent, "secrets")
	if err := bundleOf("one", "a", "b").WriteFiles(dir, "common", "mail", "mail"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		" drwx------": "dir", "/common drwx------": "dir", "/mail drwx------": "dir",
		"/common/a -r--------": "one", "/common/b -r--------": "one", "/mail/a -r--------": "one", "/mail/b -r--------": "one",
	}
	if got := must(tree(dir)); !reflect.DeepEqual(got, want) {
		t.Errorf("first: got %v, want %v", got, want)
	}
	if err := bundleOf("two", "b").WriteFiles(dir, "common", "lb"); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{" drwx------": "dir", "/common drwx------": "dir", "/common/b -r--------": "two", "/lb drwx------": "dir"}
	if got := must(tree(dir)); !reflect.DeepEqual(got, want) {
		t.Errorf("second: got %v, want %v", got, want)
	}
	if left := must(os.ReadDir(parent)); len(left) != 1 {
		t.Errorf("left beside it: %v", left)
	}
}

func TestWriteFilesRefusesNamesThatLeaveTheTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	for _, group := range []string{"", ".", "..", "../x", "a/b", "/etc", "-x", "A"} {
		if err := bundleOf("x", "a").WriteFiles(dir, group); err == nil {
			t.Errorf("group %q was written", group)
		}
	}
	if err := bundleOf("x", "a").WriteFiles("/", "mail"); err == nil {
		t.Error("wrote over the root directory")
	}
	if left := must(os.ReadDir(filepath.Dir(dir))); len(left) != 0 {
		t.Errorf("a refused call left %v", left)
	}
}

func TestWriteFilesDoesNotFollowPlantedLinks(t *testing.T) {
	parent, outside := t.TempDir(), t.TempDir()
	kept := filepath.Join(outside, "kept")
	ok(os.WriteFile(kept, []byte("kept"), 0o600))
	ok(os.Symlink(outside, filepath.Join(parent, ".secrets.new")))
	ok(os.Symlink(outside, filepath.Join(parent, "secrets")))
	if err := bundleOf("x", "a").WriteFiles(filepath.Join(parent, "secrets"), "mail"); err != nil {
		t.Fatal(err)
	}
	if got := must(os.ReadDir(outside)); len(got) != 1 || string(must(os.ReadFile(kept))) != "kept" {
		t.Errorf("the link's target was touched: %v", got)
	}
	if info := must(os.Lstat(filepath.Join(parent, "secrets"))); !info.IsDir() {
		t.Errorf("the link was not replaced: %v", info.Mode())
	}
}

// readThrough opens the tree once and reads all of it. It returns the distinct contents it saw.
func readThrough(dir string, names []string) (map[string]bool, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	seen := map[string]bool{}
	for _, name := range names {
		f, err := root.Open(name)
		if err != nil {
			return seen, nil // replaced and removed meanwhile: the reader held the old tree
		}
		content, err := io.ReadAll(f)
		_ = f.Close()
		if err != nil {
			return seen, err
		}
		seen[string(content)] = true
	}
	return seen, nil
}

func TestReadersSeeOneTreeOrTheOther(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	names := []string{"common/a", "common/b", "mail/a", "mail/b"}
	ok(bundleOf("start", "a", "b").WriteFiles(dir, "common", "mail"))
	var done atomic.Bool
	var g errgroup.Group
	for _, text := range []string{"one", "two"} { // two writers at once
		g.Go(func() error {
			defer done.Store(true)
			for range 25 {
				if err := bundleOf(text, "a", "b").WriteFiles(dir, "common", "mail"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for !done.Load() {
			seen, err := readThrough(dir, names)
			if err != nil {
				return fmt.Errorf("the tree was missing or broken: %w", err)
			}
			if len(seen) > 1 {
				return fmt.Errorf("one opening saw %v", seen)
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// writeForever says on standard output how often it has swapped the tree.
func writeForever(dir string) {
	for i := 0; ; i++ {
		if err := bundleOf(fmt.Sprint("text ", i%2), "a", "b", "c").WriteFiles(dir, "common", "mail"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			os.Exit(0) // the test is gone
		}
	}
}

func TestKillLeavesAWholeTree(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "secrets")
	names := []string{"common/a", "common/b", "common/c", "mail/a", "mail/b", "mail/c"}
	for round := range 12 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		child, err := os.StartProcess(os.Args[0], []string{os.Args[0]}, &os.ProcAttr{
			Env: []string{writerEnv + "=" + dir}, Files: []*os.File{nil, w, os.Stderr},
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		_, err = io.ReadFull(r, make([]byte, 1+round*2)) // no sleep: so many swaps, then dead in the middle of the next
		if err := child.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = child.Wait()
		_ = r.Close()
		if err != nil {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		seen, err := readThrough(dir, names)
		if err != nil || len(seen) != 1 {
			t.Fatalf("round %d: after the kill the tree holds %v, %v", round, seen, err)
		}
		if got := must(tree(dir)); len(got) != 3+len(names) {
			t.Fatalf("round %d: after the kill the tree is %v", round, got)
		}
	}
	ok(bundleOf("last", "a").WriteFiles(dir, "common"))
	if left := must(os.ReadDir(parent)); len(left) != 1 {
		t.Errorf("leftovers of killed writers are still there: %v", left)
	}
}
