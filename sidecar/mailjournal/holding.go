package mailjournal

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Holding is a node's holder for one duty, opened when somebody first needs it: most nodes never hold mail.
type Holding struct {
	Options Options
	// Epoch is the highest epoch of the duty that this node knows, from its memory on disk, beats, or the ledger. Zero: none.
	Epoch func() uint64

	mu     sync.Mutex
	holder *Holder
}

// raiseEvery is how often a holder with a stream open is told what epoch its node has heard of.
const raiseEvery = time.Second

// Holder opens the holder, if that has not been done, and tells it the epoch.
func (h *Holding) Holder() (*Holder, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holder == nil {
		holder, err := OpenHolder(h.Options)
		if err != nil {
			return nil, err
		}
		for _, d := range holder.Damage() {
			h.Options.Log.Error("second copies of mail cannot be read", "damage", d)
		}
		h.holder = holder
	}
	h.holder.Raise(h.Epoch())
	return h.holder, nil
}

// Serve answers one primary, as Holder.Serve does. What was granted to another one meanwhile ends its appends.
func (h *Holding) Serve(ctx context.Context, conn net.Conn) error {
	holder, err := h.Holder()
	if err != nil {
		conn.Close()
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	g.Go(func() error {
		defer stop()
		return holder.Serve(ctx, conn)
	})
	g.Go(func() error {
		for pause(ctx, raiseEvery) == nil {
			holder.Raise(h.Epoch())
		}
		return nil
	})
	return g.Wait()
}

// Close closes the holder. End all Serve before.
func (h *Holding) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holder == nil {
		return nil
	}
	err := h.holder.Close()
	h.holder = nil
	return err
}
