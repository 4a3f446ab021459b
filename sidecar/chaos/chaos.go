// Package chaos destroys a machine that serves, on purpose: a cluster that can lose any one node shows it best by losing one.
//
// It promises one power-off and one deletion for an order at most, of one machine, by its ID. It refuses unless the cluster could
// afford to lose it at that very moment, by readings taken for the order: redundant, nobody paused, no replacement under
// way, nothing destroyed before that is not made good; the machine is the node's by the ledger's newest claim, and the
// provider's by name, tag and ID. Of orders that come at once one is carried out, because each has to win the next number in the
// ledger first. What becomes of the node then is nobody's business here: the cluster finds out by itself, as after any loss.
package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger"
)

// Ledger is what is read and written of it.
type Ledger interface {
	Read(ctx context.Context) (ledger.Reading, error)
	Incidents(ctx context.Context, most int) ([]ledger.Incident, error)
	// WriteDestruction: after any error the provider must not be asked.
	WriteDestruction(ctx context.Context, d cluster.Destruction) error
	AppendIncident(ctx context.Context, s ledger.Step) error
}

// Provider is what is asked of it; see cloud.Provider.
type Provider interface {
	List(ctx context.Context) ([]cluster.Machine, error)
	Get(ctx context.Context, id string) (cluster.Machine, error)
	PowerOff(ctx context.Context, id, name string) error
	Delete(ctx context.Context, id, name string) error
}

// Config is what a Destroyer needs. All of it is required.
type Config struct {
	Log     *slog.Logger
	Machine string // the provider's ID of this one
	Tag     string // of the cluster's machines
	// Status is what this node believes now.
	Status   func() admin.Status
	Ledger   Ledger
	Provider Provider
	Now      func() time.Time // for people
}

// Destroyer carries out orders. It may be used by many at once.
type Destroyer struct{ cfg Config }

// New makes a Destroyer.
func New(cfg Config) *Destroyer { return &Destroyer{cfg} }

const (
	// newest is how many incidents are looked at.
	newest = 20
	// powerEvery is the pause between two questions whether the power is off.
	powerEvery = 500 * time.Millisecond
	// afterwards is what is left of an order's time for the deletion.
	afterwards = 5 * time.Second
)

// Destroy carries out an order, or after a dry run says what it would do. An *admin.Problem says that nothing has happened; after
// any other error the power may be cut.
func (d *Destroyer) Destroy(ctx context.Context, o admin.Destroy) (admin.Destroyed, error) {
	done := admin.Destroyed{Node: o.Node, Machine: o.Machine, DryRun: o.DryRun}
	role, err := d.mayBegin(o)
	if err != nil {
		return admin.Destroyed{}, err
	}
	done.Role = role
	number, err := d.check(ctx, o)
	if err != nil || o.DryRun {
		return done, err
	}
	self := d.cfg.Status().Node
	order := cluster.Destruction{N: number, Node: o.Node, Machine: o.Machine, Seed: o.Seed, By: self, Mark: mark()}
	if err := d.cfg.Ledger.WriteDestruction(ctx, order); err != nil {
		if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
			return admin.Destroyed{}, admin.Refusal("another order, of %s, came first", taken.By)
		}
		return admin.Destroyed{}, err
	}
	// All that was asked has taken a while.
	if _, err := d.mayBegin(o); err != nil {
		return admin.Destroyed{}, err
	}
	d.cfg.Log.Warn("destroying a machine on purpose", "node", o.Node, "machine", o.Machine, "seed", o.Seed)
	at := d.cfg.Now()
	if err := d.cfg.Provider.PowerOff(ctx, o.Machine, o.Node); err != nil {
		return admin.Destroyed{}, unchanged(err)
	}
	done.Incident = d.tell(ctx, o, role, self, at)
	done.Deleted = d.remove(ctx, o)
	return done, nil
}

// mark is 128 bits that nobody else has.
func mark() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// mayBegin asks this node's own belief, and returns the role of the node.
func (d *Destroyer) mayBegin(o admin.Destroy) (string, error) {
	st := d.cfg.Status()
	role, why := byStatus(st, o)
	if why != "" {
		return "", admin.Refusal("%s", why)
	}
	return role, nil
}

// check reads afresh what the ledger and the provider say, and returns the number that the order has in the ledger.
func (d *Destroyer) check(ctx context.Context, o admin.Destroy) (uint64, error) {
	r, err := d.cfg.Ledger.Read(ctx)
	if err != nil {
		return 0, err
	}
	past, err := d.cfg.Ledger.Incidents(ctx, newest)
	if err != nil {
		return 0, err
	}
	if why := byLedger(r, o, d.cfg.Status().Node, d.cfg.Machine); why != "" {
		return 0, admin.Refusal("%s", why)
	}
	if why := byHistory(past, d.cfg.Now()); why != "" {
		return 0, admin.Refusal("%s", why)
	}
	list, err := d.cfg.Provider.List(ctx)
	if err != nil {
		return 0, err
	}
	m, err := d.cfg.Provider.Get(ctx, o.Machine)
	if err != nil {
		return 0, err
	}
	if why := byProvider(list, m, o, d.cfg.Machine, d.cfg.Tag); why != "" {
		return 0, admin.Refusal("%s", why)
	}
	return r.Destroyed.N + 1, nil
}

// unchanged tells the provider's refusals from what may have cut the power.
func unchanged(err error) error {
	_, limited := errors.AsType[*cloud.RateLimitedError](err)
	if limited || errors.Is(err, cloud.ErrPending) || errors.Is(err, cloud.ErrGone) || errors.Is(err, cloud.ErrNotOurs) || errors.Is(err, cloud.ErrDenied) {
		return admin.Refusal("%v", err)
	}
	return fmt.Errorf("it may be off all the same: %w", err)
}

// tell opens the incident, so that its first step says why; whoever coordinates goes on with it. It returns the ID.
func (d *Destroyer) tell(ctx context.Context, o admin.Destroy, role, self string, at time.Time) string {
	s := ledger.Step{
		Incident: cluster.IncidentID(at, o.Node), Node: o.Node, Role: role, Phase: "lost", Cause: cluster.Chaos, At: at, By: self,
		Detail: fmt.Sprintf("machine %s was destroyed on purpose", o.Machine),
	}
	if o.Seed != 0 {
		s.Detail += fmt.Sprintf(", picked with seed %d", o.Seed)
	}
	if err := d.cfg.Ledger.AppendIncident(ctx, s); err != nil {
		d.cfg.Log.Warn("the incident may not say that it was chaos", "node", o.Node, "err", err) // its recovery is told all the same
	}
	return s.Incident
}

// remove deletes the machine as soon as it is off, and says whether it is gone. A machine that it leaves behind is one that is
// off, which whoever replaces it deletes.
func (d *Destroyer) remove(ctx context.Context, o admin.Destroy) bool {
	err := d.awaitOff(ctx, o.Machine)
	if err == nil {
		err = d.cfg.Provider.Delete(ctx, o.Machine, o.Node)
	}
	if err != nil {
		d.cfg.Log.Warn("the machine is not deleted yet; whoever replaces it will", "node", o.Node, "machine", o.Machine, "err", err)
	}
	return err == nil
}

// awaitOff waits until the provider calls a machine off or gone, while the order's time allows.
func (d *Destroyer) awaitOff(ctx context.Context, id string) error {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-afterwards))
		defer cancel()
	}
	for {
		m, err := d.cfg.Provider.Get(ctx, id)
		switch {
		case err != nil:
			return err
		case m.Power == cluster.PowerOff || m.Power == cluster.PowerGone:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(powerEvery):
		}
	}
}
