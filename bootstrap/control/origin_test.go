package control

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// origin is a repository made by the real git, as the control repo's users would.
type origin struct {
	t   testing.TB
	dir string
	env []string
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	home := t.TempDir()
	o := &origin{t: t, dir: filepath.Join(home, "origin"), env: []string{
		"HOME=" + home, "PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@blog.example", "GIT_AUTHOR_DATE=1700000000 +0100",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@blog.example", "GIT_COMMITTER_DATE=1700000000 +0100",
	}}
	o.git("init", "--quiet", "--initial-branch=main", o.dir)
	return o
}

// run runs a program in the repository and returns its output without the last line end.
func (o *origin) run(stdin []byte, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = o.env
	if _, err := os.Stat(o.dir); err == nil {
		cmd.Dir = o.dir
	}
	cmd.Stdin = bytes.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %q: %w: %s", name, args, err, complaint.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func (o *origin) git(args ...string) string {
	o.t.Helper()
	out, err := o.run(nil, "git", args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

func (o *origin) write(path, content string) {
	o.t.Helper()
	full := filepath.Join(o.dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

// commit writes one file and commits everything; further arguments go to git commit.
func (o *origin) commit(path, content string, args ...string) string {
	o.t.Helper()
	o.write(path, content)
	o.git("add", "--all")
	o.git(append([]string{"commit", "--quiet", "--message=change " + path}, args...)...)
	return o.git("rev-parse", "HEAD")
}

// object stores raw bytes as an object, which the real git would refuse to make from them.
func (o *origin) object(kind string, content []byte) string {
	o.t.Helper()
	raw := append(fmt.Appendf(nil, "%s %d\x00", kind, len(content)), content...)
	sum := sha1.Sum(raw)
	name := hex.EncodeToString(sum[:])
	var loose bytes.Buffer
	z := zlib.NewWriter(&loose)
	z.Write(raw)
	z.Close()
	path := filepath.Join(o.dir, ".git/objects", name[:2], name[2:])
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(path, loose.Bytes(), 0o644); err != nil {
		o.t.Fatal(err)
	}
	return name
}

// treeEntry is one line of a tree made with tree.
type treeEntry struct{ mode, name, hash string }

func (o *origin) tree(entries ...treeEntry) string {
	o.t.Helper()
	var raw []byte
	for _, e := range entries {
		h := plumbing.NewHash(e.hash)
		raw = append(fmt.Appendf(raw, "%s %s\x00", e.mode, e.name), h[:]...)
	}
	return o.object("tree", raw)
}

// commitTree makes a commit of a tree and points main to it.
func (o *origin) commitTree(tree string) string {
	o.t.Helper()
	const who = "Ada <ada@blog.example> 1700000000 +0100"
	h := o.object("commit", fmt.Appendf(nil, "tree %s\nauthor %s\ncommitter %s\n\nby hand\n", tree, who, who))
	o.point("main", h)
	return h
}

func (o *origin) point(branch, hash string) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, ".git/refs/heads", branch), []byte(hash+"\n"), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

// serveHTTP serves the repository through the real git http-backend.
func (o *origin) serveHTTP() string {
	server := httptest.NewServer(o.backend())
	o.t.Cleanup(server.Close)
	return server.URL + "/origin/.git"
}

func (o *origin) backend() http.Handler {
	return &cgi.Handler{
		Path:   "/usr/lib/git-core/git-http-backend",
		Env:    append([]string{"GIT_PROJECT_ROOT=" + filepath.Dir(o.dir), "GIT_HTTP_EXPORT_ALL=1"}, o.env...),
		Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
	}
}

// serveGit serves the repository through the real git daemon, one process per connection.
func (o *origin) serveGit() string {
	listener := listen(o.t, func(conn *net.TCPConn) {
		f, err := conn.File()
		if err != nil {
			return
		}
		defer f.Close()
		cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+filepath.Dir(o.dir))
		cmd.Env, cmd.Stdin, cmd.Stdout = o.env, f, f
		_ = cmd.Run() // a client may leave early
	})
	return "git://" + listener + "/origin/.git"
}

// listen accepts connections on loopback, and closes each after serve has returned.
func listen(t testing.TB, serve func(*net.TCPConn)) (addr string) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// newRepo opens an empty local side.
func newRepo(t testing.TB, o Options) *Repo {
	t.Helper()
	dir := t.TempDir()
	r, err := Open(filepath.Join(dir, "control.git"), filepath.Join(dir, "releases"), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// with returns the same place with another oldest commit.
func (r *Repo) with(t testing.TB, oldest string) *Repo {
	t.Helper()
	o := r.opts
	o.Oldest = oldest
	again, err := Open(r.Dir, r.Releases, o)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func fetch(t testing.TB, r *Repo, url string) Commit {
	t.Helper()
	c, err := r.Fetch(t.Context(), []Source{{URL: url}}, "main")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// localGit runs the real git on the local copy.
func localGit(t testing.TB, o *origin, r *Repo, args ...string) string {
	t.Helper()
	out, err := o.run(nil, "git", append([]string{"--git-dir=" + r.Dir}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lineCount is the number of lines in the output of a command.
func lineCount(out string) int {
	if out == "" {
		return 0
	}
	return strings.Count(out, "\n") + 1
}

// listing describes a directory: each path with its mode and content or target.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			content, err = os.Readlink(path)
			fmt.Fprintf(&b, "%s link %q\n", rel, content)
			return err
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		}
		fmt.Fprintf(&b, "%s %v %q\n", rel, info.Mode(), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
