//go:build linux

package site

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/godo"
	"golang.org/x/oauth2"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/progress"
	"understudy/bootstrap/role"
)

// standin does, through the same API as everybody else, what sidecars will do: it creates the
// machines of the roster, gives each role's reserved address to its first node once that node is
// done, and publishes the names. It decides nothing and heals nothing; it goes when they come.
type standin struct {
	site *Site
	log  *slog.Logger
	api  *godo.Client

	mu    sync.Mutex
	names map[string]netip.Addr // published in the cluster's domain, without it
	nodes map[string]*Node
	err   error // why it cannot go on

	made  map[string]bool // "name address" of every record; only run's goroutine looks at it
	order []string        // the nodes in the roster's order; never changes
}

func newStandin(s *Site) *standin {
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		at, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		return s.net.Dial(ctx, at)
	}
	client := &http.Client{
		Transport: &oauth2.Transport{
			Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: s.token}),
			Base:   &http.Transport{DialContext: dial},
		},
		Timeout: 30 * time.Second,
	}
	api := godo.NewClient(client) // not NewFromToken: that one repeats POSTs
	api.BaseURL = &url.URL{Scheme: "http", Host: netip.AddrPortFrom(gateway, apiPort).String(), Path: "/"}
	st := &standin{site: s, log: s.log, api: api, names: map[string]netip.Addr{}, nodes: map[string]*Node{}, made: map[string]bool{}}
	for _, r := range s.roster.Roles {
		for i, name := range r.Nodes {
			st.nodes[name] = &Node{Name: name, Role: r.Name, First: i == 0}
			st.order = append(st.order, name)
		}
	}
	return st
}

// fail notes why no cluster will come, for Status.
func (st *standin) fail(err error) {
	st.log.Error("cannot create the cluster", "err", err)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.err = err
}

func (st *standin) failure() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err == nil {
		return ""
	}
	return st.err.Error()
}

func (st *standin) published(name string) (netip.Addr, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	name = strings.TrimSuffix(strings.TrimSuffix(name, "."), "."+st.site.roster.Domain)
	a, ok := st.names[name]
	return a, ok
}

func (st *standin) run(ctx context.Context) error {
	if err := st.create(ctx); err != nil && ctx.Err() == nil {
		st.fail(err)
		<-ctx.Done() // the cloud stays up, to be looked at
		return nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, n := range st.read() {
			if err := st.publish(ctx, n); err != nil && ctx.Err() == nil {
				st.log.Warn("cannot publish, will try again", "node", n.Name, "err", err)
			}
		}
	}
}

// create asks for everything: the zone and its first names, then all machines side by side.
func (st *standin) create(ctx context.Context) error {
	s := st.site
	if _, _, err := st.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: s.roster.Domain}); err != nil {
		return fmt.Errorf("create zone %s: %w", s.roster.Domain, err)
	}
	for _, r := range s.roster.Roles {
		if err := st.announce(ctx, r); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, node := range st.order {
		g.Go(func() error { return st.hire(ctx, node) })
	}
	return g.Wait()
}

// announce publishes the names of a role's reserved address.
func (st *standin) announce(ctx context.Context, r role.Role) error {
	if r.Address == nil || !r.Address.ReservedIP.IsValid() {
		return nil
	}
	ip := r.Address.ReservedIP
	for _, name := range r.Address.Names {
		if err := st.record(ctx, name, ip); err != nil {
			return err
		}
	}
	if r.Address.MX > 0 && len(r.Address.Names) > 0 {
		_, _, err := st.api.Domains.CreateRecord(ctx, st.site.roster.Domain, &godo.DomainRecordEditRequest{
			Type: "MX", Name: "@", Data: r.Address.Names[0] + "." + st.site.roster.Domain + ".", Priority: r.Address.MX, TTL: 60,
		})
		if err != nil {
			return fmt.Errorf("publish MX: %w", err)
		}
	}
	return nil
}

