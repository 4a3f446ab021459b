package decide

import (
	"net/netip"
	"time"

	"understudy/sidecar/cluster"
)

// View is what one node believes at one instant. Whoever fills it in judges nothing: it holds readings and when they were
// taken. Every Instant is of this machine's clock. A map entry that is missing stands for "no reading".
type View struct {
	Now cluster.Instant
	// Started is when this sidecar started, or noticed that it had not run for a while (a gap in CLOCK_BOOTTIME between two
	// turns of the loop): everything heard before is worth nothing.
	Started cluster.Instant
	// FreshBoot: no sidecar has run on this machine since it booted, so the provider may have called it off or gone, and others
	// may have counted on that. Such a node reads the ledger, or hears everybody, before it votes.
	FreshBoot bool
	// Machine, Private and Public are this machine's own.
	Machine         string
	Private, Public netip.Addr
	Phase           cluster.Phase  // Booting, Applied or Stopping; the rest is decided here
	Health          cluster.Health // of the checks that apply to the present duty, after hysteresis
	// StandbyHealth is the same of standby_health, where that differs; else equal to Health.
	StandbyHealth cluster.Health
	Commit        string // that Puppet has applied here
	Rollout       RolloutReading
	ClockOff      bool
	// Mirrors is the state of this node's role's data, without what decide adds (Synced, From). Whoever mirrors knows it from the
	// first turn on, since it lies beside the data. Empty: nothing mirrors here, which decides nothing.
	Mirrors []cluster.Mirror
	// Woes are what is wrong with the data here until a person does something, for people, by directory. Nothing is decided by them.
	Woes map[string]string
	// Settled is when the newest barrier that has passed was asked for, by role: all that was written here before that instant is
	// on the other node's disk.
	Settled map[string]cluster.Instant

	Peers map[string]cluster.Peer // every other member, by name

	Ledger  Ledger
	Claim   ClaimReading // of this node's identity
	Gates   map[string]GateReading
	Units   map[string]UnitReading // by role
	Holders map[string]HolderReading
	// Machines are the provider's answers about members' machines, each asked by ID, by node name; and about those that are no node
	// any more, by "machine <ID>".
	Machines map[string]MachineReading
	// List is the provider's list of the cluster's machines.
	List ListReading
	// Nonce is random: 32 hexadecimal digits, others in every view.
	Nonce string
	// Zones are the records published now, by the zone's key (see Policy.Zones).
	Zones map[string]ZoneReading
	// Sockets is how many established connections end at the role's address on this machine, by role.
	Sockets map[string]SocketReading

	// Orders are what the operator has asked this node for.
	Orders Orders

	// Room may be given so that a caller's turns, one after the other, use the same memory. Nil: each makes its own.
	Room *Room
}

// Ledger is what is known of the ledger.
type Ledger struct {
	Configured bool
	// Sound: the self-test has shown that create-if-absent is honoured. Nothing that depends on it is armed otherwise.
	Sound bool
	// Unsound is why not, for people.
	Unsound string
	// ReadSent is when the request was sent that gave Duties, Ties and Claims. Zero: never.
	ReadSent cluster.Instant
	// Forgot is what the ledger has lost that this node remembers, for people; empty: nothing. Such a ledger is Failing, too, until
	// somebody has it filled again.
	Forgot string
	// Known is what this node remembers of it. Nil: nothing yet.
	Known *cluster.Recall
	// Failing: the newest request failed; ReadSent and the content are those of the last good one.
	Failing bool
	Duties  map[string]cluster.DutyRecord // the highest epoch of each duty
	Tie     cluster.Tie                   // the newest
	Claims  map[string]cluster.Claim      // the newest claim of each node
	// Wrote are our own duty records that the ledger has taken, by duty: when its answer arrived.
	Wrote map[string]WroteReading
	// WonTie is when the ledger had taken our own tie object with the number Tie.N; zero: it is not ours.
	WonTie cluster.Instant
	// Intents are the newest replacement of each node, by name.
	Intents map[string]cluster.Intent
	// Wishes are the newest of each node, by name.
	Wishes map[string]cluster.Wish
	// Hired is how long ago, by the store's clock, each intent of the last day was written that replaced a machine; nodes' first ones
	// are a launch, which ceiling and tries bound.
	Hired []time.Duration
	// Stale are the members whose heartbeat object we have watched not changing, by name: for how long.
	Stale map[string]time.Duration
}

// WroteReading is a duty record of ours in the ledger.
type WroteReading struct {
	Epoch uint64
	At    cluster.Instant // arrival of the answer
	// Lost: somebody else's record has that epoch.
	Lost bool
}

// ClaimReading is the state of our own identity claim.
type ClaimReading struct {
	Needed bool   // there is a ledger, so we must have a claim
	Epoch  uint64 // ours; zero: none yet
	// Mine: the newest claim of our name is ours and has no tombstone. Without a claim needed it is not looked at.
	Mine bool
	// At is when the ledger's answer came that showed the claim to be there.
	At cluster.Instant
	// Taken says who has our name, for people.
	Taken string
}

// GateReading is the state of a role's gate and link address on this machine.
type GateReading struct {
	Until cluster.Instant // open until then; zero: closed
	Drain cluster.Instant // since when new connections are dropped; zero: they are not
	Added bool            // link addresses: the address is on the interface
}

// UnitReading is the state of a role's primary units on this machine.
type UnitReading struct {
	Running bool // any of them
	All     bool // all of them
}

// HolderReading is what is known of who has a reserved address.
type HolderReading struct {
	cluster.AddressHolder
	At cluster.Instant // sending of the request; zero: never read
	// Here is what our own machine's metadata says, which needs no token; HereAt is when.
	Here   bool
	HereAt cluster.Instant
}

// MachineReading is the provider's answer about one machine, asked by ID.
type MachineReading struct {
	ID    string
	Power cluster.Power
	At    cluster.Instant
	// Same is how many answers in a row, at least a second apart, have said Power. A question that failed begins the count anew.
	Same int
	// Name is what the provider calls it, and Ours that it has the cluster's tag; both empty for one that is gone.
	Name string
	Ours bool
}

// ListReading is the provider's whole list of machines with the cluster's tag.
type ListReading struct {
	Machines []Listed        // by ID
	At       cluster.Instant // sending of the first request; zero: never read
	// Agree is how many lists in a row, at least a second apart, had the same machines.
	Agree int
}

// Listed is a machine of the list, with what the ledger knows of it.
type Listed struct {
	cluster.Machine
	// First is when a list first had it, as far as this sidecar has seen.
	First cluster.Instant
	// Claimed is the newest epoch under which it has claimed the identity that is its name. Zero: it never has.
	Claimed uint64
	// Known: it has claimed, or the ledger has its intent's nonce under its name. So it is ours.
	Known bool
}

// ZoneReading is what a zone publishes of the names that are ours.
type ZoneReading struct {
	Records []cluster.Record
	Epoch   uint64          // of the guard; zero: none, or this kind of zone has none
	At      cluster.Instant // sending of the request; zero: never read, which is not empty
}

// SocketReading is a count of connections.
type SocketReading struct {
	Established int
	At          cluster.Instant
}

// Orders are an operator's wishes.
type Orders struct {
	Pause bool
	Moves []cluster.Move
	// Leave: the node is to give up every duty, because its sidecar or machine is going down.
	Leave bool
	// Without is a commit that a role takes although nodes of it are missing. Empty: none.
	Without string
}
