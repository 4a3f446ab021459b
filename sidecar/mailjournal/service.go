package mailjournal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/durable"
)

// ServiceConfig is what a node of a role with a journal needs. Everything is required but where it says so.
type ServiceConfig struct {
	// Dir is made if it is missing. The journal lies in it, and which epochs were this machine's.
	Dir string
	// Milter is where Postfix asks, SMTP where it takes what is re-injected: host:port.
	Milter, SMTP string
	// Maildirs and Domains are as in Maildirs.
	Maildirs      string
	Domains       []string
	WithoutSecond Policy
	Holding       *Holding
	// Members are all others that may ever have been asked to hold a copy. Holders and Dial are as in Copies.
	Members []string
	Holders func() []string
	Dial    func(ctx context.Context, node string) (net.Conn, error)
	// Held is the epoch under which this node has the duty at this moment. Zero: it has not.
	Held   func() uint64
	Sealer *Sealer
	// ClearQueue makes sure that Postfix does not run, and that its queue is empty.
	ClearQueue func(ctx context.Context) error
	// Barrier is as in Follower.
	Barrier func(ctx context.Context) error
	Runner  command.Runner
	// Again is how long is waited before what failed is tried again. Zero: 5 s.
	Again time.Duration
	Log   *slog.Logger
}

// Service is the journal of a node that may become primary. Start and Stop are for one goroutine at a time, the rest for any.
type Service struct {
	cfg ServiceConfig

	mu  sync.Mutex
	run *run // nil: not started
}

// NewService starts nothing.
func NewService(cfg ServiceConfig) *Service {
	cfg.Again = nonZero(cfg.Again, 5*time.Second)
	return &Service{cfg: cfg}
}

// Start returns when Postfix may be started: the milter listens, and nothing is in the queue that another primary may have
// delivered. It is idempotent, also with a higher epoch. After an error nothing of it runs.
func (s *Service) Start(ctx context.Context, epoch uint64) error {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	if r != nil && r.ctx.Err() == nil && r.goesOn(epoch) {
		return nil
	}
	if err := s.Stop(); err != nil {
		s.cfg.Log.Warn("the mail journal had ended", "err", err) // starting it anew is the answer
	}
	r, err := begin(ctx, s.cfg, epoch)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = r
	return nil
}

// Serves reports whether the journal runs.
func (s *Service) Serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run != nil && s.run.ctx.Err() == nil
}

// Stop ends the journal: stop Postfix before. The error is what ended it earlier.
func (s *Service) Stop() error {
	s.mu.Lock()
	r := s.run
	s.run = nil
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.end()
}

// State is what people want to know of a journal that runs.
type State struct {
	Open int // entries that are not known to be on the mirror, or to have been relayed
	// Second is who takes the second copies. Empty: nobody.
	Second string
	// Refusing is why mail is not accepted at this moment. Empty: it is.
	Refusing string
	// Behind are members that may hold mail for this primary and could not be asked yet.
	Behind []string
}

// State returns how it goes; false: it does not run, because this node is not primary.
func (s *Service) State() (State, bool) {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	if r == nil || r.ctx.Err() != nil {
		return State{}, false
	}
	open := len(r.journal.Pending())
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state
	st.Open = open
	if r.refusal != nil {
		st.Refusing = r.refusal.Error()
	}
	return st, true
}

// run is the journal from one Start to its Stop.
type run struct {
	cfg     ServiceConfig
	ctx     context.Context // ends with the first part that does
	stop    context.CancelFunc
	group   *errgroup.Group
	journal *Journal
	own     *Holder
	copies  *Copies
	started uint64 // the epoch of Start
	again   *list  // what has been re-injected in this reign

	mu      sync.Mutex
	reign   reign
	state   State
	refusal error // why the newest message was not kept; nil: it was, or a holder is there again
}

// begin does what must be done before Postfix starts, in this order: from the first step on no deposed primary can leave
// anything here, and what Postfix has queued is known to be of this machine's own reign before anything more is queued.
func begin(ctx context.Context, cfg ServiceConfig, epoch uint64) (r *run, err error) {
	r = &run{cfg: cfg, started: epoch}
	if r.own, err = cfg.Holding.Holder(); err != nil {
		return nil, fmt.Errorf("open what is held for others: %w", err)
	}
	r.own.Raise(epoch)
	if r.journal, err = Open(Options{Dir: filepath.Join(cfg.Dir, "journal"), Log: cfg.Log}); err != nil {
		return nil, err
	}
	for _, d := range r.journal.Damage() {
		cfg.Log.Error("entries of the mail journal cannot be read", "damage", d)
	}
	ln, err := r.claimQueue(ctx, epoch)
	if err != nil {
		return nil, errors.Join(err, r.again.close(), r.journal.Close())
	}
	r.copies = &Copies{Holders: cfg.Holders, Dial: cfg.Dial, Epoch: r.epoch, Sealer: cfg.Sealer, Log: cfg.Log}
	// Whoever called may have a deadline; the journal runs until it is stopped.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	r.group, r.ctx = errgroup.WithContext(work)
	closing := Closing{Journal: r.journal, Second: both{r.copies, r.own}}
	follower := &Follower{Closing: closing, Barrier: cfg.Barrier, Runner: cfg.Runner, Since: r.reign.Since, Again: cfg.Again, Log: cfg.Log}
	milter := &Milter{
		Journal: r.journal, Second: both{r.copies, r.own}, Epoch: r.epoch, WithoutSecond: cfg.WithoutSecond, Log: cfg.Log,
		Accepted: func(e Entry) { follower.Track(e.ID, e.Queue); r.accepted() }, Refused: r.refused,
	}
	stranded := r.stranded() // before new mail comes in
	r.group.Go(func() error { return milter.Serve(r.ctx, ln) })
	r.group.Go(func() error { return follower.Run(r.ctx) })
	r.group.Go(r.watch)
	r.group.Go(func() error { return r.deliver(stranded, closing, follower.Track) })
	cfg.Log.Info("the mail journal runs", "epoch", epoch, "open", len(r.journal.Pending()), "stranded", len(stranded))
	return r, nil
}

