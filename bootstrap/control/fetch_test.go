package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// sourcesOf are all ways to reach an origin.
func sourcesOf(t *testing.T, o *origin) map[string]Source {
	return map[string]Source{
		"path": {URL: o.dir},
		"file": {URL: "file://" + o.dir},
		"http": {URL: o.serveHTTP()},
		"git":  {URL: o.serveGit()},
		"ssh":  o.serveSSH(),
		"peer": {URL: serveCopy(t, filepath.Join(o.dir, ".git"))},
	}
}

func TestEverySourceBringsTheSameCommitWithoutHistory(t *testing.T) {
	o := newOrigin(t)
	o.commit("puppet/a.pp", "1\n")
	o.commit("puppet/b.pp", "2\n")
	want := o.commit("puppet/a.pp", "3\n")
	for name, source := range sourcesOf(t, o) {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, Options{})
			c, err := r.Fetch(t.Context(), []Source{source}, "main")
			if err != nil {
				t.Fatal(err)
			}
			if c.Hash != want || c.Subject != "change puppet/a.pp" || c.When.Unix() != 1_700_000_000 {
				t.Errorf("got %+v, want %s", c, want)
			}
			localGit(t, o, r, "fsck", "--full", "--strict")
			if n := lineCount(localGit(t, o, r, "rev-list", "main")); n != 1 {
				t.Errorf("history: got %d commits, want 1", n)
			}
			if again, err := r.Fetch(t.Context(), []Source{source}, "main"); err != nil || again != c {
				t.Errorf("second fetch: got %+v, %v; want %+v", again, err, c)
			}
		})
	}
}

func TestHistoryIsFetchedWhenTheOldestCommitMustBeProven(t *testing.T) {
	o := newOrigin(t)
	oldest := o.commit("a", "1\n")
	o.commit("a", "2\n")
	o.commit("a", "3\n")
	foreign := strings.Repeat("ab", 20)
	for name, source := range sourcesOf(t, o) {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, Options{})
			c, err := r.Fetch(t.Context(), []Source{source}, "main")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Descends(c, oldest); !errors.Is(err, ErrTooOld) || !errors.Is(err, ErrNoHistory) {
				t.Errorf("without history: got %v, want ErrTooOld and ErrNoHistory", err)
			}
			r = r.with(t, oldest) // the shallow copy is there already: it must be deepened
			if c, err = r.Fetch(t.Context(), []Source{source}, "main"); err != nil {
				t.Fatal(err)
			}
			if err := r.Descends(c, oldest); err != nil {
				t.Errorf("with history: got %v, want a proof", err)
			}
			if err := r.Descends(c, foreign); !errors.Is(err, ErrTooOld) || errors.Is(err, ErrNoHistory) {
				t.Errorf("a foreign commit: got %v, want ErrTooOld only", err)
			}
			localGit(t, o, r, "fsck", "--full", "--strict")
		})
	}
}

func TestUpdateTransfersOnlyWhatIsNew(t *testing.T) {
	for _, full := range []bool{false, true} {
		o := newOrigin(t)
		first := o.commit("big", strings.Repeat("many different words\n", 1000))
		o.commit("a", "1\n")
		for name, source := range sourcesOf(t, o) {
			t.Run(fmt.Sprintf("%s/full=%v", name, full), func(t *testing.T) {
				r := newRepo(t, Options{})
				if full {
					r = r.with(t, first)
				}
				base, err := r.Fetch(t.Context(), []Source{source}, "main")
				if err != nil {
					t.Fatal(err)
				}
				o.commit("b", "on the way to "+t.Name()+"\n")
				want := o.commit("c", "new "+t.Name()+"\n")
				r = r.with(t, base.Hash)
				c, err := r.Fetch(t.Context(), []Source{source}, "main")
				if err != nil || c.Hash != want {
					t.Fatalf("got %+v, %v; want %s", c, err, want)
				}
				if err := r.Descends(c, base.Hash); err != nil {
					t.Errorf("descends from what was there: got %v, want a proof", err)
				}
				packs, err := filepath.Glob(r.Dir + "/objects/pack/*.pack")
				if err != nil || len(packs) != 2 {
					t.Errorf("got packs %v, %v; want the old one and one more", packs, err)
				}
				localGit(t, o, r, "fsck", "--full", "--strict")
			})
		}
	}
}

