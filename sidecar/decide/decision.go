package decide

import (
	"fmt"
	"net/netip"

	"understudy/sidecar/cluster"
)

// Decision is what follows from a view: what to remember, what to say in beats from now on, what to do, what would be done
// if it were not blocked, and when to look again at the latest.
type Decision struct {
	Memory    Memory
	Say       cluster.Announcement
	Actions   []Action
	Blocked   []Blocked
	Notes     []Note // what changed, for the log and the incidents; each is given once
	LookAgain cluster.Instant
}

// Action is one thing to do. The executor does one of a Key at a time: while it is under way, or waits after a failure, the
// same Key is not done again, and a newer action of the Key replaces one that waits. Actions are levels: they may come in
// every decision until a reading shows that they had their effect.
type Action interface {
	Key() string  // what it is about, such as "gate lb"; stable over turns
	Text() string // why, in one sentence
}

// Reason says why, in one sentence an operator can read at 3 a.m. It is the log line, the status text and the golden.
type Reason string

// Text returns the sentence.
func (r Reason) Text() string { return string(r) }

// Blocked is something that should be done and cannot.
type Blocked struct {
	What string `json:"what"` // what it is about, such as "takeover of lb"
	Why  string `json:"why"`
}

// Note is a change worth a line in the log.
type Note struct {
	Kind NoteKind `json:"kind"`
	Node string   `json:"node,omitempty"`
	Duty string   `json:"duty,omitempty"`
	Text string   `json:"text"`
}

// NoteKind is what a note is about: phases of an incident, where they are some.
type NoteKind string

// Kinds of notes.
const (
	NoteSuspect  NoteKind = "suspect"
	NoteFailed   NoteKind = "detected"
	NoteReturned NoteKind = "returned"
	NoteBroken   NoteKind = "broken link"
	NoteTaken    NoteKind = "taken over"
	NoteStepped  NoteKind = "stepped down"
	NoteMoved    NoteKind = "moved"
	NoteMissing  NoteKind = "data missing"
	NoteCommit   NoteKind = "commit"
)

// Expect is what an action assumes. The executor reads it afresh right before it acts, and does nothing if it no longer holds.
type Expect struct {
	Duty  string // a duty that we must hold, with
	Epoch uint64 // this epoch; zero: none is assumed
	// Holder is the machine that the provider's register must name, if Reads is set. Empty: nobody.
	Holder string
	Reads  bool
}

// Gate opens or closes a role's gate. It is cheap and done in every turn that needs it.
type Gate struct {
	Reason
	Role  string
	Until cluster.Instant // when it closes by itself; zero: close now
	// Drain: established connections pass, new ones do not.
	Drain bool
}

// LinkAddress puts the role's address on its interface and announces it there, or takes it away.
type LinkAddress struct {
	Reason
	Expect Expect
	Role   string
	Add    bool
}

// AssignReserved gives the provider's address to this machine.
type AssignReserved struct {
	Reason
	Expect  Expect
	Role    string
	Address netip.Addr
	Machine string // this one
}

// ReadHolder asks the provider who has the address.
type ReadHolder struct {
	Reason
	Role    string
	Address netip.Addr
}

// ReadMachine asks the provider about one machine by its ID. Node is the key of the answer in View.Machines.
type ReadMachine struct {
	Reason
	Node, Machine string
}

// PrimaryUnits starts or stops the units that write a role's data.
type PrimaryUnits struct {
	Reason
	Expect Expect
	Role   string
	Start  bool
}

// StartDrain tells the role's services to finish their connections; CountSockets counts what is left.
type StartDrain struct {
	Reason
	Role string
}

// CountSockets counts the connections that end at the role's address.
type CountSockets struct {
	Reason
	Role string
}

// Settle asks the one who copies a role's data for a barrier: View.Settled says when it has passed.
type Settle struct {
	Reason
	Role string
}

// ReadLedger reads duties, ties, claims and heartbeats.
type ReadLedger struct{ Reason }

