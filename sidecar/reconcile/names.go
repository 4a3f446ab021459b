package reconcile

import (
	"maps"
	"net/netip"
	"slices"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// table is what the loopback name server shall say, relative to <cluster>.internal: every node's address, and for every role
// its primary's, or those of all nodes that serve. It is nil as long as this node has not listened long enough to deny
// anything.
func table(v decide.View, d decide.Decision, p decide.Policy) map[string][]netip.Addr {
	if v.Now.Sub(v.Started) <= p.Timings.Detection {
		return nil
	}
	t := map[string][]netip.Addr{}
	for _, k := range p.Nodes {
		if a := whoseAddress(v, p, k); a.IsValid() {
			t[k] = []netip.Addr{a}
		}
	}
	for _, r := range p.Roles {
		t[r.Name] = answering(v, d, p, r, t)
	}
	return t
}

// answering are the addresses behind a role's name.
func answering(v decide.View, d decide.Decision, p decide.Policy, r decide.Role, nodes map[string][]netip.Addr) []netip.Addr {
	var all, serving []netip.Addr
	var holder string
	var epoch uint64
	for _, k := range r.Nodes {
		said := v.Peers[k].Said
		up := v.Peers[k].Heard != 0 && d.Memory.Verdicts[k].State != decide.Failed
		if k == p.Self {
			said, up = d.Say, true
		}
		if !up {
			continue
		}
		all = append(all, nodes[k]...)
		if said.Phase == cluster.Serving || said.Phase == cluster.Draining {
			serving = append(serving, nodes[k]...)
		}
		for _, h := range said.Holds {
			if h.Duty == r.Name && h.Epoch > epoch && (h.State == cluster.Held || h.State == cluster.Offered) {
				holder, epoch = k, h.Epoch
			}
		}
	}
	switch {
	case r.Primary:
		return nodes[holder] // nobody's: the name exists and has no address
	case len(serving) > 0:
		return serving
	}
	return all // whoever asks may find one that works after all
}

// whoseAddress is a node's private address, as it says itself, or as its claim does.
func whoseAddress(v decide.View, p decide.Policy, k string) netip.Addr {
	if k == p.Self {
		return v.Private
	}
	if a := v.Peers[k].Said.Private; a.IsValid() {
		return a
	}
	return v.Ledger.Claims[k].Private
}

// tellNames gives the name server a new table when it differs from the one before.
func (l *Loop) tellNames(v decide.View, d decide.Decision) {
	if l.world.Names == nil {
		return
	}
	next := table(v, d, l.cfg.Policy)
	if next == nil || l.named != nil && maps.EqualFunc(next, l.named, slices.Equal) {
		return
	}
	l.named = next
	l.world.Names(next)
}
