package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Ledger is the store that outlives the nodes.
type Ledger interface {
	// SelfTest proves that create-if-absent is honoured. ErrUnsound says that it is not; after any other error it is not known.
	SelfTest(ctx context.Context) error
	Read(ctx context.Context) (LedgerReading, error)
	// WriteDuty, ClaimTie and ClaimIdentity create an object. ErrTaken says that somebody else's is there; that our own is
	// there already is no error.
	WriteDuty(ctx context.Context, r cluster.DutyRecord) error
	ClaimTie(ctx context.Context, t cluster.Tie) error
	ClaimIdentity(ctx context.Context, c cluster.Claim) error
	// WriteIntent, WriteCall, WriteClosing and Tombstone create the objects of a replacement. After any error of WriteCall the
	// provider must not be asked.
	WriteIntent(ctx context.Context, i cluster.Intent) error
	WriteCall(ctx context.Context, c cluster.Call) error
	WriteClosing(ctx context.Context, c cluster.Closing) error
	Tombstone(ctx context.Context, node string, epoch uint64) error
	// Leave ends this machine's own claim, for good. After an error it may be repeated.
	Leave(ctx context.Context, node string, epoch uint64) error
	// History is every nonce of a node's intents, and the newest epoch of each machine that has claimed it.
	History(ctx context.Context, node string) (nonces map[string]bool, claims map[string]uint64, err error)
	// Reseed writes all of r that is not there, and in the end that this is reseed r.Seed. After an error it may be repeated.
	Reseed(ctx context.Context, r cluster.Recall) error
	// Prune deletes up to most objects that nobody needs any more, and says how many.
	Prune(ctx context.Context, most int) (int, error)
	// Beat renews this node's heartbeat object.
	Beat(ctx context.Context, b Heartbeat) error
	// AppendIncident writes a step, ErrTaken if it is told already. OpenIncident is the ID of the node's newest incident that
	// is not over; empty: there is none.
	AppendIncident(ctx context.Context, s IncidentStep) error
	OpenIncident(ctx context.Context, node string) (string, error)
}

// Heartbeat is what a node tells those who do not hear it.
type Heartbeat struct {
	Machine, Phase, Commit string
	Claim                  uint64
	Holds                  []string
}

// LedgerReading is what one reading found.
type LedgerReading struct {
	Duties map[string]cluster.DutyRecord // the highest epoch of each duty
	Tie    cluster.Tie                   // the newest
	Claims map[string]cluster.Claim      // the newest of each node
	// Intents are the newest replacement of each node, Hired the ages of those of the last day that replace a machine.
	Intents map[string]cluster.Intent
	Hired   []time.Duration
	Wishes  map[string]cluster.Wish // the newest of each node
	Seed    uint64                  // the newest reseed; zero: there was none
	Beats   map[string]string       // of each node's heartbeat object; it differs after every writing
}

// What a Ledger's errors may be.
var (
	ErrUnsound = errors.New("the store does not honour create-if-absent")
	ErrTaken   = errors.New("somebody else was first")
	// ErrForgotten says that the store knows less than it has shown before.
	ErrForgotten = errors.New("the ledger knows less than the nodes remember")
)

// Pauses of what is done at the ledger unasked.
const (
	ledgerTestEvery = 15 * time.Second // until it has succeeded once
	claimEvery      = 2 * time.Second  // while the claim is not ours; at once when the test has succeeded
	heartbeatEvery  = 10 * time.Second
	incidentsEvery  = time.Second
	pruneEvery      = 10 * time.Minute
	pruneAtOnce     = 10               // objects, so 60 in an hour at most
	ledgerTimeout   = 30 * time.Second // of one such errand, which takes several requests
)

// testLedger proves once that the store can be trusted.
func (l *Loop) testLedger(ctx context.Context) error {
	if v, _ := l.board.look(); v.Ledger.Sound {
		return nil
	}
	err := l.world.Ledger.SelfTest(ctx)
	switch {
	case err == nil:
		l.board.put(func(v *decide.View) { v.Ledger.Sound, v.Ledger.Unsound = true, "" })
		l.claimNow.poke()
	case errors.Is(err, ErrUnsound):
		// A claim in such a store proves nothing, so it is not asked for; decide arms nothing that needs the ledger.
		l.board.put(func(v *decide.View) { v.Ledger.Unsound, v.Claim.Needed = err.Error(), false })
	}
	return err
}

