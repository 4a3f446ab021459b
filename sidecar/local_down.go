package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/site"
)

func localDown() *cobra.Command {
	var name, cache string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take a local cloud down and leave nothing behind",
		Long: `Down ends the cloud's process, switches its machines off and removes their disks, the control
groups, the network namespace and the state. It works the same when the cloud's process was killed,
or was never there, and may be repeated.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(site.ValidName(name), needRoot("taking a local cloud down")); err != nil {
				return err
			}
			if err := takeDown(cmd.Context(), name); err != nil {
				return err
			}
			dir, err := findCache(cache)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "local cloud %s is down; what stays: the image cache %s (make clean removes it) and the apt packages %s\n",
				name, dir, strings.Join(hostPackages(), " "))
			return nil
		},
	}
	nameFlag(cmd, &name)
	cacheFlag(cmd, &cache)
	return cmd
}

// takeDown ends the serving process by its recorded ID, then cleans.
func takeDown(ctx context.Context, name string) error {
	dir := stateDir(name)
	if err := endServer(ctx, filepath.Join(dir, pidFile)); err != nil {
		return err
	}
	if err := site.Clean(name, dir); err != nil {
		return fmt.Errorf("take local cloud %s down: %w", name, err)
	}
	if err := os.Remove(localState); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return nil
}

const pidFile = "pid"

// endServer asks the recorded process to end, and kills it after a while. A process ID that now
// belongs to something else is left alone.
func endServer(ctx context.Context, path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the cloud's process: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("find the cloud's process: %s: %w", path, err)
	}
	if !servesCloud(pid) {
		return nil
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the cloud's process %d: %w", pid, err)
		}
		if waitGone(ctx, pid, 40*time.Second) {
			return nil
		}
	}
	return fmt.Errorf("the cloud's process %d does not end", pid)
}

// servesCloud tells whether the process is an `understudy local serve`.
func servesCloud(pid int) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(cmdline), "\x00local\x00serve\x00")
}

func waitGone(ctx context.Context, pid int, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for servesCloud(pid) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
