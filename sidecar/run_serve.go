package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/metrics"
	"understudy/sidecar/chaos"
	"understudy/sidecar/reconcile"
)

// serve begins to answer the admin API, and Prometheus where the configuration wants that.
func (p *parts) serve(ctx context.Context, g *errgroup.Group, loop *reconcile.Loop) error {
	authority, err := admin.NewAuthority(p.bundle.ClusterKey)
	if err != nil {
		return err
	}
	if p.control, err = p.copyOfControl(); err != nil {
		return err
	}
	if err := p.serveJoins(ctx, g); err != nil {
		return err
	}
	if err := p.serveData(ctx, g, authority); err != nil {
		return err
	}
	if err := p.servePuppet(ctx, g); err != nil {
		return err
	}
	samples := metrics.Handler(metrics.Config{Log: p.log, Snapshot: loop.Snapshot, Beats: p.beats, Journal: p.journals.state, Data: p.data.told, Runs: p.puppet.ran(), Looks: p.puppet.looks(), Version: version()})
	c := admin.Config{Journal: p.journals.state, Log: p.log, Cluster: p.roster.Cluster, Backend: backend{loop, p.book, p.chaos(loop), p.data, p.puppet}, Authority: authority, Metrics: samples}
	if p.cfg.Listen.Admin == "" {
		s := admin.NewServer(c)
		g.Go(func() error { return s.ServeSocket(ctx, p.cfg.Socket) })
		return p.serveMetrics(ctx, g, samples)
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
	return p.serveMetrics(ctx, g, samples)
}

// chaos makes what carries out orders to destroy a machine.
func (p *parts) chaos(loop *reconcile.Loop) *chaos.Destroyer {
	if p.provider == nil || p.book == nil {
		return nil
	}
	status := func() admin.Status {
		policy, view, decision, at := loop.Snapshot()
		return admin.NewStatus(policy, view, decision).Dated(at, time.Now())
	}
	return chaos.New(chaos.Config{
		Log: p.log, Machine: p.me.machine, Tag: p.roster.Cluster, Status: status, Ledger: p.book.Ledger, Provider: p.provider, Now: p.clock.Now,
	})
}

// serveMetrics answers Prometheus on loopback, without TLS.
func (p *parts) serveMetrics(ctx context.Context, g *errgroup.Group, samples http.Handler) error {
	if p.cfg.Listen.Metrics == "" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Listen.Metrics)
	if err != nil {
		return fmt.Errorf("answer Prometheus: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", samples)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	g.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("answer Prometheus: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
	return nil
}
