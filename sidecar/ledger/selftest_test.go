package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

func TestSoundStorePassesAndIsLeftClean(t *testing.T) {
	store := NewMemory()
	if err := New(store, "blog").SelfTest(t.Context(), "web1"); err != nil {
		t.Errorf("got %v", err)
	}
	left, _, err := store.List(t.Context(), "", "")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// lax wraps a store to be wrong in one way.
type lax struct {
	Store
	create func(ctx context.Context, key string, body []byte) (Meta, error)
	list   func(ctx context.Context, prefix, after string) ([]Object, Meta, error)
	get    func(ctx context.Context, key string) ([]byte, Meta, error)
}

func (l lax) Create(ctx context.Context, key string, body []byte) (Meta, error) {
	if l.create == nil {
		return l.Store.Create(ctx, key, body)
	}
	return l.create(ctx, key, body)
}

func (l lax) List(ctx context.Context, prefix, after string) ([]Object, Meta, error) {
	if l.list == nil {
		return l.Store.List(ctx, prefix, after)
	}
	return l.list(ctx, prefix, after)
}

func (l lax) Get(ctx context.Context, key string) ([]byte, Meta, error) {
	if l.get == nil {
		return l.Store.Get(ctx, key)
	}
	return l.get(ctx, key)
}

func TestUnsoundStoresAreFoundOut(t *testing.T) {
	for name, make := range map[string]func(*Memory) Store{
		"ignores the condition": func(m *Memory) Store { m.Set(Faults{Deaf: true}); return m },
		"refuses the condition": func(m *Memory) Store {
			return lax{Store: m, create: func(context.Context, string, []byte) (Meta, error) {
				return Meta{}, fmt.Errorf("%w: %w", ErrNotImplemented, &StatusError{Status: 501})
			}}
		},
		// Says no and writes all the same.
		"lies": func(m *Memory) Store {
			return lax{Store: m, create: func(ctx context.Context, key string, body []byte) (Meta, error) {
				meta, err := m.Create(ctx, key, body)
				if errors.Is(err, ErrExists) {
					_, _ = m.Put(ctx, key, body)
				}
				return meta, err
			}}
		},
		// Looks and writes in two steps, between which the other writer looks.
		"is not atomic": func(m *Memory) Store {
			var mu sync.Mutex
			waiting := map[string]chan struct{}{}
			return lax{Store: m, create: func(ctx context.Context, key string, body []byte) (Meta, error) {
				if _, _, err := m.Get(ctx, key); err == nil {
					return Meta{}, ErrExists
				}
				mu.Lock()
				other, ok := waiting[key]
				if !ok {
					other = make(chan struct{})
					waiting[key] = other
				} else {
					close(other)
				}
				mu.Unlock()
				<-other
				return m.Put(ctx, key, body)
			}}
		},
		"lists later": func(m *Memory) Store {
			return lax{Store: m, list: func(context.Context, string, string) ([]Object, Meta, error) { return nil, Meta{}, nil }}
		},
		"reads later": func(m *Memory) Store {
			return lax{Store: m, get: func(context.Context, string) ([]byte, Meta, error) { return nil, Meta{}, ErrNotFound }}
		},
		"forgets the condition when it is late": func(m *Memory) Store {
			var mu sync.Mutex
			asked := map[string]int{}
			return lax{Store: m, create: func(ctx context.Context, key string, body []byte) (Meta, error) {
				mu.Lock()
				asked[key]++
				third := asked[key] > 2
				mu.Unlock()
				if third {
					return m.Put(ctx, key, body)
				}
				return m.Create(ctx, key, body)
			}}
		},
	} {
		var unsound *UnsoundError
		if err := New(make(NewMemory()), "blog").SelfTest(t.Context(), "web1"); !errors.As(err, &unsound) {
			t.Errorf("a store that %s: got %v, want an *UnsoundError", name, err)
		}
	}
}

func TestStoreThatIsAwayIsNotUnsound(t *testing.T) {
	for name, f := range map[string]Faults{"away": {Away: true}, "answers lost": {Silent: true}} {
		store := NewMemory()
		store.Set(f)
		var unsound *UnsoundError
		if err := New(store, "blog").SelfTest(t.Context(), "web1"); err == nil || errors.As(err, &unsound) {
			t.Errorf("%s: got %v, want another error", name, err)
		}
	}
	// Two writers that keep each other out: AWS may answer both with 409.
	busy := lax{Store: NewMemory(), create: func(context.Context, string, []byte) (Meta, error) { return Meta{}, ErrExists }}
	var unsound *UnsoundError
	if err := New(busy, "blog").SelfTest(t.Context(), "web1"); err == nil || errors.As(err, &unsound) {
		t.Errorf("both refused: got %v, want another error", err)
	}
	if err := New(busy, "blog").WriteDuty(t.Context(), lb(1, "lb1")); err == nil || errors.As(err, new(*TakenError)) {
		t.Errorf("a conflict with nobody: got %v, want an error that does not name a winner", err)
	}
}
