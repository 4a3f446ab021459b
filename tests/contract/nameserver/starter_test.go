//go:build linux

package nameserver_test

import (
	"context"
	"net"
	"sync"

	mdns "github.com/miekg/dns"
)

// starter holds updates back until as many as want wait to be sent, and lets them all go at once.
type starter struct {
	want int
	open chan struct{}

	mu      sync.Mutex
	waiting int
}

func (g *starter) dial(s *server) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, address)
		return heldConn{conn, g}, err
	}
}

func (g *starter) hold() {
	g.mu.Lock()
	if g.waiting++; g.waiting == g.want {
		close(g.open)
	}
	g.mu.Unlock()
	<-g.open
}

// heldConn is a connection on which updates wait. Our code sends each message in one piece, its length before it.
type heldConn struct {
	net.Conn
	starter *starter
}

func (c heldConn) Write(b []byte) (int, error) {
	if len(b) > 4 && int(b[4]>>3&0xf) == mdns.OpcodeUpdate {
		c.starter.hold()
	}
	return c.Conn.Write(b)
}
