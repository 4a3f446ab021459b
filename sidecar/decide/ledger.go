package decide

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
)

// record writes the epoch of a duty that a majority gave us into the ledger, afterwards: nothing waits for it.
func (t *turn) record(d duty, s *Duty) {
	l := t.Ledger
	if s.Hold.State != cluster.Held || s.Lease || !l.Configured || !l.Sound || l.Forgot != "" {
		return
	}
	if l.Duties[d.name].Epoch >= s.Hold.Epoch || l.Wrote[d.name].Epoch == s.Hold.Epoch {
		return
	}
	t.act(WriteDuty{
		Reason: Reason(fmt.Sprintf("%s has %s under epoch %d, which the ledger does not know yet", t.p.Self, d.title(), s.Hold.Epoch)),
		// As it was asked for: if that was by the ledger's word, the record may lie there already, unknown to us.
		Record: cluster.DutyRecord{Duty: d.name, Epoch: s.Hold.Epoch, Holder: t.p.Self, Machine: t.Machine, Lease: s.BidLease},
	})
}

// readLedger reads the ledger as often as what hangs on it needs.
func (t *turn) readLedger() {
	if !t.Ledger.Configured || !t.Ledger.Sound {
		return
	}
	every, why := t.p.Timings.LedgerIdle, "what has been decided elsewhere"
	if t.leased || t.short {
		every, why = t.p.Timings.LedgerEvery, "a duty hangs on the ledger"
	}
	vote := t.FreshBoot && t.Claim.At != 0 && t.Ledger.ReadSent <= t.Claim.At
	if vote {
		why = "this machine has booted, and votes once it has read what was decided before its claim"
	}
	if vote || t.Now.Since(t.Ledger.ReadSent) >= every {
		t.act(ReadLedger{Reason: Reason(why)})
	}
	t.in(every)
}

// readMachines asks the provider about the machines of members that are not heard, while a duty lacks its majority: gone or off,
// they cannot be acting anywhere.
func (t *turn) readMachines() {
	if !t.short {
		return
	}
	for _, k := range t.p.Nodes {
		id := t.machineOf(k)
		if t.alive(k) || id == "" || t.Machine == "" {
			continue
		}
		every := time.Second
		if m := t.Machines[k]; m.ID == id && m.Same >= 2 {
			every = 10 * time.Second
		}
		if t.Now.Since(t.Machines[k].At) >= every {
			t.act(ReadMachine{Reason: Reason(fmt.Sprintf("%s is silent and there is no majority; is its machine there?", k)), Node: k, Machine: id})
		}
		t.in(every)
	}
}
