//go:build linux

package datasync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/datasync/pack"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/watch"
	"understudy/sidecar/datasync/wire"
)

// sourceSession is one connection to a mirror. All of it belongs to run but passed, which is guarded by the source's mutex.
type sourceSession struct {
	*Source
	ctx   context.Context // of the connection
	w     *wire.Writer
	inbox *inbox
	watch *watch.Watcher

	first   bool        // what only the mirror has is kept
	todo    todo        // what is to be sent now
	sent    batch       // since the last Commit
	seq     uint64      // of the last Commit
	commits []committed // that are not durable
	waiting map[string]*wait
	held    map[string]held // see hold
	reached uint64          // the newest barrier of which everything is in a Commit
	minute  shrinkage
	buf     []byte
	packing pack.Policy
	packer  *pack.Packer // nil until something is packed
	short   []byte       // what was packed last

	passed uint64 // the newest barrier of which everything is durable
}

// committed is a batch that the mirror has not called durable yet.
type committed struct {
	seq uint64
	batch
}

// wait is a path that could not be read or staged.
type wait struct {
	why  string
	next time.Time
}

func (s *sourceSession) run(ctx context.Context, g *errgroup.Group, mirror string) (err error) {
	defer func() {
		if refusal, ok := errors.AsType[*tree.Refusal](err); ok {
			_ = s.say(&wire.Refusal{Why: refusal.Why}) // it only spares the mirror's people a question
		}
	}()
	hello, err := opening[*wire.Hello](ctx, s.inbox)
	if err != nil {
		return err
	}
	if err := s.check(hello); err != nil {
		return errors.Join(err, s.say(&wire.Refusal{Why: err.Error()}))
	}
	s.watch, err = watch.New(s.log, s.set.Root, s.o.Watch)
	if err != nil {
		return err
	}
	changes := make(chan watch.Changes)
	g.Go(func() error { return s.watch.Run(ctx) })
	g.Go(func() error { return feed(ctx, s.watch, changes) })
	s.tell(func(st *SourceState) {
		s.session, st.Mirror, st.Compared, st.Changes, st.Bytes, st.Waiting = s, mirror, false, 0, 0, nil
	})
	if err := s.look(ctx); err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	return s.follow(ctx, changes)
}

