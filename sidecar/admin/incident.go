package admin

import "time"

// Incident is one loss and its recovery.
type Incident struct {
	ID   string `json:"id"`
	Node string `json:"node"` // that was lost
	Role string `json:"role"`
	// Phases are those that were reached, in their order: lost, detected, taken over, fenced, created, booted, applied,
	// synced, redundant. An incident whose last one is "redundant" is over.
	Phases []IncidentPhase `json:"phases"`
}

// IncidentPhase is one step of a recovery.
type IncidentPhase struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
	Took Duration  `json:"took"` // since the phase before; zero for the first
}

// Over says whether the cluster was redundant again.
func (i Incident) Over() bool {
	return len(i.Phases) > 0 && i.Phases[len(i.Phases)-1].Name == "redundant"
}

// Took is how long it lasted from the first phase to the last one so far.
func (i Incident) Took() time.Duration {
	if len(i.Phases) == 0 {
		return 0
	}
	return i.Phases[len(i.Phases)-1].At.Sub(i.Phases[0].At)
}

// Incidents is the answer of /v1/incidents: the newest last.
type Incidents struct {
	Incidents []Incident `json:"incidents"`
}