// readLedger reads what the ledger says of duties, ties, claims and heartbeats.
func (l *Loop) readLedger(ctx context.Context) error {
	if l.world.Ledger == nil {
		return ErrMissing
	}
	sent := l.cfg.Now()
	r, err := l.readWhole(ctx)
	if err != nil {
		l.board.put(func(v *decide.View) { v.Ledger.Failing = true })
		return err
	}
	arrived := l.cfg.Now()
	stale := l.beats.stale(r.Beats, l.cfg.Policy.Self, sent)
	l.board.put(func(v *decide.View) {
		g := &v.Ledger
		if r.Tie.N != g.Tie.N || r.Tie.Winner != g.Tie.Winner {
			g.WonTie = 0
			if r.Tie.Winner == l.cfg.Policy.Self {
				g.WonTie = arrived // ours, from before a restart or with an answer that was lost: counted from now at the latest
			}
		}
		g.ReadSent, g.Failing, g.Duties, g.Tie, g.Claims, g.Stale = sent, false, r.Duties, r.Tie, r.Claims, stale
		g.Intents, g.Hired, g.Wishes = r.Intents, r.Hired, r.Wishes
		own := r.Claims[l.cfg.Policy.Self]
		if v.Claim.Mine && own.Epoch < v.Claim.Epoch && sent < v.Claim.At {
			return // the question was on its way before our claim was written: it says nothing of it
		}
		v.Claim = l.judgeClaim(v.Claim, own, arrived)
	})
	return nil
}

// readWhole reads the ledger, and refuses it if it has lost what this node remembers. Then whatever rests on the ledger waits, and a
// person decides: nobody here can tell a store that was restored from an old copy from another cluster's.
func (l *Loop) readWhole(ctx context.Context) (LedgerReading, error) {
	v, _ := l.board.look()
	known := cluster.Recall{}
	if v.Ledger.Known != nil {
		known = *v.Ledger.Known
	}
	known = decide.Raise(known, decide.Heard(known.Seed, l.look().View.Peers)) // before it is asked: what comes later need not be in it
	r, err := l.world.Ledger.Read(ctx)
	forgot := ""
	switch {
	case errors.Is(err, ErrForgotten):
		forgot = err.Error()
	case err != nil:
		return LedgerReading{}, err // what it has lost it has lost still
	default:
		shown := decide.Ledger{Claims: r.Claims, Duties: r.Duties, Tie: r.Tie, Intents: r.Intents}.Recall(r.Seed)
		if forgot = decide.Forgotten(known, shown); forgot != "" {
			err = fmt.Errorf("%w: %s", ErrForgotten, forgot)
		} else {
			known = decide.Raise(known, shown)
		}
	}
	if v.Ledger.Known == nil || v.Ledger.Forgot != forgot || !reflect.DeepEqual(known, *v.Ledger.Known) {
		l.board.put(func(v *decide.View) {
			if v.Ledger.Known != nil {
				known = decide.Raise(known, *v.Ledger.Known) // two readings may overtake each other
			}
			v.Ledger.Forgot, v.Ledger.Known = forgot, &known
		})
	}
	return r, err
}

// heartbeats remembers what each node's heartbeat object was, and since when.
type heartbeats struct {
	mu      sync.Mutex
	text    map[string]string
	changed map[string]cluster.Instant
}

// stale says for how long each member's object was watched not changing. Only our own watching counts: the objects' dates are
// of another clock.
func (h *heartbeats) stale(texts map[string]string, self string, now cluster.Instant) map[string]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.text == nil {
		h.text, h.changed = map[string]string{}, map[string]cluster.Instant{}
	}
	stale := map[string]time.Duration{}
	for node, text := range texts {
		if was, known := h.text[node]; !known || was != text {
			h.text[node], h.changed[node] = text, now
		}
		if age := now.Sub(h.changed[node]); age > 0 && node != self {
			stale[node] = age
		}
	}
	return stale
}

// asks checks that this node still asks for an epoch or holds it, by a fresh turn.
func (l *Loop) asks(duty string, epoch uint64) error {
	s := l.look()
	if age := l.cfg.Now().Since(s.Done); age > l.cfg.Policy.Timings.Gate {
		return fmt.Errorf("%w: the newest turn is %v old", errStale, age)
	}
	if d := s.Decision.Memory.Duties[duty]; d.Bid != epoch && d.Hold.Epoch != epoch {
		return fmt.Errorf("%w: epoch %d of %s is no longer wanted", errStale, epoch, duty)
	}
	return nil
}

func (l *Loop) writeDuty(ctx context.Context, a decide.WriteDuty) error {
	if l.world.Ledger == nil {
		return ErrMissing
	}
	if err := l.asks(a.Record.Duty, a.Record.Epoch); err != nil {
		return err
	}
	err := l.world.Ledger.WriteDuty(ctx, a.Record)
	if err != nil && !errors.Is(err, ErrTaken) {
		return err
	}
	w := decide.WroteReading{Epoch: a.Record.Epoch, At: l.cfg.Now(), Lost: err != nil}
	l.board.put(func(v *decide.View) { set(&v.Ledger.Wrote, a.Record.Duty, w) })
	return nil
}

func (l *Loop) claimTie(ctx context.Context, a decide.ClaimTie) error {
	if l.world.Ledger == nil {
		return ErrMissing
	}
	err := l.world.Ledger.ClaimTie(ctx, a.Tie)
	if errors.Is(err, ErrTaken) {
		return l.readLedger(ctx) // who won shows there
	}
	if err != nil {
		return err
	}
	arrived := l.cfg.Now()
	l.board.put(func(v *decide.View) {
		if a.Tie.N >= v.Ledger.Tie.N {
			v.Ledger.Tie, v.Ledger.WonTie = a.Tie, arrived
		}
	})
	return nil
}

