package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"understudy/sidecar/admin"
	"understudy/sidecar/chaos"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger"
	"understudy/sidecar/ledger/sigv4"
	"understudy/sidecar/reconcile"
)

// maxIncidents are shown, the newest.
const maxIncidents = 100

// book is the ledger in the loop's words.
type book struct {
	*ledger.Ledger
	node  string
	beats atomic.Uint64
}

// ledger makes the client of the object store. Nil: the cluster has none.
func (p *parts) ledger() (*book, error) {
	at := p.cfg.Ledger.Over(p.roster.Ledger)
	keys := p.bundle.Ledger
	switch {
	case at == nil:
		return nil, nil
	case keys.AccessKey.IsZero():
		p.log.Warn("there is no ledger: secrets.age has no keys for it", "endpoint", at.Endpoint)
		return nil, nil
	}
	store, err := ledger.NewS3(ledger.S3Config{
		Endpoint: at.Endpoint, Bucket: at.Bucket, Region: at.Region, Keys: sigv4.Keys{AccessKey: keys.AccessKey, SecretKey: keys.SecretKey},
		Now: p.clock.Now, Heard: p.hear("the store"),
	})
	if err != nil {
		return nil, err
	}
	return &book{Ledger: ledger.New(store, p.roster.Cluster), node: p.cfg.Node}, nil
}

func (b *book) SelfTest(ctx context.Context) error {
	err := b.Ledger.SelfTest(ctx, b.node)
	if unsound, ok := errors.AsType[*ledger.UnsoundError](err); ok {
		return fmt.Errorf("%w: %s", reconcile.ErrUnsound, unsound.Why)
	}
	return err
}

func (b *book) Read(ctx context.Context) (reconcile.LedgerReading, error) {
	r, err := b.Ledger.Read(ctx)
	if forgot, ok := errors.AsType[*ledger.ForgottenError](err); ok {
		return reconcile.LedgerReading{}, fmt.Errorf("%w: %w", reconcile.ErrForgotten, forgot)
	}
	if err != nil {
		return reconcile.LedgerReading{}, err
	}
	beats := make(map[string]string, len(r.Beats))
	for node, meta := range r.Beats {
		beats[node] = meta.Modified.String()
	}
	return reconcile.LedgerReading{Duties: r.Duties, Tie: r.Tie, Claims: r.Claims, Beats: beats, Intents: r.Intents, Hired: r.Hired, Wishes: r.Wishes, Seed: r.Seed}, nil
}

// taken tells the loop in its own word that somebody was first.
func taken(err error) error {
	if other, ok := errors.AsType[*ledger.TakenError](err); ok {
		return fmt.Errorf("%w: %w", reconcile.ErrTaken, other)
	}
	return err
}

func (b *book) WriteDuty(ctx context.Context, r cluster.DutyRecord) error {
	return taken(b.Ledger.WriteDuty(ctx, r))
}

func (b *book) ClaimTie(ctx context.Context, t cluster.Tie) error {
	return taken(b.Ledger.ClaimTie(ctx, t))
}

func (b *book) ClaimIdentity(ctx context.Context, c cluster.Claim) error {
	return taken(b.Ledger.ClaimIdentity(ctx, c))
}

func (b *book) WriteIntent(ctx context.Context, i cluster.Intent) error {
	return taken(b.Ledger.WriteIntent(ctx, i))
}

func (b *book) WriteCall(ctx context.Context, c cluster.Call) error {
	return taken(b.Ledger.WriteCall(ctx, c))
}

func (b *book) WriteClosing(ctx context.Context, c cluster.Closing) error {
	return taken(b.Ledger.WriteClosing(ctx, c))
}

func (b *book) History(ctx context.Context, node string) (map[string]bool, map[string]uint64, error) {
	h, err := b.Ledger.History(ctx, node)
	return h.Nonces, h.Claims, err
}

func (b *book) Beat(ctx context.Context, h reconcile.Heartbeat) error {
	return b.Ledger.Beat(ctx, b.node, ledger.Heartbeat{
		Machine: h.Machine, Claim: h.Claim, Count: b.beats.Add(1), Phase: h.Phase, Holds: h.Holds, Commit: h.Commit,
	})
}

func (b *book) AppendIncident(ctx context.Context, s reconcile.IncidentStep) error {
	return taken(b.Ledger.AppendIncident(ctx, ledger.Step{
		Incident: s.Incident, Node: s.Node, Role: s.Role, Phase: s.Phase, At: s.At, Took: s.Took, By: b.node, Detail: s.Detail,
	}))
}

func (b *book) OpenIncident(ctx context.Context, node string) (string, error) {
	all, err := b.Ledger.Incidents(ctx, maxIncidents)
	if err != nil {
		return "", err
	}
	open := ""
	for _, in := range all {
		if in.Node == node && !told(in).Over() {
			open = in.ID
		}
	}
	return open, nil
}

// told is an incident in the words of the admin API.
func told(in ledger.Incident) admin.Incident {
	out := admin.Incident{ID: in.ID, Node: in.Node, Role: in.Role, Cause: in.Cause}
	for i, s := range in.Steps {
		took := s.At.Sub(in.Steps[max(0, i-1)].At)
		if before := in.Steps[max(0, i-1)]; s.Took > 0 && s.By == before.By {
			took = s.Took - before.Took // by one steady clock
		}
		out.Phases = append(out.Phases, admin.IncidentPhase{Name: s.Phase, At: s.At, Took: admin.Duration(max(0, took)), By: s.By, Detail: s.Detail})
	}
	return out
}

// backend is the loop, and the ledger where there is one, in the admin API's words.
type backend struct {
	*reconcile.Loop
	book  *book
	chaos *chaos.Destroyer // nil: there is no ledger or no provider
	data  *roleData        // nil: the node's role has none
	// puppet is nil where no control repo is followed.
	puppet *puppet
}

func (b backend) Destroy(ctx context.Context, d admin.Destroy) (admin.Destroyed, error) {
	if b.chaos == nil {
		return admin.Destroyed{}, admin.Refusal("nobody would replace the machine: this node has no provider or no ledger")
	}
	return b.chaos.Destroy(ctx, d)
}

func (b backend) Reseed(ctx context.Context, r cluster.Recall) error {
	if b.book == nil {
		return errors.New("there is no ledger")
	}
	return b.book.Reseed(ctx, r)
}

func (b backend) Wish(ctx context.Context, w cluster.Wish) error {
	if b.book == nil {
		return admin.Refusal("there is no ledger to write it down in")
	}
	err := b.book.WriteWish(ctx, w)
	if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
		return admin.Refusal("another order for %s, given at %s, came first; repeat the command if you still want yours", w.Node, taken.By)
	}
	return err
}

func (b backend) Incidents(ctx context.Context) ([]admin.Incident, error) {
	if b.book == nil {
		return nil, errors.New("there is no ledger")
	}
	all, err := b.book.Ledger.Incidents(ctx, maxIncidents)
	if err != nil {
		return nil, err
	}
	out := make([]admin.Incident, len(all))
	for i, in := range all {
		out[i] = told(in)
	}
	return out, nil
}
