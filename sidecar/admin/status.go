package admin

import (
	"net/netip"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Status is what one node believes of the whole cluster. Another node may believe otherwise: Node says whose word this is.
type Status struct {
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"` // who says all this
	At      time.Time `json:"at"`   // when the loop last turned, by that node's clock
	Age     Duration  `json:"age"`  // of this knowledge, when the answer was given
	// Redundant: every role has all its nodes serving, and each duty a primary. Why says what is missing, most urgent first.
	Redundant bool     `json:"redundant"`
	Why       []string `json:"why"`
	// Warnings are what breaks nothing now and would get in the way of a recovery.
	Warnings []string `json:"warnings"`
	// Doing is what changes duties, addresses and names at this moment, here and, as far as beats tell, elsewhere.
	Doing []Step `json:"doing"`
	// Blocked is what should be done and cannot, here and, where the others were asked, there.
	Blocked     []Blocked `json:"blocked"`
	Paused      bool      `json:"paused"` // this node only observes
	Roles       []Role    `json:"roles"`
	Nodes       []Node    `json:"nodes"`               // of the roster, in its order
	Beachhead   *Node     `json:"beachhead,omitempty"` // its role is empty
	Coordinator string    `json:"coordinator"`         // who publishes the names; empty: nobody
	Majority    Majority  `json:"majority"`
	Ledger      Ledger    `json:"ledger"`
	Rollout     Rollout   `json:"rollout"`
	Zones       []Zone    `json:"zones"`
	// Checks are the health checks of this node.
	Checks []Check `json:"checks"`
	// Asked are the members that were asked for what they do and what blocks them, Mute those of them that did not answer.
	// Both are empty in a status of one node.
	Asked []string `json:"asked"`
	Mute  []string `json:"mute"`
}

// Blocked is something that a node should do and cannot.
type Blocked struct {
	Node string `json:"node"`
	What string `json:"what"` // what it is about, such as "takeover of lb"
	Why  string `json:"why"`
}

// Check is one health check of a node.
type Check struct {
	Name     string    `json:"name"`   // such as "unit nginx.service" or "tcp 127.0.0.1:25"
	Health   string    `json:"health"` // healthy, unhealthy, unknown
	Why      string    `json:"why"`    // why not, or that it flaps; empty: nothing to say
	Since    time.Time `json:"since,omitzero"`
	Flapping bool      `json:"flapping"`
}

// Step is something that is being done, or would be if nobody paused it.
type Step struct {
	Node string `json:"node"`
	What string `json:"what"` // what it is about: "reserved address lb"; stable while it lasts
	Why  string `json:"why"`
}

// Role is one role of roles.yaml.
type Role struct {
	Name    string `json:"name"`
	Primary string `json:"primary"` // who has the duty and acts on it; empty: nobody, or the role has no duty
	Duty    bool   `json:"duty"`    // the role has one
	// Epoch is the newest one of the duty that is known here; zero: none.
	Epoch uint64 `json:"epoch"`
	// State is the duty's at its holder: waiting, held, offered, released; empty: no holder is known.
	State string `json:"state"`
	To    string `json:"to"` // whom it is offered to; empty: nobody
	// Address is the one that follows the duty; empty: there is none.
	Address netip.Addr `json:"address"`
	// Kind is "reserved" for a provider's address, "link" for one on the link; empty: there is none.
	Kind    string   `json:"address_kind"`
	Names   []string `json:"names"`   // published for the address or the nodes, as roles.yaml has them
	Serving int      `json:"serving"` // nodes that do
	Wanted  int      `json:"wanted"`  // nodes that should
}

// Node is one member.
type Node struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Duty is primary or standby; empty: the role has no duty and all its nodes serve alike, or the node is not there.
	Duty string `json:"duty"`
	// Phase is booting, applied, serving, draining or stopping, as the node says itself; "failed" when it is silent, and
	// "unknown" when it was never heard.
	Phase string `json:"phase"`
	// Alive is the verdict of its silence: alive, suspect, broken link, failed, never heard.
	Alive string `json:"alive"`
	// Silent is since when it was not heard: zero for the node that is asked, and while nothing is known of one never heard.
	Silent      Duration   `json:"silent"`
	Incarnation uint64     `json:"incarnation"`
	Machine     string     `json:"machine_id"`
	Address     netip.Addr `json:"address"` // private; empty: not known
	Public      netip.Addr `json:"public"`
	Commit      string     `json:"commit"`
	Health      string     `json:"health"` // healthy, unhealthy, unknown
	// Trouble is what its health checks complain about. It is known of the node that is asked, and of others where those were
	// asked, too.
	Trouble []string `json:"trouble"`
	// Lag is how far its copy of the role's data is behind the primary's, and Behind the same in bytes; CaughtUp is true at the
	// primary, and where nothing is copied. Copy says it in words where it is not: "is copying: 120 MB behind".
	Lag      Duration `json:"lag"`
	Behind   uint64   `json:"behind,omitempty"`
	CaughtUp bool     `json:"caught_up"`
	Copy     string   `json:"copy,omitempty"`
	Voting   bool     `json:"voting"`
	Paused   bool     `json:"paused"`
	ClockOff bool     `json:"clock_off"`
	// Journal is the mail journal of the role's primary. It is known of the node that is asked, and of others where those were
	// asked, too. Nil: there is none, or it is not known.
	Journal *Journal `json:"journal,omitempty"`
}

// Journal is what keeps a primary's accepted mail on two machines.
type Journal struct {
	// Open is how many messages are not known to be mirrored or relayed: a takeover would look after them.
	Open int `json:"open"`
	// Second is the member that the second copies go to. Empty: nobody takes them.
	Second string `json:"second"`
	// Refusing is why senders are told to try again later. Empty: mail is accepted.
	Refusing string `json:"refusing"`
	// Behind are the members that may hold mail from before the last takeover and could not be asked yet.
	Behind []string `json:"behind"`
}

// Serves says whether the node counts for redundancy.
func (n Node) Serves() bool {
	return n.Phase == cluster.Serving.String() && n.Heard()
}

// Settled says that the node has come as far as it can: it serves. The standby of a role with data cannot say so of itself as
// long as nothing mirrors the data to it; healthy is then all that can be asked.
func (n Node) Settled(data bool) bool {
	return n.Serves() || data && n.Heard() && n.Duty == "standby" && n.Phase == cluster.Applied.String() && n.Health == cluster.Healthy.String()
}

// Heard says whether the node is heard by the one that was asked.
func (n Node) Heard() bool {
	return n.Alive == decide.Alive.String() || n.Alive == decide.Suspect.String()
}

// Majority is how many members are there to grant a duty.
type Majority struct {
	Members int  `json:"members"`
	Needed  int  `json:"needed"`
	Heard   int  `json:"heard"` // this node included
	Have    bool `json:"have"`
}

// Ledger is the state of the object store that outlives the nodes.
type Ledger struct {
	Configured bool `json:"configured"`
	// Usable: it honours create-if-absent and answered the newest request. Why says why not.
	Usable bool   `json:"usable"`
	Why    string `json:"why,omitempty"`
	// Age is how long ago the newest reading was asked for; zero: never.
	Age Duration `json:"age"`
}

// Zone is one place where names are published.
type Zone struct {
	Name    string   `json:"name"`  // kind, server and zone: "rfc2136 192.0.2.53:53 blog.example"
	Known   bool     `json:"known"` // it has been read
	Age     Duration `json:"age"`   // of the newest reading
	Epoch   uint64   `json:"epoch"` // the coordinator's that wrote it last; zero: none, or the zone cannot say
	Records int      `json:"records"`
}
