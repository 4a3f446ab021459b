package cluster

import "time"

// Intent is the ledger's object intents/<node>/<n>: somebody is about to give a node a new machine. There is one creation for
// each intent at most, and every intent is closed in the end. A try that failed is followed by the next intent.
type Intent struct {
	Node string `json:"node"`
	N    uint64 `json:"n"` // from 1, without a gap
	// Nonce marks the machine that is created for it, in a tag: 32 hexadecimal digits.
	Nonce string `json:"nonce"`
	// Replaces is the epoch of the identity claim that ends, and Machine the machine that has it. Zero and empty: the node has
	// never had one.
	Replaces uint64 `json:"replaces,omitempty"`
	Machine  string `json:"machine,omitempty"`
	// By is who wrote it, under Epoch of coordination.
	By    string `json:"by"`
	Epoch uint64 `json:"epoch"`
	// Try is 1 for the first, and one more than that of the intent before if that one failed.
	Try int    `json:"try"`
	Why string `json:"why"`
	// Unseen: the old machine may have data of its role that no other has, because it was the primary when it was lost.
	Unseen bool `json:"unseen,omitempty"`

	// What follows is told by other objects, and by the store's clock.

	// Called is how long ago somebody was the first to say that it asks the provider for the machine. Zero: nobody has; at
	// least a nanosecond otherwise.
	Called time.Duration `json:"-"`
	// Age is how long ago the intent was written.
	Age time.Duration `json:"-"`
	// Closed is how it ended; the zero value: it has not.
	Closed Closing `json:"-"`
}

// Tag is what marks the machine that is created for the intent.
func (i Intent) Tag() string { return IntentTag + i.Nonce }

// IntentTag begins the tag of a machine that was created for an intent; the nonce follows.
const IntentTag = "intent-"

// Open says that the intent exists and is not closed.
func (i Intent) Open() bool { return i.N != 0 && i.Closed.Outcome == "" }

// Closing is the ledger's object closed/<node>/<n>: how an intent ended.
type Closing struct {
	Node    string  `json:"node"`
	N       uint64  `json:"n"`
	Outcome Outcome `json:"outcome"`
	Machine string  `json:"machine,omitempty"` // that is the node now; empty: none is
	By      string  `json:"by"`
	Why     string  `json:"why"`
	// Age is how long ago it was written, by the store's clock.
	Age time.Duration `json:"-"`
}

// Outcome is how an intent ended.
type Outcome string

// Outcomes.
const (
	Done    Outcome = "done"    // the new machine serves
	Aborted Outcome = "aborted" // no new machine was needed: nothing was created
	Failed  Outcome = "failed"  // no new machine came to serve in time
)

// Call is the ledger's object calls/<node>/<n>: the one who wrote it asks the provider for the intent's machine, once.
type Call struct {
	Node string `json:"node"`
	N    uint64 `json:"n"`
	By   string `json:"by"`
	// Mark is random, another one in each try: 32 hexadecimal digits.
	Mark string `json:"mark"`
}
