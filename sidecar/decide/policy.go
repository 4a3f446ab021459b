package decide

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/role"
)

// Policy is what does not change from one turn to the next: who I am, who should exist, and the timings.
type Policy struct {
	Self  string
	Nodes []string // every member in the roster's order, the beachhead last
	// Beachhead is the name of the member that votes and has no role. Empty: there is none.
	Beachhead string
	Roles     []Role
	Zones     []Zone
	// Hire are the roles' names, each after those it needs: the order in which new machines are asked for.
	Hire    []string
	Timings Timings
	// LookOnly: drift is shown and not corrected.
	LookOnly bool
	// Roster tells this roster from those with other members: see RosterOf.
	Roster uint64
	// Off switches single rails off. It exists for the simulator, which shows what each is good for; nobody else sets it.
	Off Rails
}

// Role is what is decided about in a role of roles.yaml.
type Role struct {
	Name         string
	Nodes        []string
	Reserved     netip.Addr   // the provider's address, or invalid
	Link         netip.Prefix // the address on the link, or invalid
	Names        []string     // published for every serving node, relative to Policy.Domain as written in roles.yaml
	AddressNames []string     // published for the address
	MX           int
	Data         bool
	PrimaryUnits bool // there are some
	Primary      bool // one node has a duty
	Drain        bool // the role has a program that makes its services finish their connections
}

// Zone is a place where names are published.
type Zone struct {
	Key  string // unique; how View.Zones and actions name it
	Want Naming // how to name records in it
}

// Naming says how names of roles.yaml are written in a zone.
type Naming struct {
	Domain string // of roles.yaml
	Zone   string // equal to Domain, or its parent
}

// Timings are the waits, all derived from those in roles.yaml.
type Timings struct {
	Beat      time.Duration // between beats
	Detection time.Duration // silence that counts as failed: beats × missed beats
	Slack     time.Duration // what is added to it before we act on it, for the jitter of timers
	Gate      time.Duration // how long a gate stays open after the sending of the newest confirmed beat: 0.8 × Detection
	// Reserved is the silence before a reserved address is moved, whose move takes seconds anyway.
	Reserved time.Duration
	// LeaseFor is how long a ledger lease lasts from the sending of the request that found no higher epoch, LeaseWait how long
	// a higher epoch waits for it to run out.
	LeaseFor, LeaseWait time.Duration
	// LedgerEvery is the pause between two readings of the ledger while a lease hangs on it; LedgerIdle otherwise.
	LedgerEvery, LedgerIdle time.Duration
	// StaleAfter is how long a heartbeat object must have been seen unchanged.
	StaleAfter time.Duration
	// Reconcile is the pause between two readings of an address's holder.
	Reconcile time.Duration
	// Hold is how long a node must have been failed before its machine is replaced, unless the provider says that it is gone.
	Hold time.Duration
	// Startup is how long a new machine may take until it has joined, and until it serves.
	Startup time.Duration
	// Drain is how long running requests may take before a duty moves all the same.
	Drain time.Duration
	// Behind is how much later than the primary a copy of its data may be and still be said to keep up with it.
	Behind time.Duration
	// Settle is how long a planned move waits, once the programs are stopped, for all data to be on the other node.
	Settle time.Duration
}

// DefaultTimings derives the waits from those of roles.yaml.
func DefaultTimings(t role.Timings) Timings {
	d := t.Detection()
	return Timings{
		Beat: t.Beat, Detection: d, Slack: min(t.Beat/2, 50*time.Millisecond), Gate: d * 8 / 10,
		Reserved: max(d*5/2, 1200*time.Millisecond),
		LeaseFor: 5 * time.Second, LeaseWait: 10 * time.Second, LedgerEvery: time.Second, LedgerIdle: 10 * time.Second,
		StaleAfter: 30 * time.Second, Reconcile: 5 * time.Second, Drain: 10 * time.Second,
		Hold: t.ReplacementHold, Startup: t.StartupTimeout, Behind: 2 * d, Settle: 10 * time.Second,
	}
}

