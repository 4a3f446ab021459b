//go:build linux

package keepalive

import (
	"encoding/binary"
	"errors"
	"time"

	"understudy/sidecar/cluster"
)

var errAnnouncement = errors.New("announcement cannot be read")

// Flags of an announcement.
const (
	flagVoting = 1 << iota
	flagPaused
	flagClockOff
)

// Flags of a promise.
const (
	flagLease = 1 << iota
	flagClear
	flagAfterLease
)

// appendAnnouncement writes all of an announcement but the lags of its mirrors, see lags. Two that are equal but for those
// give the same bytes.
func appendAnnouncement(b []byte, a cluster.Announcement) []byte {
	b = binary.AppendUvarint(b, a.Claim)
	b = appendString(b, a.Machine)
	b = appendAddr(b, a.Private)
	b = appendAddr(b, a.Public)
	b = append(b, byte(a.Phase), byte(a.Health), flags(a))
	b = appendString(b, a.Commit)
	b = appendList(b, a.Promises, func(b []byte, p cluster.Promise) []byte {
		b = binary.AppendUvarint(appendString(b, p.Duty), p.Epoch)
		return append(appendString(b, p.Holder), promiseFlags(p))
	})
	b = appendList(b, a.Bids, func(b []byte, bid cluster.Bid) []byte {
		return appendFlag(binary.AppendUvarint(appendString(b, bid.Duty), bid.Epoch), bid.Lease)
	})
	b = appendList(b, a.Holds, func(b []byte, h cluster.Hold) []byte {
		b = binary.AppendUvarint(appendString(b, h.Duty), h.Epoch)
		return appendString(append(b, byte(h.State)), h.To)
	})
	b = appendList(b, a.Mirrors, func(b []byte, m cluster.Mirror) []byte {
		return appendFlag(appendString(b, m.Role), m.CaughtUp)
	})
	return appendList(b, a.Want, func(b []byte, m cluster.Move) []byte {
		return appendString(binary.AppendUvarint(appendString(b, m.Duty), m.From), m.To)
	})
}

func promiseFlags(p cluster.Promise) (f byte) {
	if p.Lease {
		f |= flagLease
	}
	if p.Clear {
		f |= flagClear
	}
	if p.AfterLease {
		f |= flagAfterLease
	}
	return f
}

func flags(a cluster.Announcement) (f byte) {
	if a.Voting {
		f |= flagVoting
	}
	if a.Paused {
		f |= flagPaused
	}
	if a.ClockOff {
		f |= flagClockOff
	}
	return f
}

// decodeAnnouncement reads what appendAnnouncement wrote, and nothing else; the lags are zero.
func decodeAnnouncement(b []byte) (cluster.Announcement, error) {
	r := &reader{rest: b}
	a := cluster.Announcement{Claim: r.varint(), Machine: r.string(), Private: r.addr(), Public: r.addr()}
	a.Phase = cluster.Phase(r.upTo(byte(cluster.Stopping)))
	a.Health = cluster.Health(r.upTo(byte(cluster.Unhealthy)))
	f := r.upTo(flagVoting | flagPaused | flagClockOff)
	a.Voting, a.Paused, a.ClockOff = f&flagVoting != 0, f&flagPaused != 0, f&flagClockOff != 0
	a.Commit = r.string()
	a.Promises = list(r, func(r *reader) cluster.Promise {
		p := cluster.Promise{Duty: r.string(), Epoch: r.varint(), Holder: r.string()}
		f := r.upTo(flagLease | flagClear | flagAfterLease)
		p.Lease, p.Clear, p.AfterLease = f&flagLease != 0, f&flagClear != 0, f&flagAfterLease != 0
		return p
	})
	a.Bids = list(r, func(r *reader) cluster.Bid {
		return cluster.Bid{Duty: r.string(), Epoch: r.varint(), Lease: r.flag()}
	})
	a.Holds = list(r, func(r *reader) cluster.Hold {
		h := cluster.Hold{Duty: r.string(), Epoch: r.varint(), State: cluster.HoldState(r.upTo(byte(cluster.Released))), To: r.string()}
		r.bad = r.bad || h.State == 0
		return h
	})
	a.Mirrors = list(r, func(r *reader) cluster.Mirror { return cluster.Mirror{Role: r.string(), CaughtUp: r.flag()} })
	a.Want = list(r, func(r *reader) cluster.Move {
		return cluster.Move{Duty: r.string(), From: r.varint(), To: r.string()}
	})
	if r.bad || len(r.rest) > 0 {
		return cluster.Announcement{}, errAnnouncement
	}
	return a, nil
}

// lags are how far an announcement's mirrors are behind.
func lags(a cluster.Announcement) []time.Duration {
	all := make([]time.Duration, 0, len(a.Mirrors))
	for _, m := range a.Mirrors {
		all = append(all, m.Lag)
	}
	return all
}

// setLags is the reverse of lags.
func setLags(a *cluster.Announcement, all []time.Duration) error {
	if len(all) != len(a.Mirrors) {
		return errAnnouncement
	}
	for i := range a.Mirrors {
		a.Mirrors[i].Lag = all[i]
	}
	return nil
}
