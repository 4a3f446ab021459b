package decide

import (
	"understudy/sidecar/cluster"
)

// Memory is what a node knows besides its readings: what it has promised and holds. Only Next makes a new one. The parts
// that must survive a restart of the sidecar are Lasting.
type Memory struct {
	Lasting
	// For is the Started of the view this memory grew in. Another one makes all instants below void.
	For      cluster.Instant
	Duties   map[string]Duty    // by duty
	Verdicts map[string]Verdict // by peer
	// Short is since when fewer than a majority vote here; zero: they are enough.
	Short cluster.Instant
	// Yield is the node of the role that this one gives leave to change, Handing why the role's duty must leave this node before it
	// changes itself. Empty: nobody, and it need not.
	Yield, Handing string
	// Restarting is since when this node says that its sidecar is to be started anew; zero: it is not.
	Restarting cluster.Instant
	// Out is since when this node, which leaves the cluster, serves nobody new; zero: it serves.
	Out cluster.Instant
}

// Lasting goes to the disk whenever it changes, before anything is said or done about it.
type Lasting struct {
	// Epochs is the highest epoch of each duty that this node has ever heard of. A bid is above it.
	Epochs map[string]uint64 `json:"epochs,omitempty"`
	// Promised is the highest epoch of each duty that this node has ever promised. It promises none up to it again, unless
	// the holder itself says that it holds it.
	Promised map[string]uint64 `json:"promised,omitempty"`
	// Voted: this disk has seen this node grant or confirm something.
	Voted bool `json:"voted,omitempty"`
	// Leases are the leased epochs of each duty that this node has promised, or bid for, and that are not known to be over.
	Leases map[string][]Lease `json:"leases,omitempty"`
	// Data is what this machine knows of its role's data, by duty.
	Data map[string]Data `json:"data,omitempty"`
	// Rollout is what it knows of the control repo's commits.
	Rollout Rollout `json:"rollout,omitzero"`
}

// Lease is an epoch that somebody may hold by the ledger's word.
type Lease struct {
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"`
}

// Duty is a node's own state in a duty: what it has promised, and where it stands if that is to itself.
type Duty struct {
	Promise cluster.Promise
	// Before are the holders whose beats this node confirmed before, and who may still be acting on that.
	Before []Before
	// Acted is the highest epoch that somebody was seen to act under since this sidecar started: what was leased before is over.
	Acted uint64
	// Bid is the epoch that we ask for, since Since; zero: none. BidLease: for the ledger to decide; it stays as it was once won.
	Bid      uint64
	BidLease bool
	Since    cluster.Instant
	// Hold is what we hold. Its zero State: nothing. Lease: by the ledger's word.
	Hold  cluster.Hold
	Lease bool
	// Won is when the epoch of Hold was ours, Acting since when we act on it; zero: not yet.
	Won, Acting cluster.Instant
	// Confirmed is the newest sending of ours that a majority has confirmed.
	Confirmed cluster.Instant
	// Draining and Offering are when those steps of a planned move began; To is where it goes. Zero: there is no move.
	Draining, Offering cluster.Instant
	To                 string
	// Stopping: the move has come to where the primary units must not run any more. Halted is since when they do not, for a role
	// with data.
	Stopping bool
	Halted   cluster.Instant
	// Again is when a bid or an offer that came to nothing may be made again.
	Again cluster.Instant
	// Vacant is since when nobody else was seen to hold the duty; zero: somebody does.
	Vacant cluster.Instant
	// Writes is the epoch that the role's data are written under here: that of when this node began to act. Epochs that it takes while
	// it acts do not change it. Zero: it does not write. Shared is the newest epoch under which it has said that the copy keeps up.
	Writes, Shared uint64
	// Loss is what is known to be missing in the data that the bid or the duty rests on, for people. Empty: nothing.
	Loss string
}

// Before is a former holder.
type Before struct {
	Holder string
	Epoch  uint64
	Heard  cluster.Instant // arrival of its last beat that this node confirmed; zero: long ago
	Lease  bool
}

// Verdict is what silence says of a peer.
type Verdict struct {
	State Liveness
	Since cluster.Instant
}

// Liveness is a verdict from silence alone.
type Liveness uint8

// Verdicts. NeverHeard is the zero value: nothing has come from the peer since we started.
const (
	NeverHeard Liveness = iota
	Alive
	Suspect
	Broken // silent to me, but a majority of those I hear hears it
	Failed
)

// String is the word for people and for JSON.
func (l Liveness) String() string {
	return [...]string{"never heard", "alive", "suspect", "broken link", "failed"}[l]
}
