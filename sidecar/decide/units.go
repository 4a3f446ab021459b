package decide

import (
	"fmt"

	"understudy/sidecar/cluster"
)

// units runs the programs that write a role's data where the duty is, and nowhere else.
func (t *turn) units(d duty, s *Duty) {
	u, known := t.Units[d.name]
	if d.role == nil || !d.role.PrimaryUnits || !known {
		return
	}
	holds := s.Hold.State == cluster.Held || s.Hold.State == cluster.Offered
	switch {
	case holds && s.Stopping && u.Running:
		t.act(PrimaryUnits{Reason: Reason(fmt.Sprintf("%s moves to %s, which must find all its data", d.title(), s.To)), Role: d.name})
	case holds && !u.All && !t.Orders.Pause && s.Draining == 0 && t.mayAct(d, s):
		t.act(PrimaryUnits{
			Reason: Reason(fmt.Sprintf("%s has %s under epoch %d", t.p.Self, d.title(), s.Hold.Epoch)),
			Expect: Expect{Duty: d.name, Epoch: s.Hold.Epoch}, Role: d.name, Start: true,
		})
	case !holds && u.Running:
		t.act(PrimaryUnits{Reason: Reason(fmt.Sprintf("%s does not have %s", t.p.Self, d.title())), Role: d.name})
	}
}
