package follow

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"understudy/bootstrap/control"
)

// TestMain lets the test binary play the origin's machine, and a node that is killed.
func TestMain(m *testing.M) {
	switch os.Getenv("FOLLOW_TEST_PART") {
	case "origin":
		os.Exit(playOrigin(os.Args[1], os.Args[2]))
	case "node":
		os.Exit(playNode(os.Args[1], os.Args[2], os.Args[3]))
	}
	goleak.VerifyTestMain(m)
}

const roles = `cluster: blog
domain: blog.example
provider:
  local: {region: here, size: small, image: base}
roles:
  web: {nodes: "web[1-2]", health: {tcp: "127.0.0.1:80"}}
`

// origin is a repository made by the real git, whose commits Ada signs.
type origin struct {
	t    testing.TB
	home string
	dir  string
	ada  string // her allowed signers line
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	home := t.TempDir()
	o := &origin{t: t, home: home, dir: filepath.Join(home, "origin")}
	o.ada = o.key("ada")
	o.key("eve")
	o.run("git", "init", "--quiet", "--initial-branch=main", o.dir)
	o.commit(map[string]string{"roles.yaml": roles})
	return o
}

// key makes a key pair and returns its line of allowed signers.
func (o *origin) key(who string) string {
	o.t.Helper()
	path := filepath.Join(o.home, who)
	o.run("ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", path)
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		o.t.Fatal(err)
	}
	return who + "@blog.example " + string(public)
}

func (o *origin) env() []string {
	return []string{
		"HOME=" + o.home, "PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@blog.example", "GIT_AUTHOR_DATE=1700000000 +0100",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@blog.example", "GIT_COMMITTER_DATE=1700000000 +0100",
	}
}

func (o *origin) run(name string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = o.env()
	if _, err := os.Stat(o.dir); err == nil {
		cmd.Dir = o.dir
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		o.t.Fatalf("%s %q: %v: %s", name, args, err, complaint.String())
	}
	return strings.TrimSpace(out.String())
}

// by are git's options for a signature by somebody; nobody: none.
func (o *origin) by(who string) []string {
	if who == "nobody" {
		return nil
	}
	return []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + filepath.Join(o.home, who), "-c", "commit.gpgsign=true"}
}

// commitBy writes files, where no content removes one, and commits; more goes to git commit.
func (o *origin) commitBy(who string, files map[string]string, more ...string) string {
	o.t.Helper()
	for name, content := range files {
		path := filepath.Join(o.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			o.t.Fatal(err)
		}
		if content == "" {
			o.run("git", "rm", "--quiet", "--ignore-unmatch", name)
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			o.t.Fatal(err)
		}
	}
	o.run("git", "add", "--all")
	args := append(o.by(who), "commit", "--quiet", "--allow-empty", "--message=a change")
	o.run("git", append(args, more...)...)
	return o.head()
}

func (o *origin) commit(files map[string]string, more ...string) string {
	o.t.Helper()
	return o.commitBy("ada", files, more...)
}

func (o *origin) head() string { return o.run("git", "rev-parse", "HEAD") }

// handler serves the repository through the real git http-backend.
func (o *origin) handler() http.Handler {
	return &cgi.Handler{
		Path:   "/usr/lib/git-core/git-http-backend",
		Env:    append([]string{"GIT_PROJECT_ROOT=" + o.home, "GIT_HTTP_EXPORT_ALL=1"}, o.env()...),
		Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
	}
}

func (o *origin) serve() control.Source {
	server := httptest.NewServer(o.handler())
	o.t.Cleanup(server.Close)
	return control.Source{URL: server.URL + "/origin/.git"}
}

// rig is one node that follows an origin.
type rig struct {
	*Follower
	t     testing.TB
	dir   string
	first string
	told  int // calls of Accepted
}

// newRig boots a node at the origin's present commit, as bootstrap does.
func newRig(t testing.TB, o *origin, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), first: o.head()}
	repo := r.repo()
	c, err := repo.Fetch(t.Context(), []control.Source{{URL: o.dir}}, "main")
	if err == nil {
		_, err = repo.Export(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.start(o, change)
	return r
}

func (r *rig) repo() *control.Repo {
	r.t.Helper()
	repo, err := control.Open(filepath.Join(r.dir, "control.git"), filepath.Join(r.dir, "releases"), control.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	return repo
}

// start begins to follow from what is on the disk, as a sidecar that has just started.
func (r *rig) start(o *origin, change func(*Config)) {
	r.t.Helper()
	signers, err := control.ParseSigners("allowed_signers", []byte(o.ada))
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := Config{
		Repo: r.repo(), Branch: "main", Cluster: "blog", Origins: []control.Source{{URL: o.dir}}, Signers: signers,
		StateFile: filepath.Join(r.dir, "control.json"), First: r.first, Accepted: func() { r.told++ },
	}
	if change != nil {
		change(&cfg)
	}
	if r.Follower, err = New(cfg); err != nil {
		r.t.Fatal(err)
	}
	r.tips = cfg.Repo.Tips("main")
	r.t.Cleanup(r.tips.Close)
	r.describe(r.t.Context())
}

// once looks and returns what is shown then.
func (r *rig) once() State {
	r.t.Helper()
	r.look(r.t.Context())
	r.show()
	return r.State()
}

// must fails the test unless the head is this one.
func (r *rig) must(want string) State {
	r.t.Helper()
	s := r.once()
	if s.Head != want {
		r.t.Fatalf("got head %s (%s%s), want %s", s.Head, s.Why, s.Trouble, want)
	}
	if got, err := os.ReadFile(filepath.Join(s.Release, "roles.yaml")); err != nil || len(got) == 0 {
		r.t.Fatalf("the release of %s: %v", want, err)
	}
	return s
}

// served is the commit that others are served.
func (r *rig) served(o *origin) string {
	return o.run("git", "--git-dir="+r.cfg.Repo.Dir, "rev-parse", "main")
}

func short(commit string) string { return fmt.Sprintf("%.12s", commit) }
