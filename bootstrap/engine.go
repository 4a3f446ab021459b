package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"understudy/bootstrap/progress"
)

// lasting says how long the effect of a step stays.
type lasting int

const (
	// forProcess: what the step learns is kept in memory, so every start does it again.
	forProcess lasting = iota
	// forBoot: its effect is gone after a reboot.
	forBoot
	// forIncarnation: its effect stays on the disk.
	forIncarnation
)

// step is one of the ordered parts of a bootstrap. Each can be killed anywhere and done again.
type step struct {
	name  string
	lasts lasting
	// doing is the message while it runs.
	doing string
	// patience bounds the time of all tries together; a try in progress is not cut off by it. Zero: one try.
	patience time.Duration
	// limit bounds one try.
	limit time.Duration
	// pause, if not zero, is the longest pause between two tries, where the question is cheap and the
	// answer is what everything waits for.
	pause time.Duration
	// intact looks whether the recorded effect is still there. Nil: it is.
	intact func(b *boot) bool
	// do returns a few words on the result, for people.
	do func(ctx context.Context, b *boot) (detail string, err error)
}

// engine runs steps in order and keeps the record.
type engine struct {
	base   *slog.Logger
	log    *slog.Logger // base with what the record says of us
	notify notifier
	wait   waiter
	path   string // of the record; empty: it is not written (-noop)
	bootID string
	record progress.Record

	// at is called before and after each step. Tests kill the process there.
	at func(point string)
}

// maxBack is how often a later step may send us back to an earlier one.
const maxBack = 3

// run does every step that is not done yet. The error is a *failure, or the context's.
func (e *engine) run(ctx context.Context, b *boot, steps []step) error {
	back := 0
	// After a failure everything is looked at afresh, because the cure may be anywhere; and so it is when
	// somebody starts us by hand on a machine that is done.
	redo := e.record.Failed != nil || e.record.Done != nil
	e.record.Failed, e.record.Done = nil, nil
	for i := 0; i < len(steps); i++ {
		s := steps[i]
		if !redo && e.skips(b, s) {
			e.log.Debug("already done", "phase", s.name)
			continue
		}
		if s.lasts == forIncarnation {
			redo = true // what comes after it stood on the old result
			e.forgetFrom(steps[i:])
		}
		err := e.step(ctx, b, s)
		if err == nil {
			continue
		}
		f, ok := errors.AsType[*failure](err)
		if !ok || f.back == "" || back == maxBack {
			return err
		}
		back++
		e.log.Warn("starting over", "phase", s.name, "from", f.back, "reason", oneLine(f.err))
		for steps[i].name != f.back {
			i--
		}
		i-- // the loop's own step forward comes next
		if _, ok := e.wait.pause(ctx, back, 0); !ok {
			return context.Cause(ctx)
		}
	}
	return nil
}

// forgetFrom takes the lasting ones of these steps off the record, so that a kill in the middle of them
// leaves none that stands on an older one's result.
func (e *engine) forgetFrom(steps []step) {
	for _, s := range steps {
		if s.lasts == forIncarnation {
			e.record.Forget(s.name)
		}
	}
}

// skips tells whether an earlier start has done the step for good.
func (e *engine) skips(b *boot, s step) bool {
	done, ok := e.record.Step(s.name)
	switch {
	case !ok || s.lasts == forProcess:
		return false
	case s.lasts == forBoot && done.Boot != e.bootID:
		return false
	}
	return s.intact == nil || s.intact(b)
}

