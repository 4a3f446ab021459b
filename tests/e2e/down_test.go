//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/sidecar/cloud/localcloud/site"
)

// leftovers lists what a local cloud of that name still has on this machine.
func leftovers(t *testing.T, name string) []string {
	t.Helper()
	var left []string
	if _, err := os.Stat("/run/netns/" + site.Namespace(name)); err == nil {
		left = append(left, "its network namespace")
	}
	dir := filepath.Join("/var/lib/understudy-local", name)
	if _, err := os.Stat(dir); err == nil {
		left = append(left, dir)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		left = append(left, "a mount below "+dir)
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "understudy-"+name)); err == nil {
			left = append(left, "its control group")
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if line, err := os.ReadFile(p); err == nil && strings.Contains(string(line), dir) {
			left = append(left, "process "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}

// TestDownCleansWhatAKilledCloudLeft kills the cloud's process, with machines running, in the middle
// of everything; once `down` and once the next `up` has to clean.
func TestDownCleansWhatAKilledCloudLeft(t *testing.T) {
	name := fmt.Sprintf("killed%d", os.Getpid())
	t.Cleanup(func() { try(t, "local", "down", "--name", name) })
	up := func() int {
		understudy(t, "local", "up", "--name", name, "--repo", repo(t), cacheFlag(), "--no-wait")
		data, err := os.ReadFile(filepath.Join("/var/lib/understudy-local", name, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		c := &cluster{name: name}
		eventually(t, 30*time.Second, func() error {
			for _, n := range c.status(t).Nodes {
				if n.Power {
					return nil
				}
			}
			return fmt.Errorf("no machine runs yet")
		})
		return pid
	}
	kill := func(pid int) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, func() error {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
				return fmt.Errorf("process %d is still there", pid)
			}
			return nil
		})
	}
	kill(up())
	if len(leftovers(t, name)) == 0 {
		t.Fatal("the killed cloud left nothing: the test shows nothing")
	}
	kill(up()) // coming up again cleaned what was left
	for range 2 {
		understudy(t, "local", "down", "--name", name)
		if left := leftovers(t, name); len(left) > 0 {
			t.Errorf("after down there is still %s", strings.Join(left, "; "))
		}
	}
}

// TestUpRefusesWhatCannotWork: each with a sentence that says what to do.
func TestUpRefusesWhatCannotWork(t *testing.T) {
	empty := t.TempDir()
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "roles.yaml"), []byte("cluster: x\nrolls: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--name", "../x"}, "lower case"},
		{[]string{"--forward", "0.0.0.0:80=www:80"}, "not a loopback address"},
		{[]string{"--repo", empty}, "image-packages"},
		{[]string{"--repo", bad}, "image-packages"},
	} {
		args := append([]string{"local", "up", "--name", "refused"}, cacheFlag())
		out, err := try(t, append(args, c.args...)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: got %v and %q, want an error with %q", c.args, err, out, c.want)
		}
		if left := leftovers(t, "refused"); len(left) > 0 {
			t.Errorf("%v left %v", c.args, left)
		}
	}
}
