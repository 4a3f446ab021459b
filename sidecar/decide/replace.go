package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// Replacement gives a lost node a new machine, in steps that anybody can go on with when the one who acts is lost, because each
// is an object in the ledger or shows at the provider: intent → tombstone → fence → call → create → claimed → serving → the old
// machine is deleted → closed. What must never happen, and why it does not, is in sidecar/DESIGN.md.

// hiring is a turn's work on replacements. Only the coordinator does it, and only while nothing is doubtful about that.
type hiring struct {
	*turn
	epoch uint64 // of coordination
	alone bool   // the duty is held by the ledger's word: this side is no majority
	// busy are the nodes with an open intent whose old machine the provider does not know to be gone.
	busy []string
	// opening is how many intents this turn opens.
	opening int
}

// replace looks at every member.
func (t *turn) replace() {
	s := t.duties[cluster.Coordinator]
	if s.Hold.State != cluster.Held || t.Machine == "" || !t.Ledger.Configured || !t.mayAct(duty{name: cluster.Coordinator}, &s) {
		return
	}
	h := &hiring{turn: t, epoch: s.Hold.Epoch, alone: s.Lease}
	var lost []loss
	for _, k := range t.p.hireOrder() {
		if in := t.Ledger.Intents[k]; in.Open() {
			if !h.free(k) && !h.copies(k) {
				h.busy = append(h.busy, k)
			}
		} else if l := h.lost(k); l.why != "" {
			lost = append(lost, l)
		}
	}
	if len(lost)+len(h.busy) > 0 || h.anyOpen() {
		if why := h.unable(); why != "" {
			for _, k := range t.p.hireOrder() {
				if t.Ledger.Intents[k].Open() || slices.ContainsFunc(lost, func(l loss) bool { return l.node == k }) {
					t.blocked("replacement of "+k, why)
				}
			}
			return
		}
	}
	for _, k := range t.p.hireOrder() {
		if in := t.Ledger.Intents[k]; in.Open() {
			h.proceed(k, in)
		}
	}
	for _, l := range lost {
		h.open(l)
	}
	h.collect()
}

// hireOrder are the members that have machines of roles, each role after those it needs.
func (p Policy) hireOrder() []string {
	var all []string
	for _, r := range p.Hire {
		for i := range p.Roles {
			if p.Roles[i].Name == r {
				all = append(all, p.Roles[i].Nodes...)
			}
		}
	}
	return all
}

func (h *hiring) anyOpen() bool {
	return slices.ContainsFunc(h.p.hireOrder(), func(k string) bool { return h.Ledger.Intents[k].Open() })
}

// unable says why nothing can be replaced at all, by anybody.
func (h *hiring) unable() string {
	if h.Orders.Pause {
		return "this node is paused; understudy resume ends that"
	}
	if why := h.noLedger(); why != "" {
		return why
	}
	h.leased = true // what is decided here wants fresh readings
	if !h.Claim.Mine {
		return "this machine is not " + h.p.Self + " any more"
	}
	return h.noList(listEvery)
}

// noList says why the list of machines cannot be relied on. A list that lacks this very machine is somebody else's, or cut short.
func (t *turn) noList(every time.Duration) string {
	l := t.List
	if t.Now.Since(l.At) > every {
		t.act(ReadList{Reason: "which machines are there?"})
	}
	t.in(every)
	switch {
	case t.Now.Since(l.At) > 3*every:
		return "the list of machines is awaited"
	case l.machine(t.Machine) == nil && !t.p.Off.List:
		return fmt.Sprintf("the list of machines does not have this one (%s), so it cannot be right", t.Machine)
	}
	return ""
}

