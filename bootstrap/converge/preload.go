package converge

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
)

//go:embed preload.rb
var preloadScript string

// preloadMarker is the line preload.rb prints once it has its arguments and from where on it is puppet.
const preloadMarker = "understudy-preload: applying"

// preloadPatience is how long a preloaded puppet may take to answer after it got its arguments. It may
// still be loading then, which takes 1 to 5 s on a busy machine of one core.
const preloadPatience = 30 * time.Second

// Preloaded is a Puppet whose code is being loaded while something else is waited for (1.5 s of a run of
// 3 s can be had before the network is there). It is an optimisation only: it cannot fail, it can only be of
// no use. Close it, or hand it to a Run, which does.
type Preloaded struct {
	binary string
	cancel context.CancelFunc
	group  errgroup.Group
	lines  chan heardLine
	ended  chan struct{} // closed when res and err are set
	res    command.Result
	err    error

	closing sync.Once
	stdin   *os.File
}

type heardLine struct{ stream, text string }

// Preload starts loading and returns at once. It returns nil, which a Run takes for "not preloaded",
// when it does not know how to.
func (p Puppet) Preload(ctx context.Context) *Preloaded {
	if p.Ruby == "" {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil // no file descriptor to spare: a plain run will do
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Preloaded{binary: p.Binary, cancel: cancel, stdin: w, lines: make(chan heardLine, 16), ended: make(chan struct{})}
	aptConf := filepath.Join(p.Paths.State, "apt.conf")
	l.group.Go(func() error {
		defer close(l.ended)
		defer r.Close()
		l.res, l.err = p.Runner.Run(ctx, command.Cmd{Path: p.Ruby, Args: []string{"-e", preloadScript}, Env: environ(aptConf),
			Stdin: r, Grace: grace, MaxOutput: keptOutput, OnLine: func(stream, text string) {
				select {
				case l.lines <- heardLine{stream, text}:
				case <-ctx.Done():
				}
			}})
		return nil
	})
	return l
}

// Close ends a preloaded puppet that was not used, and waits until it is gone. It may be called again,
// and after a Run.
func (l *Preloaded) Close() {
	if l == nil {
		return
	}
	l.closing.Do(func() { l.stdin.Close() })
	l.cancel()
	l.group.Wait() // never an error
}

// apply hands over the arguments and follows the run. ran is false when puppet never began, so that
// nothing was changed and a plain run is the right thing.
func (l *Preloaded) apply(ctx context.Context, input []byte, timeout time.Duration, onLine func(stream, text string)) (res command.Result, ran bool, err error) {
	defer l.Close()
	_, err = l.stdin.Write(input)
	if closeErr := l.closeInput(); err != nil || closeErr != nil {
		return res, false, nil
	}
	began := map[string]bool{} // per stream, since nothing orders the lines of one among those of the other
	hear := func(line heardLine) {
		switch {
		case line.text == preloadMarker:
			began[line.stream] = true
		case began[line.stream]:
			onLine(line.stream, line.text)
		}
	}
	limit, patience := time.After(timeout), time.After(preloadPatience)
	for {
		select {
		case line := <-l.lines:
			hear(line)
			if len(began) > 0 {
				ran, patience = true, nil
			}
		case <-l.ended:
			l.drain(hear)
			_, notStarted := errors.AsType[*command.StartError](l.err)
			return l.res, len(began) > 0 && !notStarted, l.err
		case <-patience:
			return res, false, nil // Close kills it; if it has begun in this instant, it has had no time to act
		case <-limit:
			l.cancel()
			<-l.ended
			return l.res, ran, &command.TimeoutError{Path: l.binary, After: timeout}
		case <-ctx.Done():
			l.cancel()
			<-l.ended
			return l.res, true, fmt.Errorf("run %s: stopped: %w", l.binary, context.Cause(ctx))
		}
	}
}

func (l *Preloaded) closeInput() (err error) {
	l.closing.Do(func() { err = l.stdin.Close() })
	return err
}

// drain takes the lines that were still on their way when the process ended.
func (l *Preloaded) drain(hear func(heardLine)) {
	for {
		select {
		case line := <-l.lines:
			hear(line)
		default:
			return
		}
	}
}
