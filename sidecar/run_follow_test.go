package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/config"
)

// nodeWithSigners is a node of the cluster blog whose image names an allowed signer.
func nodeWithSigners(t *testing.T) (n *node, bootstrapYAML string) {
	t.Helper()
	dir := t.TempDir()
	signers := filepath.Join(dir, "allowed_signers")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(signers, "ada@x ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINNwMHM8lLcve+HMdKmjaanRnkdOE0Sm3ZUxkjv5LTgg\n")
	bootstrapYAML = filepath.Join(dir, "bootstrap.yaml")
	write(bootstrapYAML, "sources: [https://git.example/c.git]\nbranch: production\nallowed_signers: "+signers+"\n")
	cfg := config.Default()
	cfg.State = dir
	return &node{cfg: cfg, log: slog.New(slog.DiscardHandler), roster: role.Roster{Cluster: "blog"}}, bootstrapYAML
}

func TestFollowerIsMadeFromWhatTheNodeWasToldAtBoot(t *testing.T) {
	n, path := nodeWithSigners(t)
	first := strings.Repeat("4d", 20)
	f, err := n.follow(path, first, following{})
	if err != nil {
		t.Fatal(err)
	}
	if s := f.State(); s.Head != first || s.Release != filepath.Join(n.cfg.State, "releases", first) {
		t.Errorf("got %+v, want the first commit and its release", s)
	}
	if _, err := n.follow(path, "", following{}); err == nil {
		t.Error("no first commit: got no error")
	}
	if err := os.WriteFile(filepath.Join(n.cfg.State, "allowed_signers"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := n.follow(path, first, following{}); err == nil || !strings.Contains(err.Error(), "who may sign commits") {
		t.Errorf("nobody may sign: got %v", err)
	}
	if f, err := n.follow(filepath.Join(n.cfg.State, "none"), first, following{}); f != nil || err != nil {
		t.Errorf("no bootstrap.yaml: got %v, %v; want nothing to follow", f, err)
	}
}

func TestWebhookIsServedWhereTheConfigurationSaysSo(t *testing.T) {
	n, _ := nodeWithSigners(t)
	const secret = "0123456789abcdef"
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ask := func() (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/", strings.NewReader(`{"ref": "refs/heads/production"}`))
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-Gitlab-Event", "Push Hook")
		req.Header.Set("X-Gitlab-Token", secret)
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	for _, tt := range []struct {
		listen, secret string
		code           int // zero: nobody listens
	}{{"", secret, 0}, {at, "", 0}, {at, secret, http.StatusAccepted}, {at, secret + "x", http.StatusUnauthorized}} {
		ctx, cancel := context.WithCancel(t.Context())
		g, ctx := errgroup.WithContext(ctx)
		n.cfg.Listen.Webhook, n.bundle.Webhook = tt.listen, secrets.NewSecret(tt.secret)
		pokes := 0
		if err := (&parts{node: n}).serveWebhook(ctx, g, "production", func() { pokes++ }); err != nil {
			t.Fatal(err)
		}
		code, err := ask()
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if code != tt.code || (err != nil) != (tt.code == 0) || (pokes > 0) != (tt.code == http.StatusAccepted) {
			t.Errorf("listen %q, secret %q: got %d, %v and %d pokes; want %d", tt.listen, tt.secret, code, err, pokes, tt.code)
		}
	}
}
