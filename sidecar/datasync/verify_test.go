//go:build linux

package datasync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/datasync/tree"
)

// rot changes a file's content on a node that is down, and lets its index go on to say what was there: as a disk does that fails.
func (s *stage) rot(node, name, content string) {
	s.t.Helper()
	a := s.nodes[node]
	index := filepath.Join(filepath.Dir(a.root), "index")
	known, err := tree.Load(index)
	must(s.t, err)
	e, found := known.Lookup(name)
	if !found {
		s.t.Fatalf("%s knows nothing of %s", node, name)
	}
	f, err := os.OpenFile(filepath.Join(a.root, name), os.O_WRONLY|os.O_TRUNC, 0)
	must(s.t, err)
	_, err = f.WriteString(content)
	must(s.t, err)
	must(s.t, f.Close())
	must(s.t, os.Chtimes(filepath.Join(a.root, name), time.Unix(0, e.MTime), time.Unix(0, e.MTime)))
	time.Sleep(20 * time.Millisecond) // else the file is as young as the index
	dir, err := os.Open(a.root)
	must(s.t, err)
	defer dir.Close()
	scan, err := tree.NewScanner(dir, tree.Options{})
	must(s.t, err)
	_, err = scan.Adopt(context.Background(), known, e)
	must(s.t, err)
	must(s.t, known.Save(index))
}

// synced waits until everything that the primary has is on the other node's disk.
func (s *stage) synced(primary string) {
	s.t.Helper()
	s.wait("the mirror keeps up", func() bool { return s.copyOf(primary).CaughtUp })
	must(s.t, s.nodes[primary].keeper.Barrier(s.t.Context()))
}

// verify reads everything on a node.
func (s *stage) verify(node string) {
	s.t.Helper()
	k := s.nodes[node].keeper
	must(s.t, k.verify(s.t.Context(), k.sets[0]))
}

func TestWhatRotsOnTheMirrorComesFromTheSourceAgain(t *testing.T) {
	s := newStage(t)
	s.appoint("mail1", 1)
	for _, name := range []string{"a", "b"} {
		write(t, s.nodes["mail1"].root+"/"+name, "content of "+name)
	}
	s.wait("both are there", func() bool { return s.has("mail2", "a", "content of a") && s.has("mail2", "b", "content of b") })
	s.synced("mail1")
	s.kill("mail2")
	s.rot("mail2", "a", "content of X")
	before, err := os.Stat(s.nodes["mail2"].root + "/b")
	must(t, err)
	s.start("mail2")
	s.wait("the new session", func() bool { return s.copyOf("mail2").CaughtUp })
	s.synced("mail1")
	if !s.has("mail2", "a", "content of X") {
		t.Fatal("it was mended before anybody had read it: the test shows nothing")
	}
	s.verify("mail2")
	s.wait("the mirror is mended", func() bool { return s.has("mail2", "a", "content of a") })
	s.synced("mail1")
	after, err := os.Stat(s.nodes["mail2"].root + "/b")
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("what had not rotted came again, too")
	}
	if st := s.nodes["mail2"].keeper.Sets()[0]; len(st.Rotten) != 0 || time.Since(st.Verified) > time.Minute {
		t.Errorf("got %+v", st)
	}
	if left := rottenPaths(filepath.Join(filepath.Dir(s.nodes["mail2"].root), "index")); len(left) != 0 {
		t.Errorf("still remembered: %v", left)
	}
}

func TestWhatRotsOnTheSourceComesFromTheMirrorOnceTheDutyHasMoved(t *testing.T) {
	const good, rotten = "good content", "rotten stuff"
	s := newStage(t)
	s.appoint("mail1", 1)
	write(t, s.nodes["mail1"].root+"/a", good)
	s.wait("it is there", func() bool { return s.has("mail2", "a", good) })
	s.synced("mail1")
	s.kill("mail1")
	s.rot("mail1", "a", rotten)
	for _, name := range []string{"b", "c"} { // a restart does not let it through either
		s.start("mail1")
		s.wait("it is the source again", func() bool { return s.copyOf("mail1").CaughtUp })
		s.verify("mail1")
		if st := s.nodes["mail1"].keeper.Sets()[0]; !slices.Equal(st.Rotten, []string{"a"}) {
			t.Fatalf("found %v", st.Rotten)
		}
		if woe := s.nodes["mail1"].keeper.Woes()[s.nodes["mail1"].root]; !strings.HasPrefix(woe, "1 files have rotted") {
			t.Errorf("got %q", woe)
		}
		write(t, s.nodes["mail1"].root+"/"+name, "x")
		s.synced("mail1")
		if !s.has("mail2", "a", good) || !s.has("mail2", name, "x") {
			t.Fatal("what has rotted reached the mirror, or what is new did not")
		}
		s.kill("mail1")
	}
	s.start("mail1")
	s.wait("it is the source again", func() bool { return s.copyOf("mail1").CaughtUp })
	s.appoint("mail2", 2)
	s.wait("the old source is mended", func() bool { return s.has("mail1", "a", good) })
	s.wait("the new one's mirror keeps up", func() bool { return s.copyOf("mail2").CaughtUp })
	if !s.has("mail2", "a", good) {
		t.Error("the good content is gone")
	}
}

