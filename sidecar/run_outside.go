package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/health"
)

// target is a node of this one's role whose services are looked at from here. Zero: none.
type target struct {
	node string
	addr netip.Addr
	acts bool // it has the role's duty, so the checks of a primary apply
}

// yields is the node that this one gives leave to apply a commit.
func (p *parts) yields() target {
	_, v, d, _ := p.snapshot()
	node := d.Say.Rollout.Yield
	if node == "" {
		return target{}
	}
	said := v.Peers[node].Said
	acts := slices.ContainsFunc(said.Holds, func(h cluster.Hold) bool {
		return h.Duty == p.role.Name && (h.State == cluster.Held || h.State == cluster.Offered)
	})
	return target{node: node, addr: said.Private, acts: acts}
}

// outside looks at another node's services over the network, with those of the role's checks that can be asked so. A check that never
// passed from here, because the service listens for its own machine only or a filter is between, says nothing; one that did, and does
// not any more, is a service that others have lost, whatever its own node says.
type outside struct {
	role role.Role
	log  *slog.Logger
	news chan struct{} // has one element after watch has changed what is wanted

	mu      sync.Mutex
	want    target
	of      target          // what follows is about
	reached map[string]bool // checks that have passed
	lost    bool
}

func newOutside(r role.Role, log *slog.Logger) *outside {
	return &outside{role: r, log: log, news: make(chan struct{}, 1)}
}

// watch says what to look at. What was seen of another target is forgotten.
func (o *outside) watch(t target) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want == t {
		return
	}
	o.want = t
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// unreached is the node that was reached and is not now. Empty: none.
func (o *outside) unreached() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost && o.of == o.want {
		return o.of.node
	}
	return ""
}

// run looks until ctx ends.
func (o *outside) run(ctx context.Context) error {
	for ctx.Err() == nil {
		o.mu.Lock()
		o.of, o.reached, o.lost = o.want, map[string]bool{}, false
		t := o.of
		o.mu.Unlock()
		o.look(ctx, t)
	}
	return nil
}

// Two bad looks are seen before a node that has just applied a commit counts as well (decide's bake, 3s).
const outsideEvery, outsideTimeout, outsideBad = 500 * time.Millisecond, 800 * time.Millisecond, 2

// look looks at one target until another is wanted.
func (o *outside) look(ctx context.Context, t target) {
	primary, standby := checked(o.role)
	checks := standby
	if t.acts {
		checks = primary
	}
	checks = fromOutside(checks, t.addr)
	if t.node == "" || checks.IsZero() {
		select {
		case <-ctx.Done():
		case <-o.news:
		}
		return
	}
	c := health.New(checks, health.Options{Every: outsideEvery, Timeout: outsideTimeout, Bad: outsideBad, Good: 1, Log: slog.New(slog.DiscardHandler)})
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() { _ = c.Run(ctx) }) // its error is always nil
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.news:
			return
		case <-c.Changed():
			_, all := c.Result()
			o.seen(t, all)
		}
	}
}

// seen takes over what was found.
func (o *outside) seen(t target, checks []health.Check) {
	lost, why := false, ""
	o.mu.Lock()
	for _, c := range checks {
		if c.OK {
			o.reached[c.Name] = true
		} else if c.Health == cluster.Unhealthy && o.reached[c.Name] {
			lost, why = true, c.Name+": "+c.Why
		}
	}
	news := o.lost != lost
	o.lost = lost
	o.mu.Unlock()
	switch {
	case news && lost:
		o.log.Warn("a node that may be applying a commit is not reached any more", "node", t.node, "check", why)
	case news:
		o.log.Info("the node is reached again", "node", t.node)
	}
}

// fromOutside are the checks that can be asked of another node at its address: those that each node asks of itself by a loopback address.
func fromOutside(h role.Health, addr netip.Addr) (out role.Health) {
	if !addr.IsValid() {
		return out
	}
	for _, target := range h.HTTP {
		u, err := url.Parse(target)
		if err != nil || !isLoopback(u.Hostname()) {
			continue
		}
		if host := addr.String(); u.Port() != "" {
			u.Host = net.JoinHostPort(host, u.Port())
		} else if u.Host = host; addr.Is6() {
			u.Host = "[" + host + "]"
		}
		out.HTTP = append(out.HTTP, u.String())
	}
	for _, target := range h.TCP {
		if host, port, err := net.SplitHostPort(target); err == nil && isLoopback(host) {
			out.TCP = append(out.TCP, net.JoinHostPort(addr.String(), port))
		}
	}
	return out
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
