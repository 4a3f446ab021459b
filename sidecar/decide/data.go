package decide

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// A role's data lie on its two nodes: the primary writes them, the other one copies. Whoever takes the duty must lack nothing that
// anybody may still read. How that is known is Raft's election restriction (Ongaro, Ousterhout: In Search of an Understandable
// Consensus Algorithm, section 5.4.1), with epochs for terms. A primary says under its epoch whether the copy keeps up, and takes a
// new epoch before it goes on without it for long (deserted). So a copy whose Synced is the newest epoch that may have been written
// under lacks nothing but that moment; and a majority knows that epoch, since it promised it. Members refuse whoever has less.

// Data is what a machine remembers of its role's data. They are worth what it says only while the copy is there, see mirror.
type Data struct {
	Synced uint64 `json:"synced,omitempty"` // see cluster.Mirror, like From
	From   uint64 `json:"from,omitempty"`
	// Asked is the last epoch that this machine has asked for.
	Asked uint64 `json:"asked,omitempty"`
	// Newest is the highest epoch under which another machine was heard to act, or to lack nothing.
	Newest uint64 `json:"newest,omitempty"`
}

// mirror is the state of a duty's data here, as it is said. Not ok: nothing mirrors here, which decides nothing.
func (t *turn) mirror(d duty) (m cluster.Mirror, ok bool) {
	if d.role == nil || !d.role.Data {
		return m, false
	}
	i := slices.IndexFunc(t.Mirrors, func(m cluster.Mirror) bool { return m.Role == d.name })
	if i < 0 {
		return m, false
	}
	m = t.Mirrors[i]
	known := t.lasting.Data[d.name]
	if m.Synced, m.From = 0, known.From; usable(m) {
		m.Synced = known.Synced
	}
	return m, true
}

// copyOf is the same of a node that is heard.
func (t *turn) copyOf(d duty, node string) (cluster.Mirror, bool) {
	if node == t.p.Self {
		return t.mirror(d)
	}
	return mirrorOf(t.said(node), d)
}

func mirrorOf(said *cluster.Announcement, d duty) (cluster.Mirror, bool) {
	for _, m := range said.Mirrors {
		if m.Role == d.name && d.role != nil && d.role.Data {
			return m, true
		}
	}
	return cluster.Mirror{}, false
}

// usable says that a copy is a whole tree of some moment.
func usable(m cluster.Mirror) bool { return m.Epoch > 0 && (m.Source || m.Complete) }

// keepsUp says that a copy lacks less than a moment.
func (t *turn) keepsUp(m cluster.Mirror) bool { return m.CaughtUp || m.Lag <= t.p.Timings.Behind }

// follows says that a copy is one of what the primary, whose own state is given, writes now, and keeps up with that.
func (t *turn) follows(c, primary cluster.Mirror) bool {
	return c.Complete && c.Epoch == primary.Epoch && primary.Source && t.keepsUp(primary)
}

// data remembers what this turn has shown of the data here.
func (t *turn) data(d duty, s *Duty) {
	own, ok := t.mirror(d)
	if !ok {
		return
	}
	known := t.lasting.Data[d.name]
	switch {
	case !holding(s.Hold.State):
		s.Writes = 0
		if own.Epoch == 0 {
			known.Synced = 0
		}
	default:
		known.Synced = max(known.Synced, s.Hold.Epoch)
		if s.Writes == 0 {
			s.Writes = s.Hold.Epoch
		}
		if own.Source && t.keepsUp(own) { // as others judge by the beats that say so from now on
			s.Shared = s.Hold.Epoch
		}
	}
	for _, k := range d.nodes {
		if k == t.p.Self {
			continue
		}
		theirs, _ := t.copyOf(d, k)
		known.Newest = max(known.Newest, theirs.Synced)
		if h := holdOf(t.said(k), d.name); holding(h.State) {
			known.Newest = max(known.Newest, h.Epoch)
			if t.follows(own, theirs) {
				known.Synced = max(known.Synced, h.Epoch)
			}
		}
	}
	if known != t.lasting.Data[d.name] {
		t.lasting.Data = with(t.lasting.Data, d.name, known)
	}
}

