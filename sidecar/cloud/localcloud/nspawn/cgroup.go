//go:build linux

package nspawn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupMount = "/sys/fs/cgroup"

func isCgroup2(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// cgroupRoot finds the unified hierarchy: the only one, or beside the old ones (systemd's "hybrid").
func cgroupRoot() (string, error) {
	for _, dir := range []string{cgroupMount, filepath.Join(cgroupMount, "unified")} {
		if isCgroup2(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no unified control group hierarchy at %s: mount one with: mount -t cgroup2 none %[1]s", cgroupMount)
}

// unifyCgroups makes /sys/fs/cgroup the unified hierarchy in this mount namespace.
func unifyCgroups() error {
	if isCgroup2(cgroupMount) {
		return nil
	}
	if err := unix.Unmount(cgroupMount, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", cgroupMount, err)
	}
	if err := unix.Mount("none", cgroupMount, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount the unified hierarchy: %w", err)
	}
	return nil
}

func groupDir(cloud string, more ...string) (string, error) {
	root, err := cgroupRoot()
	return filepath.Join(append([]string{root, "understudy-" + cloud}, more...)...), err
}

func makeGroup(cloud, machine string) (*os.File, error) {
	dir, err := groupDir(cloud, machine)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	return os.Open(dir)
}

// killGroup kills every process of a machine at once; a group that is gone has none.
func killGroup(cloud, machine string) error {
	dir, err := groupDir(cloud, machine)
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// removeGroup deletes a group's empty directories, innermost first.
func removeGroup(cloud string, more ...string) error {
	dir, err := groupDir(cloud, more...)
	if err != nil {
		return err
	}
	var dirs []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes while we look is what we want
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		if rm := os.Remove(d); rm != nil && !errors.Is(rm, os.ErrNotExist) {
			err = errors.Join(err, rm)
		}
	}
	return err
}

// Clean kills every process that machines of a cloud left, whoever started them, and removes their
// control groups. It is how a cloud whose process was killed is tidied; no Backend is needed.
func Clean(cloud string) error {
	dir, err := groupDir(cloud)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := killGroup(cloud, ""); err != nil {
		return fmt.Errorf("kill what cloud %s left: %w", cloud, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if err = removeGroup(cloud); err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// CPUTime is the processor time that a machine's processes have used since it was switched on.
func (b *Backend) CPUTime(id int) (time.Duration, error) {
	dir, err := groupDir(b.opt.Cloud, Name(b.opt.Cloud, id))
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	var usec int64
	if _, err := fmt.Sscanf(string(data), "usage_usec %d", &usec); err != nil {
		return 0, fmt.Errorf("read cpu.stat: %w", err)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
