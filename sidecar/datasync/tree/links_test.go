//go:build linux

package tree

import (
	"errors"
	"os"
	"slices"
	"testing"
)

func TestLinksNameTheFirstPathOfTheirInode(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/m", "one")
	s := scanner(t, root, Options{})
	tree := scan(t, s, nil)
	links := func(want map[string]string) {
		t.Helper()
		for _, tree := range []*Tree{tree, scan(t, s, nil)} {
			for path, first := range want {
				if e, found := tree.Lookup(path); !found || e.Link != first || e.Size != 3 {
					t.Errorf("%s: got %+v, want a link to %q", path, e, first)
				}
			}
		}
	}
	step := func(path string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Update(t.Context(), tree, path, Itself); err != nil {
			t.Fatal(err)
		}
	}
	step("z", os.Link(root+"/m", root+"/z"))
	links(map[string]string{"m": "", "z": "m"})
	step("b", os.Link(root+"/z", root+"/b"))
	links(map[string]string{"b": "", "m": "b", "z": "b"})
	// A change through one name is told of that name only.
	step("z", os.WriteFile(root+"/z", []byte("two"), 0o644))
	first, _ := tree.Lookup("b")
	if last, _ := tree.Lookup("z"); first.Hash != last.Hash {
		t.Error("the other names did not change")
	}
	step("b", os.Remove(root+"/b"))
	links(map[string]string{"m": "", "z": "m"})
	// And one through a name that is gone since is told of nobody else.
	step("z", errors.Join(os.WriteFile(root+"/z", []byte("six"), 0o644), os.Link(root+"/z", root+"/y"), os.Remove(root+"/z")))
	if m, _ := tree.Lookup("m"); m.Hash == first.Hash {
		t.Error("a change through a name that went was not seen")
	}
	if told := tree.TakeRegrouped(); !slices.Contains(told, "m") {
		t.Errorf("told of %q, want m", told)
	}
	step("z", errors.Join(os.Rename(root+"/y", root+"/z")))
	step("m", os.Remove(root+"/m"))
	links(map[string]string{"z": ""})
}

// Two cases that random trees seldom hit: names of one inode that became files of their own with the same content, and a first
// path that the walk reaches last ("a-b" is before "a/x" by bytes, and after "a" by name).
func TestPlansForLinksThatCameAndWent(t *testing.T) {
	source, mirror := t.TempDir(), t.TempDir()
	write(t, source+"/one", "same")
	write(t, source+"/two", "same")
	write(t, source+"/a-b", "first")
	write(t, source+"/a/z", "")
	write(t, mirror+"/one", "same")
	for _, err := range []error{os.Link(source+"/a-b", source+"/a/x"), os.Link(mirror+"/one", mirror+"/two")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want, s := scan(t, scanner(t, source, Options{}), nil), scanner(t, mirror, Options{})
	if err := (applier{source, mirror}).apply(Diff(want, scan(t, s, nil), Policy{})); err != nil {
		t.Fatal(err)
	}
	if scan(t, s, nil).Digest() != want.Digest() {
		t.Error("the trees differ")
	}
}
