package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Config is what a Loop needs to know besides the World. Fields without a word on their zero value are required.
type Config struct {
	Policy decide.Policy
	// Next is decide.Next.
	Next func(decide.View, decide.Memory, decide.Policy) decide.Decision
	// Now is boottime.Now, or what goes with the time of a test.
	Now func() cluster.Instant
	// Machine is the provider's ID of this machine, or, where there is no provider, anything that no other machine has. Empty:
	// there is no ledger either, which keeps it with the identity claims.
	Machine string
	// Tag marks the cluster's machines at the provider.
	Tag string
	// Private and Public are this machine's own addresses. Invalid: not known.
	Private, Public netip.Addr
	// Boot tells one boot of the machine from another (random(4), boot_id).
	Boot string
	// MemoryFile is where what must survive a restart is kept. Its directory must exist.
	MemoryFile string
	// Peers are members' addresses that are not to be looked up, Port is that of the beats of all others. PeersFile is where
	// they are remembered.
	Peers     map[string]netip.AddrPort
	Port      uint16
	PeersFile string
	// LeaveWithin is how long a stop waits for the duties to move. Zero: they are dropped at once.
	LeaveWithin time.Duration
	Log         *slog.Logger
}

const (
	// turnsApart is the least time between the beginnings of two turns: a burst of news costs one.
	turnsApart = 2 * time.Millisecond
	// lookEvery is the longest time between two turns: so soon a gap is noticed, whatever a decision says.
	lookEvery = 100 * time.Millisecond
)

// Loop is the sidecar's one loop. Make it with New, run it with Run once.
type Loop struct {
	cfg   Config
	world World
	log   *slog.Logger
	board *board
	exec  *executor

	// What follows belongs to the goroutine of Run.
	memory  decide.Memory
	room    decide.Room
	kept    lasting
	saved   bool            // kept is what the memory file has
	started cluster.Instant // see decide.View
	began   cluster.Instant // beginning of the newest turn
	due     cluster.Instant // when the next turn should come at the latest; zero: there was none yet
	ready   bool            // the service manager knows
	acts    bool            // as our role's primary, see tellDuty
	gates   gates
	told    teller
	said    notifier

	// What is known of runs and commits.
	rehearsed, applied ran
	missing            []string

	troubles troubles
	beats    heartbeats
	book     peerBook
	steps    steps
	seen     machines // belongs to readList, one of which runs at a time
	claimNow hurry
	buried   burial     // belongs to claim
	tale     chronicler // belongs to the loop, as named does
	named    map[string][]netip.Addr

	mu     sync.Mutex // guards what follows, which anybody may ask for
	newest Snapshot
	orders decide.Orders
}

// Snapshot is what the newest turn saw and decided.
type Snapshot struct {
	View     decide.View
	Decision decide.Decision
	At       time.Time // the wall clock at the beginning of the turn, for people
	// Done is when the turn had been carried out, slow actions excepted. Zero: no turn yet.
	Done cluster.Instant
}

// New makes a loop and reads the memory file.
func New(cfg Config, world World) (*Loop, error) {
	if world.Mesh == nil || world.Addresses == nil {
		return nil, errors.New("reconcile: a mesh and addresses are required")
	}
	l := &Loop{cfg: cfg, world: world, log: cfg.Log, board: newBoard(), claimNow: make(hurry, 1)}
	l.gates.init(&l.cfg.Policy)
	l.told.log = cfg.Log
	l.exec = newExecutor(cfg.Log, l.perform, func() uint64 { _, v := l.board.look(); return v }, l.board.poke)
	kept, aside, err := loadMemory(cfg.MemoryFile)
	if err != nil {
		return nil, err
	}
	if aside != "" {
		l.log.Warn("the memory could not be read and was put aside; starting without it", "file", aside)
	}
	l.kept, l.memory.Lasting, l.orders.Pause = kept, kept.Lasting, kept.Paused
	v := &l.board.view
	v.Phase = cluster.Applied
	v.FreshBoot = kept.Boot != cfg.Boot
	if world.Ledger != nil {
		v.Ledger.Configured, v.Claim.Needed, v.Ledger.Known = true, true, kept.Ledger
		if kept.Claim > 0 && kept.Machine == cfg.Machine && !v.FreshBoot {
			// It was ours in this very boot, so nobody has fenced us since. The ledger has the last word once it is read.
			v.Claim.Epoch, v.Claim.Mine = kept.Claim, true
		}
	}
	return l, nil
}

