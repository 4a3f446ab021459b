//go:build linux

package datasync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/datasync/apply"
)

// KeeperConfig is what a Keeper needs to know. All fields are required but Options.
type KeeperConfig struct {
	// Sets are the role's directories.
	Sets []Set
	// Primary is the other node while it has the duty; false: it has not, as far as is known.
	Primary func() (node string, acts bool)
	// Mine is the epoch under which this node has the duty. Zero: it has not.
	Mine func() uint64
	// Writing says whether anything may write into the directories here: they are not a mirror then.
	Writing func(ctx context.Context) (bool, error)
	// Dial opens a stream to the primary.
	Dial    func(ctx context.Context, node string) (net.Conn, error)
	Log     *slog.Logger
	Options SourceOptions
	// Verify is the pause between two readings of every byte. Zero: a week; below zero: it is never done.
	Verify time.Duration
}

// Keeper keeps one role's directories on one node: as their source while the node has the duty, and else as mirrors of the node that has it.
// Begin and End say which; Run must run. They may be called by any goroutine.
type Keeper struct {
	cfg  KeeperConfig
	sets []*kept

	turn   sync.Mutex    // who turns from mirror to source, or back
	turned chan struct{} // has one element after a change of the duty

	mu    sync.Mutex                   // guards what follows
	epoch uint64                       // as source; zero: mirror
	leave map[*kept]context.CancelFunc // ends the sessions as mirror
}

// kept is one set.
type kept struct {
	Set
	follows sync.Mutex // held while a session of the mirror, or the index of it, is open

	mu       sync.Mutex // guards what follows
	position apply.Position
	source   *Source
	mirror   *Mirror
	serving  context.CancelFunc // ends the session that is served
	served   chan struct{}      // closed when it has ended
	trouble  string             // why the newest session, or the start of it, failed; empty: it did not
	verified time.Time          // when every byte was read last; zero: never
	rotten   []string           // what was found then, and is not mended; while there is a mirror, it knows better
	again    bool               // the mirror is to be opened anew
	unread   string             // why it could not be read as a whole last time; empty: it could
}

// Copy is what lies here of a role's data, over all its directories.
type Copy struct {
	// Epoch is the lowest of any directory, Source and Complete are of all: see apply.Position.
	Epoch            uint64
	Source, Complete bool
	// CaughtUp: at a source, the mirror has everything that is known; at a mirror, this one has. Lag is since when it has not, Never that
	// it never had since the start. Behind is what is known to be missing, in bytes.
	CaughtUp, Never bool
	Lag             time.Duration
	Behind          uint64
}

// NewKeeper reads what the directories hold. One that is not there yet holds nothing.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	k := &Keeper{cfg: cfg, turned: make(chan struct{}, 1), leave: map[*kept]context.CancelFunc{}}
	for _, set := range cfg.Sets {
		s := &kept{Set: set}
		position, err := positionOf(set)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		s.position = position
		s.remembered()
		k.sets = append(k.sets, s)
	}
	return k, nil
}

func positionOf(set Set) (apply.Position, error) {
	root, err := os.OpenRoot(set.Root)
	if err != nil {
		return apply.Position{}, err
	}
	p, err := apply.ReadPosition(root)
	return p, errors.Join(err, root.Close())
}

// Begin makes this node the source, before anything writes. A source under an earlier epoch it stays: nobody else has written since.
// After an error it is none.
func (k *Keeper) Begin(epoch uint64) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	if !k.becomeSource(epoch) {
		return nil
	}
	for _, s := range k.sets {
		if err := s.begin(k.cfg, epoch); err != nil {
			return errors.Join(fmt.Errorf("the data in %s: %w", s.Root, err), k.end())
		}
	}
	k.cfg.Log.Info("this node's data are the original now", "epoch", epoch)
	return nil
}

// becomeSource ends the sessions as mirror and lets no new one begin. False: it is the source already.
func (k *Keeper) becomeSource(epoch uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch > 0 {
		return false
	}
	k.epoch = epoch
	for _, leave := range k.leave {
		leave()
	}
	return true
}

func (s *kept) begin(cfg KeeperConfig, epoch uint64) error {
	s.follows.Lock() // whoever follows has been told to leave
	defer s.follows.Unlock()
	if err := s.closeMirror(); err != nil {
		cfg.Log.Warn("the mirror did not end well", "path", s.Root, "err", err) // what it had is on the disk
	}
	source, err := OpenSource(cfg.Log, s.Set, epoch, cfg.Options)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source, s.position, s.trouble = source, apply.Position{Epoch: epoch, Written: epoch, Complete: epoch}, ""
	return nil
}

// closeMirror needs follows.
func (s *kept) closeMirror() error {
	s.mu.Lock()
	m := s.mirror
	s.mirror, s.rotten = nil, rottenPaths(s.Index)
	s.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.Close()
}

// End makes this node a mirror again, when nobody writes here any more.
func (k *Keeper) End() error {
	k.turn.Lock()
	defer k.turn.Unlock()
	return k.end()
}