// asked remembers an epoch that this machine asks for.
func (t *turn) asked(d duty, epoch uint64) {
	if _, ok := t.mirror(d); !ok {
		return
	}
	known := t.lasting.Data[d.name]
	known.Asked, known.From = epoch, cmp.Or(known.From, epoch)
	t.lasting.Data = with(t.lasting.Data, d.name, known)
}

// holding says that a node acts.
func holding(s cluster.HoldState) bool { return s == cluster.Held || s == cluster.Offered }

// deserted says that the holder's data have no copy that keeps up, though it has said under this epoch that they have one. What is
// written from now on is under another epoch, so that the copy cannot pass for the newest. An ordered move is seen to its end first,
// which is meant for this epoch, and ends with all data there, or not at all.
func (t *turn) deserted(d duty, s *Duty) bool {
	own, ok := t.mirror(d)
	return ok && s.Shared == s.Hold.Epoch && !t.keepsUp(own) && (s.To == "" || t.Orders.Leave) && !t.p.Off.Deserted
}

// mayHaveWritten is the highest epoch up to which the holder of a promise may have written what node, with the copy m, does not know of.
// A machine knows which epochs it has asked for, and says what it lacks; so of one that is heard, its word counts instead.
func (t *turn) mayHaveWritten(d duty, x cluster.Promise, node string, m cluster.Mirror) uint64 {
	switch {
	case x.Holder == node && m.From > 0 && x.Epoch >= m.From:
		return 0
	case x.Holder == "" && node == t.p.Self && x.Epoch == t.lasting.Data[d.name].Asked:
		return 0 // to itself, and somebody has forgotten to whom
	case x.Holder == node || x.Holder == "":
		return x.Epoch
	}
	if theirs, ok := t.copyOf(d, x.Holder); ok && theirs.From > 0 && x.Epoch >= theirs.From {
		return 0
	}
	return x.Epoch
}

// newest is the highest epoch under which another machine may have written. A majority that is heard knows it: it has promised it.
func (t *turn) newest(d duty, s *Duty, own cluster.Mirror) uint64 {
	newest := t.lasting.Data[d.name].Newest
	for _, k := range t.live {
		x := promiseOf(t.said(k), d.name)
		if k == t.p.Self {
			x = t.promised(d, s)
		}
		newest = max(newest, t.mayHaveWritten(d, x, t.p.Self, own))
	}
	for _, k := range d.nodes {
		if theirs, ok := t.copyOf(d, k); ok && k != t.p.Self {
			newest = max(newest, theirs.Synced)
		}
	}
	r := t.Ledger.Duties[d.name]
	if mine := r.Machine == t.Machine && r.Holder == t.p.Self; mine || r.Holder != t.p.Self && t.alive(r.Holder) && t.said(r.Holder).Machine == r.Machine {
		return newest // by a machine that says itself what it has written
	}
	return max(newest, r.Epoch)
}

// promised is this node's own promise, perhaps from before it started: then it does not know to whom.
func (t *turn) promised(d duty, s *Duty) cluster.Promise {
	if s.Promise.Epoch > 0 {
		return s.Promise
	}
	return cluster.Promise{Duty: d.name, Epoch: t.lasting.Promised[d.name]}
}

