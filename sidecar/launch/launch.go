// Package launch begins a cluster from nothing: it creates one machine, the seed, and hands it the cluster's identity; the
// seed's sidecar then hires the others by the code that heals a cluster of which one node has survived.
//
// It promises that the seed is created like any replacement: under an intent in the ledger, which carries the nonce in the
// machine's tag, and after a call that only one can write. So however often and wherever launch is cut short and begun
// again, also by two operators at once, at most one machine is asked for under each intent, and the next intent comes only after the
// last one is closed. It keeps nothing of its own: the keys of the hand-over are made of the cluster key and the intent's nonce
// (secrets.Handover).
//
// It refuses to begin beside anything that lives: a machine that the ledger knows as a node and the provider, asked by ID, does not
// call gone or off, or one that carries the cluster's tag and that nobody knows. It deletes nothing and powers nothing off.
package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger"
)

const (
	// pace is the pause between two questions of the provider, and knock between two connections to a seed that still boots.
	pace, knock = 500 * time.Millisecond, 100 * time.Millisecond
	// lostAfter is how long after the call a machine that no list shows is given up, as in the sidecar: lists lag.
	lostAfter = 2 * time.Minute
	// mostRounds bounds how often somebody else may be first.
	mostRounds = 4
)

// Ledger is what is needed of a *ledger.Ledger.
type Ledger interface {
	SelfTest(ctx context.Context, node string) error
	Read(ctx context.Context) (ledger.Reading, error)
	WriteIntent(ctx context.Context, i cluster.Intent) error
	WriteCall(ctx context.Context, c cluster.Call) error
	WriteClosing(ctx context.Context, c cluster.Closing) error
	Tombstone(ctx context.Context, node string, epoch uint64) error
}

// Provider is what is needed of a cloud.Provider.
type Provider interface {
	List(ctx context.Context) ([]cluster.Machine, error)
	Get(ctx context.Context, id string) (cluster.Machine, error)
	Create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error)
}

// Config is a launch. All fields are required.
type Config struct {
	Roster role.Roster
	Seed   string // a node of the roster, see FirstToAct
	// Membership is what the seed gets, ClusterKey the key in the bundle that the identity opens.
	Membership secrets.Membership
	ClusterKey secrets.Secret
	Ledger     Ledger
	Provider   Provider
	// Dial connects to the seed over TCP.
	Dial func(ctx context.Context, at netip.AddrPort) (net.Conn, error)
	// Say is told each step, in a sentence.
	Say func(string)
}

// Seed is the machine that begins the cluster.
type Seed struct {
	Node    string     `json:"node"`
	Machine string     `json:"machine_id"`
	Address netip.Addr `json:"address"` // public, or private if it has no other
}

// LivesError says that there is something beside which no cluster may be begun. Nothing was changed.
type LivesError struct {
	What string // what there is, in a sentence
	Next string // what to do about it
}

// Error gives both.
func (e *LivesError) Error() string { return e.What + "; nothing was created; next: " + e.Next }

// FirstToAct is the node that a launch begins with: the first of the roster whose role needs nothing of others, so that its own
// Puppet run has to wait for nobody. Where all do, it is the first.
func FirstToAct(r role.Roster) string {
	for _, of := range r.Roles {
		if len(of.Needs) == 0 {
			return of.Nodes[0]
		}
	}
	return r.Nodes()[0]
}

// launch is one under way.
type launch struct {
	Config
	called time.Time // of the intent that is open, by this clock; zero: not yet
}

// Run begins the cluster, or goes on where an earlier Run stopped, and returns when the seed has the identity. Its errors say what
// to do next; after any but a *LivesError a machine may be there, and the next Run goes on with it.
func Run(ctx context.Context, c Config) (Seed, error) {
	l := &launch{Config: c}
	if _, err := c.Roster.ForHost(c.Seed); err != nil {
		return Seed{}, fmt.Errorf("begin with %s: %w", c.Seed, err)
	}
	l.Say("testing the ledger")
	if err := c.Ledger.SelfTest(ctx, c.Seed); err != nil {
		return Seed{}, fmt.Errorf("a cluster needs a ledger it can rely on: %w", err)
	}
	in, err := l.intent(ctx)
	if err != nil {
		return Seed{}, err
	}
	m, err := l.machine(ctx, in)
	if err != nil {
		return Seed{}, err
	}
	return l.handOver(ctx, in, m)
}

// ours says that an intent is a launch's: no sidecar replaces its own node.
func (l *launch) ours(in cluster.Intent) bool { return in.Open() && in.By == l.Seed }

