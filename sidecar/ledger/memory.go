package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Faults is what is wrong with a Memory. The zero value: nothing.
type Faults struct {
	Away   bool          // every call fails and does nothing
	Silent bool          // every call does its work, and then its answer is lost
	Delay  time.Duration // before every call's work
	// Deaf: Create does not look whether there is an object, like a store that ignores If-None-Match.
	Deaf bool
	// Blind: List knows nothing, like a store that was restored from nothing.
	Blind bool
}

// ErrAway is what a Memory that is away answers.
var ErrAway = errors.New("the store is away")

// Memory is a Store for tests, with the faults of a real one.
type Memory struct {
	mu      sync.Mutex
	objects map[string]stored
	faults  Faults
	calls   int
}

type stored struct {
	body     []byte
	modified time.Time
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: map[string]stored{}} }

// Set replaces the faults, for calls that begin from now on.
func (m *Memory) Set(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
}

// Calls is how many calls there have been.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// do runs one call with the present faults.
func (m *Memory) do(ctx context.Context, work func(f Faults) error) error {
	m.mu.Lock()
	f := m.faults
	m.calls++
	m.mu.Unlock()
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ask the store: %w", err)
	}
	if f.Away {
		return ErrAway
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := work(f); err != nil {
		return err
	}
	if f.Silent {
		return fmt.Errorf("%w: the answer was lost", ErrAway)
	}
	return nil
}

// Create implements Store.
func (m *Memory) Create(ctx context.Context, key string, body []byte) (meta Meta, err error) {
	err = m.do(ctx, func(f Faults) error {
		if _, ok := m.objects[key]; ok && !f.Deaf {
			return ErrExists
		}
		meta = m.put(key, body)
		return nil
	})
	return meta, err
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, key string, body []byte) (meta Meta, err error) {
	err = m.do(ctx, func(Faults) error {
		meta = m.put(key, body)
		return nil
	})
	return meta, err
}

func (m *Memory) put(key string, body []byte) Meta {
	now := time.Now()
	m.objects[key] = stored{bytes.Clone(body), now}
	return Meta{now, now}
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key string) (body []byte, meta Meta, err error) {
	err = m.do(ctx, func(Faults) error {
		o, ok := m.objects[key]
		if !ok {
			return ErrNotFound
		}
		body, meta = bytes.Clone(o.body), Meta{time.Now(), o.modified}
		return nil
	})
	return body, meta, err
}

// List implements Store.
func (m *Memory) List(ctx context.Context, prefix, after string) (all []Object, meta Meta, err error) {
	err = m.do(ctx, func(f Faults) error {
		meta.Date = time.Now()
		for _, key := range slices.Sorted(maps.Keys(m.objects)) {
			if !f.Blind && strings.HasPrefix(key, prefix) && key > after {
				all = append(all, Object{key, Meta{meta.Date, m.objects[key].modified}})
			}
		}
		return nil
	})
	if err != nil {
		return nil, Meta{}, err
	}
	return all, meta, nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, key string) error {
	return m.do(ctx, func(Faults) error {
		delete(m.objects, key)
		return nil
	})
}
