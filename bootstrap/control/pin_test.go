package control

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestAPinnedCommitIsTakenOutOfTheHistory(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1\n")
	pin := o.commit("a", "2\n")
	for name, source := range sourcesOf(t, o) {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, Options{Pin: pin})
			for _, step := range []string{"as the newest", "behind the newest", "again"} {
				if step == "behind the newest" {
					o.commit("b", name)
				}
				c, err := r.Fetch(t.Context(), []Source{source}, "main")
				if err != nil || c.Hash != pin || c.Subject != "change a" || c.When.IsZero() {
					t.Fatalf("%s: got %+v, %v; want %s", step, c, err, pin)
				}
			}
			if err := r.Descends(Commit{Hash: pin}, first); err != nil {
				t.Errorf("the history behind it: %v", err)
			}
			if _, err := r.Export(t.Context(), Commit{Hash: pin}); err != nil {
				t.Error(err)
			}
			o.git("reset", "--quiet", "--hard", pin)
		})
	}
}

func TestASourceWithoutThePinnedCommitIsPassedOver(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1\n")
	stale := newRepo(t, Options{})
	fetch(t, stale, o.dir)
	pin := o.commit("a", "2\n")
	o.commit("a", "3\n")
	behind := Source{URL: serveCopy(t, stale.Dir)}
	cut := newRepo(t, Options{}) // it has the newest one, which names the pinned one
	fetch(t, cut, o.dir)
	r := newRepo(t, Options{Pin: pin})
	for name, c := range map[string]struct {
		source Source
		want   error
	}{"one that is behind": {behind, ErrNoCommit}, "one whose history is cut off": {Source{URL: serveCopy(t, cut.Dir)}, ErrNoHistory}} {
		_, err := r.Fetch(t.Context(), []Source{c.source}, "main")
		if !errors.Is(err, c.want) || errors.Is(err, ErrBroken) || errors.Is(err, ErrNoNetwork) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if c, err := r.Fetch(t.Context(), []Source{behind, {URL: o.dir}}, "main"); err != nil || c.Hash != pin {
		t.Errorf("got %+v, %v; want %s of the next source", c, err, pin)
	}
	o.git("checkout", "--quiet", "--orphan", "rewritten")
	o.git("branch", "--quiet", "-D", "main")
	o.git("checkout", "--quiet", "-b", "main")
	o.commit("a", "4\n")
	if _, err := r.Fetch(t.Context(), []Source{{URL: o.dir}}, "main"); !errors.Is(err, ErrNoCommit) {
		t.Errorf("a rewritten branch: got %v, want ErrNoCommit", err)
	}
	if _, err := Open(r.Dir, r.Releases, Options{Pin: first[:12]}); err == nil || !strings.Contains(err.Error(), "pinned commit") {
		t.Errorf("got %v, want that it is no full hash", err)
	}
}

// tokens adds a secret to every request, as a peer wants it.
type tokens string

func (s tokens) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+string(s))
	return http.DefaultTransport.RoundTrip(req)
}

func TestASourceMayHaveAClientOfItsOwn(t *testing.T) {
	o := newOrigin(t)
	want := o.commit("a", "1\n")
	url := o.serveHTTP()
	guard := serveFunc(t, func(w http.ResponseWriter, req *http.Request) {
		switch {
		case strings.HasPrefix(req.URL.Path, "/away/"):
			http.Redirect(w, req, url+strings.TrimPrefix(req.URL.Path, "/away")+"?"+req.URL.RawQuery, http.StatusFound)
		case req.Header.Get("Authorization") != "Bearer s3cret":
			http.Error(w, "no", http.StatusForbidden)
		default:
			o.backend().ServeHTTP(w, req)
		}
	})
	client := func(token tokens) *http.Client {
		return &http.Client{Transport: token, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	path := strings.TrimPrefix(url, url[:strings.Index(url, "/origin")])
	if c, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: guard + path, Client: client("s3cret")}}, "main"); err != nil || c.Hash != want {
		t.Errorf("got %+v, %v; want %s", c, err, want)
	}
	_, err := newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: guard + path, Client: client("wr0ng")}}, "main")
	if !errors.Is(err, ErrAuth) || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("another token: got %v, want ErrAuth", err)
	}
	_, err = newRepo(t, Options{}).Fetch(t.Context(), []Source{{URL: guard + "/away" + path, Client: client("s3cret")}}, "main")
	if err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("a redirect: got %v, want that it is not followed", err)
	}
}
