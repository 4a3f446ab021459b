package cluster

import (
	"net/netip"
	"time"
)

// Machine is a provider's machine as one answer of its API shows it.
type Machine struct {
	ID      string
	Name    string
	Tags    []string
	Power   Power
	Private netip.Addr // invalid: none yet
	Public  netip.Addr // invalid: none yet
	Created time.Time  // the provider's clock: for showing, never for deciding
}

// Power is a machine's state.
type Power uint8

// States of a machine. The zero value: the provider said something we do not know.
const (
	PowerUnknown Power = iota
	PowerNew           // being created
	PowerOn
	PowerOff
	PowerGone // asked by ID, the provider knows no such machine
)

// AddressHolder is what the provider's register says of a reserved address.
type AddressHolder struct {
	Machine string // ID; empty: assigned to nobody
	Pending bool   // an action on the address is in progress: what it says may be about to change
}

// Record is one DNS record that we publish. Name is relative to the zone, "@" for the zone itself.
type Record struct {
	Name  string
	Type  string // A, AAAA or MX
	Value string // address, or for MX the target's absolute name with its final dot
	Pref  int    // MX only
}

// DutyRecord is the ledger's object duty/<duty>/<epoch>, written once.
type DutyRecord struct {
	Duty    string `json:"duty"`
	Epoch   uint64 `json:"epoch"`
	Holder  string `json:"holder"`
	Machine string `json:"machine,omitempty"`
	Lease   bool   `json:"lease,omitempty"` // held outside a majority
}

// Claim is the ledger's object claims/<node>/<epoch>: this machine is that node's incarnation.
type Claim struct {
	Node    string     `json:"node"`
	Epoch   uint64     `json:"epoch"`
	Machine string     `json:"machine"`
	Private netip.Addr `json:"private,omitzero"`
	Public  netip.Addr `json:"public,omitzero"`
	// Tombstoned: there is a tombstone for this epoch, so the machine is no longer the node. Not part of the object.
	Tombstoned bool `json:"-"`
	// Left: its machine has said so itself, because the roster has no place for it any more. It does not claim again, and nobody needs it.
	Left bool `json:"-"`
}

// Tie is the ledger's object tie/<n>: of two halves of the roster the one that may act.
type Tie struct {
	N       uint64   `json:"n"`
	Winner  string   `json:"winner"`
	Members []string `json:"members"` // of the winning half, sorted
	// Epoch is the highest epoch of coordination that the winner knew. A later one that a majority gave ends what the tie was about.
	Epoch uint64 `json:"epoch"`
}
