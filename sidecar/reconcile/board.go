package reconcile

import (
	"maps"
	"sync"

	"understudy/sidecar/decide"
)

// board is where readings lie until the next turn looks at them. Its maps are replaced, never changed, so a copied view stays
// what it was.
type board struct {
	wake chan struct{} // has a value when something was put

	mu      sync.Mutex
	view    decide.View
	version uint64 // counts the changes
}

func newBoard() *board { return &board{wake: make(chan struct{}, 1)} }

// put changes the view and wakes the loop.
func (b *board) put(change func(v *decide.View)) {
	b.mu.Lock()
	change(&b.view)
	b.version++
	b.mu.Unlock()
	b.poke()
}

// poke wakes the loop without news.
func (b *board) poke() {
	select {
	case b.wake <- struct{}{}:
	default: // it is awake already
	}
}

// look copies the view, with the number of its newest change.
func (b *board) look() (decide.View, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view, b.version
}

// set replaces *m by a copy in which key has value.
func set[K comparable, V any](m *map[K]V, key K, value V) {
	next := make(map[K]V, len(*m)+1)
	maps.Copy(next, *m)
	next[key] = value
	*m = next
}
