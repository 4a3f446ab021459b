package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// UnsoundError says that the store does not do what everything hangs on: that of several writers of one object exactly one
// wins, and that everybody can see so at once. Nothing may be armed that depends on it.
type UnsoundError struct{ Why string }

// Error says what the store did.
func (e *UnsoundError) Error() string {
	return "the store does not honour create-if-absent (If-None-Match: *): " + e.Why
}

// ErrNotImplemented is what a store answers that knows of the condition and refuses to heed it.
var ErrNotImplemented = errors.New("the store does not implement this")

// rounds is how often two writers race in one self-test: a store whose check and write are two steps is sound by luck in some.
const rounds = 3

// SelfTest proves that the store honours create-if-absent, as node. It returns nil then, an *UnsoundError if it does not, and
// another error if it could not tell. What it has written it deletes again.
func (l *Ledger) SelfTest(ctx context.Context, node string) error {
	if !nodeName.MatchString(node) {
		return fmt.Errorf("test the ledger: %q is no node", node)
	}
	for range rounds {
		key := l.cluster + ".selftest/" + node + "/" + rand.Text()
		err := l.race(ctx, key)
		// What stays, if this fails, is a small object under a prefix that nobody reads; a key that may not delete is no
		// unsound store.
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		_ = l.store.Delete(cctx, key)
		cancel()
		if err != nil {
			return fmt.Errorf("test the ledger: %w", err)
		}
	}
	return nil
}

// race lets two writers create one object at the same time, and a third after them.
func (l *Ledger) race(ctx context.Context, key string) error {
	bodies := [3][]byte{}
	for i := range bodies {
		bodies[i] = []byte(rand.Text())
	}
	var errs [2]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = l.store.Create(ctx, key, bodies[i]) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		switch {
		case errors.Is(err, ErrNotImplemented):
			return &UnsoundError{err.Error()}
		case err == nil:
			won++
			bodies[0], bodies[i] = bodies[i], bodies[0]
		case !errors.Is(err, ErrExists):
			return err
		}
	}
	switch won {
	case 0:
		return errors.New("of two writers of one object both were refused: it cannot be told who is at work")
	case 2:
		return &UnsoundError{"two writers of one object have both won"}
	}
	return l.after(ctx, key, bodies[0], bodies[2])
}

// after checks what everybody must see once an object is written: the winner's text, in a listing too, and no way to write
// it again.
func (l *Ledger) after(ctx context.Context, key string, winner, late []byte) error {
	body, _, err := l.store.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return &UnsoundError{"an object that was written cannot be read at once"}
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(body, winner) {
		return &UnsoundError{"the writer that was refused has written"}
	}
	listed, _, err := l.store.List(ctx, key, "")
	if err != nil {
		return err
	}
	if len(listed) != 1 || listed[0].Key != key {
		return &UnsoundError{"an object that was written is not listed at once"}
	}
	switch _, err := l.store.Create(ctx, key, late); {
	case err == nil:
		return &UnsoundError{"an object that was there has been written over"}
	case !errors.Is(err, ErrExists):
		return err
	}
	return nil
}