func (k *Keeper) end() error {
	k.mu.Lock()
	k.epoch = 0
	k.mu.Unlock()
	var errs []error
	for _, s := range k.sets {
		errs = append(errs, s.endSource())
	}
	return errors.Join(errs...)
}

func (s *kept) endSource() error {
	s.mu.Lock()
	source := s.source
	s.source = nil
	stop, served := s.serving, s.served
	s.mu.Unlock()
	if source == nil {
		return nil
	}
	if stop != nil {
		stop()
		<-served
	}
	return source.Close()
}

// Poke says that the duty may have changed.
func (k *Keeper) Poke() {
	select {
	case k.turned <- struct{}{}:
	default:
	}
}

// lookEvery is how often it is looked whether there is a primary to follow.
const lookEvery = 100 * time.Millisecond

// Run keeps the directories until ctx ends. It begins by itself where nothing has to be started for that, and ends when the duty is gone.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range k.sets {
		g.Go(func() error { return k.follow(ctx, s) })
	}
	g.Go(func() error { return k.attend(ctx) })
	g.Go(func() error { return k.verifies(ctx) })
	err := g.Wait()
	for _, s := range k.sets {
		s.follows.Lock()
		err = errors.Join(err, s.closeMirror(), s.endSource())
		s.follows.Unlock()
	}
	return err
}

// attend follows the duty.
func (k *Keeper) attend(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		case <-k.turned:
		}
		mine := k.cfg.Mine()
		k.mu.Lock()
		epoch := k.epoch
		k.mu.Unlock()
		var err error
		switch {
		case mine > 0 && epoch == 0:
			err = k.Begin(mine)
		case mine == 0 && epoch > 0:
			err = k.End()
		}
		why := ""
		if err != nil {
			why = err.Error()
		}
		if why != "" && why != said {
			k.cfg.Log.Error("the role's data cannot be kept as the original", "err", err)
		}
		said = why
		k.trouble(why)
	}
}

// trouble notes what concerns all sets.
func (k *Keeper) trouble(why string) {
	if why == "" {
		return
	}
	for _, s := range k.sets {
		s.note(why)
	}
}

func (s *kept) note(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = why
}

// follow mirrors one set whenever another node is its primary.
func (k *Keeper) follow(ctx context.Context, s *kept) error {
	pause := lookEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = lookEvery
		node, acts := k.cfg.Primary()
		if !acts {
			continue
		}
		session, leave, ok := k.mayFollow(ctx, s)
		if !ok {
			continue
		}
		began := time.Now()
		err := k.session(session, s, node)
		left := session.Err() != nil
		leave()
		if left || ctx.Err() != nil {
			continue
		}
		s.mu.Lock()
		news := s.trouble != err.Error()
		s.trouble = err.Error()
		s.mu.Unlock()
		if news {
			k.cfg.Log.Warn("the data are not mirrored", "path", s.Root, "peer", node, "err", err)
		}
		if time.Since(began) < 2*time.Second {
			pause = time.Second
		}
	}
}

// mayFollow says whether this node is a mirror now. The context ends when it is to become the source.
func (k *Keeper) mayFollow(ctx context.Context, s *kept) (context.Context, context.CancelFunc, bool) {
	if k.cfg.Mine() > 0 {
		return nil, nil, false
	}
	if writing, err := k.cfg.Writing(ctx); err != nil || writing {
		return nil, nil, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch > 0 {
		return nil, nil, false
	}
	ctx, leave := context.WithCancel(ctx)
	k.leave[s] = leave
	return ctx, func() {
		leave()
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.leave, s)
	}, true
}

