package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/reconcile"
)

// ticketLife is for how long a new machine may join: longer than one may take to boot.
const ticketLife = 15 * time.Minute

// mostJoinPeers are named in a ticket, this node among them.
const mostJoinPeers = 8

// hiring says what a node's new machine shall be. It asks nobody.
func (p *parts) hiring(node string) (cloud.Hiring, error) {
	_, pin, err := secrets.ServerIdentity(p.bundle.ClusterKey)
	if err != nil {
		return cloud.Hiring{}, fmt.Errorf("a ticket for %s: %w", node, err)
	}
	t, err := secrets.IssueTicket(p.bundle.ClusterKey, secrets.Ticket{
		Cluster: p.roster.Cluster, Node: node, Expires: p.clock.Now().Add(ticketLife), Peers: p.joinPeers(node), Pin: pin,
	})
	if err != nil {
		return cloud.Hiring{}, err
	}
	of := p.roster.Provider
	return cloud.Hiring{Region: of.Region, Sizes: of.Sizes, Image: of.Image, SSHKeys: of.SSHKeys, UserData: t.UserData()}, nil
}

// joinPeers are who a newcomer can ask for the identity: this node first, then whoever is heard.
func (p *parts) joinPeers(newcomer string) []string {
	at := func(a netip.Addr) string { return net.JoinHostPort(a.String(), strconv.Itoa(int(p.joinPort))) }
	peers := []string{at(p.me.private)}
	_, v, _, _ := p.loop.Snapshot()
	for _, k := range p.policy.Nodes {
		said := v.Peers[k].Said
		if k != newcomer && said.Private.IsValid() && said.Voting && v.Now.Sub(v.Peers[k].Heard) < p.policy.Timings.Detection && len(peers) < mostJoinPeers {
			peers = append(peers, at(said.Private))
		}
	}
	return peers
}

// serveJoins hands the cluster's identity to machines that show a ticket, and the control repo to those that have it.
func (p *parts) serveJoins(ctx context.Context, g *errgroup.Group) error {
	if p.cfg.Listen.Join == "" || p.provider == nil || p.book == nil {
		return nil // nobody could be checked, so nobody joins here
	}
	cert, _, err := secrets.ServerIdentity(p.bundle.ClusterKey)
	if err != nil {
		return fmt.Errorf("serve joins: %w", err)
	}
	srv, err := secrets.NewJoinServer(secrets.JoinConfig{
		Log: p.log, Cluster: p.roster.Cluster, ClusterKey: p.bundle.ClusterKey, Certificate: cert,
		Membership: p.membershipFor, Control: p.control, Source: p.checkNewcomer, Used: spent{p.book},
	})
	if err != nil {
		return fmt.Errorf("serve joins: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Listen.Join)
	if err != nil {
		return fmt.Errorf("serve joins: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok {
		p.joinPort = uint16(at.Port)
	}
	g.Go(func() error { return srv.Serve(ctx, l) })
	return nil
}

// membershipFor is this node's membership with the commit that a new machine of a node shall take.
func (p *parts) membershipFor(_ context.Context, node string) (secrets.Membership, error) {
	m, err := secrets.LoadMembership(p.cfg.Membership())
	m.Commit = p.goodCommit(node)
	return m, err
}

// checkNewcomer asks the provider, by ID, whether the caller is the machine that the ticket was made for.
func (p *parts) checkNewcomer(ctx context.Context, t secrets.Ticket, remote netip.AddrPort, machineID string) error {
	m, err := p.provider.Get(ctx, machineID)
	from := remote.Addr().Unmap()
	switch {
	case err != nil:
		return err
	case m.Power == cluster.PowerGone || !m.Private.IsValid() && !m.Public.IsValid():
		return errors.New("the provider does not know the machine, or its addresses, yet")
	case m.Name != t.Node || !slices.Contains(m.Tags, p.roster.Cluster):
		return fmt.Errorf("%w: machine %s is called %s and has the tags %v", secrets.ErrWrongSource, machineID, m.Name, m.Tags)
	case from != m.Private && from != m.Public:
		return fmt.Errorf("%w: machine %s is not at %s", secrets.ErrWrongSource, machineID, from)
	}
	return nil
}

// spent remembers in the ledger which tickets were used.
type spent struct{ book *book }

func (s spent) Claim(ctx context.Context, nonce, recipient string) error {
	err := taken(s.book.SpendTicket(ctx, nonce, recipient))
	if errors.Is(err, reconcile.ErrTaken) {
		return secrets.ErrUsed
	}
	return err
}
