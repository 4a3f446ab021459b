package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"

	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/config"
	"understudy/sidecar/launch"
)

// localLaunch is what the operator of a local cloud has at hand, seen from inside its network.
func localLaunch(ctx context.Context, name string) (launchAt, error) {
	if err := needRoot("launching in a local cloud"); err != nil {
		return launchAt{}, err
	}
	c, err := client(name)
	if err != nil {
		return launchAt{}, err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return launchAt{}, err
	}
	var at launchAt
	if err := at.read(st.Checkout, filepath.Join(st.Operator, clusterKey), filepath.Join(st.Operator, signersFile)); err != nil {
		return at, err
	}
	inside, err := netns.Open(st.Namespace)
	if err != nil {
		return at, err
	}
	at.close = inside.Close
	at.dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("a local cloud has numeric addresses: %w", err)
		}
		return inside.Dial(ctx, to)
	}
	at.provider.Endpoint, at.provider.Transport = st.API, &http.Transport{DialContext: at.dial}
	at.store = config.Ledger{Endpoint: st.Ledger}
	at.follow = func(ctx context.Context, out io.Writer, _ launch.Seed) error { return follow(ctx, out, c) }
	return at, nil
}
