package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"understudy/sidecar/cluster"
)

// Reseed fills a ledger that has lost records from what the nodes remember, and writes last that it is reseed r.Seed: from then on
// no reader misses what was there before and is not now. What somebody else has written meanwhile under a key stays: it is as new.
// After an error it may be repeated.
func (l *Ledger) Reseed(ctx context.Context, r cluster.Recall) error {
	for _, write := range l.writes(ctx, r) {
		if err := write(); err != nil && !isTaken(err) {
			return fmt.Errorf("reseed the ledger: %w", err)
		}
	}
	decoded := func(body []byte) (string, error) {
		s, err := decode[seed](body)
		return fmt.Sprintf("reseed %d", s.N), err
	}
	if err := create(ctx, l, seeds, nil, "", r.Seed, seed{r.Seed}, decoded); err != nil {
		return fmt.Errorf("reseed the ledger: %w", err)
	}
	l.forget()
	return nil
}

func isTaken(err error) bool {
	_, ok := errors.AsType[*TakenError](err)
	return ok
}

// writes are the records of what is remembered, in an order in which nothing is there before what it rests on.
func (l *Ledger) writes(ctx context.Context, r cluster.Recall) []func() error {
	var all []func() error
	for _, k := range slices.Sorted(maps.Keys(r.Claims)) {
		all = append(all, func() error { return l.ClaimIdentity(ctx, r.Claims[k]) })
	}
	for _, k := range slices.Sorted(maps.Keys(r.Buried)) {
		all = append(all, func() error {
			if r.Left[k] == r.Buried[k] {
				return l.Leave(ctx, k, r.Buried[k])
			}
			return l.Tombstone(ctx, k, r.Buried[k])
		})
	}
	for _, d := range slices.Sorted(maps.Keys(r.Duties)) {
		all = append(all, func() error { return l.WriteDuty(ctx, r.Duties[d]) })
	}
	if r.Tie.N > 0 {
		all = append(all, func() error { return l.ClaimTie(ctx, r.Tie) })
	}
	for _, k := range slices.Sorted(maps.Keys(r.Intents)) {
		all = append(all, func() error { return l.WriteIntent(ctx, r.Intents[k]) })
	}
	for _, k := range slices.Sorted(maps.Keys(r.Called)) {
		all = append(all, func() error { // nobody may make that call once more
			return l.WriteCall(ctx, cluster.Call{Node: k, N: r.Called[k], By: r.Intents[k].By, Mark: mark()})
		})
	}
	for _, k := range slices.Sorted(maps.Keys(r.Closed)) {
		all = append(all, func() error { return l.WriteClosing(ctx, r.Closed[k]) })
	}
	return all
}

// mark is the random mark of a call.
func mark() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// forget drops all that this process has seen: a reseed has made it void.
func (l *Ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.bodies)
	clear(l.newest)
}
