package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func export(t testing.TB, r *Repo, c Commit) string {
	t.Helper()
	dir, err := r.Export(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReleaseEqualsTheCommitsTree(t *testing.T) {
	o := newOrigin(t)
	for i := range 40 {
		o.write(fmt.Sprintf("puppet/site-modules/m%d/manifests/init.pp", i), fmt.Sprintf("class m%d {}\n", i))
	}
	o.write("empty", "")
	o.write("puppet/päppet ☂.pp", "unicode\r\n")
	o.write("bin/run", "#!/bin/sh\n")
	o.write(`units/srv-a\x2db.mount`, "[Mount]\n")
	if err := os.Chmod(filepath.Join(o.dir, "bin/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"puppet/top": "../empty", "bin/here": ".", "dangling": "no/such", "dir": "puppet/site-modules"} {
		if err := os.Symlink(target, filepath.Join(o.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	o.commit("roles.yaml", "cluster: blog\n")
	defer syscall.Umask(syscall.Umask(0o077))
	r := newRepo(t, Options{})
	c := fetch(t, r, o.dir)
	dir := export(t, r, c)
	if dir != filepath.Join(r.Releases, c.Hash) {
		t.Errorf("got %s, want it below %s", dir, r.Releases)
	}
	want := t.TempDir()
	syscall.Umask(0o022)
	o.git("--work-tree="+want, "checkout", "--quiet", "--force", "HEAD", "--", ".")
	if got, want := listing(t, dir), listing(t, want); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("got %v, %v; want 0755", info.Mode(), err)
	}
}

func TestTreesThatAreRefused(t *testing.T) {
	o := newOrigin(t)
	blob := o.object("blob", []byte("x\n"))
	sub := o.tree(treeEntry{"100644", "f", blob})
	link := func(target string) string { return o.object("blob", []byte(target)) }
	in := func(dir string, e treeEntry) string { return o.tree(treeEntry{"40000", dir, o.tree(e)}) }
	deep := sub
	for range maxDepth + 1 {
		deep = o.tree(treeEntry{"40000", "d", deep})
	}
	// Ten directories, each ten times inside the next: ten objects, and ten billion files.
	bomb := sub
	for range 10 {
		var entries []treeEntry
		for i := range 10 {
			entries = append(entries, treeEntry{"40000", fmt.Sprint("d", i), bomb})
		}
		bomb = o.tree(entries...)
	}
	tests := []struct{ name, tree, where, why string }{
		{"submodule", o.tree(treeEntry{"160000", "mod", strings.Repeat("ab", 20)}), "mod", "submodules"},
		{"submodule below", in("d", treeEntry{"160000", "mod", strings.Repeat("ab", 20)}), "d/mod", "submodules"},
		{"absolute link", o.tree(treeEntry{"120000", "l", link("/etc/passwd")}), "l", "absolute"},
		{"link out", o.tree(treeEntry{"120000", "l", link("../x")}), "l", "leaves"},
		{"link out from below", in("d", treeEntry{"120000", "l", link("../../x")}), "d/l", "leaves"},
		{"link out by a detour", o.tree(treeEntry{"120000", "l", link("a/../../x")}), "l", ".. after a name"},
		{"link to itself and up", o.tree(treeEntry{"120000", "l", link(".")}, treeEntry{"120000", "m", link("l/../x")}), "m", ".. after a name"},
		{"empty link", o.tree(treeEntry{"120000", "l", link("")}), "l", "no proper target"},
		{"link with NUL", o.tree(treeEntry{"120000", "l", link("a\x00/../..")}), "l", "no proper target"},
		{"long link", o.tree(treeEntry{"120000", "l", link(strings.Repeat("a", maxTarget+1))}), "l", "longer than"},
		{"link into .git", o.tree(treeEntry{"120000", "l", link("x/.GIT/config")}), "l", "git keeps"},
		{"dot", o.tree(treeEntry{"40000", ".", sub}), ".", "directory itself"},
		{"dot dot", o.tree(treeEntry{"40000", "..", sub}), "..", "directory itself"},
		{".git", o.tree(treeEntry{"40000", ".git", sub}), ".git", "git keeps"},
		{".git below", in("d", treeEntry{"100644", ".git", blob}), "d/.git", "git keeps"},
		{".GIT", o.tree(treeEntry{"40000", ".GiT", sub}), ".GiT", "git keeps"},
		{"git~1", o.tree(treeEntry{"40000", "GIT~1", sub}), "GIT~1", "git keeps"},
		{".git and dots", o.tree(treeEntry{"40000", ".git. .", sub}), ".git. .", "git keeps"},
		{".git stream", o.tree(treeEntry{"40000", ".git::$INDEX_ALLOCATION", sub}), ".git::$INDEX_ALLOCATION", "git keeps"},
		{".git behind a backslash", o.tree(treeEntry{"100644", `a\.git\config`, blob}), `a\.git\config`, "git keeps"},
		{".git with an invisible letter", o.tree(treeEntry{"40000", ".g\u200cit", sub}), ".g\u200cit", "git keeps"},
		{"slash", o.tree(treeEntry{"100644", "a/b", blob}), "a/b", "slash"},
		{"slash up", o.tree(treeEntry{"100644", "../b", blob}), "../b", "slash"},
		{"empty name", o.tree(treeEntry{"100644", "", blob}), "", "empty name"},
		{"line end in a name", o.tree(treeEntry{"100644", "a\nb", blob}), "a\nb", "control character"},
		{"long name", o.tree(treeEntry{"100644", strings.Repeat("n", 256), blob}), strings.Repeat("n", 256), "longer than"},
		{"the same name twice", o.tree(treeEntry{"100644", "a", blob}, treeEntry{"100755", "a", blob}), "a", "twice"},
		{"link, then directory of its name", o.tree(treeEntry{"120000", "a", link("b")}, treeEntry{"40000", "a", sub}), "a", "twice"},
		{"device", o.tree(treeEntry{"20644", "tty", blob}), "tty", "mode"},
		{"setuid", o.tree(treeEntry{"104755", "su", blob}), "su", "mode"},
		{"too deep", deep, path.Join(slices.Repeat([]string{"d"}, maxDepth+1)...), "inside each other"},
		{"bomb", bomb, "", "more files"},
		{"garbage", o.object("tree", []byte("100644 a")), "", "malformed"},
		{"garbage below", o.tree(treeEntry{"40000", "d", o.object("tree", []byte("x"))}), "d", "malformed"},
		{"large", o.tree(treeEntry{"100644", "big", o.object("blob", make([]byte, 70_000))}), "big", "bytes"},
		{"large together", func() string {
			var entries []treeEntry
			for i := range 5 {
				entries = append(entries, treeEntry{"100644", fmt.Sprint("f", i), o.object("blob", make([]byte, 16_000+i))})
			}
			return o.tree(entries...)
		}(), "f4", "bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o.commitTree(tt.tree)
			r := newRepo(t, Options{MaxFiles: 1000, MaxBytes: 64_100})
			c := fetch(t, r, o.dir)
			_, err := r.Export(t.Context(), c)
			refused, ok := errors.AsType[*TreeError](err)
			if !ok {
				t.Fatalf("got %v, want a *TreeError", err)
			}
			if refused.Path != tt.where || !strings.Contains(refused.Reason, tt.why) {
				t.Errorf("got %q: %s; want %q: … %s …", refused.Path, refused.Reason, tt.where, tt.why)
			}
			left, err := os.ReadDir(r.Releases)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if parent, err := os.ReadDir(filepath.Dir(r.Releases)); err != nil || len(parent) != 3 {
				t.Errorf("beside the releases: %v, %v", parent, err)
			}
		})
	}
}

func TestNamesThatLookOddAreKept(t *testing.T) {
	for _, name := range []string{".gitignore", ".gitmodules", ".github", "git", "git~2", "...", "..a", "a.git", " ", "a\\b", "é", "\xff"} {
		if err := checkName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The law of symbolic links: whatever chain of accepted links a path goes through, the kernel never leaves
// the tree.
func TestAcceptedLinksNeverLeaveTheTree(t *testing.T) {
	top := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		outer := filepath.Join(top, fmt.Sprint(n))
		base := filepath.Join(outer, "1/2/3/tree")
		dirs := []string{"", "a", "a/b", "a/b/c"}
		if err := os.MkdirAll(filepath.Join(base, "a/b/c"), 0o755); err != nil {
			t.Fatal(err)
		}
		var links []string
		for i := range rapid.IntRange(1, 5).Draw(t, "links") {
			link := path.Join(rapid.SampledFrom(dirs).Draw(t, "dir"), fmt.Sprint("l", i))
			parts := rapid.SliceOfN(rapid.SampledFrom([]string{"..", ".", "", "a", "b", "c", "l0", "l1", "l2", "l3"}), 1, 6).Draw(t, "target")
			target := strings.Join(parts, "/")
			if checkTarget(link, target) != nil {
				continue
			}
			if err := os.Symlink(target, filepath.Join(base, link)); err != nil {
				t.Fatal(err)
			}
			links = append(links, link)
		}
		for _, link := range links {
			for _, after := range []string{"", "a", "l0", "l1/l2"} {
				real, err := filepath.EvalSymlinks(filepath.Join(base, link) + "/" + after)
				if err != nil {
					continue // dangling, or a loop
				}
				if real != base && !strings.HasPrefix(real, base+"/") {
					t.Fatalf("%s/%s leads to %s", link, after, real)
				}
			}
		}
		if err := os.RemoveAll(outer); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLastThreeReleasesAreKept(t *testing.T) {
	o := newOrigin(t)
	r := newRepo(t, Options{})
	var commits []Commit
	for i := range 5 {
		o.commit("a", fmt.Sprint(i))
		commits = append(commits, fetch(t, r, o.dir))
		dir := export(t, r, commits[i])
		// The clock of the file system may be coarser than this loop.
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{commits[2].Hash, commits[3].Hash, commits[4].Hash}
	if got := releases(t, r); !sameSet(got, want) {
		t.Errorf("got %v, want the last three %v", got, want)
	}
	// Going back makes the old one the newest, so that it outlives others.
	export(t, r, commits[2])
	o.commit("a", "next")
	next := fetch(t, r, o.dir)
	export(t, r, next)
	want = []string{commits[2].Hash, commits[4].Hash, next.Hash}
	if got := releases(t, r); !sameSet(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func releases(t *testing.T, r *Repo) []string {
	t.Helper()
	entries, err := os.ReadDir(r.Releases)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestCompleteReleaseIsUsedAsItIs(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	r := newRepo(t, Options{})
	c := fetch(t, r, o.dir)
	dir := export(t, r, c)
	before, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	remove(t, r.Dir) // it is not even needed any more
	after, err := os.Stat(filepath.Join(export(t, r, c), "a"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("got another file, %v", err)
	}
}

func TestLeftoversOfAKilledExportAreRemoved(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	r := newRepo(t, Options{})
	c := fetch(t, r, o.dir)
	for _, d := range []string{tempPrefix + "123/a", tempPrefix + c.Hash + "/b"} {
		if err := os.MkdirAll(filepath.Join(r.Releases, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	export(t, r, c)
	if got := releases(t, r); !slices.Equal(got, []string{c.Hash}) {
		t.Errorf("got %v, want only %s", got, c.Hash)
	}
}

func TestExportSaysWhatIsInTheWay(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	r := newRepo(t, Options{})
	c := fetch(t, r, o.dir)
	if err := os.MkdirAll(r.Releases, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(r.Releases, c.Hash)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Export(t.Context(), c); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("got %v, want that something is in the way", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	remove(t, filepath.Join(r.Releases, c.Hash))
	if _, err := r.Export(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := r.Export(t.Context(), Commit{Hash: "../x"}); err == nil {
		t.Error("a path for a hash: got no error")
	}
	if got := releases(t, r); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func FuzzTree(f *testing.F) {
	h := strings.Repeat("h", 20)
	f.Add([]byte("100644 a\x00"+h+"40000 d\x00"+h), "l", "../x")
	f.Add([]byte("120000 .git\x00"+h), "a/b", "a/../..")
	f.Fuzz(func(t *testing.T, raw []byte, link, target string) {
		entries, err := parseTree(raw)
		if err == nil {
			var again []byte
			for _, e := range entries {
				for mode, k := range kinds {
					if k == e.kind && strings.HasPrefix(string(raw[len(again):]), mode+" ") {
						again = append(fmt.Appendf(again, "%s %s\x00", mode, e.name), e.hash[:]...)
						break
					}
				}
			}
			if string(again) != string(raw) {
				t.Errorf("got %q back from %q", again, raw)
			}
		}
		for _, e := range entries {
			if checkName(e.name) == nil && (path.Clean("/"+e.name) != "/"+e.name || strings.EqualFold(e.name, ".git")) {
				t.Errorf("accepted the name %q", e.name)
			}
		}
		if checkTarget(link, target) == nil && link != "" && path.Clean(link) == link && link[0] != '/' && !strings.HasPrefix(link, "..") {
			if to := path.Join("/x/tree", path.Dir(link), target); to != "/x/tree" && !strings.HasPrefix(to, "/x/tree/") {
				t.Errorf("accepted %q -> %q", link, target)
			}
		}
	})
}

func FuzzCommit(f *testing.F) {
	const who = "A <a@b> 1700000000 +0000"
	tree := strings.Repeat("a", 40)
	f.Add([]byte("tree " + tree + "\nparent " + tree + "\nauthor " + who + "\ncommitter " + who + "\ngpgsig x\n y\n\nmessage\n"))
	f.Add([]byte("tree " + tree + "\nauthor " + who + "\ncommitter " + who + "\nmergetag object x\n gpgsig z\nencoding u\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		parentsOf(raw)
		c, err := parseCommit(raw)
		if err != nil {
			return
		}
		// The payload has no signature, says the same otherwise, and is the whole commit but for the signature.
		again, err := parseCommit(c.payload)
		if err != nil || again.signature != nil || again.tree != c.tree || !slices.Equal(again.parents, c.parents) || !again.when.Equal(c.when) {
			t.Errorf("payload %q: %+v, %v", c.payload, again, err)
		}
		if !slices.Equal(parentsOf(raw), c.parents) {
			t.Errorf("parents: got %v and %v", parentsOf(raw), c.parents)
		}
		back := string(c.payload)
		if c.signature != nil {
			header := strings.TrimSuffix(gpgsig(string(c.signature)), "\n")
			if !strings.Contains(string(raw), header) || len(back)+len(header)+1 != len(raw) {
				t.Errorf("%q and signature %q are not %q", back, c.signature, raw)
			}
		} else if back != string(raw) {
			t.Errorf("payload %q of %q", back, raw)
		}
		// Where we accept, go-git reads the same, or Verify would refuse every such commit.
		if err := sameForGoGit(raw, c); err != nil {
			t.Logf("go-git: %v", err)
		}
	})
}

func BenchmarkExport(b *testing.B) {
	o := newOrigin(b)
	for i := range 300 {
		o.write(fmt.Sprintf("m%d/f%d.pp", i%30, i), strings.Repeat(fmt.Sprintf("# line %d\n", i), 100))
	}
	o.commit("roles.yaml", "x\n")
	r := newRepo(b, Options{})
	c := fetch(b, r, o.dir)
	for b.Loop() {
		dir := export(b, r, c)
		b.StopTimer()
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