// Run turns until ctx ends; then it gives up the duties, as long as Config.LeaveWithin allows, closes the gates and returns.
// An error is one that no later turn could mend.
func (l *Loop) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	for _, o := range l.observers() {
		g.Go(func() error { return o(work) })
	}
	g.Go(func() error {
		defer stop()
		return l.loop(ctx, work)
	})
	err := g.Wait()
	l.exec.wait()
	return err
}

// loop is the loop: turn, wait, turn.
func (l *Loop) loop(ctx, work context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	stopping, leaveBy := ctx.Done(), (<-chan time.Time)(nil)
	for {
		next := l.turn(work)
		if stopping == nil && (l.cfg.LeaveWithin <= 0 || l.hasLeft()) {
			break
		}
		if soonest := l.began.Add(turnsApart); next < soonest {
			next = soonest
		}
		l.due = next
		timer.Reset(next.Sub(l.cfg.Now()))
		select {
		case <-timer.C:
			continue
		case <-l.world.Mesh.Changed():
		case <-l.board.wake:
		case <-work.Done():
			return l.closeAll("an observer ended")
		case <-stopping:
			stopping = nil
			leaveBy = time.After(l.cfg.LeaveWithin)
			l.log.Info("stopping: giving up the duties first")
			l.board.put(func(v *decide.View) { v.Phase = cluster.Stopping })
			l.Order(func(o *decide.Orders) { o.Leave = true })
		case <-leaveBy:
			l.log.Warn("stopping although duties have not moved", "took", l.cfg.LeaveWithin)
			return l.end(work)
		}
		l.space()
	}
	return l.end(work)
}

// space waits until turnsApart after the beginning of the newest turn, so that what arrives together is seen together.
func (l *Loop) space() {
	if early := l.began.Add(turnsApart).Sub(l.cfg.Now()); early > 0 {
		time.Sleep(early)
	}
}

// end closes what is still open, and says so to whoever hears it.
func (l *Loop) end(ctx context.Context) error {
	err := l.closeAll("the sidecar ends")
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := l.world.Mesh.Flush(ctx); err != nil {
		l.log.Warn("the last word may not have been heard", "err", err) // silence says the same, only later
	}
	return err
}

// turn observes, decides and acts once, and returns when the next turn is due.
func (l *Loop) turn(ctx context.Context) cluster.Instant {
	now := l.cfg.Now()
	l.noticeGap(now)
	l.began = now
	view, version := l.observe(now)
	ours := view // the view itself is handed out, and the room is this goroutine's
	ours.Room = &l.room
	d := l.cfg.Next(ours, l.memory, l.cfg.Policy)
	next := now.Add(lookEvery)
	if d.LookAgain != 0 && d.LookAgain < next {
		next = d.LookAgain
	}
	slow, err := l.carryOut(view, d)
	d.Blocked = slices.Concat(d.Blocked, l.told.gates(), l.told.off, l.troubles.list())
	if err != nil {
		d.Blocked = append(d.Blocked, decide.Blocked{What: "everything", Why: err.Error()})
		d.Memory = l.memory
	}
	l.told.blocked(d.Blocked)
	d.Blocked = append(d.Blocked, l.exec.failing()...) // logged where they failed
	l.publish(view, d)
	if err != nil {
		return now.Add(l.cfg.Policy.Timings.Beat / 2)
	}
	l.told.notes(d.Notes)
	l.tellNames(view, d)
	if l.world.Ledger != nil {
		if n := l.steps.add(l.tale.follow(view, d, l.cfg.Policy, time.Now())); n > 0 {
			l.log.Warn("steps of incidents were dropped: the ledger has been away for too long", "steps", n)
		}
	}
	if wait := l.exec.want(ctx, slow, version); wait > 0 {
		if again := l.cfg.Now().Add(wait); again < next {
			next = again
		}
	}
	l.notify()
	return next
}

