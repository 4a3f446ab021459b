package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// drain is how long output is still read after the program has exited. Its own last words are in the
// pipe by then; only a grandchild that inherited the pipe can make us wait this long.
const drain = 500 * time.Millisecond

// Exec runs real programs. The zero value is ready; it may be used by several goroutines at once.
type Exec struct{}

// Run implements Runner.
func (Exec) Run(ctx context.Context, c Cmd) (Result, error) {
	res := Result{ExitCode: -1}
	if err := c.check(); err != nil {
		return res, err
	}
	if err := ctx.Err(); err != nil {
		return res, &StartError{c.Path, err}
	}
	began := time.Now()
	p, err := start(c)
	if err != nil {
		return res, &StartError{c.Path, err}
	}
	stopped := p.follow(ctx, c)
	waitErr := p.cmd.Wait() // the process is a zombie already: this reaps it
	res.Took = time.Since(began)
	p.fill(&res)
	if stopped != nil {
		return res, stopped
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return res, &SignalError{c.Path, status.Signal()}
	}
	if _, exited := errors.AsType[*exec.ExitError](waitErr); waitErr != nil && !exited && !harmless(waitErr) {
		return res, fmt.Errorf("run %s: %w", c.Path, waitErr)
	}
	return res, nil
}

// harmless errors of Wait are about standard input that nobody wanted to read to its end.
func harmless(err error) bool {
	return errors.Is(err, exec.ErrWaitDelay) || errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed)
}

// process is a started program. One goroutine, in follow, owns everything but the pipes' contents.
type process struct {
	cmd     *exec.Cmd
	streams [2]*stream
}

// stream is one output of the program; its reading goroutine owns it until the stream has ended.
type stream struct {
	name string
	pipe *os.File
	kept capture
}

// line is one line on its way from a stream's reader to Cmd.OnLine.
type line struct{ stream, text string }

func start(c Cmd) (*process, error) {
	p := &process{cmd: exec.Command(c.Path, c.Args...)}
	p.cmd.Env = append([]string{}, c.Env...) // never nil: nil would inherit ours
	p.cmd.Dir = c.Dir
	if c.Dir == "" {
		p.cmd.Dir = "/"
	}
	p.cmd.Stdin = c.Stdin
	p.cmd.WaitDelay = drain
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var childEnds [2]*os.File
	for i, name := range []string{Stdout, Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			p.closePipes()
			closeFiles(childEnds[:])
			return nil, err
		}
		p.streams[i] = &stream{name: name, pipe: r, kept: capture{max: c.maxOutput()}}
		childEnds[i] = w
	}
	p.cmd.Stdout, p.cmd.Stderr = childEnds[0], childEnds[1]
	err := p.cmd.Start()
	closeFiles(childEnds[:])
	if err != nil {
		p.closePipes()
		return nil, err
	}
	return p, nil
}

// follow returns once the program is a zombie and its output has ended or been given up. The error says
// why we stopped it; nil when it ended by itself.
func (p *process) follow(ctx context.Context, c Cmd) error {
	defer p.closePipes()
	var g errgroup.Group
	lines := make(chan line)
	ended := make(chan struct{}, len(p.streams))
	exited := make(chan struct{})
	for _, s := range p.streams {
		g.Go(func() error {
			s.read(c.OnLine != nil, lines)
			ended <- struct{}{}
			return nil
		})
	}
	g.Go(func() error {
		defer close(exited)
		p.awaitExit()
		return nil
	})
	var stopped error
	stop, killAt := ctx.Done(), (<-chan time.Time)(nil)
	timeout := after(c.Timeout)
	halt := func(why error) {
		stopped, stop, timeout = why, nil, nil
		p.signal(unix.SIGTERM)
		killAt = time.After(c.grace())
	}
	for open := len(p.streams); open > 0 || exited != nil; {
		select {
		case l := <-lines:
			c.OnLine(l.stream, l.text)
		case <-ended:
			open--
		case <-stop:
			halt(fmt.Errorf("run %s: stopped: %w", c.Path, context.Cause(ctx)))
		case <-timeout:
			halt(&TimeoutError{c.Path, c.Timeout})
		case <-killAt:
			p.signal(unix.SIGKILL)
		case <-exited:
			exited, stop, timeout = nil, nil, nil
			if stopped != nil {
				p.signal(unix.SIGKILL) // whoever of the group outlived its leader
			}
			p.giveUpAt(time.Now().Add(drain))
		}
	}
	g.Wait() // never an error: the goroutines report through the channels
	return stopped
}

// signal reaches the whole group. The leader is not reaped before follow returns, so the group's number
// cannot have passed to a stranger; ESRCH means that all are gone, which is what was wanted.
func (p *process) signal(sig syscall.Signal) { _ = unix.Kill(-p.cmd.Process.Pid, sig) }

// awaitExit returns when the program has ended, and leaves it a zombie.
func (p *process) awaitExit() {
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // an error here (ECHILD) means that there is nothing to wait for
		}
	}
}

// giveUpAt ends the reading of output that is still open then.
func (p *process) giveUpAt(t time.Time) {
	for _, s := range p.streams {
		_ = s.pipe.SetReadDeadline(t) // os.Pipe supports deadlines; at worst the reader waits for EOF
	}
}

func (p *process) closePipes() {
	for _, s := range p.streams {
		if s != nil {
			s.pipe.Close()
		}
	}
}

// fill copies what the process left behind. The streams' readers have ended.
func (p *process) fill(res *Result) {
	res.Stdout, res.Stderr = p.streams[0].kept.bytes(), p.streams[1].kept.bytes()
	res.Omitted = p.streams[0].kept.omitted() + p.streams[1].kept.omitted()
	state := p.cmd.ProcessState
	if state == nil {
		return
	}
	res.ExitCode = state.ExitCode()
	res.UserCPU, res.SystemCPU = state.UserTime(), state.SystemTime()
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		res.MaxRSS = usage.Maxrss << 10 // getrusage(2): kilobytes
	}
}

// read empties the stream until its end, or until the deadline that giveUpAt sets.
func (s *stream) read(wanted bool, lines chan<- line) {
	var split splitter
	emit := func(text string) { lines <- line{s.name, text} }
	buf := make([]byte, 32<<10)
	for {
		n, err := s.pipe.Read(buf)
		s.kept.write(buf[:n])
		if wanted {
			split.write(buf[:n], emit)
		}
		if err != nil {
			break // io.EOF, or the deadline
		}
	}
	if wanted {
		split.close(emit)
	}
}

// after is time.After, except that zero is never.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
