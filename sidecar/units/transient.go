//go:build linux

package units

import (
	"context"
	"errors"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// ErrUnitExists is what StartTransient returns when there is a unit of that name, which may have failed.
var ErrUnitExists = errors.New("there is such a unit already")

// StartTransient makes a unit that has no file, starts it, and waits as Start does. systemd forgets it when it has ended
// well, and after ResetFailed when not.
func (s *Systemd) StartTransient(ctx context.Context, unit string, properties []dbus.Property) (string, error) {
	result, err := s.job(ctx, func(c *dbus.Conn, ended chan<- string) error {
		_, err := c.StartTransientUnitContext(ctx, unit, "fail", properties, ended)
		return err
	})
	if e, ok := errors.AsType[godbus.Error](err); ok && e.Name == "org.freedesktop.systemd1.UnitExists" {
		err = fmt.Errorf("%w: %w", ErrUnitExists, err)
	}
	return result, err
}

// Outcome is systemd's word for how a service ended: "success", "exit-code", "signal", "timeout", "oom-kill", …
// (org.freedesktop.systemd1(5), Result). It is "success" for one that has not run, or is forgotten.
func (s *Systemd) Outcome(ctx context.Context, unit string) (string, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	p, err := conn.GetServicePropertyContext(ctx, unit, "Result")
	if err != nil {
		return "", meaning(err)
	}
	result, ok := p.Value.Value().(string)
	if !ok {
		return "", fmt.Errorf("systemd's result of %s is %v, which is no word", unit, p.Value)
	}
	return result, nil
}