// judgeClaim turns the newest claim of our name, in an answer that has just arrived, into what it means for us.
func (l *Loop) judgeClaim(was decide.ClaimReading, c cluster.Claim, arrived cluster.Instant) decide.ClaimReading {
	r := decide.ClaimReading{Needed: was.Needed}
	switch {
	case c.Epoch == 0 || c.Tombstoned && c.Machine != l.cfg.Machine:
	case c.Left:
		r.Taken = "this machine has left the cluster, whose roles.yaml has no place for it"
	case c.Tombstoned:
		r.Taken = "the ledger has a tombstone for it"
	case c.Machine != l.cfg.Machine:
		r.Taken = fmt.Sprintf("machine %s has claimed it", c.Machine)
	default:
		r.Epoch, r.Mine, r.At = c.Epoch, true, arrived
		if was.Mine && was.Epoch == c.Epoch {
			r.At = was.At
		}
	}
	return r
}

// returnAfter is how long a machine whose claim has got a tombstone waits with the next claim while it hears no majority. Whoever
// gave it up cuts its power meanwhile: what is cut off from the others, and reaches the ledger, would only be in the way.
const returnAfter = 10 * time.Second

// burial is when this machine first saw that its claim has a tombstone. It belongs to the observer that claims.
type burial struct {
	epoch uint64
	at    cluster.Instant
}

// notYet says that the newest claim was this machine's, has a tombstone, and must not be followed by another one yet.
func (b *burial) notYet(l *Loop, c cluster.Claim) bool {
	if !c.Tombstoned || c.Machine != l.cfg.Machine {
		return false
	}
	if b.epoch != c.Epoch {
		*b = burial{c.Epoch, l.cfg.Now()}
	}
	return l.cfg.Now().Sub(b.at) < returnAfter && !l.hearsMost()
}

// hearsMost says that this node hears a majority of the roster, itself included.
func (l *Loop) hearsMost() bool {
	n, nodes := 0, l.cfg.Policy.Nodes
	for _, k := range nodes {
		if k == l.cfg.Policy.Self || l.silent(k) != nil {
			n++
		}
	}
	return 2*n > len(nodes)
}

// claim makes this machine the node's incarnation, unless another one is. Only a tombstoned claim is superseded.
func (l *Loop) claim(ctx context.Context) error {
	v, _ := l.board.look()
	if v.Claim.Mine && v.Ledger.Claims != nil || !v.Ledger.Sound {
		return nil // readLedger notices when it is no longer ours
	}
	r, err := l.readWhole(ctx)
	if err != nil {
		return err // an identity that seems free in a ledger that has forgotten may be somebody's
	}
	self := l.cfg.Policy.Self
	c := r.Claims[self]
	if l.buried.notYet(l, c) {
		return nil
	}
	if c.Epoch == 0 || c.Tombstoned && !(c.Left && c.Machine == l.cfg.Machine) {
		c = cluster.Claim{Node: self, Epoch: c.Epoch + 1, Machine: l.cfg.Machine, Private: l.cfg.Private, Public: l.cfg.Public}
		if err := l.world.Ledger.ClaimIdentity(ctx, c); err != nil {
			return fmt.Errorf("claim the identity of %s: %w", self, err) // taken: the next reading shows by whom
		}
		l.log.Info("claimed", "node", self, "epoch", c.Epoch, "machine", c.Machine)
	}
	arrived := l.cfg.Now()
	l.board.put(func(v *decide.View) {
		v.Claim = l.judgeClaim(v.Claim, c, arrived)
		claims := maps.Clone(r.Claims)
		if claims == nil {
			claims = map[string]cluster.Claim{}
		}
		claims[self] = c
		v.Ledger.Claims = claims
	})
	return nil
}

// prune deletes some of what is old, while this node coordinates. That two do so at once would harm nobody.
func (l *Loop) prune(ctx context.Context) error {
	s := l.look()
	hold, g := s.Decision.Memory.Duties[cluster.Coordinator].Hold, s.View.Ledger
	if hold.State != cluster.Held || s.View.Orders.Pause || !g.Sound || g.Failing {
		return nil
	}
	r, err := l.readWhole(ctx) // a ledger that has lost something is not made less
	if err != nil || r.Duties[cluster.Coordinator].Epoch > hold.Epoch {
		return err
	}
	n, err := l.world.Ledger.Prune(ctx, pruneAtOnce)
	if n > 0 {
		l.log.Info("pruned old objects of the ledger", "objects", n)
	}
	return err
}

// heartbeat renews our object while we are the node.
func (l *Loop) heartbeat(ctx context.Context) error {
	v, _ := l.board.look()
	if !v.Claim.Mine {
		return nil
	}
	s := l.look()
	b := Heartbeat{Machine: l.cfg.Machine, Phase: s.Decision.Say.Phase.String(), Commit: v.Commit, Claim: v.Claim.Epoch}
	for _, h := range s.Decision.Say.Holds {
		if h.State == cluster.Held || h.State == cluster.Offered {
			b.Holds = append(b.Holds, h.Duty)
		}
	}
	return l.world.Ledger.Beat(ctx, b)
}
