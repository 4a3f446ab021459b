package control

import (
	"context"
	"net"
	"sync/atomic"
)

// Traffic is how many bytes all calls so far have sent to and received from sources over a network: TLS and ssh included, the
// headers of TCP and IP not.
func (r *Repo) Traffic() uint64 { return r.traffic.bytes.Load() }

// traffic counts what passes through connections.
type traffic struct{ bytes atomic.Uint64 }

func (t *traffic) count(c net.Conn) net.Conn { return &counted{c, t} }

// dialer returns d's DialContext, whose connections are counted.
func (t *traffic) dialer(d *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return t.count(c), nil
	}
}

type counted struct {
	net.Conn
	traffic *traffic
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.traffic.bytes.Add(uint64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.traffic.bytes.Add(uint64(n))
	return n, err
}
