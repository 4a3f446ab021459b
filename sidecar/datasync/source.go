//go:build linux

package datasync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/datasync/apply"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/watch"
	"understudy/sidecar/datasync/wire"
)

// SourceOptions may be zero.
type SourceOptions struct {
	Watch watch.Options
	// Retry is after which time a path that could not be read or staged is tried again. Default: 1 s.
	Retry time.Duration
	// Alive is how often an idle source says that it is there. Default: 1 s.
	Alive time.Duration
}

// SourceState is how far a source's mirror has come.
type SourceState struct {
	Epoch uint64
	// Mirror is who follows. Empty: nobody.
	Mirror string
	// Compared: the first comparison of the session is over, and the mirror has everything but what Changes counts.
	Compared bool
	// Changes and Bytes are what is known to lack on the mirror. Before Compared: of what was found so far.
	Changes int
	Bytes   int64
	// Equal: the mirror has everything that is known. EqualAt is when it last had; zero: never since the start.
	Equal   bool
	EqualAt time.Time
	// Waiting are paths that could not be read here or staged there, and are tried again; at most ten, with the reason.
	Waiting []tree.Problem
	// Refused is why the source does not let its mirror become equal, for people. Empty: it does.
	Refused *tree.Refusal
	Watch   watch.State
}

// Source offers a directory to its mirror. Serve is for one goroutine at a time, all else for any.
type Source struct {
	set   Set
	o     SourceOptions
	log   *slog.Logger
	epoch uint64
	dir   *os.File
	scan  *tree.Scanner
	tree  *tree.Tree // nil: not looked at yet; belongs to Serve, as saved does
	saved time.Time

	mu      sync.Mutex
	state   SourceState
	allowed int
	session *sourceSession // nil: none can take a barrier
	changed chan struct{}  // closed and made anew when session or what it has passed changes
}

// OpenSource makes this machine the one that writes a directory in an epoch, which is noted there: a mirror that has seen a higher one
// would be overwritten by older data otherwise, so that is a StaleEpochError. A directory that has never been part of a cluster is
// marked; one that has been, by the index, and has no mark is not mounted: that is a *tree.Refusal.
func OpenSource(log *slog.Logger, set Set, epoch uint64, o SourceOptions) (s *Source, err error) {
	o.Retry, o.Alive = cmp.Or(o.Retry, time.Second), cmp.Or(o.Alive, time.Second)
	if o.Watch.Skip == nil {
		o.Watch.Skip = set.Policy.Ignored
	}
	s = &Source{set: set, o: o, log: log, epoch: epoch, changed: make(chan struct{})}
	s.state.Epoch = epoch
	if err := claim(set, epoch); err != nil {
		return nil, err
	}
	if s.dir, err = os.Open(set.Root); err != nil {
		return nil, err
	}
	if s.scan, err = tree.NewScanner(s.dir, tree.Options{Policy: set.Policy, Names: set.Accounts}); err != nil {
		return nil, errors.Join(err, s.dir.Close())
	}
	return s, nil
}

// claim notes that this machine writes a directory.
func claim(set Set, epoch uint64) error {
	root, err := openRoot(set)
	if err != nil {
		return err
	}
	defer root.Close()
	p, err := apply.ReadPosition(root)
	switch {
	case err != nil:
		return err
	case epoch == 0 || epoch < p.Epoch:
		return &apply.StaleEpochError{Offered: epoch, Known: p.Epoch}
	}
	if err := mark(root, set); err != nil {
		return err
	}
	next := apply.Position{Epoch: epoch, Written: epoch, Complete: epoch}
	if p == next {
		return nil
	}
	return next.Write(root)
}

// Close remembers the tree and ends it. No Serve may run.
func (s *Source) Close() error {
	var err error
	if s.tree != nil {
		err = s.tree.Save(s.set.Index)
	}
	return errors.Join(err, s.dir.Close())
}

// State is how far the mirror has come.
func (s *Source) State() SourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	if s.session != nil {
		state.Watch = s.session.watch.State()
	}
	return state
}

// Allow lets one comparison delete so many entries of the mirror, which it refuses to without.
func (s *Source) Allow(deletions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = deletions
}

// Barrier returns when everything that was written before the call is durable on the mirror, which it waits for to come if it must. Its
// error is ctx's.
func (s *Source) Barrier(ctx context.Context) error {
	for {
		s.mu.Lock()
		session, changed := s.session, s.changed
		s.mu.Unlock()
		if session != nil {
			if n, err := session.watch.Barrier(); err == nil && s.passed(ctx, session, n) {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the mirror: %w", context.Cause(ctx))
		}
	}
}

// passed waits until a session has passed a barrier; false: the session or ctx ended first.
func (s *Source) passed(ctx context.Context, session *sourceSession, n uint64) bool {
	for {
		s.mu.Lock()
		passed, current, changed := session.passed, s.session == session, s.changed
		s.mu.Unlock()
		if passed >= n {
			return true
		}
		if !current {
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// tell changes what anybody may ask for, and wakes who waits for it.
func (s *Source) tell(change func(*SourceState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Serve offers the directory to one mirror, whose name is for people, until the connection ends, which is always an error, or ctx does.
// A *tree.Refusal says that a person must look first.
func (s *Source) Serve(ctx context.Context, mirror string, conn net.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // which ends reading and writing
	session := &sourceSession{Source: s, ctx: ctx, w: wire.NewWriter(conn), inbox: newInbox(), waiting: map[string]*wait{}}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := session.inbox.fill(wire.NewReader(conn))
		cancel(err)
		return err
	})
	var ran error // what the session has found out itself says more than that the other side hung up
	g.Go(func() error {
		ran = session.run(gctx, g, mirror)
		cancel(ran)
		return ran
	})
	err := g.Wait()
	if _, refused := errors.AsType[*tree.Refusal](ran); refused {
		err = ran
	}
	s.tell(func(st *SourceState) {
		s.session, st.Mirror, st.Compared, st.Equal = nil, "", false, false
		if refusal, ok := errors.AsType[*tree.Refusal](err); ok {
			st.Refused = refusal
		}
	})
	return err
}

// look makes the tree what there is now.
func (s *Source) look(ctx context.Context) error {
	known := s.tree
	if known == nil {
		loaded, err := tree.Load(s.set.Index)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the index cannot be used; everything is read once", "path", s.set.Index, "err", err)
		}
		known = loaded
	}
	found, problems, err := s.scan.Scan(ctx, known)
	if err != nil {
		return fmt.Errorf("scan %s: %w", s.set.Root, err)
	}
	s.warn(problems)
	s.tree = found
	return nil
}

// saveEvery is how old an index may be: what has changed since is read again after a crash.
const saveEvery = 10 * time.Minute

// keep saves the index now and then.
func (s *Source) keep() {
	if time.Since(s.saved) < saveEvery {
		return
	}
	s.saved = time.Now()
	if err := s.tree.Save(s.set.Index); err != nil { // it only spares reading
		s.log.Warn("the index cannot be saved", "err", err)
	}
}

func (s *Source) warn(problems tree.Problems) {
	for _, p := range problems.List {
		s.log.Warn("not mirrored", "path", p.Path, "reason", p.Why)
	}
}
