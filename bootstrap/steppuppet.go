package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"understudy/bootstrap/command"
	"understudy/bootstrap/converge"
	"understudy/bootstrap/progress"
	"understudy/bootstrap/secrets"
)

const runByHand = "see journalctl -t understudy-bootstrap PHASE=puppet"

// sayEvery is how often observers are told what Puppet is doing; the log has every line.
const sayEvery = 500 * time.Millisecond

// runPuppet converges the machine on the release.
func runPuppet(ctx context.Context, b *boot) (string, error) {
	if b.puppetErr != nil {
		return "", fail(exitNoPuppet, b.puppetErr, "install puppet-agent in the image")
	}
	loaded := b.loaded
	b.loaded = nil // a second try is a plain run
	var said time.Time
	p := b.cfg.Patience
	o, err := b.puppet.Apply(ctx, converge.Run{
		Release: b.release, Commit: b.engine.record.Commit, Noop: b.noop, Scratch: b.scratch, Preloaded: loaded, Restarts: b.restarts,
		Timeout: p.Puppet, LockWait: p.PuppetLock, DpkgWait: p.DpkgLock,
		OnLine: func(l converge.Line) {
			b.heard(l)
			if now := time.Now(); now.Sub(said) >= sayEvery && l.Level == "notice" {
				said = now
				b.engine.say(progress.Puppet, l.String())
			}
		},
	})
	if err != nil {
		return "", puppetError(err)
	}
	b.outcome = &o
	if !o.Kind.Good() {
		for _, f := range o.Failures {
			b.log.Error("resource failed", "resource", f.Resource, "place", f.Place, "err", f.Message)
		}
		return "", puppetFailure(o)
	}
	s := o.Summary.Resources
	if b.noop {
		return fmt.Sprintf("%d of %d resources would change", s.OutOfSync, s.Total), nil
	}
	return fmt.Sprintf("%d of %d resources changed", s.Changed, s.Total), nil
}

// heard logs one message of Puppet's.
func (b *boot) heard(l converge.Line) {
	switch {
	case strings.HasPrefix(l.Text, "Facter: ") || l.Level == "debug":
		b.log.Debug("puppet says", "detail", l.String())
	case l.Level == "error" || l.Level == "warning":
		b.log.Warn("puppet says", "detail", l.String()) // Error is for the end of it, should it come to that
	default:
		b.log.Info("puppet says", "detail", l.String())
	}
}

// puppetError gives a meaning to a run that did not take place.
func puppetError(err error) error {
	_, held := errors.AsType[*converge.LockedError](err)
	_, disabled := errors.AsType[*converge.DisabledError](err)
	_, missing := errors.AsType[*command.StartError](err)
	switch {
	case held:
		return fail(exitPuppetBlocked, err, "let that run end, or stop it; it is tried again by itself")
	case disabled:
		return fail(exitPuppetBlocked, err, "puppet agent --enable; it is tried again by itself")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case missing:
		return fail(exitNoPuppet, err, "install puppet-agent in the image")
	}
	return fail(exitCompile, err, "correct it and push")
}

// puppetFailure gives a meaning to a run that did.
func puppetFailure(o converge.Outcome) *failure {
	text := errors.New(o.Message)
	switch o.Kind {
	case converge.CompileError:
		return fail(exitCompile, fmt.Errorf("puppet cannot compile the catalog: %w", text), "correct it and push; nothing was changed on this machine")
	case converge.TimedOut:
		return fail(exitPuppetBlocked, text, "see what it waits for ("+runByHand+"), or raise patience.puppet in bootstrap.yaml; it is tried again by itself")
	case converge.Killed:
		return fail(exitPuppetFailed, text, "give the machine more memory if the kernel killed it (journalctl -k -g oom); it is tried again by itself")
	case converge.DiskFull:
		return fail(exitDiskFull, text, "make room (df -h; apt-get clean; journalctl --vacuum-size=100M); it is tried again by itself")
	case converge.DpkgLocked:
		return fail(exitDpkgLocked, text, "let it end, or stop it; it is tried again by itself")
	}
	return fail(exitPuppetFailed, text, "correct the cause and push; it is tried again by itself ("+runByHand+")")
}

// finish lets the sidecar start. The marker is the last thing written.
func finish(_ context.Context, b *boot) (string, error) {
	now := time.Now().UTC()
	b.engine.record.Done = &now
	text := fmt.Sprintf("%s role=%s commit=%s %s\n", b.fact.Node, b.self.Name, b.engine.record.Commit, now.Format(time.RFC3339))
	if err := b.engine.save(durable); err != nil {
		return "", err
	}
	if err := writeFile(b.at.done, []byte(text), 0o644, durable); err != nil {
		return "", fmt.Errorf("write the done-marker: %w", err)
	}
	if err := secrets.ForgetCommit(b.at.state); err != nil {
		b.log.Warn("the commit of the first boot is still on the disk", "err", err) // the marker outweighs it
	}
	return fmt.Sprintf("%s is a %s node now", b.fact.Node, b.self.Name), nil
}

// removeScratch takes away what -noop has written.
func (b *boot) removeScratch() error {
	var errs []error
	if b.lent {
		errs = append(errs, os.RemoveAll(b.at.secrets))
	}
	if b.scratch != "" {
		errs = append(errs, os.RemoveAll(b.scratch))
	}
	return errors.Join(errs...)
}
