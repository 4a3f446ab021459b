package decide

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
)

// address brings the role's address to this node while it has the duty: the address of the link onto its interface, the
// provider's onto this machine. It compares what is wanted with what is, every few seconds, whatever has happened before.
func (t *turn) address(d duty, s *Duty) {
	if d.role == nil {
		return
	}
	if d.role.Link.IsValid() {
		t.linkAddress(d, s)
	}
	if d.role.Reserved.IsValid() {
		t.reserved(d, s)
	}
}

func (t *turn) linkAddress(d duty, s *Duty) {
	holds := s.Hold.State == cluster.Held || s.Hold.State == cluster.Offered
	g, known := t.Gates[d.name]
	switch {
	case !known:
	case holds && !g.Added:
		t.act(LinkAddress{
			Reason: Reason(fmt.Sprintf("%s has %s under epoch %d", t.p.Self, d.title(), s.Hold.Epoch)),
			Expect: Expect{Duty: d.name, Epoch: s.Hold.Epoch}, Role: d.name, Add: true,
		})
	case !holds && g.Added:
		t.act(LinkAddress{Reason: Reason(fmt.Sprintf("%s does not have %s", t.p.Self, d.title())), Role: d.name})
	}
}

// reserved moves the provider's address. A standby that suspects the holder reads the register already, to be ready.
func (t *turn) reserved(d duty, s *Duty) {
	h, tm := t.Holders[d.name], t.p.Timings
	if s.Hold.State != cluster.Held {
		if k := s.Promise.Holder; k != t.p.Self && t.verdicts[k].State == Suspect && t.Now.Since(h.At) > tm.Reconcile {
			t.act(ReadHolder{Reason: Reason(fmt.Sprintf("%s, which has the address of %s, is suspect", k, d.title())), Role: d.name, Address: d.role.Reserved})
		}
		return
	}
	if t.Orders.Pause || t.Machine == "" || !t.mayAct(d, s) {
		return
	}
	here := h.Here && t.Now.Since(h.HereAt) < 2*tm.Reconcile
	fresh := h.At > s.Acting
	every := 6 * tm.Reconcile
	switch {
	case !fresh || h.Pending || h.Machine != t.Machine || !here:
		every = min(time.Second, tm.Reconcile)
	case t.Now.Sub(s.Acting) < time.Minute:
		every = tm.Reconcile
	}
	if !fresh || t.Now.Since(h.At) > every {
		t.act(ReadHolder{Reason: Reason(fmt.Sprintf("%s has %s; who has its address?", t.p.Self, d.title())), Role: d.name, Address: d.role.Reserved})
	}
	t.in(every)
	switch {
	case !fresh || h.Machine == t.Machine && !h.Pending:
	case h.Pending:
		t.blocked("address of "+d.title(), "the provider is still working on the address")
	default:
		t.act(AssignReserved{
			Reason: Reason(fmt.Sprintf("%s has %s under epoch %d, and its address is with %s", t.p.Self, d.title(), s.Hold.Epoch, t.machineName(h.Machine))),
			Expect: Expect{Duty: d.name, Epoch: s.Hold.Epoch, Holder: h.Machine, Reads: true},
			Role:   d.name, Address: d.role.Reserved, Machine: t.Machine,
		})
	}
}

// machineName names a machine for people.
func (t *turn) machineName(id string) string {
	if id == "" {
		return "no machine"
	}
	for _, k := range t.p.Nodes {
		if t.machineOf(k) == id {
			return fmt.Sprintf("%s (machine %s)", k, id)
		}
	}
	return "machine " + id
}