func TestRewrittenBranchIsFetchedAndSaidToBeTooOld(t *testing.T) {
	o := newOrigin(t)
	url := o.serveHTTP()
	o.commit("a", "1\n")
	r := newRepo(t, Options{})
	accepted := fetch(t, r, url)
	o.git("checkout", "--quiet", "--orphan", "other")
	other := o.commit("b", "2\n")
	o.git("branch", "--force", "main", other)
	r = r.with(t, accepted.Hash)
	c := fetch(t, r, url)
	if c.Hash != other {
		t.Errorf("got %s, want %s", c.Hash, other)
	}
	if err := r.Descends(c, accepted.Hash); !errors.Is(err, ErrTooOld) {
		t.Errorf("got %v, want ErrTooOld", err)
	}
}

func TestMergeBesideAShallowCommitIsWhole(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	o.git("branch", "side")
	o.commit("a", "2\n")
	for name, source := range sourcesOf(t, o) {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, Options{})
			base, err := r.Fetch(t.Context(), []Source{source}, "main")
			if err != nil {
				t.Fatal(err)
			}
			o.git("checkout", "--quiet", "side")
			o.commit("s-"+name, "side\n")
			o.git("checkout", "--quiet", "main")
			o.git("merge", "--quiet", "--no-ff", "--message=merge", "side")
			r = r.with(t, base.Hash)
			c, err := r.Fetch(t.Context(), []Source{source}, "main")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Descends(c, base.Hash); err != nil {
				t.Errorf("got %v, want a proof", err)
			}
			if err := r.Descends(c, strings.Repeat("0a", 20)); !errors.Is(err, ErrTooOld) {
				t.Errorf("got %v, want ErrTooOld", err)
			}
		})
	}
}

func TestShallowSourceServesWhatItHas(t *testing.T) {
	o := newOrigin(t)
	oldest := o.commit("a", "1\n")
	o.commit("a", "2\n")
	o.commit("a", "3\n")
	shallow := &origin{t: t, dir: filepath.Join(filepath.Dir(o.dir), "shallow"), env: o.env}
	o.git("clone", "--quiet", "--depth=2", "file://"+o.dir, shallow.dir)
	for _, url := range []string{shallow.dir, strings.Replace(shallow.serveHTTP(), "/origin/", "/shallow/", 1)} {
		r := newRepo(t, Options{})
		c := fetch(t, r, url)
		if err := r.Descends(c, oldest); !errors.Is(err, ErrNoHistory) {
			t.Errorf("got %v, want ErrNoHistory", err)
		}
		_, err := r.with(t, oldest).Fetch(t.Context(), []Source{{URL: url}}, "main")
		if err != nil {
			// Its second commit names the oldest as its parent, which is proof enough.
			t.Errorf("got %v, want success", err)
		}
		_, err = r.with(t, strings.Repeat("0b", 20)).Fetch(t.Context(), []Source{{URL: url}}, "main")
		if !errors.Is(err, ErrNoHistory) {
			t.Errorf("got %v, want ErrNoHistory", err)
		}
	}
}

