// Package command runs other programs, and is the only package of bootstrap that does.
//
// It promises: an absolute program path and an argv, never a shell; exactly the environment that was
// given; a process group of its own, which is asked to stop (SIGTERM) and then killed (SIGKILL) as a
// whole when the context ends or the time is up; bounded memory whatever the program prints; and a
// return soon after the program has exited, even when a grandchild keeps its output open (the trap of
// golang.org/issue/23019). A grandchild that made a session or group of its own is not killed: that is
// how a daemon asks to be left alone.
//
// A program that ran and exited non-zero is not an error here, because what its exit codes mean is the
// caller's knowledge (puppet's 2 is a success). An error means that there is no exit code to judge.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// DefaultMaxOutput is how many bytes of each stream are kept when Cmd.MaxOutput is zero.
	DefaultMaxOutput = 64 << 10
	// DefaultGrace is how long a program may take to end after SIGTERM when Cmd.Grace is zero.
	DefaultGrace = 5 * time.Second
	// MaxLine is how many bytes of a line reach Cmd.OnLine; the rest of a longer line is dropped there
	// (Result keeps it, within MaxOutput).
	MaxLine = 8 << 10
)

// Names of the streams as Cmd.OnLine sees them.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Cmd is one program to run. The zero value is invalid: Path is required.
type Cmd struct {
	// Path of the program, absolute. Nothing is looked up in $PATH.
	Path string
	// Args are the arguments after the program's name.
	Args []string
	// Env is the complete environment as KEY=value; nothing is inherited. Empty: no variables at all.
	Env []string
	// Dir is the working directory. Empty: "/".
	Dir string
	// Stdin is handed to the program, which need not read it to its end. Nil: /dev/null. It should be a
	// file or already in memory: Run cannot return while a Read of it blocks.
	Stdin io.Reader
	// Timeout stops the program so long after its start. Zero: only the context does.
	Timeout time.Duration
	// Grace is the time between SIGTERM and SIGKILL. Zero: DefaultGrace.
	Grace time.Duration
	// MaxOutput is how many bytes of each stream Result keeps: the first and the last half, with a line
	// between them that says how much was left out. Zero: DefaultMaxOutput.
	MaxOutput int
	// OnLine is told every line as it is printed, without its line end, cut to MaxLine, in valid UTF-8.
	// It is called by the goroutine that called Run, so calls never overlap; while it blocks, the
	// program's output waits. Nil: nobody is told.
	OnLine func(stream, line string)
}

// Result is what a finished program left behind. It is filled as far as known also beside an error.
type Result struct {
	// ExitCode is 0 to 255, or -1 when a signal ended the program or it never started.
	ExitCode int
	// Stdout and Stderr hold at most Cmd.MaxOutput bytes each, plus the line that names the gap.
	Stdout, Stderr []byte
	// Omitted is how many bytes of both streams are in that gap. Zero: the output is complete.
	Omitted int64
	// Took is the wall time from start to exit, including the wait for the last output.
	Took time.Duration
	// UserCPU and SystemCPU are those of the program and of all descendants it waited for.
	UserCPU, SystemCPU time.Duration
	// MaxRSS is the peak resident memory, in bytes, of the largest of those processes.
	MaxRSS int64
}

// Runner runs a program to its end. Exec is the real one, Fake the scripted one.
//
// The error is nil whenever the program ran and exited by itself, whatever its exit code. Otherwise it
// is a *StartError (nothing ran), a *TimeoutError, a *SignalError, or wraps the context's error. After
// the last three the program may have done any part of its work.
type Runner interface {
	Run(ctx context.Context, c Cmd) (Result, error)
}

// StartError says that the program could not be started, and so that nothing happened.
type StartError struct {
	Path string
	Err  error // such as fs.ErrNotExist or fs.ErrPermission
}

func (e *StartError) Error() string { return fmt.Sprintf("start %s: %v", e.Path, e.Err) }

func (e *StartError) Unwrap() error { return e.Err }

// TimeoutError says that the program was stopped because Cmd.Timeout was over.
type TimeoutError struct {
	Path  string
	After time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s: stopped because it had not finished after %v", e.Path, e.After)
}

// SignalError says that a signal which did not come from here ended the program.
type SignalError struct {
	Path   string
	Signal syscall.Signal
}

func (e *SignalError) Error() string {
	why := ""
	if e.Signal == syscall.SIGKILL {
		why = " (out of memory, or killed by an operator; see the kernel's log)"
	}
	return fmt.Sprintf("%s: ended by signal %d, %v%s", e.Path, int(e.Signal), e.Signal, why)
}

// check refuses what Runner's implementations must refuse alike.
func (c Cmd) check() error {
	switch {
	case !filepath.IsAbs(c.Path):
		return &StartError{c.Path, errors.New("the path must be absolute")}
	case c.Dir != "" && !filepath.IsAbs(c.Dir):
		return &StartError{c.Path, fmt.Errorf("working directory %q must be absolute", c.Dir)}
	case c.Timeout < 0 || c.Grace < 0 || c.MaxOutput < 0:
		return &StartError{c.Path, errors.New("timeout, grace and output limit must not be negative")}
	}
	for _, kv := range c.Env {
		if i := strings.IndexByte(kv, '='); i < 1 {
			return &StartError{c.Path, fmt.Errorf("environment entry %q is not KEY=value", kv)}
		}
	}
	return nil
}

func (c Cmd) maxOutput() int {
	if c.MaxOutput == 0 {
		return DefaultMaxOutput
	}
	return c.MaxOutput
}

func (c Cmd) grace() time.Duration {
	if c.Grace == 0 {
		return DefaultGrace
	}
	return c.Grace
}
