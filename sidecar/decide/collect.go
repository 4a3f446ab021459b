package decide

import (
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// collect deletes machines of ours that nobody wants: slowly, and one at a time. They may stand in the way of a new one.
func (h *hiring) collect() {
	if h.Orders.Pause || !h.Ledger.Sound || h.Ledger.Failing || h.noList(auditEvery) != "" {
		return
	}
	for _, m := range h.List.Machines {
		why := h.unwanted(m)
		if why == "" {
			continue
		}
		if !m.Known {
			h.blocked("machine "+m.ID, fmt.Sprintf("it is called %s, has the cluster's tag, and %s; but nothing in the ledger says that it is ours, so it stays", m.Name, why))
			continue
		}
		if wait := m.First.Add(collectAfter); h.Now < wait && !h.p.Off.Collect && !h.discarded(m) && !h.dropped(m) {
			h.at(wait)
			continue
		}
		if h.noList(listEvery) != "" {
			return
		}
		if h.alone && m.Power != cluster.PowerOff {
			h.blocked("machine "+m.ID, fmt.Sprintf("it is not wanted (%s), but it runs, and this side of the cluster is no majority", why))
			return
		}
		if m.Power != cluster.PowerOff {
			h.act(PowerOff{Reason: Reason(fmt.Sprintf("machine %s is not wanted: %s", m.ID, why)), Expect: h.expect(), Node: m.Name, Machine: m.ID})
		} else {
			h.act(Delete{Reason: Reason(fmt.Sprintf("machine %s is not wanted: %s", m.ID, why)), Expect: h.expect(), Node: m.Name, Machine: m.ID})
		}
		return
	}
}

// unwanted says why nobody wants a machine. Empty: somebody does, or it may have data.
func (h *hiring) unwanted(m Listed) string {
	c, ok := h.Ledger.Claims[m.Name]
	if ok && h.discarded(m) && m.Power == cluster.PowerOff && (c.Machine != m.ID || c.Tombstoned) {
		return "its data are discarded, as was asked" // the replacement of its node may wait for that
	}
	if h.dropped(m) {
		return m.Name + " has left the cluster"
	}
	if ok && c.Machine == m.ID {
		h.tellStray(m)
		return ""
	}
	if in := h.Ledger.Intents[m.Name]; in.Open() && (m.ID == in.Machine || slices.Contains(m.Tags, in.Tag())) {
		return "" // its end is that intent's
	}
	if !slices.Contains(h.p.hireOrder(), m.Name) {
		h.tellStray(m)
		return ""
	}
	if !ok {
		return "" // it may be on its way to claim
	}
	if why := h.kept(m); why != "" {
		h.blocked("machine "+m.ID, why)
		return ""
	}
	return fmt.Sprintf("%s is machine %s", m.Name, c.Machine)
}

// dropped says that a machine has ended its own claim to be a node that is not in the roster.
func (h *hiring) dropped(m Listed) bool {
	c := h.Ledger.Claims[m.Name]
	return c.Left && c.Machine == m.ID && !slices.Contains(h.p.Nodes, m.Name)
}

// tellStray tells of a machine whose node is not in the roster and which has not said itself that it left: that is a person's to remove.
func (h *hiring) tellStray(m Listed) {
	if m.Claimed > 0 && !slices.Contains(h.p.Nodes, m.Name) {
		h.blocked("machine "+m.ID, fmt.Sprintf("it is %s, which roles.yaml does not have, and has not left by itself; delete it at the provider if nobody needs it", m.Name))
	}
}

// keepData is how long a machine is kept that may have data that no other has.
const keepData = 7 * 24 * time.Hour

// kept says why a machine that was a node once stays for the data on it. Empty: it need not.
func (h *hiring) kept(m Listed) string {
	in := h.Ledger.Intents[m.Name]
	keep, discard := h.Ledger.wished(m.Name, m.ID)
	switch {
	case !h.mayHaveData(m) || discard:
		return ""
	case keep:
		return fmt.Sprintf("it was %s and is kept for the data on it, as was asked; `understudy discard %s` deletes it", m.Name, m.Name)
	case m.Power != cluster.PowerOff: // it is switched off first
		return ""
	case in.Machine == m.ID && !in.Unseen:
		return ""
	case in.N > 0 && h.ago(in.Age) >= keepData: // one that was replaced before that is older still
		return ""
	}
	return fmt.Sprintf("it was %s, is off, and may have data that no other machine has; it is deleted %s after its replacement, or at once by `understudy discard %s`, or not, after `understudy recover %s`",
		m.Name, days(keepData), m.Name, m.Name)
}

// discarded says that a person does not want the data of a machine.
func (h *hiring) discarded(m Listed) bool {
	_, discard := h.Ledger.wished(m.Name, m.ID)
	return discard
}

// wished is what a person wants to become of a machine that was, or is, a node's.
func (l Ledger) wished(node, machine string) (keep, discard bool) {
	w := l.Wishes[node]
	return slices.Contains(w.Keep, machine), slices.Contains(w.Discard, machine)
}

// days is a duration of whole days for people.
func days(d time.Duration) string { return fmt.Sprintf("%d days", d/(24*time.Hour)) }
