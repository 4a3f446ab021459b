//go:build linux

package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Forward makes a port inside the cloud reachable on the host's loopback.
type Forward struct {
	Listen string `json:"listen"` // host:port on the host, such as 127.0.0.1:8080
	Target string `json:"target"` // name or address:port inside the cloud, such as www:80
}

// ParseForward reads "8080=www:80" or "127.0.0.1:8080=203.0.113.10:80". Only loopback addresses may
// be listened on: the cloud is nobody else's business.
func ParseForward(s string) (Forward, error) {
	listen, target, ok := strings.Cut(s, "=")
	if !ok {
		return Forward{}, fmt.Errorf("forward %q: want [ADDRESS:]PORT=NAME:PORT, such as 8080=www:80", s)
	}
	if !strings.Contains(listen, ":") {
		listen = "127.0.0.1:" + listen
	}
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return Forward{}, fmt.Errorf("forward %q: %w", s, err)
	}
	if !at.Addr().IsLoopback() {
		return Forward{}, fmt.Errorf("forward %q: %s is not a loopback address", s, at.Addr())
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" {
		return Forward{}, fmt.Errorf("forward %q: want NAME:PORT after the =, such as www:80", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Forward{}, fmt.Errorf("forward %q: %q is not a port", s, port)
	}
	return Forward{Listen: at.String(), Target: target}, nil
}

const dialTimeout = 10 * time.Second

// forwarder carries one Forward's connections.
type forwarder struct {
	log     *slog.Logger
	target  string
	resolve func(name string) (netip.Addr, error)
	dial    func(context.Context, netip.AddrPort) (net.Conn, error)
}

// serve accepts until ctx ends and returns when the last connection is closed.
func (f forwarder) serve(ctx context.Context, l net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	g.Go(func() error {
		for {
			c, err := l.Accept()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("forward to %s: %w", f.target, err)
			}
			g.Go(func() error {
				if err := f.carry(ctx, c); err != nil {
					f.log.Warn("forwarded connection ended early", "target", f.target, "err", err)
				}
				return nil
			})
		}
	})
	return g.Wait()
}

func (f forwarder) carry(ctx context.Context, outside net.Conn) error {
	defer outside.Close()
	host, port, err := net.SplitHostPort(f.target)
	if err != nil {
		return err
	}
	addr, err := f.resolve(host)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	inside, err := f.dial(dctx, netip.AddrPortFrom(addr, uint16(number)))
	if err != nil {
		return err
	}
	defer inside.Close()
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(inside.Close(), outside.Close()) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { pipe(inside, outside) })
	wg.Go(func() { pipe(outside, inside) })
	wg.Wait()
	return nil
}

// pipe copies one direction and passes its end on. Its error is the peer's business: the other
// direction sees the connection close.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