// Rails are the mechanisms of DESIGN section 7 that the simulator can do without, to show the harm.
type Rails struct {
	Majority   bool // a bid wins with one's own promise alone
	QuietWait  bool // a winner acts without waiting for the old holder's confirmations to run out
	LeaseWait  bool // a lease is used as soon as it is claimed
	StartQuiet bool // a started sidecar grants and confirms at once
	OnePromise bool // a member confirms the old holder after it has promised a higher epoch; imitated there, since nothing here could
	SelfClose  bool // the gate does not close by itself
	Recheck    bool // the executor acts without reading again what the decision assumed; imitated there
	Sticky     bool // members promise although they hear the holder
	Absent     bool // an empty or failed reading of a zone counts as an empty zone

	Newest   bool // a node takes over whatever data it has, and members let it
	Deserted bool // a primary whose copy is away goes on under the same epoch
	Needed   bool // a machine that may have the only newest data is replaced like any other
	Settle   bool // a planned move does not wait for the last data

	Verdicts    bool // a node is replaced on one member's word
	HoldTime    bool // a node is replaced as soon as it has failed
	OneInFlight bool // replacements run side by side
	Budget      bool // tries and creations are not limited
	Ceiling     bool // machines are not counted
	Tombstone   bool // the old claim is not ended
	Fence       bool // the old machine is not confirmed to be off
	Minority    bool // a minority cuts the power of a machine that runs
	Ours        bool // a machine's name and tag do not matter
	List        bool // any list will do
	Collect     bool // unwanted machines are deleted at once
	CallOnce    bool // a call whose answer was lost is repeated; imitated by the executor
}

// New derives a policy for one node from the roster. It does not know whether the beachhead exists, only whether there
// should be one. The error is role's for a node that no role lists.
func New(self string, r role.Roster) (Policy, error) {
	if _, err := r.ForHost(self); err != nil {
		return Policy{}, err
	}
	p := Policy{Self: self, Nodes: slices.Clone(r.Nodes()), Timings: DefaultTimings(r.Timings), LookOnly: r.Drift.LookOnly, Roster: RosterOf(r)}
	for _, from := range r.Roles {
		to := Role{
			Name: from.Name, Nodes: from.Nodes, Names: from.Names, Data: len(from.Data) > 0,
			PrimaryUnits: len(from.PrimaryUnits) > 0, Primary: from.HasPrimary(), Drain: len(from.Drain) > 0,
		}
		if a := from.Address; a != nil {
			to.Reserved, to.Link, to.AddressNames, to.MX = a.ReservedIP, a.VIP, a.Names, a.MX
		}
		p.Roles = append(p.Roles, to)
	}
	for _, from := range r.Order() {
		p.Hire = append(p.Hire, from.Name)
	}
	for _, d := range r.DNS {
		p.Zones = append(p.Zones, Zone{Key: ZoneKey(d), Want: Naming{Domain: r.Domain, Zone: d.Zone}})
	}
	return p, nil
}

// RosterOf is a hash (FNV-1a) of what nodes must agree on to count votes alike: who is a member, and of which role. It is never zero.
func RosterOf(r role.Roster) uint64 {
	var all []string
	for _, of := range r.Roles {
		for _, node := range of.Nodes {
			all = append(all, node+" "+of.Name)
		}
	}
	slices.Sort(all)
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join(all, "\n"))) // never fails (hash.Hash)
	return max(1, h.Sum64())
}

// ZoneKey names one of roles.yaml's dns entries: "rfc2136 192.0.2.53:53 blog.example".
func ZoneKey(d role.DNS) string {
	if d.Server != "" {
		return d.Kind + " " + d.Server + " " + d.Zone
	}
	return d.Kind + " " + d.Zone
}
