package puppet_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shop is a repository as Puppet leaves it on a node, kept between the calls that use it.
type shop struct {
	t     *testing.T
	binds map[string]string
}

// open makes the directories of a repo node and gives them what the catalog of repo1 says, and a fresh signing key.
func open(t *testing.T) shop {
	t.Helper()
	s := shop{t: t, binds: map[string]string{}}
	for _, dir := range []string{"/etc/reprepro", "/srv/apt", "/run/lock", "/run/understudy/secrets/repo", "/packages"} {
		s.binds[dir] = t.TempDir()
	}
	for _, n := range nodes(t) {
		if n.name != "repo1" {
			continue
		}
		for _, r := range n.catalog.Resources {
			if name, ok := strings.CutPrefix(r.path(), "/etc/reprepro/"); ok && r.Type == "File" {
				s.write("/etc/reprepro", name, r.text("content"))
			}
		}
	}
	key := madeSecrets(t)["repo"]["signing.asc"]
	s.write("/run/understudy/secrets/repo", "signing.asc", key.Reveal())
	must(t, s.call("import-signing-key", "/run/understudy/secrets/repo/signing.asc", "/etc/reprepro/gnupg"))
	return s
}

func (s shop) write(dir, name, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.binds[dir], name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s shop) call(program string, args ...string) call {
	path := "/mnt/site-modules/profile/files/repo/" + program
	return call{Args: append([]string{path}, args...), Binds: s.binds}
}

// pack builds a package and returns its path inside the tree.
func (s shop) pack(name, version, architecture, content string) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.binds["/packages"], "")
	if err != nil {
		s.t.Fatal(err)
	}
	control := "Package: " + name + "\nVersion: " + version + "\nArchitecture: " + architecture +
		"\nMaintainer: Nobody <nobody@blog.example>\nSection: web\nPriority: optional\nDescription: test\n"
	for file, text := range map[string]string{"DEBIAN/control": control, "usr/share/" + name + "/x": content} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	inside := "/packages/" + filepath.Base(dir)
	must(s.t, call{Args: []string{"/usr/bin/dpkg-deb", "--root-owner-group", "--build", inside, inside + ".deb"}, Binds: s.binds})
	return inside + ".deb"
}