// Pauses and limits of replacement.
const (
	// Between two lists, while somebody needs a machine and otherwise.
	listEvery, auditEvery = 2 * time.Second, 2 * time.Minute
	// agreeEvery is between two lists that must agree before something is done (ListReading.Agree).
	agreeEvery = time.Second
	// lostAfter is how long after the call a machine that no list shows is given up: providers' lists lag by seconds.
	lostAfter = 2 * time.Minute
	// collectAfter is how long a machine must have been seen to be unwanted. A ticket is void by then.
	collectAfter = 20 * time.Minute
	// Of tries that failed in a row for a node, see retryAfter. The fourth comes when a day has gone by without one.
	firstRetry, mostRetry = 5 * time.Minute, 30 * time.Minute
	mostTries             = 3
	forgetTries           = 24 * time.Hour
	// mostKept are the machines that were nodes, are off, and are not counted into the ceiling.
	mostKept = 3
)

// hourly is how many machines may be created in an hour: every node once, and every try of the node that fails most.
func (p Policy) hourly() int { return len(p.hireOrder()) + mostTries }

// loss is a node that needs a new machine.
type loss struct {
	node, why string
	free      bool // the provider says that the old one is gone, or there was none: nothing has to be waited for
}

// free says that no machine can be the node: the provider says so of its old one, or it never had one.
func (h *hiring) free(k string) bool {
	return h.neverClaimed(k) || h.gone(k) && h.Machines[k].Power == cluster.PowerGone
}

// lost decides whether a node needs a new machine. Its zero why: no, or not yet; then what it waits for is told.
func (h *hiring) lost(k string) loss {
	what := "replacement of " + k
	if k == h.p.Self || h.alive(k) {
		return loss{}
	}
	if h.neverClaimed(k) {
		return h.neverThere(k)
	}
	v := h.verdicts[k]
	if v.State != Failed && v.State != NeverHeard {
		return loss{}
	}
	h.askFor(k)
	if h.free(k) {
		return loss{node: k, why: "the provider says that its machine is gone", free: true}
	}
	if why := h.needed(k); why != "" {
		h.blocked(what, why)
		return loss{}
	}
	if h.alone {
		switch {
		case !h.gone(k):
			h.blocked(what, "this side of the cluster is no majority, and the provider does not say twice that the machine is off or gone")
		case !h.lately(k): // it may have been switched on
			h.askAbout(k)
			h.blocked(what, "the provider is asked once more whether its machine is off")
		default:
			return loss{node: k, why: "the provider says that its machine is off"}
		}
		return loss{}
	}
	if n := h.unheard(k); n < h.p.majority() && !h.p.Off.Verdicts {
		h.blocked(what, fmt.Sprintf("only %d members say that it is silent, %d must", n, h.p.majority()))
		return loss{}
	}
	if until := v.Since.Add(h.p.Timings.Hold); h.Now < until && !h.p.Off.HoldTime {
		h.at(until)
		h.blocked(what, fmt.Sprintf("it has failed only now; it may come back until %s after that", ms(h.p.Timings.Hold)))
		return loss{}
	}
	return loss{node: k, why: "silent for " + ms(h.silence(k)) + " to a majority"}
}

// needed says why a machine that may come back is not to be switched off: it may have the newest data of its role, because nobody
// has taken that over. Empty: it is not known to be so.
func (h *hiring) needed(k string) string {
	i := slices.IndexFunc(h.p.Roles, func(r Role) bool { return r.Data && r.Primary && slices.Contains(r.Nodes, k) })
	if i < 0 || h.p.Off.Needed {
		return ""
	}
	if _, discard := h.Ledger.wished(k, h.machineOf(k)); discard {
		return ""
	}
	d, mirrored := duty{name: h.p.Roles[i].Name, role: &h.p.Roles[i]}, false
	for _, j := range h.p.Roles[i].Nodes {
		said := &h.of(j).peer.Said
		if j == h.p.Self {
			if holding(h.duties[d.name].Hold.State) {
				return ""
			}
			said = &cluster.Announcement{Mirrors: h.Mirrors}
		} else if holding(holdOf(h.said(j), d.name).State) {
			return ""
		}
		_, ok := mirrorOf(said, d)
		mirrored = mirrored || ok
	}
	if !mirrored {
		return ""
	}
	return fmt.Sprintf("nobody has taken over %s, so its machine%s may have data that no other has: bring it back, or `understudy discard %s`",
		d.name, spaced(h.machineOf(k)), k)
}

// neverThere is about a node that no machine has ever claimed. A machine of its name may be on its way to that.
func (h *hiring) neverThere(k string) loss {
	if h.noList(listEvery) != "" {
		return loss{}
	}
	for _, m := range h.List.Machines {
		if m.Name == k && m.Power != cluster.PowerOff && !(m.Known && h.Now.Sub(m.First) > h.p.Timings.Startup) {
			h.blocked("a machine for "+k, fmt.Sprintf("machine %s of that name is there and has not claimed the identity yet", m.ID))
			return loss{}
		}
	}
	if h.List.Agree < 2 {
		h.noList(agreeEvery) // a whole cluster may be waiting for the second
		return loss{}
	}
	return loss{node: k, why: "it has never had a machine", free: true}
}

// unheard counts the voting members that are heard and say that they have not heard k for a detection time, this one included.
func (t *turn) unheard(k string) int {
	n := 0
	for _, j := range t.live {
		ago, ok := t.of(j).peer.Hears[k]
		switch {
		case j == t.p.Self && t.votes, j != t.p.Self && t.said(j).Voting && (!ok || ago >= t.detection(k)):
			n++
		}
	}
	return n
}

// askFor asks the provider about a silent member's machine.
func (t *turn) askFor(k string) {
	id := t.machineOf(k)
	if id == "" {
		return
	}
	every := time.Second
	if m := t.Machines[k]; m.ID == id && m.Same >= 2 {
		every = 5 * time.Second
	}
	if t.Now.Since(t.Machines[k].At) >= every || t.Machines[k].ID != id {
		t.askAbout(k)
	}
	t.in(every)
}

func (t *turn) askAbout(k string) {
	t.act(ReadMachine{Reason: Reason(fmt.Sprintf("%s is silent; is its machine there?", k)), Node: k, Machine: t.machineOf(k)})
}

// lately says that the provider's answer about a member's machine is new enough to act on where nobody else confirms it.
func (h *hiring) lately(k string) bool { return h.Now.Since(h.Machines[k].At) <= 5*time.Second }

// open begins a replacement, if that may be.
func (h *hiring) open(l loss) {
	k, was := l.node, h.Ledger.Intents[l.node]
	try, since := 1, h.ago(was.Closed.Age)
	if was.Closed.Outcome == cluster.Failed && since < forgetTries {
		try = was.Try + 1
	}
	why := ""
	switch kept, counted := h.count(); {
	case was.N > 0 && was.Closed.Outcome == "":
		return
	case len(h.busy) > 0 && !l.free && !h.p.Off.OneInFlight:
		why = fmt.Sprintf("%s is being replaced; one at a time", strings.Join(h.busy, ", "))
	case try > mostTries && !h.p.Off.Budget:
		why = fmt.Sprintf("%d tries have failed, the last because %s; the next one is %s after it", mostTries, was.Closed.Why, forgetTries)
	case try > 1 && since < h.p.retryAfter(try) && !h.p.Off.Budget:
		h.in(h.p.retryAfter(try) - since)
		why = fmt.Sprintf("the last try failed because %s; the next one is %s after it", was.Closed.Why, h.p.retryAfter(try))
	case h.hiredInAnHour()+h.opening >= h.p.hourly() && !h.p.Off.Budget:
		why = fmt.Sprintf("%d machines were created within an hour, which is the budget", h.hiredInAnHour()+h.opening)
	case counted+h.uncreated() >= h.p.mostMachines() && !h.p.Off.Ceiling:
		why = fmt.Sprintf("there are %d machines already and %d are to come, of at most %d (%d more are off)",
			counted, h.uncreated(), h.p.mostMachines(), kept)
	}
	if why != "" {
		h.blocked("replacement of "+k, why)
		return
	}
	if !l.free {
		h.busy = append(h.busy, k)
	}
	h.opening++
	c := h.Ledger.Claims[k]
	h.act(OpenIntent{
		Reason: Reason(fmt.Sprintf("%s needs a new machine: %s", k, l.why)), Expect: h.expect(), Free: l.free,
		Intent: cluster.Intent{
			Node: k, N: was.N + 1, Nonce: h.nonce(k), Replaces: c.Epoch, Machine: c.Machine, By: h.p.Self, Epoch: h.epoch, Try: try, Why: l.why,
			Unseen: !l.free && h.unseen(k),
		},
	})
}

// unseen says that a lost node's machine may have data that no other has: as it was the primary, or nobody here knows that it was not.
// Who copied has nothing of its own, but what the first comparison has put aside there, and reported.
func (h *hiring) unseen(k string) bool {
	i := slices.IndexFunc(h.p.Roles, func(r Role) bool { return r.Data && slices.Contains(r.Nodes, k) })
	if i < 0 {
		return false
	}
	m, ok := mirrorOf(&h.of(k).peer.Said, duty{name: h.p.Roles[i].Name, role: &h.p.Roles[i]})
	r := h.Ledger.Duties[h.p.Roles[i].Name]
	return !ok || m.Source || r.Machine == h.machineOf(k) && r.Epoch > m.Synced
}

// nonce is one of a kind: the view's, with the node's number for its last digits.
func (h *hiring) nonce(k string) string {
	return fmt.Sprintf("%.28s%04x", h.Nonce, slices.Index(h.p.Nodes, k))
}

// retryAfter is the pause before a node's try, from the second on. Where machines are given up sooner than by default, it is as
// much shorter.
func (p Policy) retryAfter(try int) time.Duration {
	s := p.Timings.Startup
	return min(mostRetry, 3*s, min(firstRetry, s/2)<<(try-2))
}

// ago turns an age that the ledger told into how long ago that is now.
func (h *hiring) ago(age time.Duration) time.Duration { return age + h.Now.Since(h.Ledger.ReadSent) }

func (h *hiring) expect() Expect { return Expect{Duty: cluster.Coordinator, Epoch: h.epoch} }

func (h *hiring) hiredInAnHour() int {
	n := 0
	for _, age := range h.Ledger.Hired {
		if h.ago(age) < time.Hour {
			n++
		}
	}
	return n
}

// mostMachines is how many machines there may be that count: one for every node, and one on its way.
func (p Policy) mostMachines() int { return len(p.hireOrder()) + 1 }

// uncreated is how many machines open intents may still bring.
func (h *hiring) uncreated() int {
	n := h.opening
	for _, k := range h.p.hireOrder() {
		if in := h.Ledger.Intents[k]; in.Open() && h.List.tagged(in.Tag()) == nil {
			n++
		}
	}
	return n
}

// count is how many machines are off that were nodes once, and how many others there are.
func (h *hiring) count() (kept, counted int) {
	for _, m := range h.List.Machines {
		if m.Power == cluster.PowerOff && m.Claimed > 0 && kept < mostKept {
			kept++
			continue
		}
		counted++
	}
	return kept, counted
}

// mayHaveData says that a machine was that of a node whose role has data.
func (h *hiring) mayHaveData(m Listed) bool {
	return m.Claimed > 0 && h.p.hasData(m.Name)
}

// proceed does the next step of an open intent.
func (h *hiring) proceed(k string, in cluster.Intent) {
	c := h.Ledger.Claims[k]
	switch {
	case c.Epoch > in.Replaces:
		h.arrived(k, in, c)
	case in.Called > 0:
		h.await(k, in)
	case h.alive(k) && !c.Tombstoned:
		h.close(in, cluster.Aborted, in.Machine, k+" is heard again")
	case in.Replaces > 0 && !c.Tombstoned && !h.p.Off.Tombstone:
		h.bury(k, in)
	case in.Replaces > 0 && !h.fenced(k, in) && !h.p.Off.Fence:
		h.fence(k, in)
	default:
		h.create(k, in)
	}
}

// bury ends the old machine's claim, after the provider was asked about that machine by its ID.
func (h *hiring) bury(k string, in cluster.Intent) {
	m := h.Machines[k]
	if h.askFor(k); m.ID != in.Machine {
		return
	}
	if why := h.foreign(k, m); why != "" {
		h.blocked("replacement of "+k, why)
		return
	}
	if h.alone && !h.free(k) && (!h.gone(k) || !h.lately(k)) {
		h.askAbout(k)
		h.blocked("replacement of "+k, "this side of the cluster is no majority, and the provider has not said twice, and lately, that the machine is off")
		return
	}
	// The loss may be over since the intent was written, by somebody who saw more.
	if !h.free(k) && !h.alone && h.unheard(k) < h.p.majority() && !h.p.Off.Verdicts {
		h.blocked("replacement of "+k, "fewer than a majority say that it is silent now")
		return
	}
	// Nor has a majority waited yet for what a minority began, which relied on a machine that was off and may run now.
	if until := h.verdicts[k].Since.Add(h.p.Timings.Hold); !h.free(k) && !h.alone && h.Now < until && !h.p.Off.HoldTime {
		h.at(until)
		h.blocked("replacement of "+k, "it may come back until "+ms(h.p.Timings.Hold)+" after it has failed")
		return
	}
	h.act(Tombstone{
		Reason: Reason(fmt.Sprintf("machine %s shall not be %s any more: %s", in.Machine, k, in.Why)), Expect: h.expect(), Node: k, Epoch: in.Replaces,
		Machine: in.Machine, Off: h.alone,
	})
}

// foreign says why a machine is not one that we may touch.
func (h *hiring) foreign(k string, m MachineReading) string {
	if m.Power == cluster.PowerGone || h.p.Off.Ours {
		return ""
	}
	if m.Name != k || !m.Ours {
		return fmt.Sprintf("machine %s, which has claimed to be it, is called %q and is not marked as the cluster's", m.ID, m.Name)
	}
	return ""
}

// fenced says that the provider, asked by ID after the tombstone, calls the old machine off or gone.
func (h *hiring) fenced(k string, in cluster.Intent) bool {
	m := h.Machines[k]
	return m.ID == in.Machine && m.Same >= 2 && (m.Power == cluster.PowerOff || m.Power == cluster.PowerGone)
}

func (h *hiring) fence(k string, in cluster.Intent) {
	m := h.Machines[k]
	h.askFor(k)
	if m.ID != in.Machine || m.Power == cluster.PowerOff || m.Power == cluster.PowerGone {
		return // it is asked once more
	}
	if why := h.foreign(k, m); why != "" {
		h.blocked("replacement of "+k, why)
		return
	}
	if h.alive(k) {
		h.blocked("replacement of "+k, "it is heard again; it keeps its machine if it claims the identity once more")
		return
	}
	if h.alone && !h.p.Off.Minority {
		h.blocked("replacement of "+k, "its machine runs again, and this side of the cluster is no majority: nobody here may touch it")
		return
	}
	h.act(PowerOff{
		Reason: Reason(fmt.Sprintf("machine %s must be off before %s gets another", in.Machine, k)), Expect: h.expect(),
		Node: k, Machine: in.Machine, Claim: in.Replaces,
	})
}

