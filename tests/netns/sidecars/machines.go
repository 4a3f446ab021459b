//go:build linux

package sidecars

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud"
	"understudy/tests/netns/wire"
)

// machine is one of the provider's.
type machine struct {
	localcloud.Machine
	host *wire.Host
	off  context.CancelFunc // ends what it does to boot; nil: it has no power
	run  *wire.Process      // nil: it has not booted
}

// power is the provider's backend: a machine that has power runs a sidecar.
type power struct{ h *Hired }

// Boot implements localcloud.Backend.
func (p power) Boot(ctx context.Context, m localcloud.Machine) error {
	host := p.h.slots[m.Private]
	if host == nil {
		return fmt.Errorf("the test has no host for machine %d, %s", m.ID, m.Name)
	}
	if err := p.h.memory.Boot(ctx, m); err != nil {
		return err
	}
	on := &machine{Machine: m, host: host}
	ctx, on.off = context.WithCancel(p.h.t.Context())
	p.h.mu.Lock()
	p.h.machines[m.ID] = on
	p.h.mu.Unlock()
	p.h.boots.Go(func() {
		if err := p.h.boot(ctx, on); err != nil && ctx.Err() == nil {
			p.h.t.Errorf("boot machine %d, %s: %v", m.ID, m.Name, err)
		}
	})
	return nil
}

// PowerOff implements localcloud.Backend.
func (p power) PowerOff(ctx context.Context, id int) error {
	p.h.cut(id)
	return p.h.memory.PowerOff(ctx, id)
}

// Erase implements localcloud.Backend.
func (p power) Erase(ctx context.Context, id int) error {
	p.h.cut(id)
	return p.h.memory.Erase(ctx, id)
}

// Running implements localcloud.Backend.
func (p power) Running(id int) bool { return p.h.memory.Running(id) }

// Route implements localcloud.Backend.
func (p power) Route(ctx context.Context, reserved, anchor netip.Addr) error {
	return p.h.memory.Route(ctx, reserved, anchor)
}

// cut takes a machine's power: whatever runs on it is killed.
func (h *Hired) cut(id int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machines[id]
	if m == nil || m.off == nil {
		return
	}
	m.off()
	m.off = nil
	if m.run != nil {
		m.run.Kill()
	}
}

// boot does what a machine's bootstrap does before it starts the sidecar: it joins. Machines that a person has made are told
// the cluster's identity, as launch does.
func (h *Hired) boot(ctx context.Context, m *machine) error {
	dir := filepath.Join(h.Dir, m.host.Name)
	ticket, err := secrets.ParseUserData(m.UserData)
	member := h.member
	switch {
	case err == nil:
		member, err = secrets.Join(ctx, ticket, secrets.JoinOptions{
			MachineID: strconv.Itoa(m.ID), StateDir: dir, Log: slog.New(slog.DiscardHandler),
			Dial: numeric(m.host.NS.Dial),
		})
	case errors.Is(err, secrets.ErrNoTicket):
		err = nil
	}
	if err == nil {
		err = secrets.SaveMembership(dir, member)
	}
	if err == nil {
		err = h.configure(m, dir)
	}
	if err != nil {
		return err
	}
	return h.run(m)
}

// numeric dials addresses that need no look-up.
func numeric(dial func(context.Context, netip.AddrPort) (net.Conn, error)) func(ctx context.Context, network, at string) (net.Conn, error) {
	return func(ctx context.Context, _, at string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(at)
		if err != nil {
			return nil, err
		}
		return dial(ctx, to)
	}
}

// configure writes what tells a machine that this is no ordinary network.
func (h *Hired) configure(m *machine, dir string) error {
	at := h.Host("cloud").Addr
	return os.WriteFile(filepath.Join(dir, "sidecar.yaml"), fmt.Appendf(nil, `node: %s
roster: %s/roles.yaml
secrets: %[2]s/secrets.age
state: %s
socket: %s
listen: {names: none}
metadata: http://%s/metadata/v1
provider: {endpoint: "http://%[5]s/"}
`, m.Name, h.Dir, dir, h.socket(m), at), 0o600)
}

func (h *Hired) socket(m *machine) string { return filepath.Join(h.socks, m.host.Name) }

// run starts a machine's sidecar, if the machine has power.
func (h *Hired) run(m *machine) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.off == nil || h.t.Context().Err() != nil {
		return nil
	}
	dir := filepath.Join(h.Dir, m.host.Name)
	if err := os.MkdirAll(filepath.Join(dir, "srv/store"), 0o755); err != nil {
		return err
	}
	// A machine has a disk of its own: what is /srv there is not so here.
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /srv && exec "$@"`, filepath.Join(dir, "srv"),
		program(h.t), "run", "--config", filepath.Join(dir, "sidecar.yaml"))
	cmd.Env = []string{"LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	m.run, err = m.host.Run(fmt.Sprintf("%s on %s", m.Name, m.host.Name), cmd)
	return err
}

// Kill kills a machine's sidecar, at once.
func (h *Hired) Kill(id int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.machines[id].run.Kill()
}

// Restart starts a machine's sidecar after a while, as systemd does after its end, if the machine still has power.
func (h *Hired) Restart(id int, after time.Duration) {
	m := h.of(id)
	h.boots.Go(func() {
		select {
		case <-time.After(after):
			if err := h.run(m); err != nil {
				h.t.Error(err)
			}
		case <-h.t.Context().Done():
		}
	})
}

// Hang lets a machine stand still: the provider says that it runs.
func (h *Hired) Hang(id int) {
	h.t.Helper()
	h.of(id).run.Signal(h.t, syscall.SIGSTOP)
}

// Destroy deletes a machine behind everybody's back.
func (h *Hired) Destroy(id int) {
	h.t.Helper()
	h.cut(id)
	h.order(http.MethodDelete, fmt.Sprintf("/v2/droplets/%d", id), "")
}

func (h *Hired) of(id int) *machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machines[id]
	if m == nil || m.run == nil {
		panic(fmt.Sprintf("machine %d has not booted", id)) // the test asks too early
	}
	return m
}

// running are the machines of a node whose sidecars are not dead; one that stands still is not.
func (h *Hired) running(node string) []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []int
	for id, m := range h.machines {
		if m.Name == node && m.run != nil && !m.run.Over() {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}
