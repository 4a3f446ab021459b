package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// why lists what keeps the cluster from being redundant, a sentence a role: first the roles that nobody serves or whose
// duty nobody has, then the others, each in the roster's order.
func (b builder) why(st Status) []string {
	var down, thin []string
	for _, r := range st.Roles {
		var parts []string
		if r.Duty && r.Primary == "" {
			parts = append(parts, b.dutyStory(b.duty(r.Name)))
		}
		parts = append(parts, b.nodeStories(st.Nodes, r.Name)...)
		if len(parts) == 0 {
			continue
		}
		text := fmt.Sprintf("%s: %d of %d serve: %s", r.Name, r.Serving, r.Wanted, strings.Join(parts, "; "))
		if r.Serving == 0 || r.Duty && r.Primary == "" {
			down = append(down, text)
		} else {
			thin = append(thin, text)
		}
	}
	return some(slices.Concat(down, thin))
}

// dutyStory says why nobody has a duty.
func (b builder) dutyStory(s dutyState) string {
	text := "nobody has the duty"
	if s.gone != "" {
		text += fmt.Sprintf(" since %s, which had epoch %d, went silent", s.gone, s.was)
	}
	switch {
	case s.bidder != "":
		return fmt.Sprintf("%s; %s asks for epoch %d, which %d members have promised and %d must", text, s.bidder, s.bid, b.promised(s), b.majority().Needed)
	case s.hold.State == cluster.Waiting:
		return fmt.Sprintf("%s; %s has won epoch %d and waits until the holder before it must have stopped", text, s.holder, s.hold.Epoch)
	case s.hold.State == cluster.Released:
		return fmt.Sprintf("%s; %s has given up epoch %d", text, s.holder, s.hold.Epoch)
	}
	return text
}

// nodeStories says why nodes of a role do not serve: those that have failed, and those never heard, in one sentence each.
func (b builder) nodeStories(nodes []Node, role string) []string {
	var failed, mute, others []string
	var silent time.Duration
	for _, n := range nodes {
		switch {
		case n.Role != role || n.Serves():
		case n.Alive == decide.Failed.String():
			failed, silent = append(failed, n.Name), max(silent, time.Duration(n.Silent))
		case n.Alive == decide.NeverHeard.String():
			mute = append(mute, n.Name)
		default:
			others = append(others, nodeStory(n))
		}
	}
	var out []string
	if len(failed) > 0 {
		out = append(out, fmt.Sprintf("%s failed, silent for %s", have(failed), Words(silent)))
	}
	if len(mute) > 0 {
		out = append(out, have(mute)+" not been heard yet")
	}
	return append(out, others...)
}

// nodeStory says why a node that is there does not serve.
func nodeStory(n Node) string {
	switch {
	case n.Alive == decide.Broken.String():
		return fmt.Sprintf("%s is heard by others but not from here, for %s", n.Name, Words(time.Duration(n.Silent)))
	case n.Phase == cluster.Applied.String() && n.Health == cluster.Unhealthy.String():
		if len(n.Trouble) > 0 {
			return n.Name + " is unhealthy: " + list(n.Trouble)
		}
		return n.Name + " is unhealthy"
	case n.Phase == cluster.Applied.String() && n.Copy != "":
		return n.Name + " " + n.Copy
	case n.Phase == cluster.Applied.String() && n.Health == cluster.Unknown.String():
		return n.Name + " has not finished its first health check"
	case n.Phase == cluster.Applied.String():
		return n.Name + " has applied its role and does not serve yet"
	case n.Phase == cluster.Phase(0).String():
		return n.Name + " does not say how far it is"
	}
	return n.Name + " is " + n.Phase
}

// promised counts the present members that have promised the epoch that is asked for to the one who asks.
func (b builder) promised(s dutyState) int {
	n := 0
	for _, name := range b.members() {
		if b.here(name) && slices.ContainsFunc(b.said(name).Promises, func(p cluster.Promise) bool {
			return p.Duty == s.duty && p.Epoch == s.bid && p.Holder == s.bidder
		}) {
			n++
		}
	}
	return n
}

// warnings lists what would get in the way of a recovery.
func (b builder) warnings(st Status) []string {
	var out, paused, mute, clocks []string
	for _, n := range st.Nodes {
		switch present := n.Alive == decide.Alive.String() || n.Alive == decide.Suspect.String(); {
		case !present:
			continue
		case n.Paused || n.Name == st.Node && st.Paused:
			paused = append(paused, n.Name)
		case !n.Voting && n.Phase != cluster.Stopping.String():
			mute = append(mute, n.Name)
		}
		if n.ClockOff {
			clocks = append(clocks, n.Name)
		}
	}
	if m := st.Majority; !m.Have {
		out = append(out, fmt.Sprintf("%s hears %d of %d members, itself included, and needs %d: it is in a minority", st.Node, m.Heard, m.Members, m.Needed))
	}
	if c := b.v.Claim; c.Needed && !c.Mine {
		text := st.Node + " has no claim on its name in the ledger"
		if c.Taken != "" {
			text += ": " + c.Taken
		}
		out = append(out, text)
	}
	for _, r := range b.p.Roles {
		if s := b.duty(r.Name); r.Primary && s.also != "" && s.actor() != s.also {
			out = append(out, fmt.Sprintf("both %s (epoch %d) and %s (an older one) say that they have the duty of %s", s.holder, s.hold.Epoch, s.also, r.Name))
		}
	}
	if len(paused) > 0 {
		out = append(out, "paused, only observing: "+list(paused)+"; to go on: understudy resume")
	}
	if len(mute) > 0 {
		out = append(out, "not voting yet, since the sidecar started or stood still a moment ago: "+list(mute))
	}
	if len(clocks) > 0 {
		out = append(out, "wall clock is off: "+list(clocks))
	}
	if l := st.Ledger; l.Configured && !l.Usable {
		out = append(out, "the ledger cannot be used: "+l.Why+"; duties move only inside a majority")
	}
	return some(out)
}

// doing lists what changes at this moment: our own actions without the routine ones, and what peers say of theirs.
func (b builder) doing() []Step {
	steps := []Step{}
	for _, a := range b.d.Actions {
		if !routine(a) {
			steps = append(steps, Step{Node: b.p.Self, What: a.Key(), Why: a.Text()})
		}
	}
	for _, name := range b.members() {
		if name == b.p.Self || !b.here(name) {
			continue
		}
		for _, bid := range b.said(name).Bids {
			steps = append(steps, Step{name, "takeover of " + bid.Duty, fmt.Sprintf("%s asks the members for epoch %d", name, bid.Epoch)})
		}
		for _, h := range b.said(name).Holds {
			switch h.State {
			case cluster.Waiting:
				steps = append(steps, Step{name, "takeover of " + h.Duty, fmt.Sprintf("%s has won epoch %d and waits until the holder before it must have stopped", name, h.Epoch)})
			case cluster.Offered:
				steps = append(steps, Step{name, "switchover of " + h.Duty, fmt.Sprintf("%s finishes what runs and hands over to %s", name, h.To)})
			}
		}
	}
	return steps
}
