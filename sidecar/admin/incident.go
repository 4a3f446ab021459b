package admin

import "time"

// Incident is one loss and its recovery.
type Incident struct {
	ID   string `json:"id"`
	Node string `json:"node"` // that was lost
	Role string `json:"role"`
	// Cause is why it was lost: "chaos", on purpose. Empty: not known.
	Cause string `json:"cause"`
	// Phases are those that were reached, in their order: lost, detected, taken over, fenced, created, booted, applied,
	// synced, redundant. An incident whose last one is "redundant" is over.
	Phases []IncidentPhase `json:"phases"`
}

// IncidentPhase is one step of a recovery.
type IncidentPhase struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
	Took Duration  `json:"took"` // since the phase before; zero for the first
	// By is the node that saw it, Detail a sentence of it. Empty: not known.
	By     string `json:"by"`
	Detail string `json:"detail"`
}

// Over says whether the cluster was redundant again.
func (i Incident) Over() bool {
	return len(i.Phases) > 0 && i.Phases[len(i.Phases)-1].Name == "redundant"
}

// Took is how long it lasted from the first phase to the last one so far. Phases may have been written down by different
// nodes, so it is the sum of what each took rather than a difference of clocks.
func (i Incident) Took() time.Duration {
	var sum time.Duration
	for _, p := range i.Phases {
		sum += time.Duration(p.Took)
	}
	return sum
}

// Incidents is the answer of /v1/incidents: the newest last.
type Incidents struct {
	Incidents []Incident `json:"incidents"`
}
