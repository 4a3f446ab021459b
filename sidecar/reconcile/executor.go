package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/decide"
)

// errStale says that what an action assumes no longer holds. Nothing was done, and that is no failure.
var errStale = errors.New("what this assumed no longer holds")

// executor does slow actions side by side, one of a key at a time. Every decision hands it all the actions it wants: what a
// decision no longer wants is not begun again, and what it wants otherwise replaces what is under way.
type executor struct {
	log     *slog.Logger
	perform func(ctx context.Context, a decide.Action) error
	version func() uint64 // of the board
	done    func()        // called after each action, without locks

	group errgroup.Group

	mu   sync.Mutex
	jobs map[string]*job
}

// job is the state of one key.
type job struct {
	running decide.Action      // nil: nothing is under way
	cancel  context.CancelFunc // of what is under way
	// After finished, an older view can still ask for what has just been done.
	finished  uint64
	notBefore time.Time
	tries     int // failures in a row
	err       error
	since     time.Time // of the first of them
	text      string    // of the action that failed
}

func newExecutor(log *slog.Logger, perform func(context.Context, decide.Action) error, version func() uint64, done func()) *executor {
	return &executor{log: log, perform: perform, version: version, done: done, jobs: map[string]*job{}}
}

// want hands over the actions of one decision, which was made from the board's state of the given version. It returns how
// long until one of them may be tried again; zero: none waits.
func (x *executor) want(ctx context.Context, actions []decide.Action, version uint64) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	var soonest time.Duration
	wanted := make(map[string]bool, len(actions))
	for _, a := range actions {
		key := a.Key()
		wanted[key] = true
		j := x.jobs[key]
		if j == nil {
			j = &job{}
			x.jobs[key] = j
		}
		switch {
		case j.running != nil && !sameAction(j.running, a):
			j.cancel() // its end wakes the loop, and the next decision begins the other one
		case j.running != nil:
		case j.notBefore.After(now):
			if wait := j.notBefore.Sub(now); soonest == 0 || wait < soonest {
				soonest = wait
			}
		case version >= j.finished:
			x.start(ctx, j, a)
		}
	}
	for key, j := range x.jobs {
		if !wanted[key] && j.running == nil && !j.notBefore.After(now) {
			delete(x.jobs, key)
		}
	}
	return soonest
}

// start begins an action; x.mu is held.
func (x *executor) start(ctx context.Context, j *job, a decide.Action) {
	ctx, cancel := context.WithTimeout(ctx, timeout(a))
	j.running, j.cancel = a, cancel
	x.group.Go(func() error {
		defer cancel()
		began := time.Now()
		err := x.perform(ctx, a)
		x.finish(ctx, j, a, err, time.Since(began))
		x.done()
		return nil
	})
}

// finish notes how an action ended.
func (x *executor) finish(ctx context.Context, j *job, a decide.Action, err error, took time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	j.running, j.cancel = nil, nil
	j.finished = x.version()
	now := time.Now()
	switch {
	case err == nil:
		if j.err != nil {
			x.log.Info("works again", "what", a.Key(), "took", now.Sub(j.since).Round(time.Millisecond))
		}
		x.log.Log(ctx, level(a), "done", "what", a.Key(), "reason", a.Text(), "took", took.Round(time.Microsecond))
		j.tries, j.err = 0, nil
		j.notBefore = now.Add(pause(a))
	case errors.Is(err, errStale):
		x.log.Debug("not done", "what", a.Key(), "reason", a.Text(), "err", err)
		j.notBefore = now.Add(pause(a))
	case errors.Is(err, context.Canceled):
		// Another action of the key is wanted, or the loop ends. What this one has done shows in the next reading.
		j.notBefore = now
	default:
		if j.err == nil || j.err.Error() != err.Error() {
			x.log.Warn("failed, will try again", "what", a.Key(), "reason", a.Text(), "err", err)
		}
		if j.err == nil {
			j.since = now
		}
		j.tries, j.err, j.text = j.tries+1, err, a.Text()
		j.notBefore = now.Add(backoff(a, j.tries, err))
	}
}

// failing lists what has failed and not worked since, sorted by key.
func (x *executor) failing() []decide.Blocked {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []decide.Blocked
	for _, key := range slices.Sorted(maps.Keys(x.jobs)) {
		if j := x.jobs[key]; j.err != nil {
			all = append(all, decide.Blocked{What: key, Why: fmt.Sprintf("%v (tried %d times; %s)", j.err, j.tries, j.text)})
		}
	}
	return all
}

