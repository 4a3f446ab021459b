//go:build linux

package site

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
)

const ticketLife = 30 * time.Minute

// serveJoins makes the cloud the first peer: it hands the cluster's identity to machines that show a
// ticket of ours, as sidecars do once there are any.
func (s *Site) serveJoins(ctx context.Context, g *errgroup.Group) error {
	cert, _, err := secrets.ServerIdentity(s.keys.bundle.ClusterKey)
	if err != nil {
		return fmt.Errorf("serve joins: %w", err)
	}
	srv, err := secrets.NewJoinServer(secrets.JoinConfig{
		Log: s.log, Cluster: s.roster.Cluster, ClusterKey: s.keys.bundle.ClusterKey, Certificate: cert,
		Membership: func(context.Context) (secrets.Membership, error) {
			return secrets.Membership{Identity: s.keys.cluster, AllowedSigners: s.keys.signers}, nil
		},
		Source: s.checkSource,
		Used:   &secrets.MemoryUsed{},
	})
	if err != nil {
		return fmt.Errorf("serve joins: %w", err)
	}
	l, err := s.net.Listen(ctx, netip.AddrPortFrom(gateway, joinPort).String())
	if err != nil {
		return err
	}
	g.Go(func() error { return srv.Serve(ctx, l) })
	return nil
}

// checkSource asks the provider's own records whether the caller is the machine that the ticket was
// made for.
func (s *Site) checkSource(_ context.Context, t secrets.Ticket, remote netip.AddrPort, machineID string) error {
	m, ok := s.cloud.MachineByAddr(remote.Addr().Unmap())
	switch {
	case !ok:
		return fmt.Errorf("%w: no machine has the address %s", secrets.ErrWrongSource, remote.Addr())
	case m.Name != t.Node:
		return fmt.Errorf("%w: the machine at %s is %s, not %s", secrets.ErrWrongSource, remote.Addr(), m.Name, t.Node)
	case machineID != strconv.Itoa(m.ID):
		return fmt.Errorf("%w: the machine at %s is %d and calls itself %s", secrets.ErrWrongSource, remote.Addr(), m.ID, machineID)
	}
	return nil
}

// ticket is the user data for one new machine of a node.
func (s *Site) ticket(node string) (string, error) {
	_, pin, err := secrets.ServerIdentity(s.keys.bundle.ClusterKey)
	if err != nil {
		return "", fmt.Errorf("ticket for %s: %w", node, err)
	}
	t, err := secrets.IssueTicket(s.keys.bundle.ClusterKey, secrets.Ticket{
		Cluster: s.roster.Cluster, Node: node, Expires: time.Now().Add(ticketLife),
		Peers: []string{netip.AddrPortFrom(gateway, joinPort).String()}, Pin: pin,
	})
	if err != nil {
		return "", fmt.Errorf("ticket for %s: %w", node, err)
	}
	return t.UserData(), nil
}