// noticeGap forgets everything if the turn comes too late: while this process stood still, others may have taken over.
func (l *Loop) noticeGap(now cluster.Instant) {
	late := now.Since(l.due)
	switch {
	case l.due == 0:
		l.started = now
	case late > l.cfg.Policy.Timings.Gate:
		l.log.Warn("this process stood still; starting to listen anew", "took", late)
		if err := l.closeAll("this process stood still"); err != nil {
			// The element's own timeout has closed it: it was set for less than the gap.
			l.log.Warn("a gate could not be closed by hand", "err", err)
		}
		l.world.Mesh.Reset()
		l.started = now
	}
}

// observe assembles the view, with the number of the board's newest change that is in it.
func (l *Loop) observe(now cluster.Instant) (decide.View, uint64) {
	v, version := l.board.look()
	v.Now, v.Started = now, l.started
	v.Nonce = randomHex()
	v.Private, v.Public = l.cfg.Private, l.cfg.Public
	if l.world.Provider != nil {
		v.Machine = l.cfg.Machine // an ID that nobody can be asked about is for the claim alone
	}
	v.Peers = l.world.Mesh.Peers()
	v.Health, v.StandbyHealth = cluster.Healthy, cluster.Healthy
	if l.world.Health != nil {
		v.Health, v.StandbyHealth = l.world.Health()
	}
	if l.world.Data != nil {
		v.Mirrors, v.Woes = l.world.Data.Mirrors(), l.world.Data.Woes()
	}
	if l.world.Clock != nil {
		v.ClockOff = l.told.clock(l.world.Clock())
	}
	l.readRollout(&v)
	l.gates.fill(&v)
	l.mu.Lock()
	v.Orders = l.orders
	l.mu.Unlock()
	return v, version
}

// carryOut does what is quick and urgent, in the one order that is safe, and returns what is slow. After an error nothing
// later was done, and the decision's memory is not ours.
func (l *Loop) carryOut(v decide.View, d decide.Decision) (slow []decide.Action, err error) {
	var open []decide.Gate
	for _, a := range d.Actions {
		g, ok := a.(decide.Gate)
		switch {
		case !ok:
			slow = append(slow, a)
		case g.Until == 0 || g.Until < l.gates.set[g.Role].until: // less is safe whatever happens next, so it waits for nothing
			err = errors.Join(err, l.setGate(g))
		default:
			open = append(open, g)
		}
	}
	if err := errors.Join(err, l.save(v, d)); err != nil {
		return nil, err
	}
	l.memory = d.Memory
	l.tellDuty(d)
	if v.FreshBoot && d.Say.Voting {
		l.board.put(func(v *decide.View) { v.FreshBoot = false })
	}
	l.world.Mesh.Say(d.Say)
	for _, g := range open {
		// A gate that does not open stays closed, which is safe. It is shown, and tried again in the next turn.
		l.told.gate(g.Role, l.setGate(g))
	}
	return slow, nil
}

// tellDuty tells the world when this node begins or stops to act as its role's primary.
func (l *Loop) tellDuty(d decide.Decision) {
	acts := false
	for _, r := range l.cfg.Policy.Roles {
		s := d.Memory.Duties[r.Name].Hold.State
		acts = acts || slices.Contains(r.Nodes, l.cfg.Policy.Self) && (s == cluster.Held || s == cluster.Offered)
	}
	if acts != l.acts && l.world.Duty != nil {
		l.world.Duty(acts)
	}
	l.acts = acts
}
