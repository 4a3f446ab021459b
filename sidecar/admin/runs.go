package admin

import "understudy/bootstrap/applied"

// Runs are the newest runs of Puppet on one node.
type Runs struct {
	Node string      `json:"node"`
	Runs []PuppetRun `json:"runs"` // the newest first
}

// PuppetRun is one run that has ended.
type PuppetRun struct {
	applied.Result
	// Why is rollout, rollback or drift.
	Why string `json:"why"`
}

func (s *Server) runs() (Runs, error) {
	p, _, _, _, err := s.turn()
	if err != nil {
		return Runs{}, err
	}
	return Runs{Node: p.Self, Runs: some(s.cfg.Backend.Runs())}, nil
}
