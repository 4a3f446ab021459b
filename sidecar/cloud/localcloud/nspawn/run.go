//go:build linux

package nspawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// RunCommand is the hidden subcommand (after the program's path) that becomes a machine. It is a
// process of its own because a mount namespace must be entered before systemd-nspawn is executed.
var RunCommand = []string{"local", "run-machine"}

// Spec is what the runner needs to know, handed over on its standard input as JSON.
type Spec struct {
	Name      string   `json:"name"`
	Dir       string   `json:"dir"`       // holds upper, work, root, the credential and the console log
	Lower     []string `json:"lower"`     // the image's trees, topmost first
	Namespace string   `json:"namespace"` // path of the network namespace
	Network   string   `json:"network"`   // systemd.network(5) text of the machine's interface
}

// command prepares the machine's directory and the runner's command line.
func (s Spec) command(self string, group *os.File) (*exec.Cmd, error) {
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(s.credential(), []byte(s.Network), 0o600); err != nil {
		return nil, err
	}
	input, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	console, err := os.OpenFile(filepath.Join(s.Dir, consoleLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: the machine outlives the call that booted it.
	cmd := exec.Command(self, RunCommand...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Stdin = strings.NewReader(string(input))
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	return cmd, nil
}

func (s Spec) credential() string { return filepath.Join(s.Dir, "host0.network") }

// Run becomes the machine described on in: it does not return unless something fails. It must be
// called from a process with nothing else to do.
func Run(in *os.File) error {
	var s Spec
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("read machine description: %w", err)
	}
	runtime.LockOSThread() // the namespaces below are this thread's, and execve takes them along
	if err := s.enter(); err != nil {
		return fmt.Errorf("machine %s: %w", s.Name, err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.Dup2(int(null.Fd()), 0); err != nil {
		return err
	}
	path, err := exec.LookPath("systemd-nspawn")
	if err != nil {
		return fmt.Errorf("machine %s: %w; install the package systemd-container", s.Name, err)
	}
	return syscall.Exec(path, append([]string{path}, s.args()...), os.Environ())
}

func (s Spec) args() []string {
	return []string{
		"--quiet", "--register=no", "--keep-unit", "--boot", "--directory=" + filepath.Join(s.Dir, "root"),
		"--machine=" + s.Name, "--network-bridge=br0", "--kill-signal=SIGRTMIN+3", "--link-journal=no",
		"--resolv-conf=off", "--timezone=off", "--console=pipe",
		"--load-credential=network.network.10-host0:" + s.credential(),
	}
}

// enter moves this thread into the cloud's network namespace and a mount namespace of its own, in
// which the overlay is mounted and /sys/fs/cgroup is the unified hierarchy, which systemd 256 and
// later insist on.
func (s Spec) enter() error {
	ns, err := vns.GetFromPath(s.Namespace)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	if err := vns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := errors.Join(ns.Close(), unix.Unshare(unix.CLONE_NEWNS)); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach mounts from the host's: %w", err)
	}
	// "volatile" leaves a mark that refuses the next mount, meant for real disks after a real
	// crash (kernel: overlayfs.rst, "Volatile mount"). A machine's disk need not survive the host's.
	if err := os.RemoveAll(filepath.Join(s.Dir, "work", "work", "incompat")); err != nil {
		return err
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", strings.Join(s.Lower, ":"),
		filepath.Join(s.Dir, "upper"), filepath.Join(s.Dir, "work"))
	if err := unix.Mount("overlay", filepath.Join(s.Dir, "root"), "overlay", 0, data); err != nil {
		return fmt.Errorf("mount overlay (%s): %w", data, err)
	}
	return unifyCgroups()
}