// lacks says why this node may not have the duty for its data's sake. Empty: it may; then loss says what will be missing that was
// written once, if something will.
func (t *turn) lacks(d duty, s *Duty) (why, loss string) {
	own, ok := t.mirror(d)
	if !ok || t.p.Off.Newest {
		return "", ""
	}
	newest := t.newest(d, s, own)
	if own.Synced >= newest {
		return "", ""
	}
	var gone []string
	for _, k := range d.nodes {
		if k == t.p.Self {
			continue
		}
		if why, loss := t.withheld(d, k, own); why != "" {
			return why, ""
		} else if loss != "" {
			gone = append(gone, loss)
		}
	}
	if why := t.former(d); why != "" {
		return why, ""
	}
	return "", fmt.Sprintf("%s; what was written under epoch %d may be missing: %s", t.had(own), newest, list(gone, "nobody else has anything"))
}

// withheld says how another node keeps this one from taking the duty with data that are not the newest; or else, what the loss is.
func (t *turn) withheld(d duty, k string, own cluster.Mirror) (why, loss string) {
	theirs, ok := t.copyOf(d, k)
	switch {
	case t.alive(k) && !ok:
		return k + " does not say yet what data it has", ""
	case t.alive(k) && worth(theirs, own) > 0:
		return fmt.Sprintf("%s has newer data (%s; here: %s)", k, t.had(theirs), t.had(own)), ""
	case t.alive(k):
		return "", k + " has no more"
	case t.neverClaimed(k):
		return "", ""
	}
	m := t.Machines[k]
	if t.gone(k) && m.Power == cluster.PowerGone {
		if lag, ok := t.lagTo(d, k, own); ok {
			return "", fmt.Sprintf("%s's machine is gone, and was %s ahead", k, ms(lag))
		}
		return "", k + "'s machine is gone"
	}
	t.askFor(k)
	state := "silent: bring it back"
	if t.gone(k) {
		state = "off: switch it on"
	}
	return fmt.Sprintf("%s's copy is %s %s's, whose machine%s is %s, or `understudy discard %s` to go on without what only it has",
		t.p.Self, t.behind(d, k, own), k, spaced(t.machineOf(k)), state, k), ""
}

// former says which machine that was once a node of the role may have newer data. Empty: there is none any more, which takes two lists,
// and an answer by ID about those that are known to have come before.
func (t *turn) former(d duty) string {
	if t.Machine == "" || !t.Ledger.Configured {
		return ""
	}
	if why := t.noLedger(); why != "" {
		return why
	}
	t.leased = true
	if why := t.noList(listEvery); why != "" {
		return why
	}
	if t.List.Agree < 2 {
		t.noList(agreeEvery)
		return "the list of machines is read once more"
	}
	for _, m := range t.List.Machines {
		if m.Claimed > 0 && slices.Contains(d.nodes, m.Name) && m.ID != t.Machine && m.ID != t.machineOf(m.Name) {
			return fmt.Sprintf("machine %s, which was %s, may have newer data: %s", m.ID, m.Name, t.askPerson(m.Name))
		}
	}
	before := []string{t.Ledger.Duties[d.name].Machine}
	for _, k := range d.nodes {
		before = append(before, t.Ledger.Intents[k].Machine)
	}
	for _, id := range before {
		if id == "" || id == t.Machine || slices.ContainsFunc(d.nodes, func(k string) bool { return t.machineOf(k) == id }) {
			continue
		}
		key := formerly(id)
		if m := t.Machines[key]; m.Power != cluster.PowerGone || m.Same < 2 {
			if t.Now.Since(m.At) >= time.Second {
				t.act(ReadMachine{Reason: Reason(fmt.Sprintf("is machine %s, which may have newer data of %s, gone?", id, d.title())), Node: key, Machine: id})
			}
			t.in(time.Second)
			return fmt.Sprintf("the provider is asked whether machine %s is gone, which may have newer data", id)
		}
	}
	return ""
}

// formerly is the key in View.Machines of a machine that is no node any more. It cannot meet a node's name.
func formerly(id string) string { return "machine " + id }

func (t *turn) askPerson(node string) string {
	return fmt.Sprintf("`understudy recover %s`, or `understudy discard %s` to go on without what only it has", node, node)
}

