// Package follow notices that somebody has pushed to the control repo, decides whether the commit counts, and lays its release on
// the disk. It never applies one: that is for its caller to order.
//
// It promises that a commit is accepted only if an allowed signer signed it, it descends from the newest commit that was accepted
// here, and its roles.yaml is one of this cluster without problems; that what is accepted is written down durably, after its
// release lies whole on the disk and before anybody is told; and that nothing accepted is ever taken back. A commit that is
// refused stays refused until the branch points elsewhere, and is shown with one sentence that says what to do. What another try
// may mend (no network, a full disk) is tried again by itself, ever more slowly.
//
// Origins are polled, for one line each time. Other members are not: their beats say which commit each of them has accepted, and
// only one that is not known here is fetched from them. So a push that reached one node reaches all, though the origin is gone.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"understudy/bootstrap/control"
	"understudy/bootstrap/role"
)

const (
	// DefaultEvery is the mean pause between two looks. With the jitter the longest is 5 s.
	DefaultEvery = 4 * time.Second
	// jitter is the part of a pause by which it is longer or shorter at random, so that nodes do not ask together.
	jitter = 0.25
	// slowest is the mean pause that looks which keep failing slow down to.
	slowest = 30 * time.Second
	// leastGap is the pause between two looks, however often Poke is called.
	leastGap = time.Second
	// askFor is how long one origin may take to say where the branch is.
	askFor = 10 * time.Second
)

// Peer is another member that serves its copy of the control repo.
type Peer struct {
	Name   string
	Source control.Source
	Head   string // the newest commit that it says it has accepted; empty: not known
}

// Config is what a Follower needs. All fields are required unless said.
type Config struct {
	Repo    *control.Repo // the bare copy, and the releases
	Branch  string
	Cluster string // as roles.yaml has it; a commit of another cluster is refused
	// Origins are asked in this order, and the first that answers decides. An older commit counts as the branch set back only where
	// the first of them says it: the others may be mirrors that lag. May be empty: then only members are heard.
	Origins []control.Source
	// Peers are the living members, asked anew at each look. Nil: none. It must not block.
	Peers func() []Peer
	// Signers may sign commits.
	Signers control.Signers
	// StateFile remembers the newest accepted commit. Its directory must exist.
	StateFile string
	// First is the full hash of the commit that counts as accepted when there is no state file: that which bootstrap applied.
	First string
	// Keep names commits whose releases must stay on the disk: those applied and to go back to. Nil: none. It must not block.
	Keep func() []string
	// Every is the mean pause between two looks. Zero: DefaultEvery.
	Every time.Duration
	// Log gets what was accepted and refused. Nil: nobody does.
	Log *slog.Logger
	// May says whether the running cluster can go over to a commit's roles.yaml; its error is why not, or a NotYet. Nil: it always can.
	May func(Candidate) error
	// Accepted is called by Run after a new commit is accepted. Nil: nobody is told.
	Accepted func()
}

// Candidate is a commit that would be accepted but for what the running cluster has to say to its roles.yaml.
type Candidate struct {
	Commit string
	Roster role.Roster
	// Trailers are those of all commits since the accepted one (control.Repo.Since), the newest first: who signs a commit answers for those.
	// It is a function because few ask; it must not be called once May has returned.
	Trailers func() ([]Trailer, error)
}

// State is what is known of the branch. Times are of this machine's clock.
type State struct {
	Head     string    // newest accepted commit, in full
	Subject  string    // first line of its message; empty: none, or not known
	When     time.Time // its committer's clock
	Signer   string    // who signed it; empty: not known
	Release  string    // directory of its files
	Trailers []Trailer // of its message; to be read only

	Refused string // commit at the tip that does not count; empty: none
	Why     string // one sentence: what is wrong with it, and what to do

	Trouble string    // one sentence: why a push may go unnoticed; empty: none
	Since   time.Time // of the trouble; zero: none

	Asked time.Time // the newest look that an origin answered; zero: none has
	Looks uint64    // so far
	Bytes uint64    // sent to and received from sources, without the headers of TCP and IP
}