// claimQueue empties Postfix's queue if another primary may have delivered what is in it, and returns the milter's socket.
func (r *run) claimQueue(ctx context.Context, epoch uint64) (net.Listener, error) {
	path := filepath.Join(r.cfg.Dir, reignFile)
	was, err := readReign(path)
	if err != nil {
		return nil, err
	}
	r.reign = was.with(epoch)
	if r.reign.First != was.First {
		if err := r.cfg.ClearQueue(ctx); err != nil {
			return nil, fmt.Errorf("empty the mail queue: %w", err)
		}
		r.reign.Since = time.Unix(time.Now().Unix(), 0)
	}
	if r.again, err = openList(filepath.Join(r.cfg.Dir, "reinjected"), r.reign.First); err != nil {
		return nil, err
	}
	if err := r.reign.write(path); err != nil {
		return nil, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.cfg.Milter)
	if err != nil {
		return nil, fmt.Errorf("listen for Postfix's questions: %w", err)
	}
	return ln, nil
}

// end waits for all parts. The error is that of the part that ended by itself.
func (r *run) end() error {
	r.stop()
	err := r.group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, r.copies.Close(), r.again.close(), r.journal.Close())
}

// epoch is the duty's, which rises without a new Start when it is confirmed anew.
func (r *run) epoch() uint64 { return max(r.started, r.cfg.Held()) }

// both is the second copies' place, with those that this node itself held and has collected.
type both struct {
	*Copies
	own *Holder
}

func (b both) Finish(ctx context.Context, id ID, how How) error {
	if err := b.Copies.Finish(ctx, id, how); err != nil {
		return err
	}
	return b.own.Finish(ctx, id, how)
}

func (r *run) accepted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusal = nil
}

func (r *run) refused(err error) {
	if errors.Is(err, ErrTooLarge) {
		return // the next one need not be
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusal = err
}

// watchEvery is how often a holder is asked whether it is there, so that who looks learns of it before mail is refused.
const watchEvery = 2 * time.Second

// watch keeps the state, and the reign up to date.
func (r *run) watch() error {
	for {
		if err := r.prolong(r.epoch()); err != nil {
			return err
		}
		node, err := r.copies.Ready(r.ctx)
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		r.note(node, err)
		if err := pause(r.ctx, watchEvery); err != nil {
			return err
		}
	}
}

// goesOn reports whether nobody else can have had the duty between this run and epoch.
func (r *run) goesOn(epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reign.with(epoch).First == r.reign.First
}

// prolong notes that the duty was confirmed under a higher epoch. The error ends the run if that is not all that can have
// happened: another primary may have delivered what is in the queue.
func (r *run) prolong(epoch uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.reign.with(epoch)
	switch {
	case next == r.reign:
		return nil
	case next.First != r.reign.First:
		return fmt.Errorf("epochs between %d and %d may have been another node's", r.reign.Last, epoch)
	}
	r.reign = next
	return next.write(filepath.Join(r.cfg.Dir, reignFile))
}

// note keeps what a holder answered, or that none did.
func (r *run) note(node string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if node != r.state.Second {
		r.cfg.Log.Info("the second copies of mail go to another member", "node", node, "was", r.state.Second, "reason", err)
	}
	r.state.Second = node
	switch {
	case err != nil && r.cfg.WithoutSecond == Defer:
		r.refusal = err
	case err == nil && (errors.Is(r.refusal, ErrNoHolder) || errors.Is(r.refusal, ErrDeposed) || errors.Is(r.refusal, context.DeadlineExceeded)):
		r.refusal = nil
	}
}

// reign is the series of epochs, without a gap, of which no other node can have had one: what Postfix queued since is its own
// to deliver.
type reign struct {
	First, Last uint64
	// Since is when it began, by this machine's clock: its queue was empty then.
	Since time.Time
}

const reignFile = "reign"

// with is the reign that has epoch.
func (r reign) with(epoch uint64) reign {
	if r.Last == 0 || epoch > r.Last+1 {
		return reign{First: epoch, Last: epoch}
	}
	r.Last = max(r.Last, epoch)
	return r
}

func readReign(path string) (r reign, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	var since int64
	if n, err := fmt.Sscanf(string(data), "%d %d %d\n", &r.First, &r.Last, &since); err != nil || n != 3 || r.First == 0 || r.First > r.Last {
		return reign{}, nil // of no use, so the queue is emptied
	}
	r.Since = time.Unix(since, 0)
	return r, nil
}

func (r reign) write(path string) error {
	return durable.Replace(path, fmt.Appendf(nil, "%d %d %d\n", r.First, r.Last, r.Since.Unix()), 0o600)
}
