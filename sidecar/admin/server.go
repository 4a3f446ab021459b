package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/health"
)

// Config is what a server needs.
type Config struct {
	Log     *slog.Logger
	Cluster string
	Backend Backend
	// Metrics answers /metrics; nil: 404.
	Metrics http.Handler
	// Authority lets askers in over the network and signs operators' certificates. Nil: neither is possible.
	Authority *Authority
	// Checks are the health checks of this node. Nil: there are none.
	Checks func() []health.Check
	// Journal is the mail journal that runs here; the result is nil where none does. Nil: the node's role has none.
	Journal func() *Journal
	// Peers says where other members' admin API is, as host:port by name. Whom it does not name is looked for at the private
	// address that the member says or the ledger has, at Port. It may be nil.
	Peers func() map[string]string
	Port  uint16 // zero: 7747
}

// maxConns bounds the connections to one listener, so that nobody can use up a node's files.
const maxConns = 64

// Server answers the admin API.
type Server struct{ cfg Config }

// NewServer makes a server. Log and Backend must be set.
func NewServer(cfg Config) *Server {
	if cfg.Port == 0 {
		cfg.Port = 7747
	}
	return &Server{cfg: cfg}
}

// ServeSocket answers on a Unix socket at path, made with its directory, that only this process' user can reach, until ctx
// ends. A socket that an earlier process has left there is replaced.
func (s *Server) ServeSocket(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("open the admin socket: %w", err)
	}
	// The socket is made under another name, closed to others, and renamed: so it is never open to others, nor ever missing.
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the admin socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return fmt.Errorf("open the admin socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it has another name by then
	defer os.Remove(path)     // gone: nobody waits for an answer
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		l.Close()
		return fmt.Errorf("open the admin socket: %w", err)
	}
	return s.serve(ctx, newLimited(l, maxConns), s.Handler(Local))
}

// ServeTLS answers peers and operators on l, which it closes, until ctx ends. The certificate is from Authority.Node.
func (s *Server) ServeTLS(ctx context.Context, l net.Listener, node tls.Certificate) error {
	if s.cfg.Authority == nil {
		l.Close()
		return errors.New("serve the admin API over TLS: there is no cluster key")
	}
	return s.serve(ctx, tls.NewListener(newLimited(l, maxConns), s.cfg.Authority.Server(node)), s.Handler(Remote))
}

func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	hs := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), // handshakes that fail are everyday on a network
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the admin API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		// The answers under way are short; who is late is cut off.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if hs.Shutdown(last) != nil {
			return hs.Close()
		}
		return nil
	})
	return g.Wait()
}
