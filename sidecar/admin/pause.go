package admin

import (
	"context"
	"crypto/tls"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/decide"
)

// Pausing is the answer to pause and resume, of one node.
type Pausing struct {
	Node   string `json:"node"`
	Paused bool   `json:"paused"`
	// Error is why the order did not reach the node; then Paused says nothing.
	Error string `json:"error,omitempty"`
	// Others is what became of the order elsewhere, in the roster's order.
	Others []Pausing `json:"others"`
}

const (
	// relayTimeout is how long a peer may take to obey.
	relayTimeout = 4 * time.Second
	// relaysAtOnce bounds the connections that one order opens.
	relaysAtOnce = 16
)

func (s *Server) pause(r *http.Request, pause bool) (Pausing, error) {
	var asked Pause
	if err := decode(r.Body, &asked); err != nil {
		return Pausing{}, badRequest(err)
	}
	p, v, d, _, err := s.turn()
	if err != nil {
		return Pausing{}, err
	}
	s.cfg.Backend.Order(func(o *decide.Orders) { o.Pause = pause })
	s.cfg.Log.Info("an operator gave an order", "pause", pause, "everywhere", asked.Everywhere)
	answer := Pausing{Node: p.Self, Paused: pause, Others: []Pausing{}}
	if asked.Everywhere {
		answer.Others, err = s.relay(r.Context(), builder{p: p, v: v, d: d}, pause)
	}
	return answer, err
}

// relay passes the order on to all other members, side by side: one that is gone must not keep it from the rest.
func (s *Server) relay(ctx context.Context, b builder, pause bool) ([]Pausing, error) {
	tls, err := s.peerTLS(b.p.Self)
	if err != nil {
		return nil, err
	}
	addrs := s.addresses(b)
	to := slices.DeleteFunc(b.members(), func(n string) bool { return n == b.p.Self })
	out := make([]Pausing, len(to))
	var g errgroup.Group
	g.SetLimit(relaysAtOnce)
	for i, name := range to {
		g.Go(func() error {
			out[i] = relayTo(ctx, tls, name, addrs[name], pause)
			return nil // told in the answer
		})
	}
	_ = g.Wait() // nothing fails
	return out, nil
}

// peerTLS is how this node asks others.
func (s *Server) peerTLS(self string) (*tls.Config, error) {
	if s.cfg.Authority == nil {
		return nil, problem(http.StatusServiceUnavailable, "no key", "%s has no cluster key and cannot ask the others", self)
	}
	own, err := s.cfg.Authority.Node(self)
	if err != nil {
		return nil, err
	}
	return s.cfg.Authority.Client(own), nil
}

// addresses says where the members' admin API is, as far as that is known.
func (s *Server) addresses(b builder) map[string]string {
	out := map[string]string{}
	for _, name := range b.members() {
		if a := b.node(name, decide.Role{}).Address; a.IsValid() {
			out[name] = netip.AddrPortFrom(a, s.cfg.Port).String()
		}
	}
	if s.cfg.Peers != nil {
		maps.Copy(out, s.cfg.Peers())
	}
	return out
}

func relayTo(ctx context.Context, tls *tls.Config, name, addr string, pause bool) Pausing {
	if addr == "" {
		return Pausing{Node: name, Error: "its address is not known here", Others: []Pausing{}}
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	c := NewTLSClient(addr, tls)
	defer c.Close()
	order := c.Resume
	if pause {
		order = c.Pause
	}
	got, err := order(ctx, Pause{})
	switch {
	case err != nil:
		return Pausing{Node: name, Error: err.Error(), Others: []Pausing{}}
	case got.Node != name:
		return Pausing{Node: name, Error: addr + " is " + got.Node + ", which obeyed", Others: []Pausing{}}
	}
	return got
}
