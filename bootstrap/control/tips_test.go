package control

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// tipsOf makes one that is closed when the test ends.
func tipsOf(t testing.TB, r *Repo, branch string) *Tips {
	tips := r.Tips(branch)
	t.Cleanup(tips.Close)
	return tips
}

func TestEverySourceSaysWhereTheBranchIs(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	o.git("branch", "main-2")
	for name, source := range sourcesOf(t, o) {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, Options{})
			tips, none := tipsOf(t, r, "main"), tipsOf(t, r, "mai")
			for i := range 3 {
				want := o.commit("a", fmt.Sprint(name, i))
				if got, err := tips.Ask(t.Context(), source); err != nil || got != want {
					t.Errorf("got %s, %v; want %s", got, err, want)
				}
				if got, err := none.Ask(t.Context(), source); !errors.Is(err, ErrNoBranch) {
					t.Errorf("no such branch: got %q, %v; want ErrNoBranch", got, err)
				}
			}
			if _, err := os.Stat(r.Dir); err == nil {
				t.Error("asking has made a local copy")
			}
			if remote := name != "path" && name != "file"; (r.Traffic() > 0) != remote {
				t.Errorf("got %d bytes of traffic", r.Traffic())
			}
		})
	}
}

func TestAskingAgainCostsOneRequestOnTheSameConnection(t *testing.T) {
	o := newOrigin(t)
	want := o.commit("a", "1\n")
	for i := range 500 {
		o.point(fmt.Sprint("many-", i), want)
	}
	var connections, requests atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		requests.Add(1)
		o.backend().ServeHTTP(w, req)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(server.Certificate()), 0o644); err != nil {
		t.Fatal(err)
	}
	source := Source{URL: server.URL + "/origin/.git", CAFile: ca}
	r := newRepo(t, Options{})
	tips := tipsOf(t, r, "main")
	ask := func() {
		t.Helper()
		if got, err := tips.Ask(t.Context(), source); err != nil || got != want {
			t.Fatalf("got %s, %v; want %s", got, err, want)
		}
	}
	ask()
	before := r.Traffic()
	for range 10 {
		ask()
	}
	if n, m := connections.Load(), requests.Load(); n != 1 || m != 12 {
		t.Errorf("got %d connections and %d requests, want 1 and 12", n, m)
	}
	if each := (r.Traffic() - before) / 10; each > 1000 {
		t.Errorf("got %d bytes for each, want at most 1000", each)
	}
	server.CloseClientConnections() // as a server that restarts
	ask()
}

func TestServersThatSpeakOnlyVersionZeroAreUnderstood(t *testing.T) {
	o := newOrigin(t)
	want := o.commit("a", "1\n")
	speaksTwo := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !speaksTwo {
			req.Header.Del("Git-Protocol")
		}
		o.backend().ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	source := Source{URL: server.URL + "/origin/.git"}
	tips := tipsOf(t, newRepo(t, Options{}), "main")
	for i, two := range []bool{false, false, true, true, false, true} { // it is upgraded and downgraded between two questions
		speaksTwo = two
		if got, err := tips.Ask(t.Context(), source); err != nil || got != want {
			t.Errorf("question %d, version 2 %v: got %s, %v; want %s", i, two, got, err, want)
		}
	}
}

func TestAskingFollowsARedirectAndSaysWhatIsWrong(t *testing.T) {
	o := newOrigin(t)
	want := o.commit("a", "1\n")
	server := httptest.NewServer(o.backend())
	t.Cleanup(server.Close)
	moved := httptest.NewServer(http.RedirectHandler(server.URL+"/origin/.git/info/refs?service=git-upload-pack", http.StatusMovedPermanently))
	t.Cleanup(moved.Close)
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(denied.Close)
	tips := tipsOf(t, newRepo(t, Options{}), "main")
	for range 2 {
		if got, err := tips.Ask(t.Context(), Source{URL: moved.URL + "/x"}); err != nil || got != want {
			t.Errorf("redirected: got %s, %v; want %s", got, err, want)
		}
	}
	for url, want := range map[string]error{
		server.URL + "/other/.git": ErrNoRepository, denied.URL: ErrAuth, "http://127.0.0.1:1/x": ErrNoNetwork, "/nowhere": ErrNoNetwork,
	} {
		if _, err := tips.Ask(t.Context(), Source{URL: url}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", url, err, want)
		}
	}
}