// intent finds the open intent of an earlier launch, or writes one.
func (l *launch) intent(ctx context.Context) (cluster.Intent, error) {
	for range mostRounds {
		r, err := l.Ledger.Read(ctx)
		if err != nil {
			return cluster.Intent{}, err
		}
		was := r.Intents[l.Seed]
		if l.ours(was) {
			over, err := l.over(ctx, r, was)
			if err != nil {
				return cluster.Intent{}, err
			}
			if over == "" {
				l.Say(fmt.Sprintf("going on with the launch of %s", admits(was.Age)))
				return was, nil
			}
			if err := l.close(ctx, was, over); err != nil {
				return cluster.Intent{}, err
			}
			continue
		}
		if err := l.vacant(ctx, r, ""); err != nil {
			return cluster.Intent{}, err
		}
		if was.Open() { // of a cluster that is no more
			if err := l.close(ctx, was, "the cluster that wanted it is gone"); err != nil {
				return cluster.Intent{}, err
			}
			continue
		}
		in := l.next(r)
		if err := l.Ledger.WriteIntent(ctx, in); !taken(err) {
			return in, err
		}
	}
	return cluster.Intent{}, errors.New("somebody else is launching this cluster, too: let one of you wait, then see: understudy status")
}

// admits is how long ago something was, for people.
func admits(age time.Duration) string {
	if age < time.Second {
		return "just now"
	}
	return age.Round(time.Second).String() + " ago"
}

// over says why an intent of ours will come to nothing any more. Empty: it may.
func (l *launch) over(ctx context.Context, r ledger.Reading, in cluster.Intent) (string, error) {
	c := r.Claims[l.Seed]
	if c.Epoch <= in.Replaces {
		return "", nil
	}
	m, err := l.Provider.Get(ctx, c.Machine)
	if err != nil {
		return "", err
	}
	if m.Power == cluster.PowerGone || m.Power == cluster.PowerOff {
		if err := l.vacant(ctx, r, in.Tag()); err != nil {
			return "", err
		}
		return "its machine had joined and is gone, and so is every other", nil
	}
	return "", nil
}

func (l *launch) close(ctx context.Context, in cluster.Intent, why string) error {
	err := l.Ledger.WriteClosing(ctx, cluster.Closing{Node: in.Node, N: in.N, Outcome: cluster.Failed, By: l.Seed, Why: why})
	if taken(err) {
		return nil
	}
	return err
}

// taken says that somebody else was first.
func taken(err error) bool {
	_, ok := errors.AsType[*ledger.TakenError](err)
	return ok
}

// next is the intent that follows what the ledger has.
func (l *launch) next(r ledger.Reading) cluster.Intent {
	was, c := r.Intents[l.Seed], r.Claims[l.Seed]
	try := 1
	if was.Closed.Outcome == cluster.Failed {
		try = was.Try + 1
	}
	return cluster.Intent{
		Node: l.Seed, N: was.N + 1, Nonce: random(), Replaces: c.Epoch, Machine: c.Machine, By: l.Seed, Epoch: r.Duties[cluster.Coordinator].Epoch,
		Try: try, Why: "the cluster is launched",
	}
}

// random is 32 hexadecimal digits. crypto/rand does not fail (it ends the process).
func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// vacant returns a *LivesError if there is anything beside which no cluster may begin. Machines with the tag own are not counted.
func (l *launch) vacant(ctx context.Context, r ledger.Reading, own string) error {
	for _, node := range slices.Sorted(maps.Keys(r.Claims)) {
		c := r.Claims[node]
		if c.Tombstoned {
			continue
		}
		m, err := l.Provider.Get(ctx, c.Machine)
		if err != nil {
			return err
		}
		if m.Power != cluster.PowerGone && m.Power != cluster.PowerOff {
			return &LivesError{
				fmt.Sprintf("cluster %s is there already: %s is machine %s, and the provider does not call it gone or off", l.Roster.Cluster, node, c.Machine),
				"see how it is (understudy status on that node); it heals itself",
			}
		}
	}
	all, err := l.Provider.List(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Power == cluster.PowerOff || own != "" && slices.Contains(m.Tags, own) {
			continue
		}
		return &LivesError{
			fmt.Sprintf("machine %s, called %s, carries the tag %s and is no node that the ledger knows", m.ID, m.Name, l.Roster.Cluster),
			"if it is not needed, delete it; otherwise take that tag from it; then launch again",
		}
	}
	return nil
}

// machine returns the intent's machine once it is on and has an address.
func (l *launch) machine(ctx context.Context, in cluster.Intent) (cluster.Machine, error) {
	if in.Called > 0 {
		l.called = time.Now().Add(-in.Called)
	} else if err := l.create(ctx, in); err != nil {
		return cluster.Machine{}, err
	}
	var m cluster.Machine
	for told := ""; ; {
		var err error
		m, err = l.look(ctx, in, m.ID)
		switch {
		case err != nil: // the provider is asked again
		case m.ID == "" && time.Since(l.called) > lostAfter:
			return m, l.lost(ctx, in, "the machine was asked for and never came to be")
		case m.Power == cluster.PowerGone:
			return m, l.lost(ctx, in, fmt.Sprintf("machine %s of %s is gone", m.ID, l.Seed))
		case m.Power == cluster.PowerOn && address(m).IsValid():
			return m, nil
		}
		if m.ID != told {
			told = m.ID
			l.Say(fmt.Sprintf("%s is machine %s; waiting for it to boot", l.Seed, m.ID))
		}
		if !sleep(ctx, pace) {
			what := fmt.Sprintf("machine %s of %s is not on", m.ID, l.Seed)
			if m.ID == "" {
				what = fmt.Sprintf("the machine of %s is in no list of the provider's yet", l.Seed)
			}
			return m, errors.Join(fmt.Errorf("%s (%w); launch again goes on from here", what, context.Cause(ctx)), err)
		}
	}
}

