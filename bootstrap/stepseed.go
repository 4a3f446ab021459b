package main

import (
	"context"
	"fmt"
	"net"

	"understudy/bootstrap/progress"
	"understudy/bootstrap/secrets"
)

const launchAgain = "run understudy launch again: it goes on with this machine"

// beSeed waits until the operator has handed over the cluster's identity: this is the first machine, and there is no peer to ask.
func (b *boot) beSeed(ctx context.Context, seed secrets.Seed) (string, error) {
	switch {
	case seed.Node != b.engine.record.Node:
		return "", failf(exitJoinRefused, "create it again with understudy launch", "this machine shall begin cluster %s as %s, and it is %s",
			seed.Cluster, seed.Node, b.engine.record.Node)
	case b.noop:
		return "would wait for the operator to hand over the identity of cluster " + seed.Cluster, nil
	}
	// Before the identity: from then on nobody tells us again what we are.
	if err := writeFile(b.at.seed, nil, 0o644, durable); err != nil {
		return "", fmt.Errorf("note that this machine begins the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.Patience.Join, fmt.Errorf("waited for %v", b.cfg.Patience.Join))
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", b.at.handover)
	if err != nil {
		return "", fmt.Errorf("wait for the operator: %w", err)
	}
	b.engine.say(progress.Join, fmt.Sprintf("waiting for understudy launch to hand over the identity of cluster %s, on TCP port %d",
		seed.Cluster, l.Addr().(*net.TCPAddr).Port))
	strange := func(err error) { b.log.Warn("a connection that handed nothing over", "err", err) }
	err = seed.Receive(ctx, l, strange, func(m secrets.Membership) error { return secrets.SaveMembership(b.at.state, m) })
	if err != nil {
		return "", fail(exitJoinUnreachable, fmt.Errorf("nobody has handed over the identity of cluster %s: %w", seed.Cluster, err), launchAgain)
	}
	return "the first member of cluster " + seed.Cluster, nil
}

// letSidecarBegin tells the service manager, on a cluster's first machine, that what is ordered after us may start: all that other
// roles must provide, and all other nodes, come only once the sidecar here has hired machines for them. What the sidecar needs
// (identity, roles.yaml, secrets.age) is here by now; it holds no duty of a role before Puppet has run.
func (b *boot) letSidecarBegin() {
	if !b.noop && exists(b.at.seed) {
		b.engine.notify.ready()
	}
}
