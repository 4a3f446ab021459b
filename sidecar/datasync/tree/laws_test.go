//go:build linux

package tree

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var background = context.Background()

func rooms(t *rapid.T, base string, n int) []string {
	var all []string
	for range n {
		dir, err := os.MkdirTemp(base, "room")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, dir)
	}
	return all
}

// Law: what Diff says makes the mirror the same tree, whatever lay there before.
func TestDiffMakesAnyMirrorEqualToItsSource(t *testing.T) {
	base := t.TempDir()
	withXattrs := hasXattrs(t, base)
	rapid.Check(t, func(rt *rapid.T) {
		rooms := rooms(rt, base, 2)
		defer func() { os.RemoveAll(rooms[0]); os.RemoveAll(rooms[1]) }()
		scanners := []*Scanner{scanner(t, rooms[0], Options{}), scanner(t, rooms[1], Options{})}
		edit := func(room, most int) {
			e := &editor{t: rt, root: rooms[room], xattrs: withXattrs}
			for range rapid.IntRange(0, most).Draw(rt, "edits") {
				e.edit()
			}
		}
		// Trees that were equal and went apart differ in fewer and odder ways than those that never were.
		edit(0, 20)
		if rapid.Bool().Draw(rt, "equal at first") {
			plan := Diff(scan(rt, scanners[0], nil), scan(rt, scanners[1], nil), Policy{})
			if err := (applier{rooms[0], rooms[1]}).apply(plan); err != nil {
				rt.Fatal(err)
			}
			edit(0, 3)
		}
		edit(1, 4)
		source, mirror := scan(rt, scanners[0], nil), scan(rt, scanners[1], nil)
		plan := Diff(source, mirror, Policy{Last: []string{"b"}})
		if err := (applier{rooms[0], rooms[1]}).apply(plan); err != nil {
			rt.Fatal(err)
		}
		after := scan(rt, scanners[1], mirror)
		if after.Digest() != source.Digest() {
			rt.Fatalf("the trees differ\ngot  %+v\nwant %+v\nplan %+v", slices.Collect(after.All()), slices.Collect(source.All()), plan)
		}
		if got, want := groups(rt, rooms[1]), groups(rt, rooms[0]); !slices.Equal(got, want) {
			rt.Fatalf("got hard links %q, want %q", got, want)
		}
		if again := Diff(source, after, Policy{}); !reflect.DeepEqual(again, Plan{}) {
			rt.Fatalf("equal trees still give %+v", again)
		}
	})
}

// groups says, without this package, which paths are one inode.
func groups(t *rapid.T, root string) []string {
	e := &editor{t: t, root: root}
	inodes := map[uint64]string{}
	for _, path := range e.existing(func(d fs.DirEntry) bool { return !d.IsDir() }) {
		st, err := statAt(unix.AT_FDCWD, root+"/"+path, 0)
		if err != nil {
			t.Fatal(err)
		}
		inodes[st.inode] += path + "\x00"
	}
	return slices.Sorted(maps.Values(inodes))
}

// Law: a tree that was brought up to date path by path is the tree that a fresh scan makes, also after it was saved and loaded.
func TestUpdatesGiveTheTreeOfAFreshScan(t *testing.T) {
	base := t.TempDir()
	withXattrs := hasXattrs(t, base)
	rapid.Check(t, func(rt *rapid.T) {
		room := rooms(rt, base, 1)[0]
		defer os.RemoveAll(room)
		e := &editor{t: rt, root: room, xattrs: withXattrs}
		for range rapid.IntRange(0, 15).Draw(rt, "edits before") {
			e.edit()
		}
		s := scanner(t, room, Options{})
		kept := scan(rt, s, nil)
		kept.Digest()
		var touched []string
		for range rapid.IntRange(1, 8).Draw(rt, "edits") {
			touched = append(touched, e.edit()...)
		}
		for _, path := range rapid.Permutation(touched).Draw(rt, "order") {
			if _, err := s.Update(background, kept, path, Subtree); err != nil {
				rt.Fatal(err)
			}
			if rapid.Bool().Draw(rt, "look") {
				kept.Digest()
			}
		}
		sameTree(rt, kept, scan(rt, s, nil))
		index := filepath.Join(base, "index")
		if err := kept.Save(index); err != nil {
			rt.Fatal(err)
		}
		loaded, err := Load(index)
		if err != nil {
			rt.Fatal(err)
		}
		sameTree(rt, loaded, kept)
		sameTree(rt, scan(rt, s, loaded), kept)
	})
}

func sameTree(t *rapid.T, got, want *Tree) {
	t.Helper()
	if g, w := slices.Collect(got.All()), slices.Collect(want.All()); !reflect.DeepEqual(g, w) || got.Digest() != want.Digest() {
		t.Fatalf("got  %+v\nwant %+v", g, w)
	}
}

// Law: comparing directory by directory finds exactly the names on which whole trees differ.
func TestCompareDescendsToEveryDifference(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		rooms := rooms(rt, base, 2)
		defer func() { os.RemoveAll(rooms[0]); os.RemoveAll(rooms[1]) }()
		var trees []*Tree
		for i := range rooms {
			e := &editor{t: rt, root: rooms[i]}
			for range rapid.IntRange(0, 15).Draw(rt, "edits") {
				e.edit()
			}
			trees = append(trees, scan(rt, scanner(t, rooms[i], Options{}), nil))
		}
		plan := Diff(trees[0], trees[1], Policy{})
		want := map[string]bool{}
		for _, op := range plan.Ops {
			want[op.Entry.Path] = true
		}
		for _, e := range plan.Deletions {
			want[e.Path] = true
		}
		got := map[string]bool{}
		var descend func(dir string)
		descend = func(dir string) {
			for _, f := range Compare(trees[0].Children(dir), trees[1].Children(dir)) {
				path := join(dir, f.Name)
				theirs, there := trees[1].Lookup(path)
				if ours, _ := trees[0].Lookup(path); !(f.Verdict == Contents || f.Verdict == Differs && there && ours.Kind == Directory && theirs.Kind == Directory) {
					got[path] = true
				}
				if f.Descend {
					descend(path)
				}
			}
		}
		descend(".")
		if !reflect.DeepEqual(got, want) {
			rt.Fatalf("got %v, want %v", got, want)
		}
	})
}