// create asks for the new machine, once for each intent.
func (h *hiring) create(k string, in cluster.Intent) {
	if h.List.tagged(in.Tag()) != nil {
		return // somebody's call is not in our reading of the ledger yet
	}
	if why := h.List.NoRoom(h.p, h.Machine, in, h.p.mostMachines()); why != "" {
		h.blocked("replacement of "+k, why)
		return
	}
	h.act(Create{
		Reason: Reason(fmt.Sprintf("%s gets a new machine: %s", k, in.Why)), Expect: h.expect(), Intent: in,
		Most: h.p.mostMachines(),
	})
}

// await waits for the new machine to claim the identity.
func (h *hiring) await(k string, in cluster.Intent) {
	called := h.ago(in.Called)
	m := h.List.tagged(in.Tag())
	switch {
	case m == nil && called > lostAfter:
		h.close(in, cluster.Failed, "", "the machine was asked for and never came to be")
	case called > h.p.Timings.Startup:
		h.close(in, cluster.Failed, "", fmt.Sprintf("the new machine has not joined within %s", h.p.Timings.Startup))
	default:
		h.waits(k, "it has been asked for and has not joined yet")
		h.in(time.Second)
	}
}

// waits tells what becomes of a new machine, in words that do not change while it does not.
func (h *hiring) waits(k, how string) {
	h.blocked("new machine of "+k, fmt.Sprintf("%s; %s after it was asked for it is given up", how, h.p.Timings.Startup))
}

// arrived follows the machine that has claimed the identity until it serves.
func (h *hiring) arrived(k string, in cluster.Intent, c cluster.Claim) {
	phase, claim := h.come(k)
	switch {
	case c.Machine == in.Machine:
		h.close(in, cluster.Aborted, c.Machine, "the old machine was not off and has claimed the identity again")
	case phase >= h.goal(k) && phase <= cluster.Serving && claim == c.Epoch:
		if h.parted(k, in) {
			h.close(in, cluster.Done, c.Machine, k+" has a machine again")
		}
	case h.copies(k):
		m, _ := h.copyOn(k)
		h.blocked("new machine of "+k, k+" "+Copying(m))
		h.in(time.Second)
	case h.ago(in.Called) > h.p.Timings.Startup:
		h.close(in, cluster.Failed, c.Machine, fmt.Sprintf("the new machine does not serve after %s", h.p.Timings.Startup))
	case claim != c.Epoch:
		h.waits(k, fmt.Sprintf("machine %s has joined and prepares itself (there: journalctl -u understudy-bootstrap)", c.Machine))
		h.in(time.Second)
	default:
		h.waits(k, fmt.Sprintf("machine %s is %s", c.Machine, phase))
		h.in(time.Second)
	}
}

// come is how far a node has come, and under which claim, by its own word. It may be this one: the first machine of a cluster, or
// one that has come to coordinate before its own replacement was at its end.
func (h *hiring) come(k string) (cluster.Phase, uint64) {
	if k == h.p.Self {
		return h.phase(), h.Claim.Epoch
	}
	said := h.said(k)
	return said.Phase, said.Claim
}

// goal is the phase in which a new machine has done its part. One of a role with data serves when it has them; where nothing mirrors
// there is nothing to wait for.
func (h *hiring) goal(k string) cluster.Phase {
	if _, ok := h.copyOn(k); h.keeps(k) && !ok {
		return cluster.Applied
	}
	return cluster.Serving
}

// copyOn is what a node says of its role's data.
func (h *hiring) copyOn(k string) (cluster.Mirror, bool) {
	for i := range h.p.Roles {
		if r := &h.p.Roles[i]; slices.Contains(r.Nodes, k) {
			return h.copyOf(duty{name: r.Name, role: r}, k)
		}
	}
	return cluster.Mirror{}, false
}

// copies says that all that a new machine lacks is data. They take as long as they take, and another machine would not have them sooner.
func (h *hiring) copies(k string) bool {
	m, ok := h.copyOn(k)
	phase, claim := h.come(k)
	health := h.said(k).Health
	if k == h.p.Self {
		health = h.ownHealth()
	}
	return ok && phase == cluster.Applied && health == cluster.Healthy && claim > h.Ledger.Intents[k].Replaces && !(m.Complete && h.keepsUp(m))
}