// NotYet is why a commit must wait for the cluster. It is asked about again at the next look.
type NotYet string

func (n NotYet) Error() string { return string(n) }

// Follower follows one branch. Make it with New, then call Run once; the other methods are for everybody.
type Follower struct {
	cfg   Config
	poked chan struct{}
	shown atomic.Pointer[State]

	// What follows is Run's own.
	head    accepted
	pointed bool              // the local branch is at head
	tip     string            // what an origin said last
	judged  map[string]string // commits that do not count while head is what it is → why; empty: its source lags
	tips    *control.Tips
	now     State
}

// New reads the state file and nothing else. A damaged one is put aside with a warning.
func New(cfg Config) (*Follower, error) {
	if cfg.Repo == nil || cfg.Branch == "" || cfg.Cluster == "" || cfg.StateFile == "" {
		return nil, errors.New("follow: repo, branch, cluster and state file are all needed")
	}
	if cfg.Signers.Empty() {
		return nil, errors.New("follow: nobody is allowed to sign commits, so none can count")
	}
	if cfg.Every == 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Every < 0 {
		return nil, fmt.Errorf("follow: a pause of %v", cfg.Every)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	head, aside, err := loadState(cfg.StateFile)
	if err != nil {
		return nil, err
	}
	if aside != "" {
		cfg.Log.Warn("the file with the newest accepted commit was damaged: going on from the commit of the first boot", "aside", aside, "commit", cfg.First)
	}
	if head.Commit == "" {
		if !isHash(cfg.First) {
			return nil, fmt.Errorf("follow: %s names no accepted commit, and that of the first boot, %q, is no full hash", cfg.StateFile, cfg.First)
		}
		head = accepted{Commit: cfg.First}
	}
	f := &Follower{cfg: cfg, poked: make(chan struct{}, 1), head: head, judged: map[string]string{}}
	f.show()
	return f, nil
}

// State is the newest. It never blocks.
func (f *Follower) State() State {
	s := *f.shown.Load()
	s.Bytes = f.cfg.Repo.Traffic()
	return s
}

// Branch is the one that is followed.
func (f *Follower) Branch() string { return f.cfg.Branch }

// Poke asks for a look now. Calls before that look begins are one; looks are at least a second apart.
func (f *Follower) Poke() {
	select {
	case f.poked <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	f.tips = f.cfg.Repo.Tips(f.cfg.Branch)
	defer f.tips.Close()
	f.describe(ctx)
	failed := 0
	for {
		if f.look(ctx) {
			failed = 0
		} else {
			failed++
		}
		if ctx.Err() != nil {
			return nil
		}
		f.show()
		if !f.wait(ctx, f.pause(failed, rand.Float64())) {
			return nil
		}
	}
}

// pause is how long to wait after so many looks that failed in a row. chance is from 0 to 1.
func (f *Follower) pause(failed int, chance float64) time.Duration {
	mean := f.cfg.Every
	for range min(failed-1, 10) { // the first failure may be a hiccup
		mean = min(2*mean, max(slowest, f.cfg.Every))
	}
	return time.Duration(float64(mean) * (1 - jitter + 2*jitter*chance))
}

// wait returns after the pause or a poke, and says whether to go on.
func (f *Follower) wait(ctx context.Context, pause time.Duration) bool {
	gap, whole := time.NewTimer(min(leastGap, pause)), time.NewTimer(pause)
	defer gap.Stop()
	defer whole.Stop()
	select {
	case <-gap.C:
	case <-ctx.Done():
		return false
	}
	select {
	case <-f.poked:
	case <-whole.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// show lets everybody see what is known now.
func (f *Follower) show() {
	s := f.now
	s.Head, s.Subject, s.When, s.Signer, s.Trailers = f.head.Commit, f.head.Subject, f.head.When, f.head.Signer, f.head.Trailers
	s.Release = f.release()
	f.shown.Store(&s)
}

func (f *Follower) release() string { return filepath.Join(f.cfg.Repo.Releases, f.head.Commit) }

// isHash tells a full SHA-1 hash in git's form.
func isHash(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }
