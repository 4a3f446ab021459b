package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"understudy/bootstrap/control"
	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	pushes "understudy/sidecar/follow"
	"understudy/sidecar/peerlink"
)

// controlPeerTimeout is the time one member gets to hand the control repo over; there are others.
const controlPeerTimeout = time.Minute

// copyOfControl serves this node's copy of the control repo. A node that has none says so to whoever asks.
func (p *parts) copyOfControl() (http.Handler, error) {
	r, err := control.Open(filepath.Join(p.cfg.State, "control.git"), filepath.Join(p.cfg.State, "releases"), control.Options{Log: p.log})
	if err != nil {
		return nil, err
	}
	return r.Handler(), nil
}

// serveControl answers the HTTP requests that a member makes on one stream.
func (p *parts) serveControl(ctx context.Context, _ string, conn net.Conn) error {
	l := &single{conn: conn, gone: make(chan struct{})}
	s := &http.Server{
		Handler: p.control, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				l.Close()
			}
		},
	}
	if err := s.Serve(l); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// single is a listener that one connection comes to, and which ends with it.
type single struct {
	conn net.Conn
	once sync.Once
	end  sync.Once
	gone chan struct{}
}

// Accept implements net.Listener. What it returns is no *tls.Conn to net/http, which would look for an HTTP of the stream's protocol.
func (l *single) Accept() (net.Conn, error) {
	var conn net.Conn
	l.once.Do(func() { conn = struct{ net.Conn }{l.conn} })
	if conn != nil {
		return conn, nil
	}
	<-l.gone
	return nil, io.EOF
}

// Close implements net.Listener.
func (l *single) Close() error {
	l.end.Do(func() { close(l.gone) })
	return nil
}

// Addr implements net.Listener.
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// controlPeers are the members that can be asked for the control repo now, each by a stream of its own: those to follow beside the origin.
// This node's own role comes first: its nodes are the likeliest to have the commit that this one wants.
func (p *parts) controlPeers() []pushes.Peer {
	_, v, _, _ := p.snapshot()
	nodes := append(slices.Clone(p.role.Nodes), p.roster.Nodes()...)
	var all []pushes.Peer
	asked := map[string]bool{p.cfg.Node: true}
	for _, node := range nodes {
		if asked[node] || p.links == nil || !p.hears(node) {
			continue
		}
		asked[node] = true
		all = append(all, pushes.Peer{Name: node, Source: p.controlOf(node), Head: v.Peers[node].Said.Rollout.Head})
	}
	return all
}

// controlOf is a member's copy of the control repo.
func (p *parts) controlOf(node string) control.Source {
	return control.Source{URL: "http://" + node + "/", Timeout: controlPeerTimeout, Client: &http.Client{
		Transport: &http.Transport{
			DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, node, peerlink.Control) },
			ResponseHeaderTimeout: controlPeerTimeout, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// goodCommit is the commit that a new machine of a node shall take: the one that most living nodes of its role have applied, else
// this node's own. A commit that is known to be bad, or on trial, or that has no such node, counts for nothing. Empty: none is known, so
// the branch's newest.
func (p *parts) goodCommit(node string) string {
	_, v, d, _ := p.snapshot()
	said := map[string]cluster.Announcement{p.cfg.Node: d.Say}
	for peer := range v.Peers {
		if peer != node && p.hears(peer) {
			said[peer] = v.Peers[peer].Said
		}
	}
	bad := map[string]bool{}
	for _, a := range said {
		for _, b := range a.Rollout.Bad {
			bad[b.Commit] = true
		}
	}
	good := func(a cluster.Announcement) bool {
		return len(a.Commit) == 40 && !bad[a.Commit] && a.Rollout.Ask != a.Commit && !p.lacks(a.Commit, node)
	}
	own := ""
	if a := said[p.cfg.Node]; good(a) {
		own = a.Commit
	}
	counts := map[string]int{}
	if r, err := p.roster.ForHost(node); err == nil {
		for _, other := range r.Nodes {
			if a, ok := said[other]; ok && good(a) {
				counts[a.Commit]++
			}
		}
	}
	best := own
	for _, commit := range slices.Sorted(maps.Keys(counts)) {
		if counts[commit] > counts[best] {
			best = commit
		}
	}
	return best
}

// lacks reports whether it is known here that a commit has no role for a node: its machine could not be one by that commit.
func (p *parts) lacks(commit, node string) bool {
	data, err := os.ReadFile(filepath.Join(p.cfg.State, "releases", commit, "roles.yaml"))
	if err != nil {
		return false // the release is not on this node
	}
	r, err := role.Parse("roles.yaml", data)
	if err == nil {
		_, err = r.ForHost(node)
	}
	return err != nil
}