// Copying says of a node how far its copy has come that does not keep up: "is copying: 120 MB behind".
func Copying(m cluster.Mirror) string {
	switch {
	case m.Epoch == 0:
		return "has no data yet, and nobody to copy them from"
	case m.Behind > 0:
		return fmt.Sprintf("is copying: %s behind", megabytes(m.Behind))
	case m.Complete && m.Lag < cluster.Forever:
		return fmt.Sprintf("is %s behind with its data", ms(m.Lag))
	}
	return "is copying the data"
}

// megabytes is a size for people, rounded up.
func megabytes(n uint64) string { return fmt.Sprintf("%d MB", (n+999_999)/1_000_000) }

// parted says that the old machine is deleted, or kept for what it may have. Until then it is being deleted.
func (h *hiring) parted(k string, in cluster.Intent) bool {
	if keep, _ := h.Ledger.wished(k, in.Machine); in.Replaces == 0 || h.keeps(k) && (in.Unseen || keep) {
		return true
	}
	old := h.List.machine(in.Machine)
	if old == nil {
		return true // a list that lags shows it again, and then it is collected
	}
	why := Reason(fmt.Sprintf("machine %s was %s, which has another now", in.Machine, k))
	switch {
	case old.Power == cluster.PowerOff:
		h.act(Delete{Reason: why, Expect: h.expect(), Node: k, Machine: in.Machine})
	case h.alone && !h.p.Off.Minority:
		return true // somebody has switched it on again; whoever has a majority collects it
	default:
		h.act(PowerOff{Reason: why, Expect: h.expect(), Node: k, Machine: in.Machine})
	}
	h.act(ReadList{Reason: Reason("is the old machine of " + k + " deleted?")})
	return false
}

// keeps says that old machines of a node may have data.
func (h *hiring) keeps(k string) bool { return h.p.hasData(k) }

// hasData says that a node's role has data.
func (p Policy) hasData(node string) bool {
	return slices.ContainsFunc(p.Roles, func(r Role) bool { return r.Data && slices.Contains(r.Nodes, node) })
}

func (h *hiring) close(in cluster.Intent, o cluster.Outcome, machine, why string) {
	h.act(CloseIntent{
		Reason:  Reason(fmt.Sprintf("the replacement of %s is %s: %s", in.Node, o, why)),
		Expect:  h.expect(),
		Closing: cluster.Closing{Node: in.Node, N: in.N, Outcome: o, Machine: machine, By: h.p.Self, Why: why},
	})
}

// NoRoom says why a fresh list does not allow an intent's machine to be asked for. Empty: it does.
func (l ListReading) NoRoom(p Policy, self string, in cluster.Intent, most int) string {
	h := &hiring{turn: &turn{View: View{List: l}, p: p}}
	switch _, counted := h.count(); {
	case l.machine(self) == nil && !p.Off.List:
		return fmt.Sprintf("the list of machines does not have this one (%s), so it cannot be right", self)
	case l.tagged(in.Tag()) != nil:
		return "the machine is there already"
	case counted >= most && !p.Off.Ceiling:
		return fmt.Sprintf("there are %d machines already, of at most %d", counted, most)
	}
	return ""
}

// machine is a machine of the list by its ID; nil: it is not there.
func (l ListReading) machine(id string) *Listed {
	for i := range l.Machines {
		if l.Machines[i].ID == id {
			return &l.Machines[i]
		}
	}
	return nil
}

// tagged is a machine of the list by a tag; nil: there is none.
func (l ListReading) tagged(tag string) *Listed {
	for i := range l.Machines {
		if slices.Contains(l.Machines[i].Tags, tag) {
			return &l.Machines[i]
		}
	}
	return nil
}
