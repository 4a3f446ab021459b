package admin

import (
	"context"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Backend is the loop, as this package needs it. Its methods may be called from many goroutines at once and do not block
// for longer than a turn takes.
type Backend interface {
	// Snapshot is the newest turn: what was seen and what was decided, and when. Nobody changes the values afterwards. A zero
	// time says that there was no turn yet.
	Snapshot() (decide.Policy, decide.View, decide.Decision, time.Time)
	// Order changes the operator's wishes and makes the loop turn. The function is called once, before Order returns, on the
	// wishes in force.
	Order(change func(*decide.Orders))
	// Reseed writes into the ledger all of r that is not there, and that this is reseed r.Seed.
	Reseed(ctx context.Context, r cluster.Recall) error
	// Wish writes w into the ledger, whose number is the next of its node. A Refusal says that another one has come first.
	Wish(ctx context.Context, w cluster.Wish) error
	// Sync tells how this node's role's data are mirrored, of which it is the primary, and does what is asked. It takes as long as f.Wait.
	Sync(ctx context.Context, f SyncFor) (RoleData, error)
	// Look makes this node look for a newer commit at once, and does not wait for what it finds.
	Look()
	// Removal is the commit that waits until somebody confirms the nodes that it removes. Its zero value: none does.
	Removal() Removal
	// ConfirmRemoval lets that commit go on, for ten minutes, and this one only.
	ConfirmRemoval(commit string)
	// Runs are the newest runs of Puppet on this node, the newest first.
	Runs() []PuppetRun
	// Incidents reads the ledger's incidents, oldest first. An error may say that there is no ledger.
	Incidents(ctx context.Context) ([]Incident, error)
	// Destroy carries out an order of chaos, after everything that could speak against it was read afresh. Other than the rest
	// it takes seconds. A Refusal says that nothing has happened; after any other error the machine may be gone.
	Destroy(ctx context.Context, d Destroy) (Destroyed, error)
}