// indices are the files of the repository that a client reads, as they are now.
func (s shop) indices() string {
	s.t.Helper()
	var all strings.Builder
	for _, name := range []string{"InRelease", "main/binary-amd64/Packages", "main/binary-arm64/Packages"} {
		data, err := os.ReadFile(filepath.Join(s.binds["/srv/apt"], "dists/stable", name))
		if err != nil {
			s.t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// publish sends a package and checks the exit code.
func (s shop) publish(deb string, want int) result {
	s.t.Helper()
	r := run(s.t, s.call("publish-package", deb))
	if r.code != want {
		s.t.Fatalf("publish-package %s: exit code %d, want %d\n%s%s", deb, r.code, want, r.stdout, r.stderr)
	}
	if want != 0 && strings.Count(r.stderr, "\n") != 1 {
		s.t.Errorf("publish-package %s: want one line that says why:\n%s", deb, r.stderr)
	}
	return r
}

func TestAPublishedPackageIsIndexedSignedAndInThePool(t *testing.T) {
	s := open(t)
	s.publish(s.pack("blog", "1.0", "all", "first"), 0)
	got := s.indices()
	for _, want := range []string{"-----BEGIN PGP SIGNED MESSAGE-----", "Suite: stable", "Package: blog\nVersion: 1.0\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the indices lack %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "Package: blog\n"); n != 2 {
		t.Errorf("a package for all architectures is listed %d times, want once for each of the two", n)
	}
	if _, err := os.Stat(filepath.Join(s.binds["/srv/apt"], "pool/main/b/blog/blog_1.0_all.deb")); err != nil {
		t.Error(err)
	}
}

func TestPublishingTheSameAgainChangesNothing(t *testing.T) {
	s := open(t)
	deb := s.pack("blog", "1.0", "all", "first")
	s.publish(deb, 0)
	before := s.indices()
	if r := s.publish(deb, 0); !strings.Contains(r.stderr, "blog 1.0 is already published") {
		t.Errorf("it does not say that nothing was done: %s%s", r.stdout, r.stderr)
	}
	if s.indices() != before {
		t.Error("the indices changed")
	}
}

func TestWhatIsNoStepForwardIsRefused(t *testing.T) {
	s := open(t)
	s.publish(s.pack("blog", "1.1", "all", "first"), 0)
	before := s.indices()
	s.publish(s.pack("blog", "1.1", "all", "other"), 4)
	s.publish(s.pack("blog", "1.0", "all", "older"), 5)
	if s.indices() != before {
		t.Error("a refused package changed the indices")
	}
	s.publish(s.pack("blog", "1.2", "all", "newer"), 0)
	if !strings.Contains(s.indices(), "Version: 1.2") {
		t.Error("the newer version is not listed")
	}
}

func TestArchitecturesOfOneVersionStandBesideEachOther(t *testing.T) {
	s := open(t)
	s.publish(s.pack("tool", "1.0", "amd64", "one"), 0)
	s.publish(s.pack("tool", "1.0", "arm64", "two"), 0)
	if n := strings.Count(s.indices(), "Package: tool\n"); n != 2 {
		t.Errorf("%d entries, want one for each architecture", n)
	}
	s.publish(s.pack("tool", "1.0", "i386", "three"), 3)
}

func TestWhatIsNoPackageIsRefused(t *testing.T) {
	s := open(t)
	whole, err := os.ReadFile(filepath.Join(s.binds["/packages"], filepath.Base(s.pack("blog", "1.0", "all", strings.Repeat("x", 5000)))))
	if err != nil {
		t.Fatal(err)
	}
	for what, stdin := range map[string][]byte{"nothing": nil, "text": []byte("hello\n"), "a part": whole[:len(whole)-100]} {
		c := s.call("publish-package")
		c.stdin = bytes.NewReader(stdin)
		if r := run(t, c); r.code != 3 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s on standard input: exit code %d, want 3 and one line\n%s", what, r.code, r.stderr)
		}
	}
	if entries, err := os.ReadDir(s.binds["/srv/apt"]); err != nil || len(entries) != 0 {
		t.Errorf("something was written: %v %v", entries, err)
	}
	c := s.call("publish-package")
	c.stdin = bytes.NewReader(whole)
	if r := run(t, c); r.code != 0 {
		t.Errorf("the whole package on standard input: exit code %d\n%s", r.code, r.stderr)
	}
	s.publish("/packages/absent.deb", 2)
	s.publish("--help", 2)
}

// TestAnotherKeyReplacesTheFirst: after a rotation nothing can be signed with the old key by mistake.
func TestAnotherKeyReplacesTheFirst(t *testing.T) {
	s := open(t)
	first := must(t, call{Args: []string{"/usr/bin/gpg", "--homedir", "/etc/reprepro/gnupg", "--batch", "--with-colons", "--list-secret-keys"}, Binds: s.binds})
	key := madeSecrets(t)["repo"]["signing.asc"]
	s.write("/run/understudy/secrets/repo", "signing.asc", key.Reveal())
	must(t, s.call("import-signing-key", "/run/understudy/secrets/repo/signing.asc", "/etc/reprepro/gnupg"))
	second := must(t, call{Args: []string{"/usr/bin/gpg", "--homedir", "/etc/reprepro/gnupg", "--batch", "--with-colons", "--list-secret-keys"}, Binds: s.binds})
	if n := strings.Count("\n"+second, "\nsec:"); n != 1 || first == second {
		t.Errorf("%d private keys after a rotation, want the new one only:\n%s", n, second)
	}
}