// worth compares two copies: which one has what came later, and then which one has more of it.
func worth(a, b cluster.Mirror) int {
	return cmp.Or(cmp.Compare(a.Synced, b.Synced), compareBool(usable(a), usable(b)), cmp.Compare(a.Epoch, b.Epoch),
		compareBool(a.Source, b.Source), cmp.Compare(b.Behind, a.Behind))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// had says what a copy is.
func (t *turn) had(m cluster.Mirror) string {
	switch {
	case m.Epoch == 0:
		return "no data at all"
	case !usable(m):
		return fmt.Sprintf("a part of the data of epoch %d", m.Epoch)
	case m.Synced == 0:
		return fmt.Sprintf("a copy of the data of epoch %d that never kept up", m.Epoch)
	}
	return fmt.Sprintf("all data up to epoch %d", m.Synced)
}

// behind compares the copy here with that of a node that is silent.
func (t *turn) behind(d duty, k string, own cluster.Mirror) string {
	switch lag, known := t.lagTo(d, k, own); {
	case own.Epoch == 0:
		return "empty, unlike"
	case !usable(own):
		return "not complete, unlike"
	case known:
		return ms(lag) + " behind"
	}
	return "older than"
}

// lagTo is how far the copy here was behind a silent node's data, as that one said last.
func (t *turn) lagTo(d duty, k string, own cluster.Mirror) (lag time.Duration, known bool) {
	theirs, _ := mirrorOf(&t.of(k).peer.Said, d)
	return theirs.Lag, usable(own) && theirs.Source && theirs.Epoch == own.Epoch && theirs.Lag > t.p.Timings.Behind && theirs.Lag < cluster.Forever
}

func spaced(id string) string {
	if id == "" {
		return ""
	}
	return " " + id
}

func list(all []string, none string) string {
	if len(all) == 0 {
		return none
	}
	out := all[0]
	for _, s := range all[1:] {
		out += ", " + s
	}
	return out
}

// acceptable says that a bidder's data are the newest that may have been written, as far as this member knows: what it has promised
// to others before, which its next promise would hide, and what it hears. The last there are will do, unless it hears better ones.
func (t *turn) acceptable(d duty, s *Duty, k string, last bool) bool {
	theirs, ok := t.copyOf(d, k)
	if !ok || t.p.Off.Newest {
		return true
	}
	for _, j := range d.nodes {
		if other, ok := t.copyOf(d, j); ok && j != k && other.Synced > theirs.Synced {
			return false
		}
	}
	return last || theirs.Synced >= t.mayHaveWritten(d, t.promised(d, s), k, theirs)
}

// settled says that everything that was written here is on the other node's disk, and has that found out. The programs that write are
// stopped. It gives up after a while.
func (t *turn) settled(d duty, s *Duty) bool {
	if _, ok := t.mirror(d); !ok || t.p.Off.Settle {
		return true
	}
	if s.Halted == 0 {
		s.Halted = t.Now
	}
	if t.Settled[d.name] > s.Halted {
		return true
	}
	t.act(Settle{Reason: Reason(fmt.Sprintf("%s moves to %s when that has all its data", d.title(), s.To)), Role: d.name})
	t.in(20 * time.Millisecond)
	if limit := s.Halted.Add(t.p.Timings.Settle); t.Now <= limit {
		t.at(limit + 1)
		return false
	}
	why := fmt.Sprintf("%s did not get all its data within %s", s.To, ms(t.p.Timings.Settle))
	if t.Orders.Leave {
		t.release(d, s, t.p.Self+" is going down, and "+why+"; what is missing there stays on this disk")
		return false
	}
	t.note(NoteMoved, t.p.Self, d.name, fmt.Sprintf("%s stays with %s: %s", d.title(), t.p.Self, why))
	s.stay()
	s.Again = t.Now.Add(10 * t.p.Timings.Detection)
	return false
}
