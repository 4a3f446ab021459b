//go:build linux

package site

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/digitalocean/godo"
	"golang.org/x/crypto/ssh"
	"golang.org/x/oauth2"
	"golang.org/x/sync/errgroup"
)

// standin does, through the same API as everybody else, what an operator does once: it creates the zone and the
// first machine of every node. Addresses, names and whatever is lost afterwards are the sidecars' business; it heals nothing.
type standin struct {
	site *Site
	api  *godo.Client
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
	return &standin{site: s, api: api}
}

// prepare makes what is in an account before a cluster is: the zone and the SSH keys.
func (st *standin) prepare(ctx context.Context) error {
	s := st.site
	if _, _, err := st.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: s.roster.Domain}); err != nil {
		return fmt.Errorf("create zone %s: %w", s.roster.Domain, err)
	}
	// Keys that roles.yaml names are in a real account before the cluster is. Nobody dials in here, so one of ours will do.
	for _, name := range s.roster.Provider.SSHKeys {
		public := string(ssh.MarshalAuthorizedKey(s.keys.operator.signer.PublicKey()))
		if _, _, err := st.api.Keys.Create(ctx, &godo.KeyCreateRequest{Name: name, PublicKey: public}); err != nil {
			return fmt.Errorf("register SSH key %s: %w", name, err)
		}
	}
	return nil
}

// create asks for all machines side by side.
func (st *standin) create(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, node := range st.site.roster.Nodes() {
		g.Go(func() error { return st.hire(ctx, node) })
	}
	return g.Wait()
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
	st.site.watch.has(node, d.ID, time.Now())
	return nil
}