// record publishes an address under a name, once: the API takes a second POST for a second record.
func (st *standin) record(ctx context.Context, name string, addr netip.Addr) error {
	key := name + " " + addr.String()
	if st.made[key] {
		return nil
	}
	_, _, err := st.api.Domains.CreateRecord(ctx, st.site.roster.Domain, &godo.DomainRecordEditRequest{
		Type: "A", Name: name, Data: addr.String(), TTL: 60,
	})
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	st.made[key] = true
	st.mu.Lock()
	defer st.mu.Unlock()
	if _, ok := st.names[name]; !ok {
		st.names[name] = addr
	}
	return nil
}

// hire creates one machine for a node.
func (st *standin) hire(ctx context.Context, node string) error {
	userData, err := st.site.ticket(node)
	if err != nil {
		return err
	}
	p := st.site.roster.Provider
	d, _, err := st.api.Droplets.Create(ctx, &godo.DropletCreateRequest{
		Name: node, Region: p.Region, Size: p.Sizes[0], Image: godo.DropletCreateImage{ID: imageID},
		UserData: userData, Tags: []string{st.site.roster.Cluster},
	})
	if err != nil {
		return fmt.Errorf("create a machine for %s: %w", node, err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.nodes[node].Machine, st.nodes[node].Created = d.ID, time.Now()
	return nil
}

// read looks at how far each node's bootstrap has come and returns those newly done.
func (st *standin) read() []Node {
	st.mu.Lock()
	defer st.mu.Unlock()
	var done []Node
	for _, n := range st.nodes {
		if n.Machine == 0 || n.handled {
			continue
		}
		n.Power = st.site.machines.Running(n.Machine)
		data, err := st.site.machines.ReadFile(n.Machine, "/var/lib/understudy/bootstrap.json", 1<<20)
		if err != nil {
			continue // not there yet
		}
		b, err := progress.Parse(data)
		if err != nil {
			continue // as good as not there; the file is replaced whole, so this is a foreign one
		}
		n.Bootstrap = &b
		if b.Finished() {
			done = append(done, *n)
		}
	}
	slices.SortFunc(done, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return done
}

// publish gives a finished node what its role has to show.
func (st *standin) publish(ctx context.Context, n Node) error {
	r, err := st.site.roster.ForHost(n.Name)
	if err != nil {
		return err
	}
	m, ok := st.machine(n.Machine)
	if !ok {
		return fmt.Errorf("machine %d is gone", n.Machine)
	}
	// Until mirrors exist only the first node of a role with data has the data.
	if n.First || len(r.Data) == 0 {
		for _, name := range r.Names {
			if err := st.record(ctx, name, m); err != nil {
				return err
			}
		}
	}
	// Asked again after an error that came too late, the API refuses to give it to its holder.
	if n.First && r.Address != nil && r.Address.ReservedIP.IsValid() && st.site.cloud.Reserved()[r.Address.ReservedIP] != n.Machine {
		if _, _, err := st.api.ReservedIPActions.Assign(ctx, r.Address.ReservedIP.String(), n.Machine); err != nil {
			return fmt.Errorf("assign %s: %w", r.Address.ReservedIP, err)
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.nodes[n.Name].handled = true
	st.nodes[n.Name].Serving = time.Now()
	st.log.Info("node is done", "node", n.Name, "role", n.Role, "took", time.Since(n.Created).Round(time.Millisecond))
	return nil
}

func (st *standin) machine(id int) (netip.Addr, bool) {
	for _, m := range st.site.cloud.Machines() {
		if m.ID == id {
			return m.Private, true
		}
	}
	return netip.Addr{}, false
}

// list copies the nodes in the roster's order.
func (st *standin) list() []Node {
	st.mu.Lock()
	defer st.mu.Unlock()
	var all []Node
	for _, name := range st.order {
		all = append(all, *st.nodes[name])
	}
	return all
}