// lost closes an intent whose machine will not come.
func (l *launch) lost(ctx context.Context, in cluster.Intent, why string) error {
	if err := l.close(ctx, in, why); err != nil {
		return err
	}
	return errors.New(why + "; launch again begins anew")
}

// look finds the machine of an intent in the list, or asks for one by its ID. The zero Machine: it is in no list.
func (l *launch) look(ctx context.Context, in cluster.Intent, id string) (cluster.Machine, error) {
	if id != "" {
		m, err := l.Provider.Get(ctx, id)
		m.ID = id // known, whatever the answer
		return m, err
	}
	all, err := l.Provider.List(ctx)
	if err != nil {
		return cluster.Machine{}, err
	}
	for _, m := range all { // the lowest ID, as the sidecars have it
		if m.Name == in.Node && slices.Contains(m.Tags, in.Tag()) {
			return m, nil
		}
	}
	return cluster.Machine{}, nil
}

// address is where a machine is reached from outside.
func address(m cluster.Machine) netip.Addr {
	if m.Public.IsValid() {
		return m.Public
	}
	return m.Private
}

// sleep waits for the next question. False: ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// create asks for the intent's machine, once, after what must hold has been read again.
func (l *launch) create(ctx context.Context, in cluster.Intent) error {
	r, err := l.Ledger.Read(ctx)
	if err != nil {
		return err
	}
	if now := r.Intents[l.Seed]; now.N != in.N || now.Nonce != in.Nonce || !now.Open() {
		return errors.New("somebody else is launching this cluster, too: let one of you wait, then see: understudy status")
	}
	if err := l.vacant(ctx, r, in.Tag()); err != nil {
		return err
	}
	if in.Replaces > 0 { // of a cluster that is no more; vacant has found its machine gone or off
		if err := l.Ledger.Tombstone(ctx, l.Seed, in.Replaces); err != nil {
			return err
		}
	}
	h, err := secrets.NewHandover(l.ClusterKey, l.Roster.Cluster, l.Seed, in.Nonce)
	if err != nil {
		return err
	}
	l.called = time.Now()
	switch err := l.Ledger.WriteCall(ctx, cluster.Call{Node: l.Seed, N: in.N, By: l.Seed, Mark: random()}); {
	case taken(err):
		return nil // another launch asks for it; both hand over the same
	case err != nil:
		return fmt.Errorf("no machine was asked for, because that could not be written down: %w; launch again", err)
	}
	l.Say("creating a machine for " + l.Seed)
	of := l.Roster.Provider
	_, err = l.Provider.Create(ctx, cloud.Hiring{
		Name: l.Seed, Tags: []string{in.Tag()}, Region: of.Region, Sizes: of.Sizes, Image: of.Image, SSHKeys: of.SSHKeys, UserData: h.UserData(),
	})
	switch {
	case cloud.Refused(err):
		return errors.Join(err, l.close(ctx, in, strings.ReplaceAll(err.Error(), "\n", " ")))
	case err != nil: // there may be one
		l.Say(fmt.Sprintf("whether there is a machine now is not known (%v): looking for it", err))
	}
	return nil
}

// handOver gives the seed the identity, as often as it takes.
func (l *launch) handOver(ctx context.Context, in cluster.Intent, m cluster.Machine) (Seed, error) {
	seed := Seed{Node: l.Seed, Machine: m.ID, Address: address(m)}
	h, err := secrets.NewHandover(l.ClusterKey, l.Roster.Cluster, l.Seed, in.Nonce)
	if err != nil {
		return seed, err
	}
	l.Say(fmt.Sprintf("waiting for %s at %s to take the cluster's identity", l.Seed, seed.Address))
	for n := 0; ; n++ {
		conn, err := l.Dial(ctx, netip.AddrPortFrom(seed.Address, secrets.HandoverPort))
		if err == nil {
			if err = h.Give(ctx, conn, l.Membership); err == nil {
				l.Say(fmt.Sprintf("%s has the identity", l.Seed))
				return seed, nil
			}
		}
		// It may have it already: from an earlier launch, or the answer was lost. Then it claims its name, as soon as it can.
		if n%20 == 19 {
			if r, rerr := l.Ledger.Read(ctx); rerr == nil && r.Claims[l.Seed].Machine == m.ID && r.Claims[l.Seed].Epoch > in.Replaces {
				l.Say(fmt.Sprintf("%s has the identity already", l.Seed))
				return seed, nil
			}
		}
		if !sleep(ctx, knock) {
			return seed, fmt.Errorf("machine %s of %s has not taken the identity (%w): %w; see what understudy-bootstrap says on its console, and whether "+
				"TCP port %d of %s can be reached from here; launch again goes on with this machine", m.ID, l.Seed, context.Cause(ctx), err, secrets.HandoverPort, seed.Address)
		}
	}
}
