package main

import (
	"time"

	"understudy/bootstrap/control"
	"understudy/bootstrap/secrets"
)

// oneTry is the bound of a try that is local work or one question to a near service. It is generous: a
// machine that swaps is slow, not hung.
func (b *boot) oneTry() time.Duration { return time.Minute }

// fetchLimit is the bound of two rounds over all sources, each of which has its own: one for the pinned commit, one for the newest.
func (b *boot) fetchLimit() time.Duration {
	limit := b.oneTry()/2 + secrets.MaxPeers*peerTimeout
	for _, s := range b.cfg.From() {
		if s.Timeout > 0 {
			limit += s.Timeout
		} else {
			limit += control.DefaultSourceTimeout
		}
	}
	return 2 * limit
}
