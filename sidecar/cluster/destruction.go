package cluster

import "time"

// Destruction is the ledger's object chaos/<n>: somebody is about to destroy the machine of a node that serves, on purpose. There
// is one request at the provider for each at most.
type Destruction struct {
	N       uint64 `json:"n"` // from 1, without a gap
	Node    string `json:"node"`
	Machine string `json:"machine"` // its ID
	Seed    uint64 `json:"seed"`    // by which the node was picked, if it was
	By      string `json:"by"`
	// Mark is random, another one in each try: 32 hexadecimal digits.
	Mark string `json:"mark"`
	// Age is how long ago it was written, by the store's clock.
	Age time.Duration `json:"-"`
}

// Chaos is the cause of an incident that began with a Destruction.
const Chaos = "chaos"

// IncidentID names the loss of a node at some time, by the wall clock. IDs sort as they happened.
func IncidentID(at time.Time, node string) string {
	return at.UTC().Format("20060102T150405Z") + "-" + node
}
