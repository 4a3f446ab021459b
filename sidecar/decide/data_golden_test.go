package decide

import (
	"maps"
	"time"

	"understudy/sidecar/cluster"
)

// The data of mail1, which has written them under epoch 1 and goes on under 2 without the copy.
var (
	theNewest = cluster.Mirror{Role: "mail", Epoch: 1, Source: true, Complete: true, Lag: 14 * time.Second, Behind: 1 << 24, Synced: 2, From: 1}
	anOlder   = cluster.Mirror{Role: "mail", Epoch: 1, Complete: true, Lag: 14 * time.Second}
)

// holdingData gives mail1 and mail2 their data, where the view is mail2's or somebody else's.
func holdingData(v *View, m *Memory, p *Policy, mail1, mail2 cluster.Mirror) {
	if p.Self == "mail2" {
		v.Mirrors = []cluster.Mirror{mail2}
		m.Data = map[string]Data{"mail": {Synced: mail2.Synced, From: mail2.From}}
	} else {
		saying(v, "mail2", func(a *cluster.Announcement) { a.Mirrors = []cluster.Mirror{mail2} })
	}
	saying(v, "mail1", func(a *cluster.Announcement) {
		a.Mirrors = []cluster.Mirror{mail1}
		a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 2, State: cluster.Held}}
	})
	m.Duties = maps.Clone(m.Duties)
	s := m.Duties["mail"]
	s.Promise.Epoch = 2
	m.Duties["mail"] = s
	m.Promised["mail"], m.Epochs["mail"] = 2, 2
}

func synced(m cluster.Mirror, epoch uint64) cluster.Mirror {
	m.Synced = epoch
	return m
}

// back lets mail1 be heard again, as somebody who does nothing.
func back(v *View, change func(*cluster.Announcement)) {
	p := v.Peers["mail1"]
	p.Heard = v.Now.Add(-20 * time.Millisecond)
	v.Peers["mail1"] = p
	saying(v, "mail1", func(a *cluster.Announcement) {
		a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 2, State: cluster.Released}}
		change(a)
	})
}

// bidding lets mail2 ask.
func bidding(v *View, last bool) {
	saying(v, "mail2", func(a *cluster.Announcement) { a.Bids = []cluster.Bid{{Duty: "mail", Epoch: 3, Last: last}} })
}

// leasing lets mail2 wait until it may act by the ledger's word.
func leasing(v *View) {
	saying(v, "mail2", func(a *cluster.Announcement) {
		a.Promises = []cluster.Promise{{Duty: "mail", Epoch: 8, Holder: "mail2", Lease: true, Clear: true}}
		a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 8, State: cluster.Waiting}}
	})
}

