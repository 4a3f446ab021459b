package watch

import (
	"container/heap"
	"time"
)

// mark is a path to which something has happened.
type mark struct {
	path        string
	tree        bool // it is a directory that is new
	first, last time.Time
	due         time.Time // when it counts as settled
	at          int       // in the queue
}

// mark notes that something has happened to a path now.
func (w *Watcher) mark(path string, tree bool) {
	now := time.Now()
	m := w.marks[path]
	if m == nil {
		if len(w.marks) >= w.o.MostPending {
			w.everything()
			return
		}
		m = &mark{path: path, first: now}
		w.marks[path] = m
		heap.Push(&w.queue, m)
	}
	m.last, m.tree = now, m.tree || tree
	m.due = w.dueAt(m)
	heap.Fix(&w.queue, m.at)
}

// dueAt is when a path is settled if nothing more happens to it: after an eighth of the time for which it has been written to, within
// bounds; and at the latest after MostUnsettled.
func (w *Watcher) dueAt(m *mark) time.Time {
	quiet := min(max(m.last.Sub(m.first)/8, w.o.Settle), max(500*time.Millisecond, w.o.Settle))
	due, latest := m.last.Add(quiet), m.first.Add(w.o.MostUnsettled)
	if due.After(latest) {
		return latest
	}
	return due
}

// settle hands over what is due, and sets the timer for the next.
func (w *Watcher) settle(now time.Time) {
	handed := false
	for len(w.queue) > 0 && !w.queue[0].due.After(now) {
		m := heap.Pop(&w.queue).(*mark)
		delete(w.marks, m.path)
		w.hand(m)
		handed = true
	}
	if handed {
		w.tellState()
		w.tell()
	}
	if len(w.queue) > 0 {
		w.wake.Reset(w.queue[0].due.Sub(now))
	}
}

// hand adds a path to what is ready. One that is there already will be looked at after this moment anyway.
func (w *Watcher) hand(m *mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &w.ready
	switch {
	case r.All:
	case len(r.Paths)+len(r.Trees) >= w.o.MostPending:
		w.ready = Changes{All: true, Barrier: r.Barrier}
		clear(w.known)
	case m.tree:
		r.Trees = append(r.Trees, m.path)
	case !w.known[m.path]:
		w.known[m.path] = true
		r.Paths = append(r.Paths, m.path)
	}
}

// marks is a heap by due time.
type marks []*mark

func (q marks) Len() int           { return len(q) }
func (q marks) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q marks) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *marks) Push(x any) {
	m := x.(*mark)
	m.at = len(*q)
	*q = append(*q, m)
}

func (q *marks) Pop() any {
	last := len(*q) - 1
	m := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return m
}
