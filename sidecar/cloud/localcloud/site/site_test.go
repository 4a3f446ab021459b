//go:build linux

package site

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/filemode"

	"understudy/bootstrap/command"
)

func TestForwardsAreOnLoopbackOnly(t *testing.T) {
	for in, want := range map[string]Forward{
		"8080=www:80":                    {"127.0.0.1:8080", "www:80"},
		"127.0.0.2:25=mail.blog.test:25": {"127.0.0.2:25", "mail.blog.test:25"},
		"[::1]:80=203.0.113.10:80":       {"[::1]:80", "203.0.113.10:80"},
	} {
		if got, err := ParseForward(in); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "8080", "8080=", "8080=www", "8080=:80", "0.0.0.0:80=www:80", "192.0.2.1:80=www:80", "x=www:80", "8080=www:0", "8080=www:http", "99999=www:80"} {
		if got, err := ParseForward(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

func TestCloudNamesCannotLeaveTheirDirectory(t *testing.T) {
	for _, bad := range []string{"", "..", "a/b", "A", "1a", "a b", "-a", strings.Repeat("a", 32), "a\n"} {
		if ValidName(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
		if Clean(bad, t.TempDir()) == nil {
			t.Errorf("%q was cleaned", bad)
		}
	}
	if err := ValidName("demo-2"); err != nil {
		t.Error(err)
	}
}

// testRemote is a remote with one commit of a few files.
func testRemote(t *testing.T) (*remote, operator, string) {
	t.Helper()
	dir := t.TempDir()
	op, err := newOperator(filepath.Join(dir, "operator"), "operator@blog.test")
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRemote(filepath.Join(dir, "control.git"))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := r.commit(map[string]file{
		"roles.yaml":      {filemode.Regular, []byte("cluster: test\n")},
		"puppet/a/x":      {filemode.Executable, []byte("x")},
		"puppet/a.b":      {filemode.Regular, []byte("a.b sorts before a/ in git")},
		"puppet/a-link":   {filemode.Symlink, []byte("a/x")},
		"puppet/empty":    {filemode.Regular, nil},
		"puppet/a/z/deep": {filemode.Regular, []byte("deep")},
	}, op, "First")
	if err != nil {
		t.Fatal(err)
	}
	return r, op, hash
}

func runGit(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestRemoteCommitsAreWhatGitItselfCallsGoodAndSigned(t *testing.T) {
	r, op, hash := testRemote(t)
	runGit(t, "--git-dir="+r.dir, "fsck", "--strict", "--no-dangling")
	signers := filepath.Join(t.TempDir(), "allowed_signers")
	if err := os.WriteFile(signers, op.allowedSigners(), 0o644); err != nil {
		t.Fatal(err)
	}
	out := runGit(t, "--git-dir="+r.dir, "-c", "gpg.format=ssh", "-c", "gpg.ssh.allowedSignersFile="+signers, "verify-commit", "--raw", hash)
	if !strings.Contains(out, "Good \"git\" signature for operator@blog.test") {
		t.Errorf("got %q", out)
	}
	second, err := r.commit(map[string]file{"roles.yaml": {filemode.Regular, []byte("2")}}, op, "Second")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(runGit(t, "--git-dir="+r.dir, "rev-parse", second+"^")); got != hash {
		t.Errorf("the second commit's parent: got %s, want %s", got, hash)
	}
}

func TestRemoteServesClonesAndPushes(t *testing.T) {
	r, _, hash := testRemote(t)
	h, err := r.handler(t.Context(), command.Exec{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	clone := filepath.Join(t.TempDir(), "clone")
	runGit(t, "clone", "-q", "--depth=1", srv.URL+"/control.git", clone)
	if got := strings.TrimSpace(runGit(t, "-C", clone, "rev-parse", "HEAD")); got != hash {
		t.Errorf("cloned %s, want %s", got, hash)
	}
	runGit(t, "-C", clone, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "Pushed")
	runGit(t, "-C", clone, "push", "-q", "origin", "main")
	want := strings.TrimSpace(runGit(t, "-C", clone, "rev-parse", "HEAD"))
	if got := strings.TrimSpace(runGit(t, "--git-dir="+r.dir, "rev-parse", "main")); got != want {
		t.Errorf("after the push main is %s, want %s", got, want)
	}
}

func TestControlRepoIsTheRosterAndPuppetAndNothingElse(t *testing.T) {
	repo := t.TempDir()
	for _, f := range []string{"roles.yaml", "puppet/site.pp", "sidecar/main.go", "secret.key"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(repo, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(repo, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := readTree(repo)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree) != 2 || string(tree["puppet/site.pp"].data) != "puppet/site.pp" || string(tree["roles.yaml"].data) != "roles.yaml" {
		t.Errorf("got %v", tree)
	}
}

// TestMirrorServesWhatTheImageWasBuiltFrom asks as apt does, in a tree with apt's file names.
func TestMirrorServesWhatTheImageWasBuiltFrom(t *testing.T) {
	base := t.TempDir()
	for name, data := range map[string]string{
		"lists/deb.debian.org_debian_dists_trixie_InRelease":                  "signed",
		"lists/deb.debian.org_debian_dists_trixie_main_binary-amd64_Packages": "Package: nginx",
		"archives/nginx_1.26.3-3_amd64.deb":                                   "nginx",
		"archives/git_1%3a2.47.3-0_amd64.deb":                                 "git",
		"archives/partial/evil_1_all.deb":                                     "partial",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(base, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := newMirror(base)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/debian/dists/trixie/InRelease":                                          "signed",
		"/debian/dists/trixie/main/binary-amd64/Packages":                         "Package: nginx",
		"/debian/dists/trixie/main/binary-amd64/by-hash/SHA256/" + m.packagesHash: "Package: nginx",
		"/debian/pool/main/n/nginx/nginx_1.26.3-3_amd64.deb":                      "nginx",
		"/debian/pool/main/g/git/git_2.47.3-0_amd64.deb":                          "git",
		"/debian/pool/main/e/evil/evil_1_all.deb":                                 "",
		"/debian/pool/main/../../../../etc/passwd":                                "",
	} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		switch {
		case want == "" && w.Code != http.StatusNotFound:
			t.Errorf("%s: got status %d, want 404", path, w.Code)
		case want != "" && w.Body.String() != want:
			t.Errorf("%s: got %d %q, want %q", path, w.Code, w.Body, want)
		}
	}
}
