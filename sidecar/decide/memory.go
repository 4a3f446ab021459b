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
}

// Lasting goes to the disk whenever it changes, before anything is said or done about it.
type Lasting struct {
	// Epochs is the highest epoch of each duty that this node has ever heard of. A bid is above it.
	Epochs map[string]uint64 `json:"epochs"`
	Paused bool              `json:"paused,omitempty"`
}

// Duty is a node's own state in a duty: what it has promised, and where it stands if that is to itself.
type Duty struct {
	Promise cluster.Promise
	// QuietSince is when the holder before the promised one was last heard here; zero: there was none.
	QuietSince cluster.Instant
	// Bid is the epoch that we ask for; zero: none. Since is when we began to.
	Bid   uint64
	Since cluster.Instant
	// Hold is what we hold. Its zero State: nothing.
	Hold cluster.Hold
	// Won is when the epoch was ours; From is when it may be acted on.
	Won, From cluster.Instant
	Lease     bool
	// Confirmed is the newest sending of ours that a majority has confirmed under this epoch.
	Confirmed cluster.Instant
	// Drained is when draining began; zero: it has not.
	Drained cluster.Instant
	// Rebid is when a bid that failed may be made again.
	Rebid cluster.Instant
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
