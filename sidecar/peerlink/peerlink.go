//go:build linux

package peerlink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"understudy/sidecar/admin"
)

// The protocols of the streams there are.
const (
	Mirror  = "understudy-mirror/1"
	Journal = "understudy-journal/1"
	Control = "understudy-control/1" // HTTP/1.1, for the control repo
)

// DeadAfter is how long a stream outlives the machine at its other end.
const DeadAfter = 4 * time.Second

const (
	handshakeTimeout = 3 * time.Second
	handshakes       = 64 // under way at a time
	fromOneAddress   = 16 // of these
	perMember        = 16 // streams that one member may have here, those included that it has given up and we have not
)

// Handler serves one stream, which is closed when it returns or ctx ends. The peer is a node's name, verified.
type Handler func(ctx context.Context, peer string, conn net.Conn) error

// Links are this node's ends of streams.
type Links struct {
	log            *slog.Logger
	server, client *tls.Config
}

// New makes a certificate for this node.
func New(log *slog.Logger, authority *admin.Authority, self string) (*Links, error) {
	own, err := authority.Node(self)
	if err != nil {
		return nil, err
	}
	return &Links{log: log, server: authority.Server(own), client: authority.Client(own)}, nil
}

// Dial connects to a member at host:port. The error says so if somebody else answers. The deadline of ctx, or a few seconds,
// bounds the whole of it.
func (l *Links) Dial(ctx context.Context, addr, peer, protocol string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := notice(raw); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	cfg := l.client.Clone()
	cfg.NextProtos = []string{protocol}
	conn := tls.Client(raw, cfg)
	got, err := shake(ctx, conn)
	switch {
	case err != nil:
	case got != peer:
		err = fmt.Errorf("%s answers there", got)
	case conn.ConnectionState().NegotiatedProtocol != protocol:
		err = fmt.Errorf("it does not speak %s", protocol)
	}
	if err != nil {
		conn.Close() // the reason is the one before
		return nil, fmt.Errorf("dial %s at %s: %w", peer, addr, err)
	}
	return conn, nil
}

// shake does the handshake and returns whose other end it is.
func shake(ctx context.Context, conn *tls.Conn) (string, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return "", err
	}
	return admin.NodeName(conn.ConnectionState())
}

// notice makes the kernel notice a machine that is gone: by probes while nothing is on the way, and by what is not
// acknowledged (tcp(7), TCP_USER_TIMEOUT; it bounds the probes, too).
func notice(conn net.Conn) error {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("peerlink: %T is no TCP connection", conn)
	}
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: int(DeadAfter/time.Second) - 1}); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(DeadAfter/time.Millisecond))
	})
	return errors.Join(err, failed)
}

// Serve answers members on ln, which it closes, until ctx ends, and returns when the last handler has. Who offers none of the
// protocols is refused.
func (l *Links) Serve(ctx context.Context, ln net.Listener, protocols map[string]Handler) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	s := &server{Links: l, protocols: protocols, tls: l.server.Clone(), from: map[netip.Addr]int{}, streams: map[string]int{}}
	s.tls.NextProtos = slices.Sorted(maps.Keys(protocols))
	g, inner := errgroup.WithContext(ctx)
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, unix.EMFILE): // it passes, and the other end dials again
			l.log.Warn("too many open files for another stream of a member", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		default:
			ln.Close()
			_ = g.Wait() // no stream fails for all
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a member's stream: %w", err)
		}
		if from, ok := s.enter(conn); ok {
			g.Go(func() error {
				s.serve(inner, conn, from)
				return nil
			})
		}
	}
}

// server is one Serve.
type server struct {
	*Links
	protocols map[string]Handler
	tls       *tls.Config

	mu      sync.Mutex
	shaking int
	from    map[netip.Addr]int // of those
	streams map[string]int     // by member and protocol
}

// enter takes a connection on, or closes it.
func (s *server) enter(conn net.Conn) (netip.Addr, bool) {
	var from netip.Addr
	if at, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		from = at.AddrPort().Addr().Unmap().WithZone("")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shaking >= handshakes || s.from[from] >= fromOneAddress {
		conn.Close()
		s.log.Debug("a stream is not taken: too many handshakes", "address", from)
		return from, false
	}
	s.shaking++
	s.from[from]++
	return from, true
}

// entered ends what enter began.
func (s *server) entered(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shaking--
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}

func (s *server) serve(ctx context.Context, raw net.Conn, from netip.Addr) {
	conn := tls.Server(raw, s.tls)
	defer conn.Close()
	// Before the handshake too: a close is all that a silent other side leaves us.
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	peer, err := s.welcome(ctx, raw, conn)
	s.entered(from)
	if err != nil {
		s.log.Debug("a stream is not taken", "address", from, "err", err) // everyday on a network
		return
	}
	protocol := conn.ConnectionState().NegotiatedProtocol
	handle := s.protocols[protocol]
	if handle == nil { // ALPN is optional for who dials
		s.log.Warn("a member speaks no protocol of ours", "peer", peer)
		return
	}
	key := peer + " " + protocol
	if !s.count(key) {
		s.log.Warn("a member has too many streams here", "peer", peer, "protocol", protocol)
		return
	}
	defer s.uncount(key)
	if err := handle(ctx, peer, conn); err != nil && ctx.Err() == nil {
		s.log.Warn("a member's stream ended", "peer", peer, "protocol", protocol, "err", err)
	}
}

func (s *server) welcome(ctx context.Context, raw net.Conn, conn *tls.Conn) (string, error) {
	if err := notice(raw); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	return shake(ctx, conn)
}

func (s *server) count(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[key] >= perMember {
		return false
	}
	s.streams[key]++
	return true
}

func (s *server) uncount(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[key]--; s.streams[key] == 0 {
		delete(s.streams, key)
	}
}
