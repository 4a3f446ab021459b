package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Fake is a Runner for tests: a script answers instead of a program. It behaves as Exec does towards its
// caller: the same commands are refused, a context that has ended runs nothing, standard input is read
// to its end, lines reach OnLine, and output is cut to MaxOutput. The zero value succeeds at everything.
type Fake struct {
	// Script answers one command; Cmd.Stdin holds the whole input, never nil. It is called by the
	// goroutine that called Run, outside any lock. Nil: exit code 0 without output.
	Script func(Cmd) (Result, error)

	mu    sync.Mutex
	calls []Call
}

// Call is one command that a Fake was asked to run.
type Call struct {
	Cmd
	Input []byte // what was read from Stdin
}

// Run implements Runner.
func (f *Fake) Run(ctx context.Context, c Cmd) (Result, error) {
	if err := c.check(); err != nil {
		return Result{ExitCode: -1}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{ExitCode: -1}, &StartError{c.Path, err}
	}
	var input []byte
	if c.Stdin != nil {
		var err error
		if input, err = io.ReadAll(c.Stdin); err != nil {
			return Result{ExitCode: -1}, fmt.Errorf("run %s: read input: %w", c.Path, err)
		}
	}
	f.mu.Lock()
	f.calls = append(f.calls, Call{c, input})
	f.mu.Unlock()

	c.Stdin = bytes.NewReader(input)
	began := time.Now()
	var res Result
	var err error
	if f.Script != nil {
		res, err = f.Script(c)
	}
	if res.Took == 0 {
		res.Took = time.Since(began)
	}
	tell(c, Stdout, res.Stdout)
	tell(c, Stderr, res.Stderr)
	res.Stdout, res.Omitted = limit(c, res.Stdout, res.Omitted)
	res.Stderr, res.Omitted = limit(c, res.Stderr, res.Omitted)
	return res, err
}

// Calls returns what was run so far, in order.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

func tell(c Cmd, stream string, out []byte) {
	if c.OnLine == nil {
		return
	}
	var split splitter
	emit := func(text string) { c.OnLine(stream, text) }
	split.write(out, emit)
	split.close(emit)
}

func limit(c Cmd, out []byte, omitted int64) ([]byte, int64) {
	kept := capture{max: c.maxOutput()}
	kept.write(out)
	return kept.bytes(), omitted + kept.omitted()
}