func TestDamagedLocalCopyIsReplaced(t *testing.T) {
	damage := map[string]func(t *testing.T, r *Repo){
		"pack cut short": func(t *testing.T, r *Repo) {
			pack := glob(t, r.Dir+"/objects/pack/*.pack")
			if err := os.Chmod(pack, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(pack, 40); err != nil {
				t.Fatal(err)
			}
		},
		"pack overwritten":  func(t *testing.T, r *Repo) { overwrite(t, glob(t, r.Dir+"/objects/pack/*.pack"), 20) },
		"index overwritten": func(t *testing.T, r *Repo) { overwrite(t, glob(t, r.Dir+"/objects/pack/*.idx"), 8+1024) },
		"index empty":       func(t *testing.T, r *Repo) { overwrite(t, glob(t, r.Dir+"/objects/pack/*.idx"), -1) },
		"pack gone":         func(t *testing.T, r *Repo) { remove(t, glob(t, r.Dir+"/objects/pack/*.pack")) },
		"index gone":        func(t *testing.T, r *Repo) { remove(t, glob(t, r.Dir+"/objects/pack/*.idx")) },
		"objects gone":      func(t *testing.T, r *Repo) { remove(t, r.Dir+"/objects") },
		"branch empty":      func(t *testing.T, r *Repo) { overwrite(t, r.Dir+"/refs/heads/main", -1) },
		"branch a directory": func(t *testing.T, r *Repo) {
			remove(t, r.Dir+"/refs/heads/main")
			if err := os.MkdirAll(r.Dir+"/refs/heads/main/x", 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"shallow garbled": func(t *testing.T, r *Repo) { overwrite(t, r.Dir+"/shallow", 1) },
		"only a directory": func(t *testing.T, r *Repo) {
			remove(t, r.Dir)
			if err := os.MkdirAll(r.Dir+"/objects/pack", 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"half a clone beside": func(t *testing.T, r *Repo) {
			remove(t, r.Dir)
			if err := os.MkdirAll(r.Dir+tempPrefix+"123/objects", 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"locks of another git": func(t *testing.T, r *Repo) {
			for _, f := range []string{"HEAD.lock", "shallow.lock", "refs/heads/main.lock"} {
				if err := os.WriteFile(filepath.Join(r.Dir, f), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for name, harm := range damage {
		for _, moved := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/moved=%v", name, moved), func(t *testing.T) {
				o := newOrigin(t)
				o.commit("puppet/a.pp", strings.Repeat("a line\n", 100))
				o.commit("puppet/b.pp", "b\n")
				r := newRepo(t, Options{})
				fetch(t, r, o.dir)
				harm(t, r)
				if moved {
					o.commit("puppet/c.pp", "c\n")
				}
				// Damage inside a file's content is found by the export, which then asks for a fetch.
				dir, err := r.Export(t.Context(), fetch(t, r, o.dir))
				if errors.Is(err, ErrBroken) {
					dir, err = r.Export(t.Context(), fetch(t, r, o.dir))
				}
				if err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(filepath.Join(dir, "puppet/a.pp"))
				if err != nil || len(data) != 700 {
					t.Errorf("got %d bytes, %v", len(data), err)
				}
				left, err := filepath.Glob(r.Dir + tempPrefix + "*")
				if err != nil || len(left) > 0 {
					t.Errorf("left over: %v, %v", left, err)
				}
			})
		}
	}
}

func glob(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: got %v, %v; want one file", pattern, found, err)
	}
	return found[0]
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// overwrite puts garbage at an offset of a file, or empties it when the offset is negative.
func overwrite(t *testing.T, path string, at int64) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("garbage garbage garbage garbage garbage"), at); err != nil {
		t.Fatal(err)
	}
}

func TestSourcesAreTriedInOrder(t *testing.T) {
	o := newOrigin(t)
	want := o.commit("a", "1\n")
	closed := "http://" + closedPort(t) + "/x.git"
	r := newRepo(t, Options{})
	c, err := r.Fetch(t.Context(), []Source{{URL: closed}, {URL: "/nonexistent/control.git"}, {URL: o.dir}}, "main")
	if err != nil || c.Hash != want {
		t.Errorf("got %+v, %v; want %s", c, err, want)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestEachFailureOfASourceHasItsReason(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	status := func(code int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", code)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "welcome") }))
	t.Cleanup(page.Close)
	secure := httptest.NewUnstartedServer(o.backend())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is refused
	secure.StartTLS()
	t.Cleanup(secure.Close)
	silent := listen(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	rude := listen(t, func(c *net.TCPConn) { c.SetLinger(0) })
	ssh := o.serveSSH()
	stranger, keyless := ssh, ssh
	stranger.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(stranger.KnownHosts, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	keyless.SSHKey = ""
	elsewhere := ssh
	elsewhere.URL = strings.TrimSuffix(ssh.URL, "origin/.git") + "nothing"
	tests := []struct {
		name   string
		source Source
		branch string
		want   error // nil: none of the known reasons
		retry  bool
	}{
		{"refused", Source{URL: "http://" + closedPort(t)}, "main", ErrNoNetwork, true},
		{"refused ssh", Source{URL: "ssh://git@" + closedPort(t) + "/x", KnownHosts: ssh.KnownHosts}, "main", ErrNoNetwork, true},
		{"refused git", Source{URL: "git://" + closedPort(t) + "/x"}, "main", ErrNoNetwork, true},
		{"no such host", Source{URL: "https://git.invalid/x.git"}, "main", ErrNoNetwork, true},
		{"silent http", Source{URL: "http://" + silent, Timeout: 100 * time.Millisecond}, "main", ErrNoNetwork, true},
		{"silent https", Source{URL: "https://" + silent, Timeout: 100 * time.Millisecond}, "main", ErrNoNetwork, true},
		{"silent git", Source{URL: "git://" + silent + "/x", Timeout: 100 * time.Millisecond}, "main", ErrNoNetwork, true},
		{"silent ssh", Source{URL: "ssh://git@" + silent + "/x", Timeout: 100 * time.Millisecond, KnownHosts: ssh.KnownHosts}, "main", ErrNoNetwork, true},
		{"reset", Source{URL: "git://" + rude + "/x"}, "main", ErrNoNetwork, true},
		{"502", Source{URL: status(502)}, "main", ErrNoNetwork, true},
		{"429", Source{URL: status(429)}, "main", ErrNoNetwork, true},
		{"401", Source{URL: status(401)}, "main", ErrAuth, false},
		{"403", Source{URL: status(403)}, "main", ErrAuth, false},
		{"404", Source{URL: status(404)}, "main", ErrNoRepository, false},
		{"418", Source{URL: status(418)}, "main", nil, false},
		{"a web page", Source{URL: page.URL}, "main", ErrNoRepository, false},
		{"untrusted certificate", Source{URL: secure.URL + "/origin/.git"}, "main", nil, false},
		{"no directory", Source{URL: "/nonexistent/x.git"}, "main", ErrNoNetwork, true},
		{"not a repository", Source{URL: t.TempDir()}, "main", ErrNoRepository, false},
		{"no branch", Source{URL: o.dir}, "prod", ErrNoBranch, false},
		{"no branch http", Source{URL: o.serveHTTP()}, "prod", ErrNoBranch, false},
		{"no branch in an empty repository", Source{URL: newOrigin(t).serveHTTP()}, "main", ErrNoBranch, false},
		{"git without the repository", Source{URL: strings.Replace(o.serveGit(), "/origin/", "/nothing/", 1)}, "main", ErrNoRepository, false},
		{"ssh without the repository", elsewhere, "main", ErrNoRepository, false},
		{"ssh, unknown host key", stranger, "main", ErrAuth, false},
		{"ssh, no key", keyless, "main", ErrAuth, false},
		{"unsupported", Source{URL: "ftp://blog.example/x"}, "main", nil, false},
		{"password file missing", Source{URL: o.serveHTTP(), PasswordFile: "/nonexistent"}, "main", ErrAuth, false},
	}
	reasons := []error{ErrNoNetwork, ErrNoBranch, ErrNoRepository, ErrAuth, ErrTooLarge, ErrBroken, ErrDiskFull}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{tt.source}, tt.branch)
			failed, ok := errors.AsType[*FetchError](err)
			if !ok {
				t.Fatalf("got %v, want a *FetchError", err)
			}
			for _, reason := range reasons {
				if errors.Is(err, reason) != (reason == tt.want) {
					t.Errorf("got %v; is it %v? %v", err, reason, errors.Is(err, reason))
				}
			}
			if failed.Retry() != tt.retry {
				t.Errorf("retry: got %v, want %v", failed.Retry(), tt.retry)
			}
		})
	}
}

func TestNoNetworkMeansThatNoSourceWasReached(t *testing.T) {
	away, branchless := Attempt{"a", ErrNoNetwork}, Attempt{"b", ErrNoBranch}
	tests := []struct {
		attempts []Attempt
		target   error
		want     bool
	}{
		{[]Attempt{away, away}, ErrNoNetwork, true},
		{[]Attempt{away, branchless}, ErrNoNetwork, false},
		{[]Attempt{away, branchless}, ErrNoBranch, true},
		{[]Attempt{away, away}, ErrNoBranch, false},
	}
	for _, tt := range tests {
		err := &FetchError{"main", tt.attempts}
		if got := errors.Is(err, tt.target); got != tt.want {
			t.Errorf("%v is %v: got %v, want %v", err, tt.target, got, tt.want)
		}
	}
}

func TestPasswordsNeverReachErrors(t *testing.T) {
	const secret = "hunter2"
	for _, url := range []string{
		"https://ada:" + secret + "@git.invalid/x.git", "http://ada:" + secret + "@" + closedPort(t) + "/x.git",
		"https://ada:" + secret + "@blog.example:bad/x.git", "ftp://ada:" + secret + "@blog.example/x",
		"https://ada:" + secret + "@blog.example/%zz",
	} {
		_, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: url}}, "main")
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}

func TestCredentialsAreSentAndNotTakenElsewhere(t *testing.T) {
	o := newOrigin(t)
	want := o.commit("a", "1\n")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	backend := o.backend()
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "git" || pass != "hunter2" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(guarded.Close)
	c, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: guarded.URL + "/origin/.git", PasswordFile: file}}, "main")
	if err != nil || c.Hash != want {
		t.Errorf("got %+v, %v; want %s", c, err, want)
	}
	leaked := false
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = leaked || r.Header.Get("Authorization") != ""
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(thief.Close)
	// Another name for the same machine is another host to net/http, as it must be.
	elsewhere := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+r.URL.RequestURI(), http.StatusFound)
	}))
	t.Cleanup(moved.Close)
	c, err = newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: moved.URL + "/origin/.git", PasswordFile: file}}, "main")
	if err != nil || c.Hash != want {
		t.Errorf("redirected: got %+v, %v; want %s", c, err, want)
	}
	if leaked {
		t.Error("the password went to the host that was redirected to")
	}
}

