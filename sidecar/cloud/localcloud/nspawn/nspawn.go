//go:build linux

// Package nspawn makes a local cloud's droplets real: each is a Debian node with its own systemd as
// PID 1, under systemd-nspawn(1), on an overlay copy of one image, in the cloud's network namespace.
//
// A machine leaves nothing in the host's mount table: its overlay is mounted in a mount namespace of
// its own, which ends with it. Every process of a machine lies in one control group, so that one
// write to cgroup.kill (cgroup-v2, Linux 5.14) is its power switch; it also works on what a killed
// local cloud left behind. No file is ever written into a machine's tree from outside: addresses
// come by the systemd credential network.network.* (systemd-network-generator(8)), all else through
// the metadata service, as at a real provider.
package nspawn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cloud/localcloud/netns"
)

// Options says where machines live. All fields but CableDelay are required.
type Options struct {
	Cloud     string                              // the local cloud's name
	Dir       string                              // one subdirectory a machine
	Net       *netns.Namespace                    // where their interfaces are joined
	Image     func(name string) ([]string, error) // an image's trees, topmost first
	Self      string                              // this program, which carries the Run subcommand
	Gateway   netip.Addr                          // default route and DNS server
	Log       *slog.Logger
	CableWait time.Duration // a machine's network is pulled for so long after its start; 0: not at all
}

// Backend is a localcloud.Backend. Its methods may be called from any goroutine.
type Backend struct {
	opt Options

	mu       sync.Mutex
	machines map[int]*machine
	running  sync.WaitGroup // one a waiting goroutine
}

type machine struct {
	localcloud.Machine
	dir   string
	pid   int           // systemd-nspawn; 0: off
	ended chan struct{} // closed when that process has been reaped
}

// New checks that machines can run here and returns a Backend without any.
func New(opt Options) (*Backend, error) {
	if _, err := cgroupRoot(); err != nil {
		return nil, err
	}
	if strings.ContainsAny(opt.Dir, ":,\\") {
		return nil, fmt.Errorf("machine directory %q: must not contain a colon, comma or backslash (overlay mount options)", opt.Dir)
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	return &Backend{opt: opt, machines: map[int]*machine{}}, nil
}

// Name is what systemd-nspawn calls machine id of a cloud. It differs between clouds on one host and,
// with "vb-" before it, is short enough for an interface name (15 bytes) up to 2,176,782,335 machines.
func Name(cloud string, id int) string {
	return fmt.Sprintf("u%04x-%s", crc32.ChecksumIEEE([]byte(cloud))&0xffff, strconv.FormatInt(int64(id), 36))
}

// Boot makes the machine's disk from its image if it has none and switches it on. It returns when
// PID 1 of the machine runs. Booting a running machine does nothing.
func (b *Backend) Boot(ctx context.Context, m localcloud.Machine) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.machines[m.ID]
	if known != nil && known.pid != 0 {
		return nil
	}
	mc := &machine{Machine: m, dir: filepath.Join(b.opt.Dir, strconv.Itoa(m.ID))}
	lower, err := b.opt.Image(m.Image)
	if err != nil {
		return fmt.Errorf("boot machine %d: %w", m.ID, err)
	}
	spec := Spec{
		Name: Name(b.opt.Cloud, m.ID), Dir: mc.dir, Lower: lower, Namespace: netns.Path(b.opt.Net.Name),
		Network: b.network(m),
	}
	if err := b.opt.Net.Route(m.Public, m.Private); err != nil {
		return fmt.Errorf("boot machine %d: %w", m.ID, err)
	}
	if err := b.start(ctx, mc, spec); err != nil {
		return fmt.Errorf("boot machine %d: %w", m.ID, err)
	}
	b.machines[m.ID] = mc
	return nil
}

// network is the machine's systemd.network(5) file: its private address, and the anchor address
// at which traffic for a reserved IP arrives, as on a droplet.
func (b *Backend) network(m localcloud.Machine) string {
	return fmt.Sprintf(`[Match]
Name=host0
[Network]
Address=%s/16
Address=%s/16
Gateway=%s
DNS=%[3]s
Domains=~.
LinkLocalAddressing=no
IPv6AcceptRA=no
LLMNR=no
MulticastDNS=no
`, m.Private, m.Anchor, b.opt.Gateway)
}

// start launches the runner in the machine's control group and waits for its PID 1; b.mu is held.
func (b *Backend) start(ctx context.Context, mc *machine, spec Spec) error {
	group, err := makeGroup(b.opt.Cloud, spec.Name)
	if err != nil {
		return err
	}
	defer group.Close()
	cmd, err := spec.command(b.opt.Self, group)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", b.opt.Self, err)
	}
	if out, ok := cmd.Stdout.(io.Closer); ok {
		_ = out.Close() // the child has its own copy of the console log
	}
	mc.pid, mc.ended = cmd.Process.Pid, make(chan struct{})
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		err := cmd.Wait()
		b.off(mc, err)
	}()
	if b.opt.CableWait > 0 {
		b.running.Add(1)
		go func() {
			defer b.running.Done()
			b.pullCable(mc, spec.Name)
		}()
	}
	_, err = poll(ctx, mc.ended, func() (int, bool) { return leader(mc.pid) })
	if err != nil {
		return fmt.Errorf("%w; its console says:\n%s", err, tail(filepath.Join(mc.dir, consoleLog)))
	}
	return nil
}

