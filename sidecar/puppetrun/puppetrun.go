//go:build linux

package puppetrun

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"understudy/bootstrap/applied"
	"understudy/bootstrap/durable"
	"understudy/sidecar/units"
)

// Bus is systemd, as this package needs it. units.Systemd is the real one, and says what each does.
type Bus interface {
	StartTransient(ctx context.Context, unit string, properties []dbus.Property) (result string, err error)
	List(ctx context.Context, names []string) ([]units.Unit, error)
	Outcome(ctx context.Context, unit string) (string, error)
	Kill(ctx context.Context, unit string) error
	ResetFailed(ctx context.Context, unit string) error
}

// Config is what a Runner needs. All but Program, Limit and Grace are required.
type Config struct {
	Bus Bus
	Log *slog.Logger
	// Dir is /var/lib/understudy: the results lie there.
	Dir string
	// Boot tells this boot of the machine from others.
	Boot string
	// Program is understudy-bootstrap. Empty: /usr/bin/understudy-bootstrap.
	Program string
	// Limit is how long a run may take before it is ended. Zero: 45 minutes, which is above what the bootstrap itself
	// gives Puppet (30) and the waiting for another run (10).
	Limit time.Duration
	// Grace is how long a run that is ended may take for it, before what is left of it is killed. Zero: a minute, of which the
	// bootstrap gives Puppet half, because dpkg may need it.
	Grace time.Duration
}

const (
	defaultProgram = "/usr/bin/understudy-bootstrap"
	defaultLimit   = 45 * time.Minute
	defaultGrace   = time.Minute
)

// Why says what a run is for.
type Why string

const (
	Rehearsal Why = "rehearsal" // a new commit, without effects
	Rollout   Why = "rollout"   // a new commit
	Rollback  Why = "rollback"  // back to the last good one
	Drift     Why = "drift"     // the one in force, again
)

// Job is one run to be made.
type Job struct {
	Commit string `json:"commit"` // full hash; its release must lie on the disk
	Noop   bool   `json:"noop"`   // only tell what would be changed
	Why    Why    `json:"why"`
}

// same jobs do the same, whatever for.
func (j Job) same(k Job) bool { return j.Commit == k.Commit && j.Noop == k.Noop }

// Current is a run that is under way.
type Current struct {
	Job
	ID    string    `json:"id"`    // of the run, unlike that of any other
	Since time.Time `json:"since"` // by the node's clock
	Boot  string    `json:"boot_id"`
}

// Result is how a run went.
type Result struct {
	applied.Result
	ID  string `json:"id"` // unlike that of any other run
	Why Why    `json:"why"`
}

// Runner makes runs, one at a time. All methods may be called by several goroutines at once.
type Runner struct {
	cfg  Config
	turn chan struct{} // holds a token of whoever starts or awaits a run

	mu    sync.Mutex
	state state
	ended uint64
}

// New makes a Runner and reads what is kept. A run that a reboot has cut short is among the results then.
func New(cfg Config) (*Runner, error) {
	if cfg.Program == "" {
		cfg.Program = defaultProgram
	}
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	s, aside, err := load(filepath.Join(cfg.Dir, runsFile))
	if err != nil {
		return nil, err
	}
	if aside != "" {
		cfg.Log.Warn("the results of earlier runs cannot be read; starting without", "kept", aside)
	}
	r := &Runner{cfg: cfg, turn: make(chan struct{}, 1), state: s}
	if c := s.Current; c != nil && c.Boot != cfg.Boot {
		told, err := r.told(*c)
		if err != nil {
			return nil, err
		}
		r.conclude(*c, rebooted(*c, told))
	}
	return r, nil
}

var commitPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// Run makes one run and returns when it has ended. A run that failed is a Result like any other. What an earlier sidecar has
// begun is waited for first; if that did this very job to its end, its result is the answer.
//
// An error means that there is no result. Where ctx has ended or systemd no longer answers, the run goes on, UnderWay
// shows it, and the next call waits for it.
func (r *Runner) Run(ctx context.Context, job Job) (Result, error) {
	if !commitPattern.MatchString(job.Commit) {
		return Result{}, fmt.Errorf("run Puppet: %q is no full commit hash", job.Commit)
	}
	if err := r.take(ctx); err != nil {
		return Result{}, err
	}
	defer r.give()
	earlier, err := r.await(ctx)
	if err != nil {
		return Result{}, err
	}
	if earlier != nil && earlier.job.same(job) && earlier.complete {
		return earlier.result, nil
	}
	if err := r.start(ctx, job); err != nil {
		return Result{}, err
	}
	ended, err := r.await(ctx)
	if err != nil {
		return Result{}, err
	}
	return ended.result, nil
}

// Resume waits for the run that an earlier sidecar has begun, if there is one, and notes its result.
func (r *Runner) Resume(ctx context.Context) error {
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.give()
	_, err := r.await(ctx)
	return err
}

// UnderWay is the run that is under way, also one that an earlier sidecar has begun and whose end nobody has noticed yet.
func (r *Runner) UnderWay() (Current, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Current == nil {
		return Current{}, false
	}
	return *r.state.Current, true
}

// Newest is the newest result of a run with effects, or of one without.
func (r *Runner) Newest(noop bool) (Result, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := newest(r.state.Runs, noop)
	if at < 0 {
		return Result{}, false
	}
	return r.state.Runs[at], true
}

// Ended counts the runs whose end this Runner has noted: what History gives is another one when it has grown.
func (r *Runner) Ended() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// History is the newest results, newest first, at most Kept. The newest with effects and the newest without are always among
// them.
func (r *Runner) History() []Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.state.Runs)
}

func (r *Runner) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another Puppet run: %w", ctx.Err())
	}
}

func (r *Runner) give() { <-r.turn }

// start begins a run. When it returns nil, the run is under way or has ended already.
func (r *Runner) start(ctx context.Context, job Job) error {
	if err := durable.Remove(filepath.Join(r.cfg.Dir, resultFile)); err != nil {
		return fmt.Errorf("remove the last run's result: %w", err)
	}
	if err := r.set(&Current{Job: job, ID: rand.Text(), Since: time.Now().UTC(), Boot: r.cfg.Boot}); err != nil {
		return err
	}
	r.cfg.Log.Info("puppet run starts", "commit", job.Commit, "noop", job.Noop, "reason", job.Why)
	err := r.startUnit(ctx, job)
	if err == nil {
		return nil
	}
	// An answer that got lost may have been a yes.
	if u, lookErr := r.look(ctx); lookErr != nil || u.Running() || exists(filepath.Join(r.cfg.Dir, resultFile)) {
		return errors.Join(lookErr, ctx.Err())
	}
	if clearErr := r.set(nil); clearErr != nil {
		err = errors.Join(err, clearErr)
	}
	return fmt.Errorf("start %s: %w", Unit, err)
}

const (
	callTimeout = 10 * time.Second // one question to systemd
	startTries  = 10               // while systemd still remembers the last run
	pollEvery   = 200 * time.Millisecond
	// silence is how long systemd may not answer before we give up on a run that goes on without us; a re-execution of systemd
	// takes a second or two.
	silence = time.Minute
)