func TestHTTPSWithACertificateOfItsOwn(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	server := httptest.NewTLSServer(o.backend())
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pemOf(server.Certificate()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: server.URL + "/origin/.git", CAFile: file}}, "main"); err != nil {
		t.Error(err)
	}
}

// A source that lies or breaks off is as good as one that is away, and changes nothing.
func TestBadPackChangesNothing(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", strings.Repeat("words\n", 1000))
	backend := o.backend()
	harm := map[string]func([]byte) []byte{
		"cut short":  func(b []byte) []byte { return b[:len(b)/2] },
		"bits wrong": func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b },
		"empty":      func([]byte) []byte { return nil },
		"noise":      func([]byte) []byte { return []byte(strings.Repeat("noise", 100)) },
	}
	for name, change := range harm {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					backend.ServeHTTP(w, r)
					return
				}
				rec := httptest.NewRecorder()
				backend.ServeHTTP(rec, r)
				w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
				w.Write(change(rec.Body.Bytes()))
			}))
			t.Cleanup(server.Close)
			r := newRepo(t, Options{})
			_, err := r.Fetch(t.Context(), []Source{{URL: server.URL + "/origin/.git"}}, "main")
			if err == nil {
				t.Fatal("got no error")
			}
			entries, err := os.ReadDir(filepath.Dir(r.Dir))
			if err != nil || len(entries) != 1 || entries[0].Name() != "control.git.lock" {
				t.Errorf("left behind: %v, %v", entries, err)
			}
			fetch(t, r, o.dir)
		})
	}
}