// off notes that the machine's last process is gone. A machine that rebooted itself (systemd-nspawn
// leaves that to its caller under --keep-unit, by status 133) is started again.
func (b *Backend) off(mc *machine, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mc.pid = 0
	close(mc.ended)
	if err := removeGroup(b.opt.Cloud, Name(b.opt.Cloud, mc.ID)); err != nil {
		b.opt.Log.Warn("an empty control group stays until the cloud goes down", "machine", mc.ID, "err", err)
	}
	if exitCode(err) != rebootStatus || b.machines[mc.ID] != mc {
		b.opt.Log.Info("machine is off", "machine", mc.ID, "node", mc.Machine.Name, "status", exitCode(err))
		return
	}
	b.opt.Log.Info("machine reboots", "machine", mc.ID, "node", mc.Machine.Name)
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
		defer cancel()
		if err := b.Boot(ctx, mc.Machine); err != nil {
			b.opt.Log.Error("machine does not come up after a reboot", "machine", mc.ID, "err", err)
		}
	}()
}

const (
	rebootStatus = 133 // systemd-nspawn(1), EXIT STATUS; also SuccessExitStatus= of systemd-nspawn@.service
	bootTimeout  = 30 * time.Second
	consoleLog   = "console.log"
)

// pullCable keeps the machine's port down for CableWait, as on a network that comes up late.
func (b *Backend) pullCable(mc *machine, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	port := netns.PortOf(name)
	_, err := poll(ctx, mc.ended, func() (int, bool) { return 0, b.opt.Net.SetPort(port, false) == nil })
	if err != nil {
		b.opt.Log.Error("cannot pull the cable", "machine", mc.ID, "err", err)
		return
	}
	select {
	case <-time.After(b.opt.CableWait):
	case <-mc.ended:
		return
	}
	if err := b.opt.Net.SetPort(port, true); err != nil {
		b.opt.Log.Error("cannot plug the cable in", "machine", mc.ID, "err", err)
	}
}

// PowerOff cuts the power: no process of the machine runs on, nothing is written any more. Powering
// off what is off, or unknown, is no error.
func (b *Backend) PowerOff(ctx context.Context, id int) error {
	b.mu.Lock()
	mc := b.machines[id]
	b.mu.Unlock()
	if mc == nil {
		return nil
	}
	if err := killGroup(b.opt.Cloud, Name(b.opt.Cloud, id)); err != nil {
		return fmt.Errorf("power off machine %d: %w", id, err)
	}
	select {
	case <-mc.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("power off machine %d: %w", id, ctx.Err())
	}
}

// Erase powers the machine off and deletes its disk. Erasing what is gone is no error.
func (b *Backend) Erase(ctx context.Context, id int) error {
	if err := b.PowerOff(ctx, id); err != nil {
		return err
	}
	b.mu.Lock()
	mc := b.machines[id]
	delete(b.machines, id)
	b.mu.Unlock()
	if mc != nil {
		if err := b.opt.Net.Route(mc.Public, netip.Addr{}); err != nil {
			return fmt.Errorf("erase machine %d: %w", id, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(b.opt.Dir, strconv.Itoa(id))); err != nil {
		return fmt.Errorf("erase machine %d: %w", id, err)
	}
	return nil
}

// Running tells whether the machine has power.
func (b *Backend) Running(id int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	mc := b.machines[id]
	return mc != nil && mc.pid != 0
}

// Leader is the host's process ID of the machine's PID 1, for nsenter(1).
func (b *Backend) Leader(id int) (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mc := b.machines[id]
	if mc == nil || mc.pid == 0 {
		return 0, false
	}
	return leader(mc.pid)
}

// Route leads a reserved address to a machine's anchor address, or nowhere if anchor is zero.
func (b *Backend) Route(_ context.Context, reserved, anchor netip.Addr) error {
	return b.opt.Net.Route(reserved, anchor)
}

// ReadFile reads at most limit bytes of a file inside a running machine, without following a
// symbolic link out of its tree.
func (b *Backend) ReadFile(id int, name string, limit int64) ([]byte, error) {
	pid, ok := b.Leader(id)
	if !ok {
		return nil, fmt.Errorf("machine %d: %w", id, os.ErrNotExist)
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil, fmt.Errorf("machine %d: %w", id, err)
	}
	defer root.Close()
	f, err := root.Open(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, fmt.Errorf("machine %d: %w", id, err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// Close powers all machines off and waits for what it started.
func (b *Backend) Close(ctx context.Context) error {
	b.mu.Lock()
	var ids []int
	for id := range b.machines {
		ids = append(ids, id)
	}
	b.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, b.PowerOff(ctx, id))
	}
	b.running.Wait()
	return errors.Join(errs...)
}

// poll asks f every few milliseconds until it has an answer, ctx ends or ended is closed.
func poll(ctx context.Context, ended <-chan struct{}, f func() (int, bool)) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if v, ok := f(); ok {
			return v, nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return 0, errors.New("it ended at once")
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// leader finds the machine's PID 1 among the children of systemd-nspawn: the one whose innermost
// process ID is 1 (proc_pid_status(5), NSpid).
func leader(nspawn int) (int, bool) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", nspawn))
	if err != nil {
		return 0, false
	}
	for _, field := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(field)
		if err == nil && innermostPID(pid) == "1" {
			return pid, true
		}
	}
	return 0, false
}

func innermostPID(pid int) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		if ids, ok := strings.CutPrefix(s.Text(), "NSpid:"); ok {
			all := strings.Fields(ids)
			return all[len(all)-1]
		}
	}
	return ""
}

// tail is the end of a log, for an error text.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-2000):]))
}