func dataCases() []decisionCase {
	lost := func(own cluster.Mirror, more func(g *rig, v *View)) func(g *rig, v *View, m *Memory, p *Policy) {
		return func(g *rig, v *View, m *Memory, p *Policy) {
			holdingData(v, m, p, theNewest, own)
			after(g, v, 600*time.Millisecond, "mail1")
			more(g, v)
		}
	}
	nothing := func(*rig, *View) {}
	gone := func(g *rig, v *View) { v.Machines = machines(v, cluster.PowerGone, 2, "mail1") }
	listed := func(more ...Listed) func(g *rig, v *View) {
		return func(g *rig, v *View) {
			gone(g, v)
			own := Listed{Machine: cluster.Machine{ID: "m-mail2", Name: "mail2", Power: cluster.PowerOn}, Claimed: 1, Known: true}
			v.List = ListReading{Machines: append([]Listed{own}, more...), At: v.Now.Add(-time.Second), Agree: 2}
		}
	}
	return []decisionCase{
		{"S8", "copy that keeps up takes over", "mail2", eight, false, lost(synced(anOlder, 2), nothing)},
		{"S8", "copy is behind, and the primary silent", "mail2", eight, false, lost(synced(anOlder, 1), nothing)},
		{"S8", "copy is behind, and the primary's machine is off", "mail2", eight, true, lost(synced(anOlder, 1), func(g *rig, v *View) {
			v.Machines = machines(v, cluster.PowerOff, 2, "mail1")
		})},
		{"S8", "copy is not complete", "mail2", eight, false, lost(cluster.Mirror{Role: "mail", Epoch: 1, Lag: cluster.Forever}, nothing)},
		{"S8", "copy is blank", "mail2", eight, false, lost(cluster.Mirror{Role: "mail", Lag: cluster.Forever}, nothing)},
		{"S8", "newer data are back, and their node does not take the duty", "mail2", eight, false, lost(synced(anOlder, 1), func(g *rig, v *View) {
			back(v, func(a *cluster.Announcement) { a.Paused = true })
		})},
		{"S8", "what a node that is heard has asked for, and not written under, does not count", "mail2", eight, false, lost(synced(anOlder, 2), func(g *rig, v *View) {
			back(v, func(a *cluster.Announcement) {
				a.Paused = true
				a.Mirrors = []cluster.Mirror{{Role: "mail", Epoch: 1, Complete: true, Lag: cluster.Forever, Synced: 2, From: 3}}
				a.Holds = []cluster.Hold{{Duty: "mail", Epoch: 3, State: cluster.Released}}
			})
			saying(v, "lb1", func(a *cluster.Announcement) {
				a.Promises = []cluster.Promise{{Duty: "mail", Epoch: 3, Holder: "mail1", Clear: true}}
			})
		})},
		{"S8", "node is back and does not know its data yet", "mail2", eight, false, lost(synced(anOlder, 1), func(g *rig, v *View) {
			back(v, func(a *cluster.Announcement) { a.Mirrors = nil })
		})},
		{"S8", "whoever had newer data is gone, as far as the provider has been asked", "mail2", eight, true, lost(synced(anOlder, 1), gone)},
		{"S8", "a machine of before may have newer data", "mail2", eight, true, lost(synced(anOlder, 1), listed(Listed{
			Machine: cluster.Machine{ID: "77", Name: "mail1", Power: cluster.PowerOff}, Claimed: 1, Known: true,
		}))},
		{"S8", "a machine that the ledger names is asked about by its ID", "mail2", eight, true, lost(synced(anOlder, 1), func(g *rig, v *View) {
			listed()(g, v)
			v.Ledger.Duties = map[string]cluster.DutyRecord{"mail": {Duty: "mail", Epoch: 2, Holder: "mail1", Machine: "77"}}
		})},
		{"S8", "and is there, though no list has it", "mail2", eight, true, lost(synced(anOlder, 1), func(g *rig, v *View) {
			listed()(g, v)
			v.Ledger.Duties = map[string]cluster.DutyRecord{"mail": {Duty: "mail", Epoch: 2, Holder: "mail1", Machine: "77"}}
			v.Machines["machine 77"] = MachineReading{ID: "77", Power: cluster.PowerOff, At: v.Now.Add(-time.Second), Same: 2}
		})},
		{"S8", "whoever had newer data is gone", "mail2", eight, true, lost(synced(anOlder, 1), listed())},
		{"S8", "member promises whoever has all data", "lb1", eight, false, lost(synced(anOlder, 2), func(g *rig, v *View) { bidding(v, false) })},
		{"S8", "member does not promise whoever has less", "lb1", eight, false, lost(synced(anOlder, 1), func(g *rig, v *View) { bidding(v, false) })},
		{"S8", "member promises whoever has the last data", "lb1", eight, false, lost(synced(anOlder, 1), func(g *rig, v *View) { bidding(v, true) })},
		{"S8", "member does not promise the last data while it hears better ones", "lb1", eight, false, lost(synced(anOlder, 1), func(g *rig, v *View) {
			bidding(v, true)
			back(v, func(*cluster.Announcement) {})
		})},
		{"S8", "member does not follow a lease with less", "lb1", eight, false, lost(synced(anOlder, 1), func(g *rig, v *View) { leasing(v) })},
		{"S8", "member follows a lease with all data", "lb1", eight, false, lost(synced(anOlder, 2), func(g *rig, v *View) { leasing(v) })},
		{"S8", "primary whose copy is away takes a new epoch", "mail1", eight, false, func(g *rig, v *View, m *Memory, p *Policy) {
			v.Mirrors = []cluster.Mirror{{Role: "mail", Epoch: 1, Source: true, Complete: true, Lag: 2 * time.Second}}
			m.Duties = maps.Clone(m.Duties)
			s := m.Duties["mail"]
			s.Writes, s.Shared = 1, 1
			m.Duties["mail"] = s
		}},
		{"S8", "who waits for an epoch lets go when newer data come back", "mail2", eight, false, func(g *rig, v *View, m *Memory, p *Policy) {
			lost(synced(anOlder, 1), func(g *rig, v *View) { back(v, func(*cluster.Announcement) {}) })(g, v, m, p)
			m.Duties["mail"] = Duty{Promise: cluster.Promise{Duty: "mail", Epoch: 3, Holder: "mail2"},
				Hold: cluster.Hold{Duty: "mail", Epoch: 3, State: cluster.Waiting}, Won: v.Now.Add(-time.Millisecond)}
		}},
	}
}
