//go:build linux

package apply

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"understudy/sidecar/datasync/delta"
	"understudy/sidecar/datasync/disturb"
	"understudy/sidecar/datasync/tree"
)

var accounts = tree.NewAccounts("/etc")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, root string) *tree.Tree {
	t.Helper()
	dir, err := os.Open(root)
	must(t, err)
	defer dir.Close()
	s, err := tree.NewScanner(dir, tree.Options{})
	must(t, err)
	got, problems, err := s.Scan(t.Context(), nil)
	must(t, err)
	if problems.Count > 0 {
		t.Fatal(problems)
	}
	return got
}

func open(t *testing.T, root string) *Mirror {
	t.Helper()
	must(t, accounts.Refresh())
	m, err := Open(root, accounts)
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	return m
}

// follow carries a plan out with content from the source; files that the mirror has come as deltas, some of the time.
func follow(t *testing.T, m *Mirror, source string, p tree.Plan, r *rand.Rand) {
	t.Helper()
	b := m.Begin()
	for _, op := range p.Ops {
		switch op.Action {
		case tree.Write:
			f, err := os.Open(source + "/" + op.Entry.Path)
			must(t, err)
			if old, err := b.Old(op.Entry.Path); err == nil && r.IntN(2) == 0 {
				info, err := old.Stat()
				must(t, err)
				sig, err := delta.Sign(io.NewSectionReader(old, 0, info.Size()))
				must(t, err)
				var instructions bytes.Buffer
				_, err = delta.Diff(sig, f, &instructions)
				must(t, errors.Join(err, old.Close(), b.Patch(op.Entry, &instructions)))
			} else {
				if err == nil {
					must(t, old.Close())
				}
				must(t, b.Put(op.Entry, f))
			}
			must(t, f.Close())
		case tree.Describe:
			must(t, b.Set(op.Entry))
		default:
			must(t, b.Make(op.Entry))
		}
	}
	for _, e := range p.Deletions {
		must(t, b.Remove(e.Path))
	}
	for _, e := range p.Directories {
		must(t, b.Set(e))
	}
	must(t, b.Commit())
}

// Law: after a plan has been followed the mirror is the same tree, and nothing is staged any more.
func TestAMirrorThatFollowsIsTheSameTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("owners can be given by root only: run the tests as root")
	}
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			source, mirror := t.TempDir(), t.TempDir()
			m := open(t, mirror)
			for range 5 {
				for range r.IntN(25) {
					disturb.Edit(r, source, 15000)
				}
				if r.IntN(3) == 0 {
					disturb.Edit(r, mirror, 15000) // somebody who should not
				}
				want := scan(t, source)
				follow(t, m, source, tree.Diff(want, scan(t, mirror), tree.Policy{}), r)
				got := scan(t, mirror)
				if got.Digest() != want.Digest() {
					t.Fatalf("the trees differ\ngot  %+v\nwant %+v", slices.Collect(got.All()), slices.Collect(want.All()))
				}
				if left, err := os.ReadDir(mirror + "/" + staged); err != nil || len(left) > 0 {
					t.Fatalf("staged: %v, %v", left, err)
				}
			}
		})
	}
}

func entry(path, content string) tree.Entry {
	e := tree.Entry{Path: path, Kind: tree.File, Mode: 0o644, Owner: "root", Group: "root", Size: int64(len(content)), MTime: 1e18}
	e.Hash = sum(content)
	return e
}

func TestContentThatIsNotWhatWasAnnouncedIsNotTaken(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	must(t, os.WriteFile(root+"/f", []byte("old"), 0o644))
	for name, content := range map[string]string{"shorter": "ne", "longer": "new!", "other": "wen", "empty": ""} {
		b := m.Begin()
		if err := b.Put(entry("f", "new"), strings.NewReader(content)); !errors.Is(err, ErrContent) {
			t.Errorf("%s: got %v", name, err)
		}
		must(t, b.Commit())
		if got, err := os.ReadFile(root + "/f"); err != nil || string(got) != "old" {
			t.Errorf("%s: the file is %q, %v", name, got, err)
		}
	}
	if left, err := os.ReadDir(root + "/" + staged); err != nil || len(left) > 0 {
		t.Errorf("staged: %v, %v", left, err)
	}
}

// Nothing outside is written, whatever paths come and whatever lies in the way.
func TestNoPathLeadsOut(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	m := open(t, root)
	must(t, os.Symlink(outside, root+"/out"))
	must(t, os.Mkdir(root+"/inside", 0o755))
	must(t, os.Symlink("inside", root+"/in"))
	for _, path := range []string{"out/f", "in/f", "../f", "/f", "a/../../f", ".", "", "a//b", Own, Own + "/marker", Own + "/tmp/1", "a\x00b"} {
		b := m.Begin()
		err := b.Put(entry(path, "x"), strings.NewReader("x"))
		if err = errors.Join(err, b.Commit()); err == nil {
			t.Errorf("%q was written", path)
		}
		for what, do := range map[string]func(*Batch) error{
			"removed": func(b *Batch) error { return b.Remove(path) },
			"kept":    func(b *Batch) error { return b.Keep(path, 1) },
			"taken":   func(b *Batch) error { return b.Take(path, entry("g", "x")) },
		} {
			b := m.Begin()
			if err := errors.Join(do(b), b.Commit()); err == nil && path != "out/f" && path != "in/f" {
				t.Errorf("%q was %s", path, what)
			}
		}
	}
	for _, dir := range []string{outside, root + "/inside"} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s has %v, %v", dir, left, err)
		}
	}
}