// wait returns when nothing is under way any more. The contexts of all actions must have ended or end by themselves.
func (x *executor) wait() { _ = x.group.Wait() } // the functions return nil only

// Pauses after failures: from firstPause on they double up to mostPause. What waits for nobody outside this machine begins
// and ends shorter, and what a takeover waits for, the ledger, ends shorter.
const (
	firstPause, mostPause           = 250 * time.Millisecond, 15 * time.Second
	firstLocalPause, mostLocalPause = 20 * time.Millisecond, 2 * time.Second
	mostLedgerPause                 = 2 * time.Second
)

// retryAfter is an error that knows when to come back, as rate limits do.
type retryAfter interface{ RetryAfter() time.Duration }

// backoff is how long to wait after so many failures in a row, from 1. Half of it is jitter, so that nodes that failed
// together do not come back together.
func backoff(a decide.Action, tries int, err error) time.Duration {
	if after, ok := errors.AsType[interface {
		error
		retryAfter
	}](err); ok && after.RetryAfter() > 0 {
		return after.RetryAfter() + rand.N(firstPause)
	}
	first, most := firstPause, mostPause
	switch a.(type) {
	case decide.LinkAddress, decide.PrimaryUnits, decide.StartDrain, decide.CountSockets:
		first, most = firstLocalPause, mostLocalPause
	case decide.ReadLedger, decide.WriteDuty, decide.ClaimTie:
		most = mostLedgerPause
	}
	wait := most
	if tries < 16 { // beyond it the shift would overflow
		wait = min(most, first<<(tries-1))
	}
	return wait/2 + rand.N(wait/2)
}

// timeout bounds one try.
func timeout(a decide.Action) time.Duration {
	switch a.(type) {
	case decide.LinkAddress, decide.CountSockets:
		return 2 * time.Second
	case decide.ReadLedger, decide.ReadHolder, decide.ReadMachine, decide.ReadZone:
		return 5 * time.Second
	case decide.Create:
		return hireTimeout
	case decide.Rehearse, decide.Apply:
		return 2 * time.Hour // whoever runs Puppet has a limit of its own
	case decide.PrimaryUnits:
		return 100 * time.Second // systemd's own limit for a start is 90 s (systemd.service(5), TimeoutStartSec=)
	}
	return 15 * time.Second
}

// pause is the least time between the end of an action and the next one of its key. It keeps a reading that never shows
// the effect from turning into a storm of calls.
func pause(a decide.Action) time.Duration {
	switch a.(type) {
	case decide.LinkAddress, decide.CountSockets:
		return 20 * time.Millisecond
	case decide.ReadMachine, decide.ReadList, decide.PowerOff, decide.Create, decide.Delete, decide.AssignReserved, decide.UpdateZone, decide.StartDrain:
		return time.Second // MachineReading.Same counts answers a second apart
	case decide.Rehearse, decide.Restart:
		return 10 * time.Second
	case decide.ReadHolder, decide.ReadZone:
		return 250 * time.Millisecond
	}
	return 100 * time.Millisecond
}

// level is how loud a success is: readings are silent.
func level(a decide.Action) slog.Level {
	switch a.(type) {
	case decide.ReadHolder, decide.ReadMachine, decide.ReadList, decide.ReadLedger, decide.ReadZone, decide.CountSockets:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// sameAction tells whether b asks for what a is doing already. Reasons may differ: they name durations.
func sameAction(a, b decide.Action) bool {
	switch a := a.(type) {
	case decide.LinkAddress:
		b, ok := b.(decide.LinkAddress)
		return ok && a.Add == b.Add && a.Expect == b.Expect
	case decide.AssignReserved:
		b, ok := b.(decide.AssignReserved)
		return ok && a.Machine == b.Machine && a.Address == b.Address && a.Expect == b.Expect
	case decide.PrimaryUnits:
		b, ok := b.(decide.PrimaryUnits)
		return ok && a.Start == b.Start && a.Expect == b.Expect
	case decide.UpdateZone:
		b, ok := b.(decide.UpdateZone)
		return ok && a.Epoch == b.Epoch && slices.Equal(a.Own, b.Own) && slices.Equal(a.Want, b.Want)
	case decide.WriteDuty:
		b, ok := b.(decide.WriteDuty)
		return ok && a.Record == b.Record
	case decide.ReadMachine:
		b, ok := b.(decide.ReadMachine)
		return ok && a.Machine == b.Machine
	}
	return true // the key says it all
}