// feed passes on what the watcher tells.
func feed(ctx context.Context, w *watch.Watcher, to chan<- watch.Changes) error {
	for {
		c, err := w.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case to <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// check says whether this mirror is one of ours.
func (s *sourceSession) check(hello *wire.Hello) error {
	switch {
	case hello.Version != wire.Version:
		return fmt.Errorf("the mirror speaks version %d, this is %d: let both run the same release", hello.Version, wire.Version)
	case hello.Set != s.set.Name:
		return fmt.Errorf("the mirror wants %.100q, this is %q", hello.Set, s.set.Name)
	case hello.Epoch > s.epoch:
		return fmt.Errorf("the mirror has data of epoch %d, this is the source of epoch %d", hello.Epoch, s.epoch)
	}
	return nil
}

// begin makes the trees equal.
func (s *sourceSession) begin(ctx context.Context) error {
	if err := s.say(&wire.Offer{Epoch: s.epoch, Root: s.tree.Digest()}); err != nil {
		return err
	}
	accept, err := opening[*wire.Accept](ctx, s.inbox)
	if err != nil {
		return err
	}
	s.first = accept.First
	if accept.Root != s.tree.Digest() {
		if err := s.rails(tree.Totals{Files: int(min(accept.Entries, 1<<40)), Bytes: int64(min(accept.Bytes, 1<<60))}); err != nil {
			return err
		}
		if err := s.compare(ctx, "."); err != nil {
			return err
		}
	}
	for e := range s.tree.All() {
		if e.Unsettled {
			s.later(e.Path, "it cannot be read here")
		}
	}
	if err := errors.Join(s.hold(), s.deliver(ctx)); err != nil {
		return err
	}
	s.first = false
	return s.commit(ctx, 0, all)
}

// follow sends what changes, until something ends it.
func (s *sourceSession) follow(ctx context.Context, changes <-chan watch.Changes) error {
	alive := time.NewTicker(s.o.Alive)
	defer alive.Stop()
	retry := time.NewTicker(s.o.Retry)
	defer retry.Stop()
	for {
		s.tell(s.report)
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-changes:
			err = s.take(ctx, c)
		case <-s.inbox.news:
			err = s.heard()
		case <-alive.C:
			s.keep()
			err = s.commit(ctx, 0, all)
		case <-retry.C:
			err = s.retry(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// take sends what the watcher tells of.
func (s *sourceSession) take(ctx context.Context, c watch.Changes) error {
	s.sent.began = time.Now()
	s.tell(func(st *SourceState) {
		if st.Equal { // until now
			st.Equal, st.EqualAt = false, s.sent.began
		}
	})
	if c.All {
		if err := s.everything(ctx); err != nil {
			return err
		}
	}
	for _, at := range c.Trees {
		if err := s.change(ctx, at, tree.Subtree); err != nil {
			return err
		}
	}
	for _, at := range c.Paths {
		if err := s.change(ctx, at, tree.Itself); err != nil {
			return err
		}
	}
	if err := s.release(ctx, c.Barrier); err != nil {
		return err
	}
	if len(s.held) == 0 {
		s.reached = max(s.reached, c.Barrier)
	}
	return s.send(ctx)
}

// everything looks at all there is, and compares it.
func (s *sourceSession) everything(ctx context.Context) error {
	had := s.tree.Totals(".")
	if err := s.look(ctx); err != nil {
		return err
	}
	if err := s.rails(had); err != nil {
		return err
	}
	return s.compare(ctx, ".")
}

// send sends what is to be sent now, and waits until it is durable: what comes meanwhile makes up the next batch.
func (s *sourceSession) send(ctx context.Context) error {
	s.regrouped()
	if err := errors.Join(s.hold(), s.shrunk(s.sent.began)); err != nil {
		return err
	}
	if err := s.deliver(ctx); err != nil {
		return err
	}
	if s.sent.changes == 0 && len(s.commits) == 0 {
		return nil
	}
	return s.commit(ctx, 0, all)
}

// heard takes in what the mirror has said.
func (s *sourceSession) heard() error {
	durable, failed := s.inbox.done()
	for _, f := range failed {
		s.log.Warn("the mirror could not stage a change", "path", f.Path, "reason", f.Why)
		s.later(f.Path, "the mirror: "+f.Why)
	}
	if durable > s.seq {
		return fmt.Errorf("%w: batch %d is said to be durable, of %d", wire.ErrMalformed, durable, s.seq)
	}
	for len(s.commits) > 0 && s.commits[0].seq <= durable {
		s.commits = s.commits[1:]
	}
	return nil
}

// report is what anybody may ask for, between two batches. A barrier is passed when nothing waits that may have come before it.
func (s *sourceSession) report(st *SourceState) {
	s.underway(st)
	st.Compared, st.Equal = true, false
	if len(s.commits) == 0 && len(s.waiting) == 0 {
		s.passed, st.Refused = s.reached, nil
		if len(s.held) == 0 {
			st.Equal, st.EqualAt = true, time.Now()
		}
	}
}

// underway is the same in the middle of a batch.
func (s *sourceSession) underway(st *SourceState) {
	st.Changes, st.Bytes, st.Waiting = len(s.waiting)+len(s.held), 0, nil
	for _, c := range s.commits {
		st.Changes += c.changes
		st.Bytes += c.bytes
	}
	for path, w := range s.waiting {
		if len(st.Waiting) < 10 {
			st.Waiting = append(st.Waiting, tree.Problem{Path: path, Why: w.why})
		}
	}
}

// later lets a path wait. It tries the first time soon: most of what fails was being written to.
func (s *sourceSession) later(path, why string) {
	w := s.waiting[path]
	if w == nil {
		w = &wait{}
		s.waiting[path] = w
	}
	w.why, w.next = why, time.Now().Add(s.o.Retry)
}

// retry sends again what could not be read or staged.
func (s *sourceSession) retry(ctx context.Context) error {
	now := time.Now()
	due := false
	for path, w := range s.waiting {
		if w.next.After(now) {
			continue
		}
		due, s.sent.began = true, now
		u, err := s.scan.Update(ctx, s.tree, path, tree.Itself)
		if err != nil {
			return fmt.Errorf("look at %q: %w", path, err)
		}
		delete(s.waiting, path)
		if err := s.whole(ctx, u.Top); err != nil {
			return err
		}
	}
	if !due {
		return nil
	}
	return s.send(ctx)
}

func (s *sourceSession) say(m wire.Message) error {
	if err := errors.Join(s.w.Write(m), s.w.Flush()); err != nil {
		return fmt.Errorf("tell the mirror: %w", err)
	}
	return nil
}
