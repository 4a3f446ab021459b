package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/admin"
	"understudy/sidecar/reconcile"
)

// serve begins to answer the admin API.
func (p *parts) serve(ctx context.Context, g *errgroup.Group, loop *reconcile.Loop) error {
	authority, err := admin.NewAuthority(p.bundle.ClusterKey)
	if err != nil {
		return err
	}
	c := admin.Config{Log: p.log, Cluster: p.roster.Cluster, Backend: backend{loop, p.book}, Authority: authority}
	if p.cfg.Listen.Admin == "" {
		s := admin.NewServer(c)
		g.Go(func() error { return s.ServeSocket(ctx, p.cfg.Socket) })
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Listen.Admin)
	if err != nil {
		return fmt.Errorf("answer the admin API: %w", err)
	}
	cert, err := authority.Node(p.cfg.Node)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok {
		c.Port = uint16(at.Port)
	}
	others := map[string]string{}
	for node, at := range p.cfg.Peers {
		others[node] = net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(c.Port)))
	}
	c.Peers = func() map[string]string { return others }
	s := admin.NewServer(c)
	g.Go(func() error { return s.ServeTLS(ctx, l, cert) })
	g.Go(func() error { return s.ServeSocket(ctx, p.cfg.Socket) })
	return nil
}
