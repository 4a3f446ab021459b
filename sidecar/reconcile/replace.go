package reconcile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// randomHex is 128 bits that nobody else has.
func randomHex() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// machines remembers when a list first had each machine.
type machines struct {
	first map[string]cluster.Instant
	same  string // the newest list's machines, as a text
}

// readList asks for all machines, and the ledger for what it knows of those that are nobody's now.
func (l *Loop) readList(ctx context.Context) error {
	if l.world.Provider == nil || l.world.Ledger == nil {
		return ErrMissing
	}
	sent := l.cfg.Now()
	all, err := l.world.Provider.List(ctx)
	if err != nil {
		return fmt.Errorf("list the machines: %w", err)
	}
	v, _ := l.board.look()
	listed, err := l.annotate(ctx, v, all)
	if err != nil {
		return err
	}
	var text strings.Builder
	first := make(map[string]cluster.Instant, len(all))
	for i, m := range listed {
		fmt.Fprintf(&text, "%s %s %v %v\n", m.ID, m.Name, m.Tags, m.Power)
		if first[m.ID] = l.seen.first[m.ID]; first[m.ID] == 0 {
			first[m.ID] = sent
		}
		listed[i].First = first[m.ID]
	}
	same := l.seen.same == text.String()
	l.seen = machines{first, text.String()}
	l.board.put(func(v *decide.View) {
		agree := 1
		if same {
			agree = v.List.Agree + 1
		}
		v.List = decide.ListReading{Machines: listed, At: sent, Agree: agree}
	})
	return nil
}

