package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"understudy/sidecar/admin"
)

// probeWithin is how long a machine may take to say that it is alive: a handshake and an answer from memory, over the internet.
const probeWithin = 2 * time.Second

// prober asks sidecars at their machines' public addresses whether they are alive.
type prober struct {
	authority *admin.Authority
	self      string // who asks
	port      string // of everybody's admin API
}

// probe returns nil if the node's own sidecar answers at an address and its loop turns. That is what only a living sidecar can
// say: it proves by its certificate that it has the cluster key, names itself, and tells the age of its newest turn. A kernel
// whose sidecar hangs still opens connections, and a sidecar whose loop hangs still shakes hands.
func (p prober) probe(ctx context.Context, node string, at netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	cert, err := p.authority.Node(p.self)
	if err != nil {
		return err
	}
	c := admin.NewTLSClient(net.JoinHostPort(at.String(), p.port), p.authority.Client(cert))
	defer c.Close()
	st, err := c.Status(ctx)
	switch {
	case err != nil:
		return err
	case st.Node != node:
		return fmt.Errorf("%s is %s, not %s", at, st.Node, node)
	case st.Hangs():
		return fmt.Errorf("the sidecar of %s has not looked around for %s", node, admin.Words(time.Duration(st.Age)))
	}
	return nil
}

// prober makes one, if members answer over the network at all.
func (p *parts) prober() (func(context.Context, string, netip.Addr) error, error) {
	_, port, err := net.SplitHostPort(p.cfg.Listen.Admin)
	if err != nil || port == "0" {
		return nil, nil // none, or one that nobody else knows
	}
	authority, err := admin.NewAuthority(p.bundle.ClusterKey)
	if err != nil {
		return nil, err
	}
	return prober{authority, p.cfg.Node, port}.probe, nil
}