// step does one step, with all its tries.
func (e *engine) step(ctx context.Context, b *boot, s step) error {
	e.at("before " + s.name)
	e.enter(s)
	b.log = e.log.With("phase", s.name)
	began := progress.Step{Name: s.name, Started: time.Now().UTC(), Attempt: e.record.Attempt, Boot: e.bootID}
	start := time.Now()
	said := ""
	for n := 1; ; n++ {
		began.Tries++
		detail, err := e.try(ctx, b, s)
		if err == nil {
			began.Finished, began.Detail = time.Now().UTC(), detail
			began.Took = short(time.Since(start)).String()
			return e.leave(s, began, time.Since(start))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f := asFailure(err)
		if !f.again || time.Since(start) >= s.patience {
			if f.again && s.patience > 0 {
				f = &failure{code: f.code, err: fmt.Errorf("%w (tried %d times in %v)", f.err, began.Tries, short(time.Since(start))), next: f.next}
			}
			return f
		}
		if text := oneLine(f.err); text != said {
			said = text
			b.log.Warn("trying again", "reason", text)
		}
		e.say(s.name, waiting(said))
		fresh, ok := e.wait.pause(ctx, n, s.pause)
		if !ok {
			return context.Cause(ctx)
		}
		if fresh {
			n = 0
		}
	}
}

// waiting puts a reason to try again into words for observers.
func waiting(reason string) string {
	if strings.HasPrefix(reason, "waiting ") {
		return reason
	}
	return "trying again: " + reason
}

// try is one try, bounded in time.
func (e *engine) try(ctx context.Context, b *boot, s step) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done within %v", s.limit))
	defer cancel()
	return s.do(ctx, b)
}

// relog gives every later line what is known of us by now.
func (e *engine) relog() {
	e.log = e.base.With("attempt", e.record.Attempt, "node", e.record.Node, "role", e.record.Role, "commit", e.record.Commit)
}

func (e *engine) enter(s step) {
	e.notify.allow(s.patience + s.limit)
	e.say(s.name, s.doing)
}

// leave records a finished step. Only what would be dear to repeat is worth waiting for the disk.
func (e *engine) leave(s step, done progress.Step, took time.Duration) error {
	e.at("between " + s.name)
	e.record.Add(done)
	d := replaceable
	if s.lasts == forIncarnation {
		d = durable
	}
	e.log.Info("step done", "phase", s.name, "detail", done.Detail, "took", took)
	if err := e.save(d); err != nil {
		return err
	}
	e.at("after " + s.name)
	return nil
}

// say tells observers what is being done or waited for. A change of words within a phase is a change of
// message; the same words again keep their time.
func (e *engine) say(phase, message string) {
	if e.record.Phase == phase && e.record.Message == message {
		e.notify.status(fmt.Sprintf("%s: %s, %v", phase, message, time.Since(e.record.Since).Round(time.Second)))
		return
	}
	e.record.Phase, e.record.Message, e.record.Since = phase, message, time.Now().UTC()
	e.notify.status(phase + ": " + message)
	if err := e.save(replaceable); err != nil {
		e.log.Warn("observers see an old state", "phase", phase, "err", err) // the step itself may well succeed
	}
}

func (e *engine) save(d durability) error {
	if e.path == "" {
		return nil
	}
	return saveRecord(e.record, e.path, d)
}

// finish closes the record of this attempt. err is what run returned.
func (e *engine) finish(err error, usage progress.Usage) {
	e.record.Usage = &usage
	if f, ok := errors.AsType[*failure](err); ok {
		e.record.Failed = &progress.Failed{Code: f.code, Error: oneLine(f.err), Next: f.next, At: time.Now().UTC()}
		e.record.Message = "failed: " + oneLine(f.err)
		e.record.Since = e.record.Failed.At
	} else if err != nil {
		e.record.Message = "stopped: " + oneLine(err)
	} else if last, ok := e.record.Step(e.record.Phase); ok {
		e.record.Message = last.Detail
	}
	if err := e.save(durable); err != nil {
		// The next start finds an older record and repeats more than it had to.
		e.log.Warn("the record is not up to date", "phase", e.record.Phase, "err", err)
	}
}

// adopt compares the record with the machine we are on. A record of another incarnation (the image was made
// from a machine that had been started once) is dropped; the identity of a cluster is dropped by nobody.
func (e *engine) adopt(m progress.Machine) (dropped bool) {
	old := e.record.Machine
	same := old.MachineID == m.MachineID && (old.DropletID == "" || m.DropletID == "" || old.DropletID == m.DropletID)
	if old == (progress.Machine{}) || same {
		if m.DropletID == "" {
			m.DropletID = old.DropletID
		}
		e.record.Machine = m
		return false
	}
	e.record = progress.Record{Version: progress.Version, Machine: m}
	return true
}

// readID reads a file that holds one ID, such as /etc/machine-id. A missing one is empty.
func readID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	id := string(data)
	for i, r := range id {
		if r == '\n' {
			return id[:i], nil
		}
	}
	return id, nil
}
