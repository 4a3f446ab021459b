//go:build linux

// Package node holds the promises between the sidecar and the systemd of its machine: the watchdog, what is tidied up
// after a kill, who starts before whom, and that writers run with the duty and never without. One machine with systemd is
// booted from the image and shared by all tests, each of which cleans up behind itself.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/cloud/localcloud/nspawn"
	"understudy/sidecar/image"
)

var gateway = netip.MustParseAddr("10.77.0.1")

// insideVariable is set where this program runs on the machine instead of beside it.
const insideVariable = "UNDERSTUDY_NODE_TEST"

// machine is one booted machine.
type machine struct {
	backend *nspawn.Backend
	net     *netns.Namespace
	dir     string
}

const machineID = 1

var shared struct {
	once sync.Once
	m    *machine
	err  error
}

// boot returns the machine, up and quiet: its systemd has started everything, and our own units are stopped.
func boot(t *testing.T) *machine {
	t.Helper()
	shared.once.Do(func() { shared.m, shared.err = start() })
	if shared.err != nil {
		t.Fatalf("the machine does not boot: %v", shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := shared.m.run(context.Background(), nil, "journalctl", "--no-pager", "--lines=80", "--output=short-monotonic")
			t.Logf("the machine's journal ends:\n%s", out)
		}
	})
	return shared.m
}

func start() (*machine, error) {
	build := os.Getenv("UNDERSTUDY_BUILD")
	if build == "" || os.Geteuid() != 0 {
		return nil, errors.New("these tests boot a real machine with the built programs, as root: run them with make test")
	}
	self := filepath.Join(build, "understudy")
	img, err := makeImage(self)
	if err != nil {
		return nil, err
	}
	m := &machine{}
	if m.dir, err = os.MkdirTemp("", "understudy-node"); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("understudy-node%d", os.Getpid())
	if m.net, err = netns.Create(name, netip.PrefixFrom(gateway, 16), netip.MustParsePrefix("10.16.0.1/16")); err != nil {
		return m, err
	}
	m.backend, err = nspawn.New(nspawn.Options{
		Cloud: name, Dir: filepath.Join(m.dir, "machines"), Net: m.net, Self: self, Gateway: gateway, Log: slog.New(slog.DiscardHandler),
		Image: func(string) ([]string, error) { return img.Trees, nil },
	})
	if err != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spec := localcloud.Machine{
		ID: machineID, Name: "app1", Private: netip.MustParseAddr("10.77.0.2"),
		Public: netip.MustParseAddr("198.51.100.2"), Anchor: netip.MustParseAddr("10.16.0.2"),
	}
	if err := m.backend.Boot(ctx, spec); err != nil {
		return m, err
	}
	return m, m.settle(ctx)
}

// makeImage builds the image of this checkout, or finds it in the cache.
func makeImage(self string) (img image.Image, err error) {
	repo, err := filepath.Abs("../..")
	if err != nil {
		return img, err
	}
	cmd := exec.Command(self, "image", "build", "--json", "--repo", repo, "--cache", os.Getenv("UNDERSTUDY_CACHE"))
	cmd.Env = append(os.Environ(), "HOME=/root")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return img, fmt.Errorf("make the image: %w\n%s", err, errs.String())
	}
	return img, json.Unmarshal(out.Bytes(), &img)
}

// settle waits until systemd has nothing more to do, without a bootstrap, which would wait for a cloud that is not there.
func (m *machine) settle(ctx context.Context) error {
	for {
		out, err := m.run(ctx, nil, "sh", "-c", "systemctl stop understudy-bootstrap.service understudy.service && systemctl is-system-running --wait || :")
		if err == nil && (strings.Contains(out, "running") || strings.Contains(out, "degraded")) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("systemd is %q: %w", strings.TrimSpace(out), ctx.Err())
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// run runs a command on the machine and returns what it printed. A status other than 0 is an *exec.ExitError.
func (m *machine) run(ctx context.Context, in io.Reader, argv ...string) (string, error) {
	leader, ok := m.backend.Leader(machineID)
	if !ok {
		return "", errors.New("the machine is off")
	}
	args := append([]string{"--target", strconv.Itoa(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0"}
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a command on the machine that has to succeed.
func (m *machine) must(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := m.run(t.Context(), nil, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// write puts a file on the machine.
func (m *machine) write(t *testing.T, path, text, mode string) {
	t.Helper()
	out, err := m.run(t.Context(), strings.NewReader(text), "install", "-D", "-m", mode, "/dev/stdin", path)
	if err != nil {
		t.Fatalf("write %s: %v\n%s", path, err, out)
	}
}

// active asks systemd for the state of a unit.
func (m *machine) active(t *testing.T, unit string) string {
	t.Helper()
	out, _ := m.run(t.Context(), nil, "systemctl", "is-active", unit) // its status says the same
	return strings.TrimSpace(out)
}

// show asks systemd for a property of a unit.
func (m *machine) show(t *testing.T, unit, property string) string {
	t.Helper()
	return m.must(t, "systemctl", "show", "--value", "--property="+property, unit)
}

// becomes waits until a unit has a state.
func (m *machine) becomes(t *testing.T, unit, state string) {
	t.Helper()
	m.eventually(t, unit+" to be "+state, func() string { return m.active(t, unit) }, func(s string) bool { return s == state })
}

// installSelf copies this program to the machine, for tests that run there.
func (m *machine) installSelf(t *testing.T) (path string) {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	path = "/usr/local/bin/node.test"
	if out, err := m.run(t.Context(), self, "install", "-m", "0755", "/dev/stdin", path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// eventually asks until the answer is good.
func (m *machine) eventually(t *testing.T, what string, ask func() string, good func(string) bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		answer := ask()
		if good(answer) {
			return answer
		}
		if ctx.Err() != nil {
			t.Fatalf("waited in vain for %s: got %q", what, answer)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (m *machine) down() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if m.backend != nil {
		errs = append(errs, m.backend.Erase(ctx, machineID), m.backend.Close(ctx), nspawn.Clean(fmt.Sprintf("understudy-node%d", os.Getpid())))
	}
	if m.net != nil {
		errs = append(errs, m.net.Close(), netns.Remove(m.net.Name))
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.m != nil {
		if err := shared.m.down(); err != nil {
			fmt.Fprintln(os.Stderr, "take the machine down:", err)
			code = 1
		}
	}
	os.Exit(code)
}
