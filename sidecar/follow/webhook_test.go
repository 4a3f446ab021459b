package follow

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"understudy/bootstrap/secrets"
)

const (
	hookSecret = "a secret of the webhook"
	pushToMain = `{"ref": "refs/heads/main", "after": "4d5e6f"}`
)

func signed(body string) string {
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestOnlyAnAuthenticPushToTheBranchPokes(t *testing.T) {
	form := url.Values{"payload": {pushToMain}}.Encode()
	tests := []struct {
		name, method, body string
		header             map[string]string
		code               int
		says               string
	}{
		{"GitHub", "POST", pushToMain, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(pushToMain)}, 202, "branch main"},
		{"GitHub's form", "POST", form, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(form),
			"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, 202, "branch main"},
		{"Gitea", "POST", pushToMain, map[string]string{"X-Gitea-Event": "push", "X-Gitea-Signature": signed(pushToMain)}, 202, "branch main"},
		{"GitLab", "POST", pushToMain, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 202, "branch main"},
		{"ping", "POST", `{"zen": "x"}`, map[string]string{"X-GitHub-Event": "ping", "X-Hub-Signature-256": "sha256=" + signed(`{"zen": "x"}`)}, 200, "secret is right"},
		{"another event", "POST", pushToMain, map[string]string{"X-GitHub-Event": "issues", "X-Hub-Signature-256": "sha256=" + signed(pushToMain)}, 200, "issues"},
		{"no event", "POST", pushToMain, map[string]string{"X-Hub-Signature-256": "sha256=" + signed(pushToMain)}, 200, "only pushes"},
		{"another branch", "POST", `{"ref":"refs/heads/main2"}`, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 200, "refs/heads/main2"},
		{"a tag", "POST", `{"ref":"refs/tags/main"}`, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 200, "refs/tags/main"},
		{"no signature", "POST", pushToMain, map[string]string{"X-GitHub-Event": "push"}, 401, "secrets edit"},
		{"empty signature", "POST", pushToMain, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256="}, 401, "secrets edit"},
		{"signature of another body", "POST", pushToMain + " ", map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(pushToMain)}, 401, ""},
		{"half a signature", "POST", pushToMain, map[string]string{"X-Gitea-Event": "push", "X-Gitea-Signature": signed(pushToMain)[:32]}, 401, ""},
		{"SHA-1", "POST", pushToMain, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature": "sha1=" + signed(pushToMain)[:40]}, 401, ""},
		{"wrong token", "POST", pushToMain, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret + "x"}, 401, ""},
		{"wrong token beside a signature", "POST", pushToMain, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "x", "X-Gitea-Signature": signed(pushToMain)}, 401, ""},
		{"ping without the secret", "POST", "{}", map[string]string{"X-GitHub-Event": "ping"}, 401, ""},
		{"GET", "GET", "", nil, 405, "POST"},
		{"PUT", "PUT", pushToMain, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 405, "POST"},
		{"not JSON", "POST", "ref=main", map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 400, "not JSON"},
		{"no ref", "POST", "{}", map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 400, "no ref"},
		{"too large", "POST", strings.Repeat(" ", maxHook+1), map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 413, "polling"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pokes := 0
			h := Webhook(secrets.NewSecret(hookSecret), "main", func() { pokes++ })
			r := httptest.NewRequest(tt.method, "/", strings.NewReader(tt.body))
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if want := map[bool]int{true: 1}[tt.code == 202]; w.Code != tt.code || pokes != want {
				t.Errorf("got %d and %d pokes, want %d and %d: %s", w.Code, pokes, tt.code, want, w.Body)
			}
			if !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("got %q, want something with %q", w.Body, tt.says)
			}
			if strings.Contains(w.Body.String(), hookSecret) {
				t.Errorf("the secret is in the answer: %q", w.Body)
			}
		})
	}
}

func TestWithoutASecretNobodyIsBelieved(t *testing.T) {
	mac := hmac.New(sha256.New, nil)
	mac.Write([]byte(pushToMain))
	r := httptest.NewRequest("POST", "/", strings.NewReader(pushToMain))
	r.Header.Set("X-GitHub-Event", "push")
	r.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	w := httptest.NewRecorder()
	Webhook(secrets.Secret{}, "main", func() { t.Error("poked") }).ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", w.Code)
	}
}

func FuzzRefOf(f *testing.F) {
	f.Add("application/json", pushToMain)
	f.Add("application/x-www-form-urlencoded", "payload=%7B%22ref%22%3A%22x%22%7D")
	f.Add("application/x-www-form-urlencoded; a", "payload=%")
	f.Add("", `{"ref": 1}`)
	f.Fuzz(func(t *testing.T, contentType, body string) {
		ref, err := refOf(contentType, []byte(body))
		if (ref == "") != (err != nil) {
			t.Errorf("got %q, %v; want one of both", ref, err)
		}
	})
}
