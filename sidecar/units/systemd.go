//go:build linux

package units

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Systemd is the machine's systemd, spoken to over its private socket, which only root may open and which works
// without dbus-daemon. It connects when it is first needed, and again whenever the connection is gone, as after
// `systemctl daemon-reexec`. The zero value is ready.
type Systemd struct {
	mu     sync.Mutex
	conn   *dbus.Conn         // nil: not connected
	cancel context.CancelFunc // ends conn
}

var _ Bus = (*Systemd)(nil)

// Modes of jobs, in systemd's words (org.freedesktop.systemd1(5), StartUnit). The first is systemctl's own default.
const (
	replace            = "replace"
	ignoreDependencies = "ignore-dependencies"
)

// Close ends the connection, and whatever waits on it. Another call would connect again.
func (s *Systemd) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return nil
}

// drop forgets the connection. The caller holds mu.
func (s *Systemd) drop() {
	if s.conn != nil {
		s.conn.Close()
		s.cancel()
		s.conn, s.cancel = nil, nil
	}
}

// connect returns the connection there is, or makes one within ctx.
func (s *Systemd) connect(ctx context.Context) (*dbus.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.Connected() {
		return s.conn, nil
	}
	s.drop()
	// The connection outlives the call that makes it. Until it is made, the call's end must end it: the
	// handshake has no time limit of its own.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	detach := context.AfterFunc(ctx, cancel)
	conn, err := dbus.NewSystemdConnectionContext(life)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to systemd: %w", errors.Join(err, ctx.Err()))
	}
	if !detach() {
		conn.Close()
		return nil, fmt.Errorf("connect to systemd: %w", ctx.Err())
	}
	s.conn, s.cancel = conn, cancel
	return conn, nil
}

// Start implements Bus.
func (s *Systemd) Start(ctx context.Context, unit string) (string, error) {
	return s.job(ctx, func(c *dbus.Conn, ended chan<- string) error {
		_, err := c.StartUnitContext(ctx, unit, replace, ended)
		return err
	})
}

// Stop implements Bus. While the machine goes down, systemd has made a job for the unit already, which waits for us to end
// first (After= of understudy.service), while we wait for it. The second call is merged into that job and makes it ignore
// its order (job_merge_into_installed in systemd's job.c); at other times it changes nothing.
func (s *Systemd) Stop(ctx context.Context, unit string) (string, error) {
	return s.job(ctx, func(c *dbus.Conn, ended chan<- string) error {
		if _, err := c.StopUnitContext(ctx, unit, replace, ended); err != nil {
			return err
		}
		_, err := c.StopUnitContext(ctx, unit, ignoreDependencies, nil)
		return err
	})
}

func (s *Systemd) job(ctx context.Context, ask func(*dbus.Conn, chan<- string) error) (string, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	ended := make(chan string, 1) // with room, so that the connection never waits for us
	if err := ask(conn, ended); err != nil {
		return "", meaning(err)
	}
	// The end is told on the connection, so it is never told if that breaks in between.
	alive := time.NewTicker(500 * time.Millisecond)
	defer alive.Stop()
	for {
		select {
		case result := <-ended:
			return result, nil
		case <-ctx.Done():
			return "", ctx.Err()
		case <-alive.C:
			if !conn.Connected() {
				return "", errors.New("systemd closed the connection while the job was under way")
			}
		}
	}
}

// Kill implements Bus.
func (s *Systemd) Kill(ctx context.Context, unit string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return meaning(conn.KillUnitWithTarget(ctx, unit, dbus.All, int32(unix.SIGKILL)))
}

// ResetFailed implements Bus.
func (s *Systemd) ResetFailed(ctx context.Context, unit string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return meaning(conn.ResetFailedUnitContext(ctx, unit))
}

// List implements Bus.
func (s *Systemd) List(ctx context.Context, names []string) ([]Unit, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	states, err := conn.ListUnitsByNamesContext(ctx, names)
	if err != nil {
		return nil, meaning(err)
	}
	if len(states) != len(names) {
		return nil, fmt.Errorf("systemd answers for %d units of %d", len(states), len(names))
	}
	list := make([]Unit, len(names))
	for i, st := range states {
		// The answers are in the order of the questions, under the units' own names: one of ours may be an alias.
		list[i] = Unit{Name: names[i], Loaded: st.LoadState == "loaded", Load: st.LoadState, Active: st.ActiveState, Sub: st.SubState}
	}
	return list, nil
}

// meaning makes systemd's "no such unit" one of ours.
func meaning(err error) error {
	if e, ok := errors.AsType[godbus.Error](err); ok && e.Name == "org.freedesktop.systemd1.NoSuchUnit" {
		return fmt.Errorf("%w: %w", ErrNoUnit, err)
	}
	return err
}
