package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// World is all that the loop looks at and acts on. Mesh and Addresses are required. Any other nil field is something this
// node does not have; an action that needs it fails with ErrMissing.
type World struct {
	Mesh      Mesh
	Addresses Addresses
	// Health is the verdict of the node's own checks, as primary and as standby. It does not block.
	Health func() (primary, standby cluster.Health)
	// Duty is told when this node begins or stops to act as its role's primary.
	Duty func(acts bool)
	// Progress tells how far the node has come and the commit it has applied. It reads a local file at most.
	Progress func() (cluster.Phase, string, error)
	// Clock is by how much the clocks of others are ahead of this machine's. Zero: near enough.
	Clock    func() time.Duration
	Units    Units
	Data     Data
	Ledger   Ledger
	Provider Provider
	Puppet   Puppet
	// Restart has this sidecar end in order; the service manager starts it again.
	Restart func()
	// Here asks the machine's own metadata whether the role's reserved address leads to it.
	Here func(ctx context.Context, address netip.Addr) (bool, error)
	// Zones are the places where names are published, by decide.Zone's key.
	Zones map[string]Zone
	// Hire says what a node's new machine shall be: all but its name and its intent's tag.
	Hire func(node string) (cloud.Hiring, error)
	// Probe asks at a machine's public address whether the node's own sidecar lives there. Its error says why it seems not to.
	Probe func(ctx context.Context, node string, at netip.Addr) error
	// Drain tells a role's services to finish their connections.
	Drain func(ctx context.Context, role string) error
	// Names takes what the loopback name server shall answer: names relative to <cluster>.internal.
	Names func(map[string][]netip.Addr)
	// Notify tells the service manager (sd_notify(3)): "READY=1", "WATCHDOG=1", "STATUS=…".
	Notify func(state string) error
}

// ErrMissing says that a decision asked for something which this node's configuration does not have.
var ErrMissing = errors.New("this node is not configured for it")

// Mesh carries announcements between the members.
type Mesh interface {
	// Say makes a the announcement of all beats from now on.
	Say(a cluster.Announcement)
	// Flush returns when the newest announcement is on the wire. The error is that of ctx.
	Flush(ctx context.Context) error
	// Peers begins a turn that ends with Say: in between nothing newer is confirmed than what it has shown, so that no promise
	// confirms what was heard after the look on which the next one is decided. Only the loop may call it. A turn that fails
	// says nothing, and then nothing new is confirmed until one does not.
	Peers() map[string]cluster.Peer
	SetPeers(peers map[string]netip.AddrPort)
	// Reset forgets all that was heard.
	Reset()
	// Changed has a value when what Peers returns has changed in a way worth a turn.
	Changed() <-chan struct{}
}

// Addresses are the roles' gates and link addresses on this machine.
type Addresses interface {
	// Gate opens a role's gate until an instant, or closes it (zero). With drain only established connections pass.
	Gate(role string, until cluster.Instant, drain bool) error
	Add(role string) error
	Drop(role string) error
	Present(role string) (bool, error)
	Sockets(ctx context.Context, role string) (int, error)
}

// Units start and stop a role's primary units, with what of the sidecar they cannot do without: that is up before them, and
// ends after them.
type Units interface {
	// Start is for a node that has the duty under that epoch.
	Start(ctx context.Context, role string, epoch uint64) error
	Stop(ctx context.Context, role string) error
	// State has All only if what they cannot do without runs as well.
	State(ctx context.Context, role string) (decide.UnitReading, error)
}

// Data are those of the node's role.
type Data interface {
	// Mirrors is what lies here, and how far the other node's copy is. It does not block.
	Mirrors() []cluster.Mirror
	// Woes are what a person must see to, by directory. It does not block.
	Woes() map[string]string
	// Barrier returns when everything that was written here before the call is on the other node's disk.
	Barrier(ctx context.Context) error
}

// Provider is where the machines live.
type Provider interface {
	List(ctx context.Context) ([]cluster.Machine, error)
	Get(ctx context.Context, id string) (cluster.Machine, error)
	// PowerOff, Create and Delete are cloud.Provider's.
	PowerOff(ctx context.Context, id, name string) error
	Create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error)
	Delete(ctx context.Context, id, name string) error
	// AssignAddress returns when the request was accepted; who has the address then is for Holder to say.
	AssignAddress(ctx context.Context, address netip.Addr, id string) error
	Holder(ctx context.Context, address netip.Addr) (cluster.AddressHolder, error)
}

// Zone is one place where names are published.
type Zone interface {
	Read(ctx context.Context) (records []cluster.Record, epoch uint64, err error)
	// Update makes the zone publish exactly want under the names in own, if no higher epoch has written to it.
	Update(ctx context.Context, epoch uint64, own []string, want []cluster.Record) error
}
