package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/admin"
	"understudy/sidecar/peerlink"
)

// serveData begins to answer members' streams, and lets this node dial theirs. What they use is closed after the last of them.
func (p *parts) serveData(ctx context.Context, g *errgroup.Group, authority *admin.Authority) error {
	if p.cfg.Listen.Data == "" {
		if p.data != nil {
			p.log.Warn("the role's data are not mirrored: this node has no streams to others (listen: data is none)")
			g.Go(func() error { return p.data.keeper.Run(ctx) })
		}
		g.Go(func() error {
			<-ctx.Done()
			return p.journals.close()
		})
		return nil
	}
	links, err := peerlink.New(p.log, authority, p.cfg.Node)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Listen.Data)
	if err != nil {
		return fmt.Errorf("answer members' streams: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok {
		p.dataPort = uint16(at.Port)
	}
	p.links = links
	protocols := map[string]peerlink.Handler{peerlink.Journal: p.journals.hold, peerlink.Control: p.serveControl}
	if p.data != nil {
		protocols[peerlink.Mirror] = p.serveMirror
		g.Go(func() error { return p.data.keeper.Run(ctx) })
	}
	g.Go(func() error {
		return errors.Join(links.Serve(ctx, l, protocols), p.journals.close())
	})
	return nil
}

// serveMirror offers this node's data to the other node of its role.
func (p *parts) serveMirror(ctx context.Context, peer string, conn net.Conn) error {
	if !slices.Contains(p.role.Nodes, peer) {
		return fmt.Errorf("%s is no node of %s", peer, p.role.Name)
	}
	return p.data.keeper.Serve(ctx, peer, conn)
}

// dial opens a stream to a member.
func (p *parts) dial(ctx context.Context, node, protocol string) (net.Conn, error) {
	if p.links == nil {
		return nil, errors.New("this node has no streams to others (listen: data is none)")
	}
	at := p.addressOf(node)
	if !at.IsValid() {
		return nil, fmt.Errorf("where %s is is not known here", node)
	}
	return p.links.Dial(ctx, netip.AddrPortFrom(at, p.dataPort).String(), node, protocol)
}

// addressOf is a member's address as configured, or as it says, or as it claimed. Invalid: not known.
func (p *parts) addressOf(node string) netip.Addr {
	if at, ok := p.cfg.Peers[node]; ok {
		return at.Addr()
	}
	_, v, _, _ := p.snapshot()
	if said := v.Peers[node].Said.Private; said.IsValid() {
		return said
	}
	return v.Ledger.Claims[node].Private
}

// hears reports whether a member's beats come in.
func (p *parts) hears(node string) bool {
	_, v, _, _ := p.snapshot()
	at := v.Peers[node].Heard
	return at != 0 && v.Now.Sub(at) < p.policy.Timings.Detection
}