func TestFetchIsBounded(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", noise(100_000))
	_, err := newRepo(t, Options{MaxPack: 50_000}).Fetch(t.Context(), []Source{{URL: o.serveHTTP()}}, "main")
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

// noise returns n bytes that do not compress well.
func noise(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprint(&b, plumbing.ComputeHash(plumbing.BlobObject, fmt.Append(nil, i)))
	}
	return b.String()[:n]
}

func TestCancelledFetchSaysSo(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	_, err := newRepo(t, Options{}).Fetch(ctx, []Source{{URL: server.URL}, {URL: o.dir}}, "main")
	if _, failed := errors.AsType[*FetchError](err); failed || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled and no other source tried", err)
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	for _, branch := range []string{"", "..", "a..b", "/x", "x/", "a b", "a\x00", "a.lock", "-x~", "../../x"} {
		if _, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: "/x"}}, branch); err == nil ||
			!strings.Contains(err.Error(), "branch") {
			t.Errorf("branch %q: got %v", branch, err)
		}
	}
	for _, sources := range [][]Source{nil, {{}}, {{URL: "/x", Timeout: -1}}, {{URL: "/x\n"}}, {{URL: "x/y"}}, {{URL: "file://x/y"}}, {{URL: "blog.example/x.git"}}} {
		if _, err := newRepo(t, Options{}).Fetch(t.Context(), sources, "main"); err == nil {
			t.Errorf("sources %v: got no error", sources)
		}
	}
	for _, o := range []Options{{Oldest: "abc"}, {Oldest: strings.Repeat("A", 40)}, {MaxPack: -1}} {
		if _, err := Open("/x", "/y", o); err == nil {
			t.Errorf("options %+v: got no error", o)
		}
	}
	if _, err := Open("x", "/y", Options{}); err == nil {
		t.Error("relative path: got no error")
	}
}

func TestBranchCanChange(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	o.git("checkout", "--quiet", "-b", "main2/prod")
	want := o.commit("a", "2\n")
	r := newRepo(t, Options{})
	fetch(t, r, o.dir)
	for range 2 {
		c, err := r.Fetch(t.Context(), []Source{{URL: o.dir}}, "main2/prod")
		if err != nil || c.Hash != want {
			t.Errorf("got %+v, %v; want %s", c, err, want)
		}
	}
}

func TestManyUpdatesDoNotPileUpPacks(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "0\n")
	r := newRepo(t, Options{})
	tree := o.git("rev-parse", "main^{tree}")
	for i := range maxPacks + 5 {
		h := o.object("commit", fmt.Appendf(nil, "tree %s\nauthor A <a@b> %d +0000\ncommitter A <a@b> %d +0000\n\nx\n", tree, i, i))
		o.point("main", h)
		if c := fetch(t, r, o.dir); c.Hash != h {
			t.Fatalf("got %s, want %s", c.Hash, h)
		}
	}
	packs, err := filepath.Glob(r.Dir + "/objects/pack/*.pack")
	if err != nil || len(packs) > maxPacks {
		t.Errorf("got %d packs, %v; want at most %d", len(packs), err, maxPacks)
	}
}