func TestEveryByteIsReadNowAndThen(t *testing.T) {
	dir := t.TempDir()
	s := &kept{Set: Set{Root: dir, Index: filepath.Join(dir, "index")}}
	first, err := s.lastVerified(time.Hour)
	if age := time.Since(first); err != nil || age < 0 || age > time.Hour+time.Minute {
		t.Errorf("a new set counts as read %v ago, %v", age, err)
	}
	s.remembered()
	if !s.verified.IsZero() {
		t.Error("a set that was never read says that it was")
	}
	if again, err := s.lastVerified(time.Hour); err != nil || again.Sub(first).Abs() > time.Second {
		t.Errorf("then %v, %v; want %v", again, err, first)
	}
	if _, err := s.stamp(time.Now(), wasRead); err != nil {
		t.Fatal(err)
	}
	s.remembered()
	if time.Since(s.verified) > time.Minute {
		t.Errorf("read at %v", s.verified)
	}
}

func TestAMirrorThatHasRottedAndTakesOverLeavesTheGoodContentAlone(t *testing.T) {
	const good, rotten = "good content", "rotten stuff"
	s := newStage(t)
	s.appoint("mail1", 1)
	write(t, s.nodes["mail1"].root+"/a", good)
	s.wait("it is there", func() bool { return s.has("mail2", "a", good) })
	s.synced("mail1")
	s.kill("mail1")
	s.kill("mail2")
	s.rot("mail2", "a", rotten)
	s.start("mail2")
	s.verify("mail2") // there is nobody from whom it could come
	s.kill("mail2")
	s.start("mail2") // nor does a restart make it true
	s.appoint("mail2", 2)
	s.wait("it has taken over", func() bool { return s.copyOf("mail2").Source })
	s.start("mail1")
	write(t, s.nodes["mail2"].root+"/b", "new")
	s.wait("the other one has what is new", func() bool { return s.has("mail1", "b", "new") })
	s.synced("mail2")
	if !s.has("mail1", "a", good) {
		t.Error("the good content is gone")
	}
	if st := s.nodes["mail2"].keeper.Sets()[0]; !slices.Equal(st.Rotten, []string{"a"}) {
		t.Errorf("what has rotted is forgotten: %v", st.Rotten)
	}
	s.appoint("mail1", 3)
	s.wait("it is mended", func() bool { return s.has("mail2", "a", good) })
}

func TestWhatHasRottedDoesNotComeToANewMirrorUntilAPersonTakesIt(t *testing.T) {
	s := newStage(t)
	s.appoint("mail1", 1)
	write(t, s.nodes["mail1"].root+"/a", "good content")
	s.wait("it is there", func() bool { return s.has("mail2", "a", "good content") })
	s.synced("mail1")
	s.kill("mail1")
	s.rot("mail1", "a", "rotten stuff")
	s.start("mail1")
	s.wait("it is the source again", func() bool { return s.copyOf("mail1").CaughtUp })
	s.verify("mail1")
	s.kill("mail2")
	must(t, os.RemoveAll(s.nodes["mail2"].root))
	must(t, os.Mkdir(s.nodes["mail2"].root, 0o755))
	must(t, os.Remove(filepath.Join(filepath.Dir(s.nodes["mail2"].root), "index")))
	s.start("mail2")
	write(t, s.nodes["mail1"].root+"/b", "new")
	s.wait("what is sound comes", func() bool { return s.has("mail2", "b", "new") })
	s.wait("it is said which file waits", func() bool {
		st := s.nodes["mail1"].keeper.Sets()[0].Source
		return st != nil && len(st.Waiting) == 1 && st.Waiting[0].Path == "a"
	})
	if s.copyOf("mail1").CaughtUp || s.has("mail2", "a", "rotten stuff") {
		t.Error("what has rotted is mirrored")
	}
	now := time.Now()
	must(t, os.Chtimes(s.nodes["mail1"].root+"/a", now, now)) // a person takes it as it is
	s.wait("it comes", func() bool { return s.has("mail2", "a", "rotten stuff") && s.copyOf("mail1").CaughtUp })
}

func TestWhatHasRottedIsNotedWhateverItsName(t *testing.T) {
	index := filepath.Join(t.TempDir(), "index")
	for _, want := range [][]string{{"a", "new\nline", "invalid \xff", "dir/\"quoted\""}, nil} {
		must(t, noteRotten(index, want))
		if got := rottenPaths(index); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTheFullReadingComesByItselfUnlessItIsOff(t *testing.T) {
	for _, c := range []struct {
		every time.Duration
		want  bool
	}{{50 * time.Millisecond, true}, {-1, false}} {
		dir := t.TempDir()
		root, index := filepath.Join(dir, "data"), filepath.Join(dir, "index")
		write(t, root+"/a", "content")
		d, err := os.Open(root)
		must(t, err)
		scan, err := tree.NewScanner(d, tree.Options{})
		must(t, err)
		known, _, err := scan.Scan(t.Context(), nil)
		must(t, err)
		must(t, errors.Join(known.Save(index), d.Close()))
		k, err := NewKeeper(KeeperConfig{Sets: []Set{{Name: "x", Root: root, Index: index, Accounts: tree.NewAccounts("/etc")}}, Verify: c.every, Log: quiet()})
		must(t, err)
		ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
		must(t, k.verifies(ctx))
		stop()
		if got := !k.Sets()[0].Verified.IsZero(); got != c.want {
			t.Errorf("every %v: read %v", c.every, got)
		}
	}
}

func TestASetWithoutAnIndexDoesNotCountAsRead(t *testing.T) {
	dir := t.TempDir()
	k, err := NewKeeper(KeeperConfig{Sets: []Set{{Name: "x", Root: dir, Index: filepath.Join(dir, "index")}}, Log: quiet()})
	must(t, err)
	must(t, k.verify(t.Context(), k.sets[0]))
	if at := k.Sets()[0].Verified; !at.IsZero() {
		t.Errorf("read at %v", at)
	}
	if _, err := os.Stat(filepath.Join(dir, "index"+verifiedSuffix)); err == nil {
		t.Error("the next one comes in a week")
	}
}
