package follow

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"understudy/bootstrap/secrets"
)

// maxHook bounds the body of a webhook. A push of so many commits that it is larger is noticed by polling.
const maxHook = 1 << 20

// Webhook answers GitHub's, Gitea's (Forgejo's) and GitLab's webhooks at every path: a push to the branch calls poke, which must
// not block. What comes is believed only with the secret: GitHub and Gitea sign the body with it (HMAC-SHA256), GitLab sends it
// along, so put TLS in front. Nothing of the body is used but the event's branch; what is there is for the Follower to find out.
//
// It answers 202 to a push to the branch, 200 to what needs nothing done (a ping, another branch), 401 without the secret, 405 to
// all but POST, 413 to more than 1 MiB, 400 to what is no webhook.
func Webhook(secret secrets.Secret, branch string, poke func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, text := receive(w, r, secret, branch)
		if code == http.StatusAccepted {
			poke()
		}
		if code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		http.Error(w, text, code)
	})
}

// receive judges one request.
func receive(w http.ResponseWriter, r *http.Request, secret secrets.Secret, branch string) (code int, text string) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, "this is Understudy's webhook: POST a push event of GitHub, Gitea or GitLab here"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHook))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes: this push is noticed by polling", maxHook)
	}
	if err != nil {
		return http.StatusBadRequest, "the body ended early"
	}
	if !authentic(r.Header, body, secret) {
		return http.StatusUnauthorized, "the signature or token is missing or wrong: give the webhook the secret that stands under the key " +
			"webhook in secrets.age (understudy secrets edit)"
	}
	switch event := eventOf(r.Header); event {
	case "push":
	case "ping":
		return http.StatusOK, "pong: the secret is right"
	default:
		return http.StatusOK, fmt.Sprintf("nothing to do for the event %.40q: only pushes count", event)
	}
	ref, err := refOf(r.Header.Get("Content-Type"), body)
	if err != nil {
		return http.StatusBadRequest, "not a push event: " + err.Error()
	}
	if ref != "refs/heads/"+branch {
		return http.StatusOK, fmt.Sprintf("nothing to do for %.100q: this cluster follows the branch %s", ref, branch)
	}
	return http.StatusAccepted, "looking at the branch " + branch
}

// authentic says whether the sender knows the secret, in time that tells nothing about it.
func authentic(h http.Header, body []byte, secret secrets.Secret) bool {
	if secret.IsZero() {
		return false
	}
	if token := h.Get("X-Gitlab-Token"); token != "" {
		return secrets.NewSecret(token).Equal(secret)
	}
	signature, ok := strings.CutPrefix(h.Get("X-Hub-Signature-256"), "sha256=")
	if !ok {
		signature = h.Get("X-Gitea-Signature")
	}
	given, err := hex.DecodeString(signature)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write(body)
	return hmac.Equal(given, mac.Sum(nil))
}

// eventOf is the kind of event in GitHub's words. Gitea sends GitHub's header, too, but older ones did not.
func eventOf(h http.Header) string {
	for _, name := range []string{"X-Github-Event", "X-Gitea-Event", "X-Gitlab-Event"} {
		if event := h.Get(name); event != "" {
			return strings.TrimSuffix(strings.ToLower(event), " hook") // GitLab: Push Hook
		}
	}
	return ""
}

// refOf is what a push event says was pushed to. GitHub wraps the JSON in a form unless told otherwise.
func refOf(contentType string, body []byte) (string, error) {
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return "", errors.New("the form cannot be read")
		}
		body = []byte(form.Get("payload"))
	}
	var push struct {
		Ref string `json:"ref"`
	}
	if err := json.Unmarshal(body, &push); err != nil {
		return "", errors.New("the body is not JSON")
	}
	if push.Ref == "" {
		return "", errors.New("it names no ref")
	}
	return push.Ref, nil
}
