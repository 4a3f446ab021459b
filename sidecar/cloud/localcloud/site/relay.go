//go:build linux

package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// relay stands for the smarthost to which a cluster hands its outgoing mail (providers block port
// 25): it takes everything from whoever logs in, and keeps it as files that a test can read.
type relay struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex
	count int
}

const maxMessage = 32 << 20

func (r *relay) serve(ctx context.Context, l net.Listener) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &delivery{relay: r}, nil }))
	s.Domain, s.AllowInsecureAuth, s.MaxMessageBytes, s.MaxRecipients = "relay", true, maxMessage, 100
	s.ReadTimeout, s.WriteTimeout = time.Minute, time.Minute
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}

// delivery is one SMTP session.
type delivery struct {
	relay      *relay
	user, from string
	to         []string
}

func (d *delivery) AuthMechanisms() []string { return []string{sasl.Plain} }

func (d *delivery) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user == "" || password == "" {
			return smtp.ErrAuthFailed
		}
		d.user = user
		return nil
	}), nil
}

func (d *delivery) Mail(from string, _ *smtp.MailOptions) error {
	if d.user == "" {
		return smtp.ErrAuthRequired
	}
	d.from = from
	return nil
}

func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error {
	d.to = append(d.to, to)
	return nil
}

func (d *delivery) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d.relay.mu.Lock()
	defer d.relay.mu.Unlock()
	d.relay.count++
	name := filepath.Join(d.relay.dir, fmt.Sprintf("%06d.eml", d.relay.count))
	if err := errors.Join(os.WriteFile(name+".new", body, 0o600), os.Rename(name+".new", name)); err != nil {
		return err
	}
	d.relay.log.Info("relay took a message", "from", d.from, "to", d.to, "login", d.user, "file", name)
	return nil
}

func (d *delivery) Reset() { d.from, d.to = "", slices.Delete(d.to, 0, len(d.to)) }

func (d *delivery) Logout() error { return nil }
