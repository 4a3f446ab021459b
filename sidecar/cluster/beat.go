package cluster

import (
	"net/netip"
	"time"
)

// Coordinator is the name of the duty that every member may hold and that no role has: writing the published names, and
// acting for nodes that cannot. It is no valid role name, so it cannot meet one.
const Coordinator = "@cluster"

// Announcement is what a node says of itself in every beat. It is a level, not an event: each one replaces the one before.
type Announcement struct {
	// Claim is the epoch of the node's identity claim in the ledger. Zero: none yet, or no ledger.
	Claim uint64
	// Machine is the provider's ID of the machine. Empty: there is no provider.
	Machine string
	// Private and Public are the machine's addresses. Invalid: not known.
	Private, Public netip.Addr
	// Phase is how far the node has come.
	Phase Phase
	// Health is the result of the node's own checks after hysteresis.
	Health Health
	// Voting is false while the node neither grants nor confirms: for one detection time after it started or noticed a gap.
	Voting bool
	// Paused: the node only observes.
	Paused bool
	// Commit is the commit the node has applied, in hexadecimal. Empty: not known.
	Commit string
	// ClockOff: the node's wall clock is far from everybody's, so it should not be primary while another can.
	ClockOff bool
	// Promises are the node's promises, one per duty that it knows an epoch of, sorted by duty.
	Promises []Promise
	// Bids are the epochs the node asks for, sorted by duty.
	Bids []Bid
	// Holds are the duties the node holds, or has held until now and gives up, sorted by duty.
	Holds []Hold
	// Mirror says of each role's data on this node whether it can be served from; empty where there is none.
	Mirrors []Mirror
	// Rollout is what the node makes of the control repo's commits.
	Rollout Rollout
	// Want is the planned move that an operator asked this node for, and that is passed on to the holder of the duty.
	Want []Move
}

// Promise is the highest epoch of a duty that a member has granted. It confirms that holder and no other.
type Promise struct {
	Duty   string
	Epoch  uint64
	Holder string
	// Lease: the epoch is held by the ledger's word, not by a majority's; taking it over takes the ledger too.
	Lease bool
	// Clear: whoever this member confirmed before can no longer be acting on its word, because that one has released the duty
	// or the member's last confirmation of it has run out.
	Clear bool
	// AfterLease: somebody may still hold an epoch before this one by the ledger's word.
	AfterLease bool
}

// Bid asks every member to promise an epoch of a duty to the sender.
type Bid struct {
	Duty  string
	Epoch uint64
	Lease bool // the ledger will decide; see Promise.Lease
	// Last: the role's data here are not the newest that were ever written, but no machine is left that has better ones.
	Last bool
}

// Hold is a duty's state at the one who holds it.
type Hold struct {
	Duty  string
	Epoch uint64
	State HoldState
	// To is whom the duty is offered to while it is Offered.
	To string
}

// HoldState is how firmly a duty is held.
type HoldState uint8

// States of a duty that a node has an epoch of. The zero value is invalid.
const (
	// Waiting: the epoch is won, the one before may still be acting. Nothing is done with it yet.
	Waiting HoldState = iota + 1
	// Held: the node acts.
	Held
	// Offered: the node acts until To has won the next epoch.
	Offered
	// Released: the node has stopped acting under this epoch, for good: the gate is closed and the writers are stopped.
	Released
)

