package secrets

import (
	"context"
	"errors"
	"sync"
)

// ErrUsed is what Used.Claim returns when another recipient was first.
var ErrUsed = errors.New("ticket is used by another recipient")

// Used remembers which ticket was spent by whom, for as long as tickets live.
type Used interface {
	// Claim records that recipient (an age public key) spends the ticket with this nonce (hex). It returns nil to the
	// first recipient, every time; ErrUsed to all others; any other error when that cannot be told, or recorded for
	// good, now. It is safe for use by several goroutines.
	Claim(ctx context.Context, nonce, recipient string) error
}

// MemoryUsed is a Used that forgets when the process ends. It is enough where one process serves all joins and a restart
// of it outlives the tickets it issued; the cluster's own is the ledger. It needs no bound: only genuine tickets
// reach it, and each was made for one machine. The zero MemoryUsed is ready.
type MemoryUsed struct {
	mu sync.Mutex
	by map[string]string
}

// Claim implements Used.
func (u *MemoryUsed) Claim(_ context.Context, nonce, recipient string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if first, used := u.by[nonce]; used && first != recipient {
		return ErrUsed
	}
	if u.by == nil {
		u.by = make(map[string]string)
	}
	u.by[nonce] = recipient
	return nil
}
