package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/applied"
	"understudy/bootstrap/config"
	"understudy/bootstrap/converge"
	"understudy/bootstrap/progress"
)

// commitPattern is a full hash, so that it names a directory of the releases and nothing else.
var commitPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// misused says what is wrong with the flags of -apply; empty: nothing.
func (o options) misused() string {
	switch {
	case o.apply == "" && o.result != "":
		return "-result goes with -apply"
	case o.apply == "":
		return ""
	case !commitPattern.MatchString(o.apply):
		return fmt.Sprintf("-apply %q: a full commit hash is needed", o.apply)
	case !filepath.IsAbs(o.result):
		return "-apply needs -result with an absolute path"
	case o.role != "":
		return "-role does not go with -apply: the machine has a role"
	}
	return ""
}

// apply converges this machine, which is a node already, on a release that lies on its disk: one attempt, without
// fetching or verifying, which the sidecar has done. How it ended is written to o.result as the last thing. The record of the
// first boot is touched once, after a good run: naming the commit there makes the release the one in force.
func apply(ctx context.Context, o options, s surroundings) int {
	began := time.Now()
	r := applied.Result{Commit: o.apply, Noop: o.noop, Began: began.UTC(), Phase: progress.Roles}
	b, err := prepareApply(o, s)
	if err == nil {
		defer func() {
			if err := b.removeScratch(); err != nil {
				s.log.Warn("something is left behind", "err", err)
			}
		}()
		err = b.applyRelease(ctx)
		b.describe(&r)
	}
	took := time.Since(began)
	r.Took = short(took).String()
	return conclude(ctx, r, err, o.result, s, took)
}

// prepareApply makes everything the attempt needs, and changes nothing. It refuses a machine that is no node yet, and a
// release that is not there.
func prepareApply(o options, s surroundings) (*boot, error) {
	cfg, err := config.Load(o.config)
	if err != nil {
		return nil, fail(exitUsage, err, "correct "+o.config+" in the image, and on this machine")
	}
	if !exists(s.layout.done) {
		return nil, failf(exitUsage, "see journalctl -t understudy-bootstrap", "this machine is not its node yet: there is no %s", s.layout.done)
	}
	b := &boot{cfg: cfg, noop: o.noop, at: s.layout, kernel: s.kernel, runner: s.runner, restarts: true}
	b.puppet, b.puppetErr = converge.Find(s.runner, s.layout.puppet)
	// An engine without a path: its record is a copy, which nobody reads while a run is under way.
	b.engine = &engine{base: s.log, log: s.log, notify: s.notify, wait: waiter{retry: cfg.Retry}, at: s.at}
	if b.engine.bootID, err = readID(s.layout.bootID); err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	if b.before, err = readRecord(s.layout.record); err != nil {
		return nil, err
	}
	b.engine.record = b.before
	b.engine.record.Commit, b.engine.record.Phase, b.engine.record.Steps = o.apply, progress.Roles, nil
	b.engine.relog()
	if !b.hasRelease() {
		return nil, failf(exitNoSource, "run understudy-bootstrap without -apply to fetch the newest commit", "the release %s is not on the disk", b.releaseDir())
	}
	if !o.noop {
		return b, nil
	}
	err = b.useScratch()
	b.at.releases = s.layout.releases // which is only read
	return b, err
}

// readRecord reads the record of the first boot and leaves it as it is, whatever that is.
func readRecord(path string) (progress.Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return progress.Record{}, fmt.Errorf("read the record of steps: %w", err)
	}
	return progress.Parse(data)
}

// applyRelease does the steps of a bootstrap that follow from a release.
func (b *boot) applyRelease(ctx context.Context) error {
	var err error
	if b.node, err = b.kernel.hostname(); err != nil {
		return fmt.Errorf("read the kernel's hostname: %w", err)
	}
	if short, _, _ := strings.Cut(b.node, "."); short != b.before.Node {
		return failf(exitNoHostname, "hostnamectl hostname "+b.before.Node, "this machine is %s, and its hostname is %q now", b.before.Node, b.node)
	}
	wanted := []string{progress.Roles, progress.Secrets, progress.Facts, progress.Puppet}
	steps := slices.DeleteFunc(b.steps(), func(s step) bool { return !slices.Contains(wanted, s.name) })
	steps[0].do = func(ctx context.Context, b *boot) (string, error) {
		detail, err := roles(ctx, b)
		if err == nil && b.self.Name != b.before.Role {
			err = failf(exitUnknownHost, "let this machine be replaced, or give the name back to its role in roles.yaml",
				"%s is a %s node, and role %s has the name now", b.before.Node, b.before.Role, b.self.Name)
		}
		return detail, err
	}
	if err := b.engine.run(ctx, b, steps); err != nil || b.noop {
		return err
	}
	return b.enforce()
}

