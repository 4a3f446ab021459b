package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Options say what an episode is made of.
type Options struct {
	Off decide.Rails
	// Shape names the cluster, see shapes. Empty: the seed chooses.
	Shape string
	// Only are the kinds of faults that happen. Empty: all.
	Only []string
	// Script is what happens instead of what the seed would choose.
	Script []Step
	// History keeps what happened in words.
	History bool
	// Length is what is played instead of an hour, and Every the mean time from one schedule of faults to the next, each of which
	// has the hour after it to itself. Zero: an hour with one schedule at its beginning.
	Length, Every time.Duration
	// Cluster is what is played instead of the shapes here.
	Cluster *Cluster
}

// Step is one fault of a script.
type Step struct {
	At    time.Duration
	Kind  string
	On    string // the node it befalls, or several joined by "+"; empty: the seed chooses
	Lasts time.Duration
}

// Report is what an episode came to.
type Report struct {
	Seed       uint64
	Trace      uint64   // hash of all that happened
	Violations []string // of the laws, with the time; the first ones
	History    []string
	Turns      int // calls of decide.Next
	Leaps      int
	Takeovers  int // a node began to act
	Leases     int // of those, by the ledger's word
	Created    int // machines
	Faults     int
	Waiting    int // roles with data that a person must help, when everything else had settled
	Lasted     time.Duration
	// Lost says that all nodes with a role were gone in the end of a longer history, which is over then: only a beachhead could go on.
	Lost bool
	// Maimed is for how long in all not every node was there, and Healed how long each such time lasted.
	Maimed time.Duration
	Healed []time.Duration
	// Holders has who holds a duty in the end; several are joined by "+".
	Holders map[string]string
	// Gap is the longest time between a gate's closing and the next one's opening, after the first fault began.
	Gap time.Duration
}

// Hour is what an episode lasts.
const Hour = time.Hour

// settle is how long after the last fault every duty must be held again: a lease is waited out, after half of the roster has
// been watched for as long as a heartbeat object takes to go stale.
const settle = 90 * time.Second

// Run plays one episode.
func Run(seed uint64, o Options) (r Report) {
	w := newWorld(seed, o)
	defer func() {
		if p := recover(); p != nil { // decide has panicked: that is a finding, too
			w.violated("decide panicked: %v", p)
			r = w.report()
		}
	}()
	w.begin()
	w.run()
	return w.report()
}

// world is everything that no node sees whole.
type world struct {
	o      Options
	seed   uint64
	rng    *rand.Rand
	now    moment
	shape  shape
	nodes  []*node
	links  [][]link // from, to
	air    queue[flight]
	events queue[func()]
	ledger ledger
	cloud  cloud
	zone   zone
	data   map[string]*writing // by role
	// copiesSlow counts the faults that let copies follow later.
	copiesSlow int
	room       decide.Room
	laws       laws

	quietUntil moment // earliest next leap
	leap       time.Duration
	slept      time.Duration // leapt over since every node had a turn
	report_    Report
	hash       uint64
	lastFault  moment // end of the last fault
	firstFault moment
	active     int // faults under way
	end        moment
	maimed     moment  // since when not every node is there; never: all are
	struck     []*node // whom a script's fault befalls
}

func newWorld(seed uint64, o Options) *world {
	w := &world{o: o, seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5eed)), leap: firstLeap, maimed: never, data: map[string]*writing{}}
	if w.end = moment(Hour); o.Length > 0 {
		w.end = moment(o.Length)
	}
	w.report_.Seed = seed
	w.hash = fnvOffset
	w.shape = w.chooseShape()
	return w
}

// begin starts all nodes and plans the faults.
func (w *world) begin() {
	w.populate()
	w.plan()
}