// WriteDuty creates the ledger's object for a duty's epoch, if there is none.
type WriteDuty struct {
	Reason
	Record cluster.DutyRecord
}

// ClaimTie creates the next tie object, if there is none.
type ClaimTie struct {
	Reason
	Tie cluster.Tie
}

// ReadList asks for all machines with the cluster's tag.
type ReadList struct{ Reason }

// OpenIntent creates the ledger's object for a replacement, if nobody has. Free: the provider says that the old machine is gone, or
// there was none.
type OpenIntent struct {
	Reason
	Expect Expect
	Intent cluster.Intent
	Free   bool
}

// Tombstone ends an identity claim, which is Machine's. Off: only if the provider still calls that machine off or gone.
type Tombstone struct {
	Reason
	Expect        Expect
	Node, Machine string
	Epoch         uint64
	Off           bool
}

// PowerOff cuts the power of a machine that is not its node any more: the one of the claim Claim, which has a tombstone, or one
// that is not of the newest claim (zero).
type PowerOff struct {
	Reason
	Expect        Expect
	Node, Machine string
	Claim         uint64
}

// Create asks the provider for the machine of an intent, once: the call is written to the ledger before it is made.
type Create struct {
	Reason
	Expect Expect
	Intent cluster.Intent
	// Most is how many machines there may be then that are not kept off for their data.
	Most int
}

// Delete deletes a machine that is off and not its node's any more.
type Delete struct {
	Reason
	Expect        Expect
	Node, Machine string
}

// CloseIntent creates the ledger's object that ends a replacement.
type CloseIntent struct {
	Reason
	Expect  Expect
	Closing cluster.Closing
}

// ReadZone asks what a zone publishes.
type ReadZone struct {
	Reason
	Zone string // Policy.Zones' key
}

// UpdateZone makes a zone publish Want for exactly the names in Own, adding before removing.
type UpdateZone struct {
	Reason
	Expect Expect
	Zone   string
	Epoch  uint64 // of the coordinator, for the zone's guard
	Own    []string
	Want   []cluster.Record
}

// Key names what the action is about. Only what is free and tried for the first time may be begun side by side: of all else, each
// must be seen in the ledger before the next.
func (a OpenIntent) Key() string {
	if !a.Free || a.Intent.Try > 1 {
		return "another intent"
	}
	return "intent for " + a.Intent.Node
}

// Key names what the action is about.
func (a Gate) Key() string           { return "gate " + a.Role }
func (a LinkAddress) Key() string    { return "link address " + a.Role }
func (a AssignReserved) Key() string { return "reserved address " + a.Role }
func (a ReadHolder) Key() string     { return "holder of " + a.Role }
func (a ReadMachine) Key() string    { return "machine of " + a.Node }
func (a PrimaryUnits) Key() string   { return "primary units " + a.Role }
func (a StartDrain) Key() string     { return "drain " + a.Role }
func (a CountSockets) Key() string   { return "connections of " + a.Role }
func (a Settle) Key() string         { return "barrier of " + a.Role }
func (a ReadLedger) Key() string     { return "ledger" }
func (a WriteDuty) Key() string      { return fmt.Sprintf("epoch %d of %s", a.Record.Epoch, a.Record.Duty) }
func (a ClaimTie) Key() string       { return fmt.Sprintf("tie %d", a.Tie.N) }
func (a ReadList) Key() string       { return "list of machines" }
func (a Tombstone) Key() string      { return "tombstone of " + a.Node }
func (a PowerOff) Key() string       { return "power of machine " + a.Machine }
func (a Create) Key() string         { return "machine for " + a.Intent.Node }
func (a Delete) Key() string         { return "machine " + a.Machine }
func (a CloseIntent) Key() string    { return "end of the intent for " + a.Closing.Node }
func (a ReadZone) Key() string       { return "records of " + a.Zone }
func (a UpdateZone) Key() string     { return "publish in " + a.Zone }
