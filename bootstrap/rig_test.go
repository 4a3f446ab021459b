package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/hiddeco/sshsig"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/control"
	"understudy/bootstrap/progress"
	"understudy/bootstrap/secrets"
)

// TestMain lets the test binary be understudy-bootstrap on a root directory of the test's.
func TestMain(m *testing.M) {
	if root := os.Getenv("BOOTSTRAP_TEST_ROOT"); root != "" {
		os.Exit(child(root))
	}
	goleak.VerifyTestMain(m)
}

// child is the program with its surroundings moved under root. It ends by SIGKILL at $BOOTSTRAP_TEST_KILL.
func child(root string) int {
	nameFile := filepath.Join(root, "kernel-hostname")
	l := layoutUnder(root)
	l.bootID = filepath.Join(root, "boot_id")
	l.puppet.Proc = filepath.Join(root, "proc")
	l.handover = os.Getenv("BOOTSTRAP_TEST_HANDOVER")
	return start(context.Background(), os.Args[1:], surroundings{
		stdout: os.Stdout, stderr: os.Stderr, log: slog.New(&lineHandler{out: os.Stderr, mu: new(sync.Mutex)}), layout: l,
		kernel: kernel{
			hostname:    func() (string, error) { return readID(nameFile) },
			setHostname: func(name string) error { return os.WriteFile(nameFile, []byte(name), 0o644) },
		},
		runner: command.Exec{},
		notify: notifier{send: func(state string) { appendFile(filepath.Join(root, "notified"), state+"\n") }},
		at: func(point string) {
			appendFile(filepath.Join(root, "points"), point+"\n")
			if point == os.Getenv("BOOTSTRAP_TEST_KILL") {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
}

func appendFile(path, text string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		panic(err)
	}
}

// rig is one machine with all that it meets at its first boot. Every part is as real as a test can have it:
// a git repository with signed commits, a join server, sealed secrets, a metadata service; Puppet is a
// small program that does as it is told in files.
type rig struct {
	t        *testing.T
	root     string
	meta     map[string]string // leaf → text; a missing one is a 404
	metaURL  string
	repo     *git.Repository
	origin   string
	signer   ssh.Signer
	identity *age.X25519Identity
	key      secrets.Secret
	peer     string // address of the join server
	joins    *secrets.JoinServer
	oldest   string        // what the peers say
	pin      string        // likewise
	copy     *control.Repo // the peer's
	handover string        // where a seed waits
	config   map[string]string
	log      string // output of the last run

	mu sync.Mutex // guards meta
}

const (
	testRoles = `cluster: blog
domain: blog.example
provider:
  digitalocean: {region: lon1, size: [s-1vcpu-1gb], image: understudy-base}
roles:
  web:
    nodes: web[1-2]
    health: {tcp: 127.0.0.1:80}
  mail:
    nodes: mail[1-2]
    data: [{path: /var/vmail, owner: vmail}]
    primary_units: [postfix.service, dovecot.service]
    health: {tcp: 127.0.0.1:25}
`
	fakePuppet = `#!/bin/sh
root=$(dirname "$(dirname "$(dirname "$0")")")
for a in "$@"; do
  case $a in
    --lastrunfile=*) summary=${a#*=} ;;
    --config_version=*) commit=${a##* } ;;
    --environmentpath=*) release=${a#*=} ;;
  esac
done
echo run >>"$root/puppet-runs"
ls "$root/run/understudy/secrets" >"$root/puppet-saw" 2>/dev/null
test -f "$release/puppet/manifests/site.pp" || { echo "Error: no manifest in $release" >&2; exit 1; }
say() {
  printf 'version:\n  config: %s\n  puppet: 8.10.0\nresources:\n  total: 9\n  changed: %s\n  failed: %s\n  out_of_sync: %s\n' "$commit" "$1" "$2" "$1" >"$summary"
}
mode=$(cat "$root/puppet-mode" 2>/dev/null)
test "$mode" = compile || echo "Notice: Compiled catalog for web1 in environment puppet in 0.10 seconds"
case $mode in
  compile) echo "Error: Evaluation Error: Error while evaluating a Function Call, Could not find class ::role::webb for web1 (file: $release/puppet/manifests/site.pp, line: 3, column: 1) on node web1" >&2; exit 1 ;;
  failed) echo "Error: /Stage[main]/Main/Package[nginx]/ensure: change from 'purged' to 'present' failed: no such package" >&2; say 1 1; exit 6 ;;
  full) echo "Error: Could not set 'file' on ensure: No space left on device @ io_write - /etc/x" >&2; say 0 1; exit 4 ;;
  locked) echo "Error: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 77 (apt-get)" >&2; say 0 1; exit 4 ;;
  hang) exec sleep 600 ;;
  kill) kill -9 $$ ;;
  none) exit 0 ;;
esac
echo "Notice: /Stage[main]/Main/File[/etc/motd]/ensure: created"
say 1 0
exit 2
`
)

func newRig(t *testing.T, hostname string) *rig {
	t.Helper()
	r := &rig{t: t, root: t.TempDir(), config: map[string]string{}}
	r.meta = map[string]string{"hostname": hostname, "id": "4711", "user-data": ""}
	r.file("usr/bin/puppet", fakePuppet, 0o755)
	r.file("boot_id", "boot-1\n", 0o644)
	r.file("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)
	r.file("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 understudy-base\n", 0o644)
	r.file("etc/hostname", "understudy-base\n", 0o644)
	r.file("kernel-hostname", "understudy-base", 0o644)
	if err := os.Mkdir(filepath.Join(r.root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.serveMetadata()
	r.makeKeys()
	r.makeRepo()
	r.servePeer()
	r.ticket(hostname, time.Hour)
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.root, name) }

func (r *rig) file(name, text string, mode os.FileMode) {
	r.t.Helper()
	path := r.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(name string) string {
	data, err := os.ReadFile(r.path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(data)
}

func (r *rig) serveMetadata() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		text, ok := r.meta[strings.TrimPrefix(req.URL.Path, "/metadata/v1/")]
		r.mu.Unlock()
		if !ok {
			http.NotFound(w, req)
			return
		}
		io.WriteString(w, text)
	}))
	r.t.Cleanup(server.Close)
	r.metaURL = server.URL + "/metadata/v1"
}

func (r *rig) setMeta(leaf, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meta[leaf] = text
}

func (r *rig) makeKeys() {
	r.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.signer, err = ssh.NewSignerFromKey(private); err != nil {
		r.t.Fatal(err)
	}
	if r.identity, err = age.GenerateX25519Identity(); err != nil {
		r.t.Fatal(err)
	}
	r.key = secrets.NewSecret(strings.Repeat("k", 64))
}

func allowedSigners(key ssh.PublicKey) []byte {
	return append([]byte("ops@blog.example "), ssh.MarshalAuthorizedKey(key)...)
}

// Sign implements git.Signer as `git commit -S` with an SSH key does it.
func (r *rig) Sign(message io.Reader) ([]byte, error) {
	sig, err := sshsig.Sign(message, r.signer, sshsig.HashSHA512, "git")
	if err != nil {
		return nil, err
	}
	return sshsig.Armor(sig), nil
}

func (r *rig) makeRepo() {
	r.t.Helper()
	r.origin = filepath.Join(r.t.TempDir(), "origin")
	repo, err := git.PlainInitWithOptions(r.origin, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.repo = repo
	r.commit(map[string]string{"roles.yaml": testRoles, "puppet/manifests/site.pp": "include role::web\n", "secrets.age": r.sealed(r.identity)})
}

// sealed is a secrets.age that id can open.
func (r *rig) sealed(id *age.X25519Identity) string {
	r.t.Helper()
	b := secrets.Bundle{Version: secrets.BundleVersion, ClusterKey: r.key, Files: map[string]map[string]secrets.Secret{
		"common": {"apt.asc": secrets.NewSecret("public")}, "web": {"tls.key": secrets.NewSecret("tls-key-of-web")},
		"mail": {"dkim.key": secrets.NewSecret("not-for-web")},
	}}
	data, err := secrets.Seal(b, []age.Recipient{id.Recipient()})
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// commit writes files (an empty text removes one) and commits them, signed by the rig's key.
func (r *rig) commit(files map[string]string) string { return r.commitAs(files, r) }

func (r *rig) commitAs(files map[string]string, signer git.Signer) string {
	r.t.Helper()
	tree, err := r.repo.Worktree()
	if err != nil {
		r.t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(r.origin, name)
		if text == "" {
			err = os.Remove(path)
		} else if target, link := strings.CutPrefix(text, "-> "); link {
			err = os.Symlink(target, path)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	if err := tree.AddWithOptions(&git.AddOptions{All: true}); err != nil {
		r.t.Fatal(err)
	}
	who := &object.Signature{Name: "Ops", Email: "ops@blog.example", When: time.Unix(1_760_000_000, 0)}
	hash, err := tree.Commit("change\n", &git.CommitOptions{Author: who, Committer: who, Signer: signer, AllowEmptyCommits: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return hash.String()
}

// head is the origin's newest commit.
func (r *rig) head() string {
	r.t.Helper()
	head, err := r.repo.Head()
	if err != nil {
		r.t.Fatal(err)
	}
	return head.Hash().String()
}

// mirror brings the peer's copy up to the origin. Without it the peer has none.
func (r *rig) mirror() {
	r.t.Helper()
	if _, err := r.copy.Fetch(r.t.Context(), []control.Source{{URL: r.origin}}, "main"); err != nil {
		r.t.Fatal(err)
	}
}

// originAway lets nobody answer where the origin was.
func (r *rig) originAway() {
	r.config["sources"] = fmt.Sprintf("[http://%s/control.git]", closedPort(r.t))
}

// servePeer runs a real join server until the test ends.
func (r *rig) servePeer() {
	r.t.Helper()
	cert, _, err := secrets.ServerIdentity(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	dir := r.t.TempDir()
	if r.copy, err = control.Open(filepath.Join(dir, "control.git"), filepath.Join(dir, "releases"), control.Options{Oldest: r.head()}); err != nil {
		r.t.Fatal(err)
	}
	r.joins, err = secrets.NewJoinServer(secrets.JoinConfig{
		Log: slog.New(slog.DiscardHandler), Cluster: "blog", ClusterKey: r.key, Certificate: cert, Used: &secrets.MemoryUsed{},
		Membership: func(context.Context, string) (secrets.Membership, error) {
			return secrets.Membership{Identity: r.identity, AllowedSigners: allowedSigners(r.signer.PublicKey()), OldestCommit: r.oldest, Commit: r.pin}, nil
		},
		Control: r.copy.Handler(),
		Source: func(_ context.Context, _ secrets.Ticket, _ netip.AddrPort, machine string) error {
			if machine != "4711" {
				return secrets.ErrWrongSource
			}
			return nil
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.peer = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.joins.Serve(ctx, ln) })
	r.t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			r.t.Error(err)
		}
	})
}

// ticket puts a fresh ticket for node into the user data.
func (r *rig) ticket(node string, life time.Duration) {
	r.t.Helper()
	_, pin, err := secrets.ServerIdentity(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	t, err := secrets.IssueTicket(r.key, secrets.Ticket{Cluster: "blog", Node: node, Expires: time.Now().Add(life), Peers: []string{r.peer}, Pin: pin})
	if err != nil {
		r.t.Fatal(err)
	}
	r.setMeta("user-data", t.UserData())
}

// run is one start of the program. It returns the exit code, -1 when it was killed.
func (r *rig) run(killAt string, args ...string) int {
	r.t.Helper()
	code, err := r.startChild(killAt, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return code
}

func (r *rig) startChild(killAt string, args ...string) (int, error) {
	config := map[string]string{
		"sources": fmt.Sprintf("[%q]", r.origin), "image_hostname": "understudy-base", "metadata": r.metaURL,
		"allowed_signers": r.path("etc/understudy/allowed_signers"), "retry": "{first: 5ms, most: 20ms}",
		"patience": "{hostname: 300ms, join: 300ms, control: 300ms, needs: 300ms, puppet: 5s, puppet_lock: 100ms, dpkg_lock: 1s}",
	}
	for k, v := range r.config {
		config[k] = v
	}
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(config)) {
		if config[k] != "" {
			fmt.Fprintf(&text, "%s: %s\n", k, config[k])
		}
	}
	r.file("etc/understudy/bootstrap.yaml", text.String(), 0o644)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var out bytes.Buffer
	cmd := exec.Command(self, append([]string{"-config", r.path("etc/understudy/bootstrap.yaml")}, args...)...)
	cmd.Env = []string{"BOOTSTRAP_TEST_ROOT=" + r.root, "BOOTSTRAP_TEST_KILL=" + killAt, "BOOTSTRAP_TEST_HANDOVER=" + r.handover, "PATH=/usr/bin:/bin", "TMPDIR=" + r.t.TempDir()}
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	r.log = out.String()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

func (r *rig) record() progress.Record {
	r.t.Helper()
	var rec progress.Record
	if err := json.Unmarshal([]byte(r.read("var/lib/understudy/bootstrap.json")), &rec); err != nil {
		r.t.Fatalf("%v\n%s", err, r.log)
	}
	return rec
}

// mustBeDone fails unless the machine has become node.
func (r *rig) mustBeDone(node, role string) {
	r.t.Helper()
	rec := r.record()
	if !rec.Finished() || rec.Node != node || rec.Role != role || rec.Phase != progress.Done || rec.Failed != nil {
		r.t.Fatalf("got %+v, want %s done as %s\n%s", rec, node, role, r.log)
	}
	if !strings.HasPrefix(r.read("var/lib/understudy/bootstrap.done"), node+" role="+role+" ") {
		r.t.Errorf("done-marker: got %q", r.read("var/lib/understudy/bootstrap.done"))
	}
	for i, s := range rec.Steps {
		if i > 0 && s.Name == rec.Steps[i-1].Name {
			r.t.Errorf("step %s is recorded twice", s.Name)
		}
	}
}

// runs is how often Puppet was started.
func (r *rig) runs() int { return strings.Count(r.read("puppet-runs"), "run\n") }

// reset points the origin's branch elsewhere.
func (r *rig) reset(commit string) {
	r.t.Helper()
	tree, err := r.repo.Worktree()
	if err == nil {
		err = tree.Reset(&git.ResetOptions{Commit: plumbing.NewHash(commit), Mode: git.HardReset})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}
