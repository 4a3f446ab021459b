package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
)

// asPrimaryOfMail gives this node the duty of the one role with data.
func asPrimaryOfMail(b *backend) {
	b.world.policy.Roles[2].Nodes = []string{"lb1", "mail2"}
	b.world.peer("mail1", func(a *cluster.Announcement) { a.Holds = nil })
	b.world.decision.Say.Holds = append(b.world.decision.Say.Holds, cluster.Hold{Duty: "mail", Epoch: 2, State: cluster.Held})
}

func TestSyncAnswersForTheRolesThisNodeIsPrimaryOf(t *testing.T) {
	for _, c := range []struct {
		claim, body string
		status      int
		want        string
		asked       []SyncFor
	}{
		{"the state", `{}`, 200, `"role":"mail","primary":"lb1"`, []SyncFor{{Role: "mail"}}},
		{"a barrier", `{"role":"mail","wait":"5s"}`, 200, `"durable":true`, []SyncFor{{Role: "mail", Wait: Duration(5 * time.Second)}}},
		{"deletions", `{"role":"mail","allow_deletions":7}`, 200, `"role":"mail"`, []SyncFor{{Role: "mail", Allow: 7}}},
		{"deletions everywhere", `{"allow_deletions":7}`, 400, "role is missing", nil},
		{"too long a wait", `{"wait":"1m"}`, 400, "must be from 0s to 20s", nil},
		{"a role without data", `{"role":"lb"}`, 404, `no role \"lb\" has data`, nil},
		{"a key that is none", `{"rolle":"mail"}`, 400, "rolle", nil},
	} {
		t.Run(c.claim, func(t *testing.T) {
			b := newBackend()
			asPrimaryOfMail(b)
			h := newServer(t, b).Handler(Remote)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/sync", strings.NewReader(c.body)))
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("got %d %s, want %d with %s", w.Code, w.Body, c.status, c.want)
			}
			if !reflect.DeepEqual(b.synced, c.asked) {
				t.Errorf("the backend was asked %+v, want %+v", b.synced, c.asked)
			}
		})
	}
}

func TestSyncSaysWhyNothingIsKnown(t *testing.T) {
	b := newBackend()
	asPrimaryOfMail(b)
	b.syncErr = errors.New("the disk is away")
	s := newServer(t, b)
	w := httptest.NewRecorder()
	s.Handler(Local).ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/sync", strings.NewReader("{}")))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"error":"the disk is away"`) || !strings.Contains(w.Body.String(), `"directories":[]`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