func TestAnOlderEpochIsRefusedAlsoAfterARestart(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	for _, c := range []struct {
		epoch                 uint64
		complete, first, good bool
	}{{0, false, false, false}, {3, false, true, true}, {3, true, true, true}, {3, false, false, true}, {2, false, false, false}, {8, false, true, true}} {
		first, err := m.Accept(c.epoch)
		if first != c.first || (err == nil) != c.good {
			t.Errorf("epoch %d: got %v, %v", c.epoch, first, err)
		}
		if c.complete {
			must(t, m.Complete())
		}
	}
	again := open(t, root)
	if _, err := again.Accept(7); again.Position() != (Position{Epoch: 8, Complete: 3}) || err == nil {
		t.Errorf("after a restart: %v, and 7 gives %v", again.Position(), err)
	}
	for _, damaged := range []string{"", "x", "epoch 8\nwritten 0\ncomplete 9\n", "epoch 8\nwritten 0\ncomplete 3", "epoch 8\nwritten 0\ncomplete 3\n\n", "epoch 08\nwritten 0\ncomplete 3\n"} {
		must(t, os.WriteFile(root+"/"+positionFile, []byte(damaged), 0o600))
		if m, err := Open(root, accounts); err == nil {
			t.Errorf("%q is taken for %v", damaged, m.Position())
		}
	}
}

func TestWhatIsRemovedLiesInTheTrashForAWhile(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	must(t, os.MkdirAll(root+"/d/e", 0o755))
	must(t, os.WriteFile(root+"/d/e/f", []byte("text"), 0o644))
	b := m.Begin()
	must(t, errors.Join(b.Remove("d/e"), b.Remove("d/gone"), b.Commit()))
	found, err := filepath.Glob(root + "/" + trash + "/*/d/e/f")
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	if left, err := m.Purge(time.Now(), time.Hour, 1000); err != nil || left != 4 {
		t.Errorf("young and small: %d left, %v", left, err)
	}
	if left, err := m.Purge(time.Now(), time.Hour, 3); err != nil || left != 0 {
		t.Errorf("too large: %d left, %v", left, err)
	}
	must(t, os.WriteFile(root+"/d/g", []byte("text"), 0o644))
	b = m.Begin()
	must(t, errors.Join(b.Remove("d/g"), b.Commit()))
	if left, err := m.Purge(time.Now().Add(2*time.Hour), time.Hour, 1000); err != nil || left != 0 {
		t.Errorf("too old: %d left, %v", left, err)
	}
}

func TestLostAndFoundKeepsEveryVersion(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	for i := range 3 {
		must(t, os.WriteFile(root+"/f", fmt.Append(nil, i), 0o644))
		b := m.Begin()
		must(t, errors.Join(b.Keep("f", 4), b.Commit()))
	}
	for name, want := range map[string]string{"f": "0", "f~2": "1", "f~3": "2"} {
		if got, err := os.ReadFile(root + "/" + lost + "/4/" + name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func sum(content string) tree.Hash { return tree.Hash(blake3.Sum256([]byte(content))) }

func TestAnAbandonedBatchLeavesNothing(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	b := m.Begin()
	must(t, b.Put(entry("f", "new"), strings.NewReader("new")))
	must(t, b.Make(tree.Entry{Path: "d", Kind: tree.Directory, Mode: 0o755, Owner: "root", Group: "root"}))
	if b.Len() != 2 {
		t.Errorf("%d changes, want 2", b.Len())
	}
	must(t, errors.Join(b.Abandon(), b.Commit()))
	for _, path := range []string{"f", "d", staged + "/1"} {
		if _, err := os.Lstat(root + "/" + path); err == nil {
			t.Errorf("%s is there", path)
		}
	}
}

// A process that was killed leaves staged files behind; the next one clears them away.
func TestWhatAnEarlierProcessStagedIsGone(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	must(t, m.Begin().Put(entry("f", "new"), strings.NewReader("new")))
	open(t, root)
	if left, err := os.ReadDir(root + "/" + staged); err != nil || len(left) > 0 {
		t.Errorf("staged: %v, %v", left, err)
	}
}

func TestAFullDiskIsKnown(t *testing.T) {
	for err, want := range map[error]bool{unix.ENOSPC: true, unix.EDQUOT: true, unix.EIO: false, nil: false} {
		wrapped := fmt.Errorf("stage: %w", errors.Join(err))
		if got := Full(wrapped); got != want {
			t.Errorf("%v: got %v", err, got)
		}
	}
}

func TestAnUnknownOwnerIsSaid(t *testing.T) {
	m := open(t, t.TempDir())
	e := entry("f", "x")
	e.Owner = "nobody-of-that-name"
	if err := m.Begin().Put(e, strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), e.Owner) {
		t.Errorf("got %v", err)
	}
}