func TestWhatIsBroughtMovesTheBranchOnlyWhenItIsPointed(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1\n")
	for name, source := range sourcesOf(t, o) {
		t.Run(name, func(t *testing.T) {
			o.git("reset", "--quiet", "--hard", first)
			r := newRepo(t, Options{})
			accepted, err := r.Fetch(t.Context(), []Source{source}, "main")
			if err != nil {
				t.Fatal(err)
			}
			o.commit("a", "2 "+name)
			want := o.commit("a", "3 "+name)
			for range 2 { // the second time everything is there
				c, err := r.Bring(t.Context(), source, "main", first)
				if err != nil || c.Hash != want {
					t.Fatalf("got %+v, %v; want %s", c, err, want)
				}
				if err := r.Descends(c, first); err != nil {
					t.Errorf("got %v, want a proof", err)
				}
				if tip := localGit(t, o, r, "rev-parse", "main"); tip != accepted.Hash {
					t.Errorf("the branch is at %s, want %s", tip, accepted.Hash)
				}
			}
			if packs, err := filepath.Glob(r.Dir + "/objects/pack/*.pack"); err != nil || len(packs) != 2 {
				t.Errorf("got packs %v, %v; want two", packs, err)
			}
			if err := r.Point(t.Context(), "main", Commit{Hash: want}); err != nil || localGit(t, o, r, "rev-parse", "main") != want {
				t.Errorf("pointed: got %v, %s", err, localGit(t, o, r, "rev-parse", "main"))
			}
			localGit(t, o, r, "fsck", "--full", "--strict")
		})
	}
}

func TestCloneThatIsBroughtPointsToWhatWasAccepted(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1\n")
	want := o.commit("a", "2\n")
	r := newRepo(t, Options{})
	if c, err := r.Bring(t.Context(), Source{URL: o.dir}, "main", first); err != nil || c.Hash != want {
		t.Fatalf("got %+v, %v; want %s", c, err, want)
	}
	if tip := localGit(t, o, r, "rev-parse", "main"); tip != first {
		t.Errorf("the branch is at %s, want %s", tip, first)
	}
	foreign := newRepo(t, Options{})
	if c, err := foreign.Bring(t.Context(), Source{URL: o.dir}, "main", strings.Repeat("ab", 20)); err != nil || c.Hash != want {
		t.Fatalf("got %+v, %v; want %s", c, err, want)
	}
	if branches := localGit(t, o, foreign, "branch", "--list"); branches != "" {
		t.Errorf("got branches %q, want none", branches)
	}
	if err := foreign.Point(t.Context(), "main", Commit{Hash: strings.Repeat("ab", 20)}); !errors.Is(err, ErrBroken) {
		t.Errorf("pointed to what is not there: got %v, want ErrBroken", err)
	}
}

func TestFileOfACommitIsReadWithoutARelease(t *testing.T) {
	o := newOrigin(t)
	o.write("dir/x", "x")
	o.commit("roles.yaml", "1\n", "--message=body\n\nKey: value")
	r := newRepo(t, Options{})
	c := fetch(t, r, o.dir)
	if got, err := r.File(c, "roles.yaml", 2); err != nil || string(got) != "1\n" {
		t.Errorf("got %q, %v; want 1", got, err)
	}
	for name, limit := range map[string]int64{"roles.yaml": 1, "dir": 100} {
		if _, err := r.File(c, name, limit); !isTreeError(err) {
			t.Errorf("%s: got %v, want a *TreeError", name, err)
		}
	}
	if _, err := r.File(c, "none", 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	again, message, err := r.Read(c.Hash)
	if err != nil || again != c || !strings.Contains(message, "\n\nKey: value\n") {
		t.Errorf("got %+v, %q, %v; want %+v", again, message, err, c)
	}
}

func isTreeError(err error) bool {
	_, ok := errors.AsType[*TreeError](err)
	return ok
}
