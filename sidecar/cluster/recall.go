package cluster

// Recall is the newest that a node knows to have been in the ledger, kept on its disk. It never holds more than the ledger once
// did, so a ledger that holds less has lost something.
type Recall struct {
	// Seed counts the times that a person has had the ledger filled from what the nodes remember. What was there before the
	// newest one counts no more.
	Seed   uint64                `json:"seed,omitempty"`
	Claims map[string]Claim      `json:"claims,omitempty"` // by node
	Buried map[string]uint64     `json:"buried,omitempty"` // by node: the epoch of the claim above, where that has a tombstone
	Left   map[string]uint64     `json:"left,omitempty"`   // the same of those that their machine has ended by itself
	Duties map[string]DutyRecord `json:"duties,omitempty"` // by duty
	Tie    Tie                   `json:"tie,omitzero"`
	// Intents are by node, Called the number of the one above where its call is written, Closed how it ended.
	Intents map[string]Intent  `json:"intents,omitempty"`
	Called  map[string]uint64  `json:"called,omitempty"`
	Closed  map[string]Closing `json:"closed,omitempty"`
}