// Mirror is the state of one role's data on one node: of the copy that lies there and, at the primary, of the one that follows it.
type Mirror struct {
	Role string
	// Epoch is of the duty: whoever began to act under it wrote the data that lie here, or that come in. A holder's later epochs, with
	// nobody between, are the same writing and do not count. Zero: blank, nothing was ever here.
	Epoch uint64
	// Source: this machine wrote them, as primary. It may lack nothing of that epoch.
	Source bool
	// Complete: the copy has once been equal to its source's tree of Epoch, and all it has heard of since is applied. Without it,
	// files may be missing that were never touched since.
	Complete bool
	// CaughtUp is said by the primary of the other node's copy (it is connected, and has every change on its disk), by the other of
	// its own, as the primary tells it. Lag is for how long that has not been so: the age of the oldest change that is not there, and
	// no less than the time since the connection was lost. Zero when caught up, Forever if it never was. Behind is what is missing,
	// in bytes, as far as that is known.
	CaughtUp bool
	Lag      time.Duration
	Behind   uint64
	// Synced is the highest epoch of the duty of which this machine is known to lack nothing: it has acted under it, or heard its
	// holder say under it that the copy keeps up. Zero: none, or the copy is not Complete. From is the first epoch that this
	// machine ever asked for: what was promised to the node's name before was another machine's. Zero: it never did.
	Synced, From uint64
}

// Move is a switchover somebody asked for.
type Move struct {
	Duty string
	From uint64 // the epoch to leave; another one means that it has happened, or is void
	To   string // empty: whoever is best
}

// Rollout is how far a node has come with the control repo's commits, which are named by 40 hexadecimal digits.
type Rollout struct {
	// Roster tells which nodes are members, and of which role, by what the node goes by; Next is that of the commit that it has accepted, or would
	// accept, where that is another one. Zero: there is none.
	Roster, Next uint64
	// Head is the newest commit that the node has accepted: signed by who may, and a descendant of all accepted before. Empty: none is
	// known.
	Head string
	// Ask is the commit that Puppet shall apply, applies, or has applied here and is judged for. Empty: none. Until that is over, no
	// other node of the role begins.
	Ask string
	// Busy: it has begun, with the leave of every other node of the role.
	Busy bool
	// Restarts: its sidecar is about to end and to be started anew, or waits for others that do.
	Restarts bool
	// Leaves: the newest commit has no place for the node, which takes no duty any more and hands over those it has. Drained: it serves nobody.
	Leaves, Drained bool
	// Yield is the node of the same role that this one gives leave: it begins nothing itself meanwhile. Empty: nobody.
	Yield string
	// Unreached: this node has reached the services of the one it yields to since that asked, and does not reach them now.
	Unreached bool
	// Bad are the commits that nobody may apply any more, the oldest known first, MostBad at most.
	Bad []BadCommit
}

// MostBad is how many bad commits are told. Older ones have been left behind by then.
const MostBad = 8

// BadCommit is a commit that broke something.
type BadCommit struct {
	Commit string
	Node   string // where that was found
	// Why is the reason, at most MostWhy bytes, told by that node while it is its newest commit.
	Why string
}

// MostWhy is how long a reason in a beat may be, in bytes.
const MostWhy = 320

// Phase is how far a node has come.
type Phase uint8

// Phases of a node, in their order. The zero value says that nothing is known.
const (
	Booting  Phase = iota + 1 // machine is up, role not applied
	Applied                   // Puppet has run well
	Serving                   // applied, healthy, data caught up
	Draining                  // finishing what runs before a duty moves
	Stopping                  // going away on purpose
)

// Health is a verdict of checks.
type Health uint8

// Verdicts of health checks. Unknown is the zero value: no check has finished yet.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
)

// Heard is one entry of the list by which a beat names, for every peer, the newest beat heard from it.
type Heard struct {
	Peer    string
	Session uint64        // random per start of the peer's sidecar; zero: never heard
	Seq     uint64        // number of its newest beat
	Ago     time.Duration // since it arrived, at the sending of this beat
}

// Peer is what is known of another member.
type Peer struct {
	Heard Instant // arrival of its newest beat; zero: none since Started
	// Every is the pace its beats come at, as they say themselves. Zero: that of the timings.
	Every time.Duration
	// Confirmed is when we sent the newest beat of ours that its newest beat names; zero: none since Started.
	Confirmed Instant
	Hears     map[string]time.Duration // by member: how long it had not heard it when it sent its newest beat
	Said      Announcement
}