// enforce makes the commit the one that this machine has applied, by replacing the record. Before it the old one is in force:
// after a crash the next run applies the new one again.
func (b *boot) enforce() error {
	record, err := readRecord(b.at.record) // again: a run by hand may have ended meanwhile
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	record.Commit, record.Failed, record.Phase, record.Since = b.engine.record.Commit, nil, progress.Done, now
	record.Message = fmt.Sprintf("%s has applied %.12s", record.Node, record.Commit)
	if record.Done == nil { // a run by hand has failed since
		record.Done = &now
	}
	b.engine.at("before in force")
	if err := saveRecord(record, b.at.record, durable); err != nil {
		return err
	}
	b.engine.at("after in force")
	return nil
}

// describe copies what Puppet's run came to.
func (b *boot) describe(r *applied.Result) {
	r.Boot, r.Phase = b.engine.bootID, b.engine.record.Phase
	o := b.outcome
	if o == nil {
		return
	}
	r.Kind = o.Kind.String()
	for _, f := range o.Failures[:min(len(o.Failures), applied.MaxFailures)] {
		r.Failures = append(r.Failures, applied.Failure{Resource: f.Resource, Place: f.Place, Message: f.Message})
	}
	for _, u := range o.Restarts {
		r.Restarts = append(r.Restarts, applied.Restart{Unit: u.Unit, Verb: u.Verb, Resource: u.Resource})
	}
	if o.Summary == nil {
		return
	}
	n, t := o.Summary.Resources, o.Summary.Time
	r.Resources = applied.Resources{Total: n.Total, Changed: n.Changed, Failed: n.Failed + n.FailedToRestart, Skipped: n.Skipped, OutOfSync: n.OutOfSync}
	if b.before.Finished() && b.before.Commit == r.Commit {
		r.Resources.Corrective = n.Changed
		if r.Noop {
			r.Resources.Corrective = n.OutOfSync
		}
	}
	r.Seconds = map[string]float64{"config_retrieval": t.Config, "catalog_application": t.Apply, "total": t.Total}
	maps.Copy(r.Seconds, t.Types)
}

// conclude says how the attempt ended, in the log and in the file, and returns the exit code.
func conclude(ctx context.Context, r applied.Result, err error, file string, s surroundings, took time.Duration) int {
	log := s.log.With("commit", r.Commit, "noop", r.Noop)
	switch {
	case err == nil:
		log.Info("applied", "phase", progress.Done, "detail", r.Kind, "took", took)
	case ctx.Err() != nil:
		r.Code, r.Interrupted, r.Fault = exitUnexpected, true, applied.Machine
		r.Message, r.Next = "stopped before the end: "+oneLine(err), "it is tried again by itself"
		log.Warn(r.Message, "phase", r.Phase, "took", took)
	default:
		f := asFailure(err)
		r.Code, r.Message, r.Next, r.Fault = f.code, oneLine(f.err), f.next, faultOf(f.code, r.Kind)
		log.Error(f.Error(), "phase", r.Phase, "code", f.code, "took", took)
	}
	data, err := r.Encode()
	if err == nil {
		err = writeFile(file, data, 0o644, durable)
	}
	if err != nil {
		log.Error("the result cannot be written", "err", err)
		return max(r.Code, exitUnexpected)
	}
	return r.Code
}

// faultOf says whether a failure speaks against the commit. A run that hangs does: the machine was well before. A roster that
// has another use for the name does not: then it is this machine that has to go.
func faultOf(code int, kind string) applied.Fault {
	switch code {
	case exitTree, exitRoles, exitSecrets, exitCompile:
		return applied.Commit
	case exitPuppetFailed:
		if kind == converge.Failed.String() {
			return applied.Commit
		}
	case exitPuppetBlocked:
		if kind == converge.TimedOut.String() {
			return applied.Commit
		}
	}
	return applied.Machine
}