func (r *Runner) startUnit(ctx context.Context, job Job) error {
	for try := 1; ; try++ {
		r.forget(ctx)
		result, err := call(ctx, func(ctx context.Context) (string, error) {
			return r.cfg.Bus.StartTransient(ctx, Unit, r.properties(job))
		})
		switch {
		case err == nil && result == "done":
			return nil
		case err == nil:
			outcome, _ := call(ctx, func(ctx context.Context) (string, error) { return r.cfg.Bus.Outcome(ctx, Unit) })
			r.forget(ctx)
			return fmt.Errorf("systemd says %s (%s); see journalctl -u %s", result, outcome, Unit)
		case !errors.Is(err, units.ErrUnitExists) || try == startTries:
			return err
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// forget makes systemd forget a unit that has failed. It need not know of one.
func (r *Runner) forget(ctx context.Context) {
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, r.cfg.Bus.ResetFailed(ctx, Unit) })
	if err != nil && !errors.Is(err, units.ErrNoUnit) {
		r.cfg.Log.Warn("systemd does not forget the last run", "err", err) // if it matters, the next start fails and says so
	}
}

// end is a run that has ended.
type end struct {
	job      Job
	result   Result
	complete bool // the run itself has told how it went, at its own end
}

// await waits for the end of the run under way and notes its result. It returns nil if there is none.
func (r *Runner) await(ctx context.Context) (*end, error) {
	c, ok := r.UnderWay()
	if !ok {
		return nil, nil
	}
	failed, err := r.follow(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for %s: %w", Unit, err)
	}
	outcome := "success"
	if failed {
		if outcome, err = call(ctx, func(ctx context.Context) (string, error) { return r.cfg.Bus.Outcome(ctx, Unit) }); err != nil {
			return nil, fmt.Errorf("ask systemd how %s ended: %w", Unit, err)
		}
	}
	told, err := r.told(c)
	if err != nil {
		return nil, err
	}
	res := r.judge(c, told, outcome)
	r.conclude(c, res)
	if failed {
		r.forget(ctx)
	}
	return &end{c.Job, res, told != nil && !told.Interrupted}, nil
}

// follow returns when no process of the unit is left. systemd ends the run at its limit; if it does not, we have it killed.
func (r *Runner) follow(ctx context.Context) (failed bool, err error) {
	deadline := time.Now().Add(r.cfg.Limit + 2*r.cfg.Grace)
	heard, killed := time.Now(), false
	for {
		u, err := r.look(ctx)
		now := time.Now()
		switch {
		case err != nil && (ctx.Err() != nil || now.Sub(heard) > silence):
			return false, err
		case err != nil:
		case !u.Running():
			return u.Active == "failed", nil
		case now.After(deadline) && killed:
			return false, errors.New("it does not end even when it is killed; reboot this machine")
		case now.After(deadline):
			r.cfg.Log.Warn("systemd has not ended the run; killing it", "unit", Unit, "took", r.cfg.Limit)
			_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, r.cfg.Bus.Kill(ctx, Unit) })
			if err != nil && !errors.Is(err, units.ErrNoUnit) {
				return false, err
			}
			killed, deadline = true, now.Add(2*r.cfg.Grace)
		}
		if err == nil {
			heard = now
		}
		if err := pause(ctx, pollEvery); err != nil {
			return false, err
		}
	}
}

func (r *Runner) look(ctx context.Context) (units.Unit, error) {
	list, err := call(ctx, func(ctx context.Context) ([]units.Unit, error) { return r.cfg.Bus.List(ctx, []string{Unit}) })
	if err != nil {
		return units.Unit{}, err
	}
	return list[0], nil
}

// conclude notes how the run ended.
func (r *Runner) conclude(c Current, res Result) {
	log := r.cfg.Log.With("commit", c.Commit, "noop", c.Noop, "took", res.Took)
	if res.Good() {
		log.Info("puppet run ended", "detail", res.Kind, "changed", res.Resources.Changed)
	} else {
		log.Warn("puppet run failed", "phase", res.Phase, "err", res.Message)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Current = nil
	r.ended++
	r.state.Runs = trim(append([]Result{res}, r.state.Runs...))
	if err := r.save(); err != nil {
		// The next sidecar finds the run as one under way, and the same result beside it.
		r.cfg.Log.Warn("the results of runs are not up to date", "err", err)
	}
}

// set writes down what is under way.
func (r *Runner) set(c *Current) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.state.Current
	r.state.Current = c
	if err := r.save(); err != nil {
		r.state.Current = before
		return err
	}
	return nil
}

// call asks systemd something, for so long.
func call[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return ask(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
