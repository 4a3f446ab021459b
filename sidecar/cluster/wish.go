package cluster

// Wish is the ledger's object wishes/<node>/<n>: what a person wants to become of machines that may have data of a node's role that
// no other has. The newest holds, so it repeats what still counts of the one before.
type Wish struct {
	Node string `json:"node"`
	N    uint64 `json:"n"` // from 1, without a gap
	// Keep are machines that stay until they are discarded, Discard those whose data nobody wants. Both are IDs; none is in both.
	Keep    []string `json:"keep,omitempty"`
	Discard []string `json:"discard,omitempty"`
	By      string   `json:"by"` // the node that was asked
	// Mark is random, another one in each try: 32 hexadecimal digits.
	Mark string `json:"mark"`
}