// session follows the primary until something ends it, which is an error.
func (k *Keeper) session(ctx context.Context, s *kept, node string) (err error) {
	s.follows.Lock()
	defer s.follows.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := k.open(ctx, s); err != nil {
		return err
	}
	conn, err := k.cfg.Dial(ctx, node)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := sendName(conn, s.Name); err != nil {
		return err
	}
	s.note("")
	err = s.mirror.Follow(ctx, conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = s.mirror.State().Position
	return err
}

// open opens the mirror, if it is not, or is to be opened anew. It needs follows.
func (k *Keeper) open(ctx context.Context, s *kept) error {
	s.mu.Lock()
	again, is := s.again, s.mirror != nil
	s.again = false
	s.mu.Unlock()
	if again {
		if err := s.closeMirror(); err != nil {
			k.cfg.Log.Warn("the mirror did not end well", "path", s.Root, "err", err) // what it had is on the disk
		}
	}
	if is && !again {
		return nil
	}
	m, err := OpenMirror(ctx, k.cfg.Log, s.Set)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror = m
	return nil
}

// A stream begins with the name of its set: two bytes of length, big endian, and the name.
const nameTimeout = 5 * time.Second

func sendName(conn net.Conn, name string) error {
	if err := conn.SetWriteDeadline(time.Now().Add(nameTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(append([]byte{byte(len(name) >> 8), byte(len(name))}, name...)); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

func readName(conn net.Conn) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(nameTimeout)); err != nil {
		return "", err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return "", err
	}
	name := make([]byte, int(length[0])<<8|int(length[1]))
	if _, err := io.ReadFull(conn, name); err != nil {
		return "", err
	}
	return string(name), conn.SetReadDeadline(time.Time{})
}

// Serve offers a set to the node that has dialled. A newer stream ends the one before it: that has been given up.
func (k *Keeper) Serve(ctx context.Context, peer string, conn net.Conn) error {
	name, err := readName(conn)
	if err != nil {
		return fmt.Errorf("hear which data are wanted: %w", err)
	}
	at := slices.IndexFunc(k.sets, func(s *kept) bool { return s.Name == name })
	if at < 0 {
		return fmt.Errorf("it wants %.100q, which is not here", name)
	}
	return k.sets[at].serve(ctx, peer, conn)
}

func (s *kept) serve(ctx context.Context, peer string, conn net.Conn) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	defer close(done)
	source, err := s.enter(stop, done)
	if err != nil {
		return err
	}
	err = source.Serve(ctx, peer, conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served == done {
		s.serving, s.served = nil, nil
		if err != nil && ctx.Err() == nil {
			s.trouble = err.Error()
		}
	}
	return err
}

// enter waits for the session before.
func (s *kept) enter(stop context.CancelFunc, done chan struct{}) (*Source, error) {
	for {
		s.mu.Lock()
		if s.source == nil {
			s.mu.Unlock()
			return nil, errors.New("this node is not the primary")
		}
		before, served := s.serving, s.served
		if before == nil {
			s.serving, s.served, s.trouble = stop, done, ""
			source := s.source
			s.mu.Unlock()
			return source, nil
		}
		s.mu.Unlock()
		before()
		<-served
	}
}

// Barrier returns when everything that was written here before the call is durable on the mirror. It is for the source.
func (k *Keeper) Barrier(ctx context.Context) error {
	for _, s := range k.sets {
		s.mu.Lock()
		source := s.source
		s.mu.Unlock()
		if source == nil {
			return errors.New("this node is not the primary: nothing is written here")
		}
		if err := source.Barrier(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Allow lets the next comparison of each directory delete so many entries of the mirror.
func (k *Keeper) Allow(deletions int) {
	for _, s := range k.sets {
		s.mu.Lock()
		if s.source != nil {
			s.source.Allow(deletions)
		}
		s.mu.Unlock()
	}
}

// SetState is one directory, for people. One of Source and Mirror is there while there is something to tell.
type SetState struct {
	Root    string
	Source  *SourceState
	Mirror  *MirrorState
	Trouble string // why the newest session failed; empty: it did not
	// Verified is when every byte was read last, zero: never. Rotten are the paths whose content had changed though no
	// time did, and that are not mended.
	Verified time.Time
	Rotten   []string
}

// Sets tells of each directory.
func (k *Keeper) Sets() []SetState {
	var all []SetState
	for _, s := range k.sets {
		s.mu.Lock()
		state := SetState{Root: s.Root, Trouble: s.trouble, Verified: s.verified, Rotten: s.rotten}
		if s.source != nil {
			st := s.source.State()
			state.Source = &st
		} else if s.mirror != nil {
			st := s.mirror.State()
			state.Mirror = &st
			if !s.again {
				state.Rotten = st.Rotten
			}
		}
		s.mu.Unlock()
		all = append(all, state)
	}
	return all
}

// Copy is what lies here.
func (k *Keeper) Copy() Copy {
	now := time.Now()
	c := Copy{Source: true, Complete: true, CaughtUp: true}
	for i, s := range k.sets {
		s.mu.Lock()
		p, equal, at := s.position, false, time.Time{}
		switch {
		case s.source != nil:
			st := s.source.State()
			equal, at = st.Equal, st.EqualAt
			c.Behind += uint64(max(st.Bytes, 0))
		case s.mirror != nil:
			st := s.mirror.State()
			p, equal, at = st.Position, st.Equal, st.At
		}
		s.mu.Unlock()
		if i == 0 || p.Epoch < c.Epoch {
			c.Epoch = p.Epoch
		}
		c.Source = c.Source && p.Epoch > 0 && p.Written == p.Epoch
		c.Complete = c.Complete && p.Epoch > 0 && p.Complete == p.Epoch
		if equal {
			continue
		}
		c.CaughtUp = false
		if at.IsZero() {
			c.Never = true
		} else {
			c.Lag = max(c.Lag, now.Sub(at))
		}
	}
	return c
}

// Woes are what keeps the data from being sound on two machines until a person does something, for people, by directory.
func (k *Keeper) Woes() map[string]string {
	all := map[string]string{}
	for _, s := range k.sets {
		s.mu.Lock()
		source, rotten := s.source, len(s.rotten)
		s.mu.Unlock()
		if source == nil {
			continue // a mirror mends itself
		}
		if refused := source.State().Refused; refused != nil {
			all[s.Root] = "they are not mirrored: " + refused.Why
		} else if rotten > 0 {
			all[s.Root] = fmt.Sprintf("%d files have rotted on the disk; see understudy sync", rotten)
		}
	}
	return all
}