// run plays the events in the order of their times, until the hour is over.
func (w *world) run() {
	for w.now < w.end && len(w.report_.Violations) < 3 {
		at := min(w.air.next(), w.events.next())
		var who *node
		what := nothing
		for _, n := range w.nodes {
			if next, kind := n.next(); next < at {
				at, who, what = next, n, kind
			}
		}
		if at > w.end {
			break
		}
		w.now = max(w.now, at)
		switch {
		case what == turnDue:
			w.turn(who)
			w.watchWhole(false)
			w.tryLeap()
		case what == beatDue:
			w.sendAll(who)
		case what == fastDue:
			w.sendFast(who)
		case w.air.next() <= w.events.next():
			w.land(w.air.pop())
		default:
			w.events.pop()()
		}
	}
	w.checkEnd()
	w.watchWhole(true)
	w.report_.Holders = map[string]string{}
	for _, duty := range w.duties() {
		w.report_.Holders[duty] = strings.Join(w.holders(duty), "+")
	}
}

// watchWhole measures for how long not every node is there, once all have been. The last one ends any such time.
func (w *world) watchWhole(last bool) {
	if w.firstFault == 0 {
		return
	}
	switch whole := w.whole(); {
	case !whole && w.maimed == never:
		w.maimed = w.now
	case w.maimed != never && (whole || last):
		took := w.now.sub(w.maimed)
		w.report_.Maimed += took
		if w.maimed = never; whole {
			w.report_.Healed = append(w.report_.Healed, took)
		}
	}
}

// after plans an event.
func (w *world) after(d time.Duration, f func()) { w.events.push(w.now.add(d), f) }

// between is a duration from a to b, evenly spread.
func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

func (w *world) report() Report {
	w.report_.Lasted = w.end.sub(0)
	w.report_.Trace = w.hash
	return w.report_
}

// note adds to the trace, and to the history if that is kept.
func (w *world) note(who, what string) {
	w.mix(uint64(w.now))
	w.mixText(who)
	w.mixText(what)
	w.tell(who, what)
}

// tell adds to the history only.
func (w *world) tell(who, what string) {
	if w.o.History {
		w.report_.History = append(w.report_.History, fmt.Sprintf("%12s  %-6s %s", w.now, who, what))
	}
}

func (w *world) violated(format string, args ...any) {
	text := fmt.Sprintf("at %s: ", w.now) + fmt.Sprintf(format, args...)
	w.note("LAW", text)
	w.report_.Violations = append(w.report_.Violations, text)
}

const fnvOffset, fnvPrime = 14695981039346656037, 1099511628211

func (w *world) mix(v uint64) { w.hash = (w.hash ^ v) * fnvPrime }

func (w *world) mixText(s string) {
	for i := range len(s) {
		w.mix(uint64(s[i]))
	}
}

// mixSay takes an announcement into the trace.
func (w *world) mixSay(a *cluster.Announcement) {
	w.mix(uint64(w.now))
	for _, x := range a.Promises {
		w.mixText(x.Duty + x.Holder)
		w.mix(x.Epoch)
	}
	for _, b := range a.Bids {
		w.mixText(b.Duty)
		w.mix(b.Epoch)
	}
	for _, h := range a.Holds {
		w.mixText(h.Duty + h.To)
		w.mix(h.Epoch<<8 | uint64(h.State))
	}
}

// queue keeps things in the order of their times, those of one time in the order they came.
type queue[T any] struct {
	heap []queued[T]
	seq  uint64
}

type queued[T any] struct {
	at   moment
	seq  uint64
	what T
}

const never = moment(1) << 62

func (q *queue[T]) next() moment {
	if len(q.heap) == 0 {
		return never
	}
	return q.heap[0].at
}

func (q *queue[T]) less(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *queue[T]) push(at moment, what T) {
	q.seq++
	q.heap = append(q.heap, queued[T]{at, q.seq, what})
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *queue[T]) pop() T {
	top := q.heap[0].what
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap[last] = queued[T]{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		small := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if q.less(c, small) {
				small = c
			}
		}
		if small == i {
			return top
		}
		q.heap[i], q.heap[small] = q.heap[small], q.heap[i]
		i = small
	}
}
