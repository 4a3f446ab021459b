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
)

// account does, through the same API as everybody else, what the owner of an account does by hand: he makes what must be there before a
// cluster is, and deletes machines. All machines are made by launch and the sidecars.
type account struct {
	site *Site
	api  *godo.Client
}

func newAccount(s *Site) *account {
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
	return &account{site: s, api: api}
}

// prepare makes the zone and the SSH keys.
func (a *account) prepare(ctx context.Context) error {
	s := a.site
	if _, _, err := a.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: s.roster.Domain}); err != nil {
		return fmt.Errorf("create zone %s: %w", s.roster.Domain, err)
	}
	// Keys that roles.yaml names are in a real account before the cluster is. Nobody dials in here, so one of ours will do.
	for _, name := range s.roster.Provider.SSHKeys {
		public := string(ssh.MarshalAuthorizedKey(s.keys.operator.signer.PublicKey()))
		if _, _, err := a.api.Keys.Create(ctx, &godo.KeyCreateRequest{Name: name, PublicKey: public}); err != nil {
			return fmt.Errorf("register SSH key %s: %w", name, err)
		}
	}
	return nil
}
