package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	boot "understudy/bootstrap/config"
	"understudy/bootstrap/control"
	"understudy/bootstrap/secrets"
	pushes "understudy/sidecar/follow" // the package has a function of that name
)

// following is what the follower of the control repo needs from the rest of the sidecar.
type following struct {
	peers    func() []pushes.Peer // living members that serve their copy
	keep     func() []string      // commits whose releases are in use
	accepted func()               // called when a new commit is accepted
	may      func(pushes.Candidate) error
}

// follow makes the follower of the branch that this machine was booted from, whose commit is first. It is nil, and nothing is
// wrong, where bootstrap's configuration is not there: on machines whose roster is given by hand.
func (n *node) follow(path, first string, f following) (*pushes.Follower, error) {
	cfg, err := boot.Load(path)
	if errors.Is(err, os.ErrNotExist) {
		n.log.Warn("pushes are not followed: there is no control repo to follow", "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("where pushes come from: %w", err)
	}
	signers, oldest, err := n.signers(cfg.AllowedSigners)
	if err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(n.cfg.State, name) }
	repo, err := control.Open(at("control.git"), at("releases"), control.Options{Log: n.log, Oldest: oldest})
	if err != nil {
		return nil, err
	}
	return pushes.New(pushes.Config{
		Repo: repo, Branch: cfg.Branch, Cluster: n.roster.Cluster, Signers: signers, StateFile: at("control.json"), First: first, Log: n.log,
		Origins: cfg.Sources, // without the copy in the image, which is as old as that and would pass for the branch set back
		Peers:   f.peers, Keep: f.keep, Accepted: f.accepted, May: f.may,
	})
}

// signers are those whom the cluster named at the join, else those of the image, as bootstrap has it.
func (n *node) signers(ofImage string) (signers control.Signers, oldest string, err error) {
	m, err := secrets.LoadMembership(n.cfg.Membership())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return signers, "", fmt.Errorf("who may sign commits: %w", err)
	}
	if len(m.AllowedSigners) > 0 {
		signers, err = control.ParseSigners(filepath.Join(n.cfg.Membership(), "allowed_signers"), m.AllowedSigners)
	} else {
		signers, err = control.LoadSigners(ofImage)
	}
	if err != nil {
		return signers, "", fmt.Errorf("who may sign commits: %w", err)
	}
	return signers, m.OldestCommit, nil
}

// serveWebhook lets a git server say that it was pushed to, where the configuration wants that.
func (p *parts) serveWebhook(ctx context.Context, g *errgroup.Group, branch string, poke func()) error {
	if p.cfg.Listen.Webhook == "" {
		return nil
	}
	if p.bundle.Webhook.IsZero() {
		p.log.Warn("the webhook is not served: secrets.age has no key webhook; add it with understudy secrets edit")
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Listen.Webhook)
	if err != nil {
		return fmt.Errorf("serve the webhook: %w", err)
	}
	const atOnce = 16 // connections; everybody may open them
	s := &http.Server{
		Handler:           pushes.Webhook(p.bundle.Webhook, branch, poke),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	g.Go(func() error {
		if err := s.Serve(netutil.LimitListener(l, atOnce)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the webhook: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
	return nil
}
