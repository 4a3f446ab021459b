//go:build linux

package datasync

import (
	"context"
	"os"
	"path/filepath"
	"slices"
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
