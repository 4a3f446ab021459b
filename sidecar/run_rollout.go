package main

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/admin"
	"understudy/sidecar/decide"
	pushes "understudy/sidecar/follow"
	"understudy/sidecar/puppetrun"
	"understudy/sidecar/reconcile"
	"understudy/sidecar/units"
)

// bootConfig is where the image says which control repo its machines follow.
const bootConfig = "/etc/understudy/bootstrap.yaml"

// puppet is the control repo and Puppet on this node, in the loop's words.
type puppet struct {
	*node
	repo   *pushes.Follower
	runner *puppetrun.Runner
	other  *outside
	yields func() target // the node that this one gives leave to
	began  time.Time     // of this sidecar
	every  time.Duration // between two looks for drift

	mu    sync.Mutex
	known uint64 // of the runner's results, plus one: those that what follows was made of
	runs  map[bool]decide.RunReading
	stale bool      // the applied release has other files than those that this sidecar has read
	last  time.Time // when the node was last looked at, or changed
	head  string    // the accepted commit, and
	next  uint64    // its roster, if that is not this node's own
	leave []string  // the nodes that it removes
	wish  intended
	// removal waits for an operator, whose word is the newest given here.
	removal removal
	word    consent
}

// newPuppet is nil where there is no control repo to follow: on machines whose roster is given by hand.
func (p *parts) newPuppet(bus *units.Systemd) (*puppet, error) {
	if p.cfg.Roster != "" {
		return nil, nil
	}
	release, err := p.cfg.Verified()
	if err != nil {
		return nil, err
	}
	repo, err := p.follow(bootConfig, release.Commit, following{peers: p.controlPeers, keep: p.inUse, accepted: p.wake, may: p.may})
	if err != nil || repo == nil {
		return nil, err
	}
	runner, err := p.puppetRunner(bus)
	if err != nil {
		return nil, err
	}
	return &puppet{
		node: p.node, repo: repo, runner: runner, began: time.Now(), every: splayed(p.roster.Drift.Every, p.cfg.Node), other: newOutside(p.role, p.log), yields: p.yields,
	}, nil
}

// splayed is a pause of which every node has another one, up to a sixth longer or shorter, so that they do not look together.
func splayed(mean time.Duration, node string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(node)) // never fails (hash.Hash)
	return mean*5/6 + time.Duration(h.Sum32()%2001)*(mean/6000)
}

// inUse are the commits whose releases must stay on the disk.
func (p *parts) inUse() []string {
	_, v, d, _ := p.snapshot()
	try := d.Memory.Rollout.Try
	run, _ := p.puppet.runner.UnderWay()
	return slices.DeleteFunc([]string{v.Commit, try.Commit, try.From, run.Commit}, func(commit string) bool { return commit == "" })
}

// wake makes the loop turn.
func (p *parts) wake() { p.loop.Order(func(*decide.Orders) {}) }

// servePuppet begins to follow the control repo. The loop must be there, and the streams to members.
func (p *parts) servePuppet(ctx context.Context, g *errgroup.Group) error {
	if p.puppet == nil {
		return nil
	}
	g.Go(func() error { return p.puppet.repo.Run(ctx) })
	g.Go(func() error { return p.puppet.other.run(ctx) })
	g.Go(func() error {
		if err := p.puppet.runner.Resume(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("the run that was under way cannot be followed; the next one waits for it", "err", err)
		}
		return nil
	})
	return p.serveWebhook(ctx, g, p.puppet.repo.Branch(), p.puppet.repo.Poke)
}

// inOrder is the trailer of a commit that wants one role at a time.
const inOrder, inOrderValue = "Understudy-Rollout", "in-order"

// Commits implements reconcile.Puppet.
func (p *puppet) Commits() reconcile.Commits {
	s := p.repo.State()
	p.other.watch(p.yields())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	next := p.nextRoster(s) // and what it removes
	return reconcile.Commits{
		Unreached: p.other.unreached(),
		Head:      s.Head, Next: next, Leave: p.leave, Trouble: s.Trouble, Refused: s.Why, Stale: p.stale, Drifted: time.Since(p.last) > p.every,
		InOrder: slices.ContainsFunc(s.Trailers, func(t pushes.Trailer) bool { return t.Key == inOrder && t.Value == inOrderValue }),
	}
}

// Newest implements reconcile.Puppet.
func (p *puppet) Newest(noop bool) decide.RunReading {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	return p.runs[noop]
}

// refresh looks at the results if there are new ones: the loop asks in every turn.
func (p *puppet) refresh() {
	ended := p.runner.Ended() + 1
	if p.known == ended {
		return
	}
	p.known, p.runs, p.last, p.stale = ended, map[bool]decide.RunReading{}, p.began, p.isStale()
	for _, noop := range []bool{false, true} {
		r, ok := p.runner.Newest(noop)
		if !ok {
			continue
		}
		p.runs[noop] = reading(r)
		if end := r.Began.Add(r.Duration()); end.After(p.last) {
			p.last = end
		}
	}
}

// isStale compares the files of the applied release with those that this sidecar runs on.
func (p *puppet) isStale() bool {
	r, err := p.cfg.Release()
	if err != nil {
		return false // whoever reads how far this node has come says why
	}
	for name, had := range p.files {
		now, err := os.ReadFile(filepath.Join(r.Dir, name)) // one that is not there is empty, as when it was read first
		if err != nil && !errors.Is(err, fs.ErrNotExist) || !bytes.Equal(now, had) {
			return true
		}
	}
	return false
}

// Run implements reconcile.Puppet.
func (p *puppet) Run(ctx context.Context, r reconcile.Run) error {
	_, err := p.runner.Run(ctx, puppetrun.Job{Commit: r.Commit, Noop: r.Noop, Why: puppetrun.Why(r.Why)})
	return err
}

// Missing implements reconcile.Puppet. Which commits those are the follower knows from the same beats.
func (p *puppet) Missing(commits []string) {
	if len(commits) > 0 {
		p.repo.Poke()
	}
}

// Look implements admin.Backend.
func (b backend) Look() {
	if b.puppet != nil {
		b.puppet.repo.Poke()
	}
}

// Runs implements admin.Backend.
func (b backend) Runs() []admin.PuppetRun {
	if b.puppet == nil {
		return nil
	}
	return b.puppet.ran()()
}

// ran gives the newest runs. Nil: there is nobody who runs Puppet.
func (p *puppet) ran() func() []admin.PuppetRun {
	if p == nil {
		return nil
	}
	return func() (all []admin.PuppetRun) {
		for _, r := range p.runner.History() {
			all = append(all, admin.PuppetRun{Result: r.Result, Why: string(r.Why)})
		}
		return all
	}
}

// looks counts what following has cost. Nil: nobody follows.
func (p *puppet) looks() func() (looks, bytes uint64) {
	if p == nil {
		return nil
	}
	return func() (uint64, uint64) {
		s := p.repo.State()
		return s.Looks, s.Bytes
	}
}
