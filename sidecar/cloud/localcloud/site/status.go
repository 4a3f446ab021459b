//go:build linux

package site

import (
	"time"

	"understudy/bootstrap/progress"
)

// Status is what a local cloud tells about itself, as `understudy local status --json` prints it.
// Keys are only ever added.
type Status struct {
	Name      string    `json:"name"`
	Cluster   string    `json:"cluster"`
	Started   time.Time `json:"started"`
	Namespace string    `json:"namespace"`
	API       string    `json:"api"` // inside the namespace
	TokenFile string    `json:"token_file"`
	Git       string    `json:"git"`      // inside the namespace
	Operator  string    `json:"operator"` // directory with the key that signs commits, and the cluster's
	Checkout  string    `json:"checkout"` // directory with the control repo's roles.yaml and secrets.age
	Relay     string    `json:"relay"`    // directory with the messages sent out
	Ledger    string    `json:"ledger"`   // object store, inside the namespace
	// LedgerFault is what is wrong with it on request, as `understudy local fault` spells it. Empty: nothing.
	LedgerFault string    `json:"ledger_fault,omitempty"`
	Forwards    []Forward `json:"forwards"`
	Serving     bool      `json:"serving"` // every node is done
	Nodes       []Node    `json:"nodes"`
}

// Node is one node of the roster on its way from nothing to serving. Of several machines of that name it is the newest.
type Node struct {
	Name      string           `json:"name"`
	Role      string           `json:"role"`
	First     bool             `json:"first"`   // of its role, where duties begin
	Machine   int              `json:"machine"` // 0: not created yet
	Leader    int              `json:"leader"`  // host process ID of its PID 1; 0: off
	Address   string           `json:"address"` // private
	Power     bool             `json:"power"`
	Created   time.Time        `json:"created,omitzero"`
	Serving   time.Time        `json:"serving,omitzero"` // since when; not there while it does not
	Phase     string           `json:"phase,omitempty"`  // as its sidecar says
	Duty      string           `json:"duty,omitempty"`   // primary or standby, as the sidecars say
	CPU       float64          `json:"cpu_seconds"`      // of all its processes since power-on
	Bootstrap *progress.Record `json:"bootstrap,omitempty"`
}

// Status collects the present state.
func (s *Site) Status() Status {
	st := Status{
		Name: s.opt.Name, Cluster: s.roster.Cluster, Started: s.started, Namespace: s.net.Name,
		API: apiURL(), TokenFile: s.path("token"), Git: Source, Operator: s.path("operator"), Checkout: s.path("checkout"), Relay: s.path("relay"),
		Ledger: ledgerURL(), LedgerFault: faultWords(s.objects.Fault()),
		Forwards: s.opt.Forwards, Nodes: s.watch.list(), Serving: s.watch.allServe(),
	}
	private := map[int]string{}
	for _, m := range s.cloud.Machines() {
		private[m.ID] = m.Private.String()
	}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		n.Leader, n.Power = s.machines.Leader(n.Machine)
		n.Address = private[n.Machine]
		if cpu, err := s.machines.CPUTime(n.Machine); err == nil { // off: none
			n.CPU = cpu.Seconds()
		}
	}
	return st
}
