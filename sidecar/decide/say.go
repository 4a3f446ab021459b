package decide

import (
	"cmp"
	"slices"

	"understudy/sidecar/cluster"
)

// say is what the beats tell from now on.
func (t *turn) say() cluster.Announcement {
	a := cluster.Announcement{
		Claim: t.Claim.Epoch, Machine: t.Machine, Private: t.Private, Public: t.Public, Phase: t.phase(), Health: t.ownHealth(),
		Voting: t.votes, Paused: t.Orders.Pause, Commit: t.Commit, ClockOff: t.ClockOff, Mirrors: t.mirrors(), Rollout: t.rolling,
	}
	names := make([]string, 0, len(t.duties))
	for name := range t.duties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s := t.duties[name]
		switch {
		case s.Promise.Epoch > 0:
			a.Promises = append(a.Promises, s.Promise)
		case t.lasting.Promised[name] > 0: // from before we started: we confirm nobody, and grant nothing up to there
			a.Promises = append(a.Promises, cluster.Promise{Duty: name, Epoch: t.lasting.Promised[name], Clear: true})
		}
		if s.Bid > 0 {
			a.Bids = append(a.Bids, cluster.Bid{Duty: name, Epoch: s.Bid, Lease: s.BidLease, Last: s.Loss != "" && !acting(s.Hold.State)})
		}
		if h := t.told(name, s); h.State != 0 {
			a.Holds = append(a.Holds, h)
		}
	}
	for _, w := range t.Orders.Moves {
		if s := t.duties[w.Duty]; s.Promise.Epoch == w.From && s.Promise.Holder != t.p.Self {
			a.Want = append(a.Want, w)
		}
	}
	slices.SortFunc(a.Want, func(x, y cluster.Move) int { return cmp.Compare(x.Duty, y.Duty) })
	return a
}

// told is the hold as others may know it. A duty is released only once the programs that write the data are stopped.
func (t *turn) told(name string, s Duty) cluster.Hold {
	h := s.Hold
	if h.State != cluster.Released {
		return h
	}
	switch running := t.Units[name].Running; {
	case running && h.To != "":
		h.State = cluster.Offered
	case running:
		h.State = cluster.Held
	default:
		h.To = ""
	}
	return h
}

// phase is how far this node has come: it serves when it has applied its role, is healthy and has the data.
func (t *turn) phase() cluster.Phase {
	switch {
	case t.hasLeft():
		return cluster.Stopping
	case t.Phase != cluster.Applied:
		return t.Phase
	case t.outSince != 0:
		return cluster.Applied
	}
	for _, s := range t.duties {
		if s.Draining != 0 {
			return cluster.Draining
		}
	}
	if t.ownHealth() != cluster.Healthy {
		return cluster.Applied
	}
	r := t.p.role()
	if r == nil || !r.Data || t.holds(r.Name) {
		return cluster.Serving
	}
	for _, m := range t.Mirrors {
		if m.Role == r.Name && m.Complete && t.keepsUp(m) {
			return cluster.Serving
		}
	}
	return cluster.Applied
}

// mirrors is what is said of the data here.
func (t *turn) mirrors() []cluster.Mirror {
	r := t.p.role()
	if r == nil {
		return nil
	}
	m, ok := t.mirror(duty{name: r.Name, role: r})
	if !ok {
		return nil
	}
	return []cluster.Mirror{m}
}

// holds says that this node acts under a role's duty.
func (t *turn) holds(role string) bool {
	s := t.duties[role].Hold.State
	return s == cluster.Held || s == cluster.Offered
}

// ownHealth is the verdict of the checks that apply to this node now.
func (t *turn) ownHealth() cluster.Health {
	if r := t.p.role(); r != nil && r.Primary {
		return t.health(t.holds(r.Name))
	}
	return t.Health
}