// annotate says of each machine what the ledger knows of it.
func (l *Loop) annotate(ctx context.Context, v decide.View, all []cluster.Machine) ([]decide.Listed, error) {
	listed := make([]decide.Listed, len(all))
	for i, m := range all {
		listed[i].Machine = m
		if c := v.Ledger.Claims[m.Name]; c.Machine == m.ID {
			listed[i].Claimed, listed[i].Known = c.Epoch, true
			continue
		}
		if !slices.Contains(l.cfg.Policy.Nodes, m.Name) {
			continue // what never was in the roster has no history
		}
		nonces, claims, err := l.world.Ledger.History(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		listed[i].Claimed = claims[m.ID]
		listed[i].Known = claims[m.ID] > 0 || slices.ContainsFunc(m.Tags, func(tag string) bool {
			nonce, ok := strings.CutPrefix(tag, cluster.IntentTag)
			return ok && nonces[nonce]
		})
	}
	return listed, nil
}

// still reads the ledger and checks that nobody has coordinated since, and that this machine is still its node.
func (l *Loop) still(ctx context.Context, e decide.Expect) (LedgerReading, error) {
	if l.world.Provider == nil || l.world.Ledger == nil {
		return LedgerReading{}, ErrMissing
	}
	r, err := l.world.Ledger.Read(ctx)
	if err != nil {
		return LedgerReading{}, err
	}
	if d := r.Duties[e.Duty]; d.Epoch > e.Epoch || d.Epoch == e.Epoch && d.Holder != l.cfg.Policy.Self {
		return LedgerReading{}, fmt.Errorf("%w: %s has %s under epoch %d", errStale, d.Holder, e.Duty, d.Epoch)
	}
	if c := r.Claims[l.cfg.Policy.Self]; c.Machine != l.cfg.Machine || c.Tombstoned {
		return LedgerReading{}, fmt.Errorf("%w: this machine is not %s any more", errStale, l.cfg.Policy.Self)
	}
	return r, l.holds(e)
}

func (l *Loop) openIntent(ctx context.Context, a decide.OpenIntent) error {
	r, err := l.still(ctx, a.Expect)
	if err != nil {
		return err
	}
	in := a.Intent
	if was := r.Intents[in.Node]; was.N+1 != in.N || was.Open() {
		return fmt.Errorf("%w: the newest intent for %s is %d", errStale, in.Node, was.N)
	}
	if c := r.Claims[in.Node]; c.Epoch != in.Replaces || c.Machine != in.Machine {
		return fmt.Errorf("%w: %s is machine %s, under claim %d", errStale, in.Node, c.Machine, c.Epoch)
	}
	if err := taken(l.world.Ledger.WriteIntent(ctx, in)); err != nil {
		return err
	}
	return l.readLedger(ctx)
}

// taken takes it for an answer that somebody else was first: what he wrote shows in the next reading.
func taken(err error) error {
	if errors.Is(err, ErrTaken) {
		return nil
	}
	return err
}

func (l *Loop) tombstone(ctx context.Context, a decide.Tombstone) error {
	r, err := l.still(ctx, a.Expect)
	if err != nil {
		return err
	}
	if c := r.Claims[a.Node]; c.Epoch != a.Epoch {
		return fmt.Errorf("%w: the newest claim of %s is %d", errStale, a.Node, c.Epoch)
	}
	if a.Off {
		if err := l.stillOff(ctx, a.Node, a.Machine); err != nil {
			return err
		}
	}
	if err := l.silent(a.Node); err != nil {
		return err
	}
	if err := l.world.Ledger.Tombstone(ctx, a.Node, a.Epoch); err != nil {
		return err
	}
	return l.readLedger(ctx)
}

// release ends this machine's own claim, if it is still the newest of its node.
func (l *Loop) release(ctx context.Context, a decide.Release) error {
	if l.world.Ledger == nil {
		return ErrMissing
	}
	r, err := l.readWhole(ctx)
	if err != nil {
		return err
	}
	if c := r.Claims[a.Node]; c.Epoch != a.Epoch || c.Machine != l.cfg.Machine || c.Left {
		return fmt.Errorf("%w: %s is machine %s, under claim %d", errStale, a.Node, c.Machine, c.Epoch)
	}
	if s := l.look(); s.Decision.Memory.Out == 0 {
		return fmt.Errorf("%w: %s does not leave any more", errStale, a.Node)
	}
	if err := l.world.Ledger.Leave(ctx, a.Node, a.Epoch); err != nil {
		return err
	}
	return l.readLedger(ctx)
}

// stillOff checks that the provider, asked now, calls a node's machine off or gone.
func (l *Loop) stillOff(ctx context.Context, node, machine string) error {
	m, err := l.world.Provider.Get(ctx, machine)
	if err == nil && m.Power != cluster.PowerOff && m.Power != cluster.PowerGone {
		err = fmt.Errorf("%w: the machine of %s is not off", errStale, node)
	}
	return err
}

// silent checks that a node has not been heard since the decision.
func (l *Loop) silent(node string) error {
	s := l.look()
	if heard := s.View.Peers[node].Heard; heard != 0 && s.View.Now.Sub(heard) < l.cfg.Policy.Timings.Detection {
		return fmt.Errorf("%w: %s is heard", errStale, node)
	}
	return nil
}

// notTheNode checks, by a fresh reading, that a machine is not a node's incarnation: its claim has a tombstone, or another
// machine has claimed since.
func (l *Loop) notTheNode(r LedgerReading, node, machine string, claim uint64) error {
	c := r.Claims[node]
	if c.Machine == machine && !c.Tombstoned || claim != 0 && (c.Epoch != claim || c.Machine != machine) {
		return fmt.Errorf("%w: %s is machine %s, under claim %d", errStale, node, c.Machine, c.Epoch)
	}
	if machine == l.cfg.Machine {
		return fmt.Errorf("%w: that is this very machine", errStale)
	}
	return nil
}

// voiceless checks that a node that seems lost does not answer where beats do not go: at its machine's public address. A network that
// keeps the beats of a healthy node from a majority must not cost it its machine. The question takes seconds, so it comes before all
// that must be fresh. A machine without a public address cannot be asked.
func (l *Loop) voiceless(ctx context.Context, node, machine string) error {
	if l.world.Probe == nil || l.world.Provider == nil {
		return nil
	}
	m, err := l.world.Provider.Get(ctx, machine)
	if err != nil || m.Power == cluster.PowerOff || m.Power == cluster.PowerGone || !m.Public.IsValid() {
		return err
	}
	if err := l.world.Probe(ctx, node, m.Public); err != nil {
		l.log.Info("no answer from the machine that is to be switched off", "node", node, "machine", machine, "err", err)
		return nil
	}
	return fmt.Errorf("%s is not lost: its sidecar answers at %s, though its beats do not arrive; look at the network between the members", node, m.Public)
}

func (l *Loop) powerOff(ctx context.Context, a decide.PowerOff) error {
	if a.Claim != 0 {
		if err := l.voiceless(ctx, a.Node, a.Machine); err != nil {
			return err
		}
	}
	r, err := l.still(ctx, a.Expect)
	if err != nil {
		return err
	}
	if err := l.notTheNode(r, a.Node, a.Machine, a.Claim); err != nil {
		return err
	}
	if a.Claim != 0 {
		if err := l.silent(a.Node); err != nil {
			return err
		}
	}
	if err := l.world.Provider.PowerOff(ctx, a.Machine, a.Node); err != nil {
		return err
	}
	return l.readMachine(ctx, decide.ReadMachine{Node: a.Node, Machine: a.Machine})
}

func (l *Loop) deleteMachine(ctx context.Context, a decide.Delete) error {
	r, err := l.still(ctx, a.Expect)
	if err != nil {
		return err
	}
	if err := l.notTheNode(r, a.Node, a.Machine, 0); err != nil {
		return err
	}
	if err := l.world.Provider.Delete(ctx, a.Machine, a.Node); err != nil {
		return err
	}
	return l.readList(ctx)
}

func (l *Loop) closeIntent(ctx context.Context, a decide.CloseIntent) error {
	r, err := l.still(ctx, a.Expect)
	if err != nil {
		return err
	}
	if in := r.Intents[a.Closing.Node]; in.N != a.Closing.N || !in.Open() {
		return fmt.Errorf("%w: intent %d for %s is not open", errStale, a.Closing.N, a.Closing.Node)
	}
	if err := taken(l.world.Ledger.WriteClosing(ctx, a.Closing)); err != nil {
		return err
	}
	return l.readLedger(ctx)
}

// create asks for an intent's machine. Whatever must hold is read afresh; then the call is written down, which one can do for each
// intent; then the provider is asked, once.
func (l *Loop) create(ctx context.Context, a decide.Create) error {
	if l.world.Hire == nil {
		return ErrMissing
	}
	in := a.Intent
	if err := l.mayCreate(ctx, a); err != nil {
		return err
	}
	h, err := l.world.Hire(in.Node)
	if err != nil {
		return err
	}
	h.Name, h.Tags = in.Node, append(h.Tags, in.Tag())
	r, err := l.still(ctx, a.Expect)
	if err != nil {
		return err
	}
	if err := intentReady(r, in); err != nil {
		return err
	}
	if err := l.world.Ledger.WriteCall(ctx, cluster.Call{Node: in.Node, N: in.N, By: l.cfg.Policy.Self, Mark: randomHex()}); err != nil {
		return err
	}
	if err := l.holds(a.Expect); err != nil {
		return err // the call is spent: the intent fails after a while, and the next one follows
	}
	_, err = l.world.Provider.Create(ctx, h)
	if cloud.Refused(err) {
		c := cluster.Closing{Node: in.Node, N: in.N, Outcome: cluster.Failed, By: l.cfg.Policy.Self, Why: err.Error()}
		err = errors.Join(err, l.world.Ledger.WriteClosing(ctx, c))
	}
	return errors.Join(err, l.readLedger(ctx), l.readList(ctx))
}

// mayCreate checks what the provider says: the old machine is off or gone, the list is ours and whole, and there is room in it.
func (l *Loop) mayCreate(ctx context.Context, a decide.Create) error {
	if a.Intent.Machine != "" {
		if err := l.stillOff(ctx, a.Intent.Node, a.Intent.Machine); err != nil {
			return err
		}
	}
	if err := l.readList(ctx); err != nil {
		return err
	}
	v, _ := l.board.look()
	if why := v.List.NoRoom(l.cfg.Policy, l.cfg.Machine, a.Intent, a.Most); why != "" {
		return fmt.Errorf("%w: %s", errStale, why)
	}
	return nil
}

// intentReady checks, by a fresh reading, that an intent still waits for its call.
func intentReady(r LedgerReading, in cluster.Intent) error {
	now, c := r.Intents[in.Node], r.Claims[in.Node]
	switch {
	case now.N != in.N || now.Nonce != in.Nonce || !now.Open() || now.Called > 0:
		return fmt.Errorf("%w: intent %d for %s does not wait for a machine", errStale, in.N, in.Node)
	case c.Epoch != in.Replaces || in.Replaces > 0 && !c.Tombstoned:
		return fmt.Errorf("%w: the newest claim of %s is %d", errStale, in.Node, c.Epoch)
	}
	return nil
}

const hireTimeout = 45 * time.Second // of a create, with all that is read before
