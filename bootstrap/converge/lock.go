package converge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/command"
)

// LockedError says that another run was still going when the wait was over. Nothing was changed.
type LockedError struct {
	Lock   string
	PID    int // of the holder, 0 when unknown
	Waited time.Duration
}

func (e *LockedError) Error() string {
	holder := "another process"
	if e.PID > 0 {
		holder = "process " + strconv.Itoa(e.PID)
	}
	return fmt.Sprintf("puppet is already running: %s holds %s (waited %v)", holder, e.Lock, e.Waited)
}

// DisabledError says that an operator has forbidden runs by `puppet agent --disable`.
type DisabledError struct {
	File   string
	Reason string // the operator's words, may be empty
}

func (e *DisabledError) Error() string {
	reason := ""
	if e.Reason != "" {
		reason = fmt.Sprintf(" (%q)", e.Reason)
	}
	return fmt.Sprintf("puppet is disabled by %s%s", e.File, reason)
}

// enabled reads the files of `puppet agent --disable`: {"disabled_message":"…"}.
func (p Puppet) enabled() error {
	for _, file := range p.Paths.Disabled {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("see whether puppet is disabled: %w", err)
		}
		var said struct {
			Message string `json:"disabled_message"`
		}
		_ = json.Unmarshal(data, &said) // the file's being there is what counts, its text only helps
		return &DisabledError{file, said.Message}
	}
	return nil
}

// pollEvery is how often a held lock is tried again. flock(2) cannot be waited for with a deadline.
const pollEvery = 100 * time.Millisecond

// lock takes the lock, waiting at most so long, and then waits for a run whose starter was killed.
func (p Puppet) lock(ctx context.Context, wait time.Duration) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(p.Paths.Lock), 0o755); err != nil {
		return nil, fmt.Errorf("lock puppet: %w", err)
	}
	f, err := os.OpenFile(p.Paths.Lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock puppet: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		held := &LockedError{Lock: p.Paths.Lock, Waited: wait}
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			if held.PID = p.orphan(); held.PID == 0 {
				note(f)
				return func() { f.Close() }, nil
			}
		case errors.Is(err, unix.EWOULDBLOCK):
			held.PID = readPID(f)
		case !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock puppet: %w", err)
		}
		if !time.Now().Before(deadline) {
			f.Close()
			return nil, held
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock puppet: %w", context.Cause(ctx))
		case <-time.After(min(pollEvery, time.Until(deadline))):
		}
	}
}

// note writes who holds the lock, for the error text of others only; so a failure does no harm.
func note(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
}

func readPID(f *os.File) int {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0) // an unreadable number is an unknown holder
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// orphan returns the process of a run of ours that outlived its starter's kill -9, 0 if there is none. Such
// a run holds no lock. It is known by the summary file on its command line, which only our runs have.
func (p Puppet) orphan() int {
	entries, err := os.ReadDir(p.Paths.Proc)
	if err != nil {
		return 0
	}
	mark := []byte("--lastrunfile=" + p.Paths.State + "/")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join(p.Paths.Proc, e.Name(), "cmdline"))
		if err == nil && bytes.Contains(line, mark) {
			return pid
		}
	}
	return 0
}

// repairDpkg finishes what an interrupted dpkg had begun (a power cut during an earlier run): until then
// apt refuses everything. apt itself looks at the same directory to tell.
func (p Puppet) repairDpkg(ctx context.Context, r Run) error {
	entries, err := os.ReadDir(p.Paths.DpkgUpdates)
	if err != nil || len(entries) == 0 {
		return nil // no dpkg here, or one in order
	}
	if r.OnLine != nil {
		r.OnLine(Line{Level: "notice", Text: "dpkg was interrupted earlier: running dpkg --configure -a"})
	}
	env := append(environ("/dev/null"), "DEBIAN_FRONTEND=noninteractive")
	res, err := p.Runner.Run(ctx, command.Cmd{Path: "/usr/bin/dpkg", Args: []string{"--configure", "-a", "--force-confold"},
		Env: env, Timeout: DefaultTimeout, Grace: grace})
	if err != nil {
		return fmt.Errorf("repair dpkg: %w", err)
	}
	if res.ExitCode != 0 && r.OnLine != nil {
		// Puppet may need no package at all; if it does, its own failure names the package.
		r.OnLine(Line{Level: "warning", Text: fmt.Sprintf("dpkg --configure -a exited %d: %s", res.ExitCode, telling(string(res.Stderr)))})
	}
	return nil
}
