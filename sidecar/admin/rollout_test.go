package admin

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"understudy/bootstrap/applied"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

const (
	calmCommit = "3f2a91c0d5e8b7a6f4c3d2e1f0a9b8c7d6e5f4a3"
	nextCommit = "77aa91c0d5e8b7a6f4c3d2e1f0a9b8c7d6e5f4a3"
)

// pushed is the calm cluster after a push that lb1 and web1 know of, and lb2 has.
func pushed() *world {
	w := calm()
	w.view.Rollout.Head = nextCommit
	w.decision.Say.Rollout.Head = nextCommit
	return w.peer("lb2", func(a *cluster.Announcement) { a.Commit = nextCommit })
}

func TestStatusCountsWhoHasTheNewestCommit(t *testing.T) {
	for _, c := range []struct {
		claim  string
		change func(*world)
		want   string
		trying []string
	}{
		{"everybody has it", func(w *world) {
			w.view.Rollout.Head = calmCommit
			w.peer("lb2", func(a *cluster.Announcement) { a.Commit = calmCommit })
		}, "", nil},
		{"nobody follows", func(w *world) { w.view.Rollout.Head = "" }, "", nil},
		{"one has it", func(*world) {}, "1 of 6 at 77aa91c0", nil},
		{"one tries it", func(w *world) {
			w.peer("web1", func(a *cluster.Announcement) { a.Rollout = cluster.Rollout{Ask: nextCommit, Busy: true} })
		}, "1 of 6 at 77aa91c0, next: web1", []string{"web1"}},
		{"it is held", func(w *world) {
			w.decision.Memory.Rollout.Bad = []decide.Bad{{Commit: calmCommit, Node: "mail1"}, {Commit: nextCommit, Node: "web1", Why: "nginx failed"}}
		}, "1 of 6 at 77aa91c0, held: web1 failed with it: nginx failed", nil},
	} {
		w := pushed()
		c.change(w)
		got := NewStatus(w.policy, w.view, w.decision)
		if got.Rollout.Line() != c.want || !slices.Equal(got.Rollout.Trying, append([]string{}, c.trying...)) {
			t.Errorf("%s: got %q of %+v, want %q", c.claim, got.Rollout.Line(), got.Rollout, c.want)
		}
		if doing := slices.ContainsFunc(got.Doing, func(s Step) bool { return s.Node == "web1" && s.What == "puppet" }); doing != (c.trying != nil) {
			t.Errorf("%s: being done: %+v", c.claim, got.Doing)
		}
	}
}

func TestApplyLooksAndLetsRolesChangeWithoutTheMissing(t *testing.T) {
	for _, c := range []struct {
		claim, head, body string
		status, looked    int
		without           string
	}{
		{"a look", nextCommit, `{}`, 202, 1, ""},
		{"without the missing", nextCommit, `{"without_missing":true}`, 202, 1, nextCommit},
		{"nobody follows the repo", "", `{}`, 409, 0, ""},
		{"a key that is none", nextCommit, `{"now":true}`, 400, 0, ""},
	} {
		b := newBackend()
		b.world.view.Rollout.Head = c.head
		w := httptest.NewRecorder()
		newServer(t, b).Handler(Remote).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/apply", strings.NewReader(c.body)))
		if w.Code != c.status || b.looked != c.looked || b.orders.Without != c.without {
			t.Errorf("%s: got %d %s, %d looks, without %q", c.claim, w.Code, w.Body, b.looked, b.orders.Without)
		}
	}
}

func TestOnlyTheCommitThatWaitsIsConfirmed(t *testing.T) {
	for _, c := range []struct {
		claim, body, answer string
		waits               Removal
		status              int
		confirmed           []string
	}{
		{"it", `{"confirm_removal":true}`, `"machines":["6"]`, Removal{Commit: nextCommit, Nodes: []string{"web1"}}, 202, []string{nextCommit}},
		{"it, by name", `{"confirm_removal":true,"commit":"` + nextCommit + `"}`, nextCommit, Removal{Commit: nextCommit}, 202, []string{nextCommit}},
		{"only to see", `{"confirm_removal":true,"try":true}`, `"nodes":["web1"]`, Removal{Commit: nextCommit, Nodes: []string{"web1"}}, 202, nil},
		{"another one", `{"confirm_removal":true,"commit":"` + calmCommit + `"}`, "look at it again", Removal{Commit: nextCommit}, 409, nil},
		{"none", `{"confirm_removal":true}`, "no commit waits", Removal{}, 409, nil},
		{"it is not asked for", `{}`, "", Removal{Commit: nextCommit}, 202, nil},
	} {
		b := newBackend()
		b.removal = c.waits
		b.world.view.Rollout.Head = calmCommit
		b.world.view.Ledger.Claims = map[string]cluster.Claim{"web1": {Node: "web1", Epoch: 2, Machine: "6"}}
		w := httptest.NewRecorder()
		newServer(t, b).Handler(Remote).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/apply", strings.NewReader(c.body)))
		if w.Code != c.status || !slices.Equal(b.confirmed, c.confirmed) || !strings.Contains(w.Body.String(), c.answer) {
			t.Errorf("%s: got %d %s, confirmed %v", c.claim, w.Code, w.Body, b.confirmed)
		}
	}
}

func TestRunsAreTheNodesOwn(t *testing.T) {
	b := newBackend()
	b.ran = []PuppetRun{{Result: applied.Result{Commit: nextCommit, Took: "3s"}, Why: "rollout"}}
	w := httptest.NewRecorder()
	newServer(t, b).Handler(Remote).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/runs", nil))
	for _, want := range []string{`"node":"lb1"`, `"commit":"` + nextCommit, `"why":"rollout"`, `"took":"3s"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("got %d %s, want %s in it", w.Code, w.Body, want)
		}
	}
}
