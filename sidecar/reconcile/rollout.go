package reconcile

import (
	"context"
	"fmt"
	"slices"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Puppet follows the control repo and runs Puppet on this node.
type Puppet interface {
	// Commits is what is known now. Nothing of it blocks.
	Commits() Commits
	// Newest is the newest run that has ended, real or without effects. Its At is not looked at.
	Newest(noop bool) decide.RunReading
	// Run makes this node what a commit wants, or tells what that would change, and returns when Newest shows it. A run that is under
	// way is waited for. An error means that nothing was run to its end; one that went badly is in Newest.
	Run(ctx context.Context, r Run) error
	// Missing is told which commits others have that may not be known here.
	Missing(commits []string)
}

// Commits is what is known of the control repo: see decide.RolloutReading.
type Commits struct {
	Head    string
	InOrder bool
	Next    uint64
	Leave   []string
	Trouble string
	Refused string
	Stale   bool
	Drifted bool
	// Unreached is the node whose services were reached from here before, and are not now.
	Unreached string
}

// Run is an order to run Puppet.
type Run struct {
	Commit string
	Noop   bool
	Why    string // rollout, rollback, drift or rehearsal
}

// ran remembers when the end of a run was noticed.
type ran struct {
	id string
	at cluster.Instant
	on bool // something was noticed before
}

// notice dates a reading. What ended before this sidecar began to look has no date.
func (n *ran) notice(r decide.RunReading, now cluster.Instant) decide.RunReading {
	if n.on && n.id != r.ID {
		n.at = now
	}
	n.on, n.id = true, r.ID
	r.At = n.at
	return r
}

// readRollout fills in what is known of commits and runs.
func (l *Loop) readRollout(v *decide.View) {
	if l.world.Puppet == nil {
		return
	}
	c := l.world.Puppet.Commits()
	v.Rollout = decide.RolloutReading{
		Head: c.Head, InOrder: c.InOrder, Next: c.Next, Leave: c.Leave, Trouble: c.Trouble, Refused: c.Refused, Stale: c.Stale, Drifted: c.Drifted, Unreached: c.Unreached,
		Rehearsed: l.rehearsed.notice(l.world.Puppet.Newest(true), v.Now), Applied: l.applied.notice(l.world.Puppet.Newest(false), v.Now),
	}
	l.tellMissing(v)
}

// tellMissing passes on which commits the others have.
func (l *Loop) tellMissing(v *decide.View) {
	var all []string
	for _, p := range v.Peers {
		if head := p.Said.Rollout.Head; head != "" && head != v.Rollout.Head && !slices.Contains(all, head) {
			all = append(all, head)
		}
	}
	slices.Sort(all)
	if !slices.Equal(all, l.missing) {
		l.missing = all
		l.world.Puppet.Missing(all)
	}
}

func (l *Loop) rehearse(ctx context.Context, a decide.Rehearse) error {
	if l.world.Puppet == nil {
		return ErrMissing
	}
	why := "rehearsal"
	if a.Commit == l.look().View.Commit {
		why = "drift"
	}
	return l.runPuppet(ctx, Run{Commit: a.Commit, Noop: true, Why: why})
}

// apply begins nothing that the decision did not know the end of the run before, and nothing without the leave that it rests on.
func (l *Loop) apply(ctx context.Context, a decide.Apply) error {
	if l.world.Puppet == nil {
		return ErrMissing
	}
	if newest := l.world.Puppet.Newest(false).ID; newest != a.After {
		return fmt.Errorf("%w: run %q has ended since, after %q", errStale, newest, a.After)
	}
	s := l.look()
	try := s.Decision.Memory.Rollout.Try
	why := "rollout"
	switch {
	case try.Commit == "" || try.After != a.After || a.Back != try.Back:
		return fmt.Errorf("%w: commit %.8s is not tried any more", errStale, a.Commit)
	case a.Back:
		why = "rollback"
	case try.Commit == try.From:
		why = "drift"
	}
	err := l.runPuppet(ctx, Run{Commit: a.Commit, Why: why})
	if l.world.Progress != nil { // the next turn must know what is applied now
		if err := l.readProgress(ctx); err != nil {
			l.log.Warn("what is applied now cannot be read", "err", err)
		}
	}
	return err
}

func (l *Loop) runPuppet(ctx context.Context, r Run) error {
	err := l.world.Puppet.Run(ctx, r)
	l.board.put(func(*decide.View) {}) // a decision from before must not begin it again
	return err
}
