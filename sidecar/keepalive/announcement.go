//go:build linux

package keepalive

import (
	"encoding/binary"
	"encoding/hex"
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

// Flags of a bid.
const (
	flagBidLease = 1 << iota
	flagLast
)

// Flags of a mirror.
const (
	flagSource = 1 << iota
	flagComplete
)

// Flags of a rollout.
const (
	flagBusy    = 1 << iota
	flagCurrent // the newest commit is the applied one
	flagRestarts
	flagNext
	flagUnreached
	flagLeaves
	flagDrained
)

// lag is what changes in a mirror from beat to beat.
type lag struct {
	caughtUp bool
	by       time.Duration
	behind   uint64
}

// appendAnnouncement writes all of an announcement but the lags of its mirrors, see lags. Two that are equal but for those
// give the same bytes.
func appendAnnouncement(b []byte, a cluster.Announcement) []byte {
	b = binary.AppendUvarint(b, a.Claim)
	b = appendString(b, a.Machine)
	b = appendAddr(b, a.Private)
	b = appendAddr(b, a.Public)
	b = append(b, byte(a.Phase), byte(a.Health), flags(a))
	b = appendCommit(b, a.Commit)
	b = appendList(b, a.Promises, func(b []byte, p cluster.Promise) []byte {
		b = binary.AppendUvarint(appendString(b, p.Duty), p.Epoch)
		return append(appendString(b, p.Holder), promiseFlags(p))
	})
	b = appendList(b, a.Bids, func(b []byte, bid cluster.Bid) []byte {
		return append(binary.AppendUvarint(appendString(b, bid.Duty), bid.Epoch), flagIf(bid.Lease, flagBidLease)|flagIf(bid.Last, flagLast))
	})
	b = appendList(b, a.Holds, func(b []byte, h cluster.Hold) []byte {
		b = binary.AppendUvarint(appendString(b, h.Duty), h.Epoch)
		return appendString(append(b, byte(h.State)), h.To)
	})
	b = appendList(b, a.Mirrors, func(b []byte, m cluster.Mirror) []byte {
		b = binary.AppendUvarint(appendString(b, m.Role), m.Epoch)
		b = append(b, flagIf(m.Source, flagSource)|flagIf(m.Complete, flagComplete))
		return binary.AppendUvarint(binary.AppendUvarint(b, m.Synced), m.From)
	})
	b = appendRollout(b, a.Rollout, a.Commit)
	return appendList(b, a.Want, func(b []byte, m cluster.Move) []byte {
		return appendString(binary.AppendUvarint(appendString(b, m.Duty), m.From), m.To)
	})
}

// appendRollout spares what is mostly so: the newest commit is the applied one, and nobody asks for anything.
func appendRollout(b []byte, x cluster.Rollout, applied string) []byte {
	current := x.Head == applied
	b = append(b, flagIf(x.Busy, flagBusy)|flagIf(current, flagCurrent)|flagIf(x.Restarts, flagRestarts)|flagIf(x.Next != 0, flagNext)|
		flagIf(x.Unreached, flagUnreached)|flagIf(x.Leaves, flagLeaves)|flagIf(x.Drained, flagDrained))
	b = binary.BigEndian.AppendUint64(b, x.Roster)
	if x.Next != 0 {
		b = binary.BigEndian.AppendUint64(b, x.Next)
	}
	if !current {
		b = appendCommit(b, x.Head)
	}
	b = appendString(appendCommit(b, x.Ask), x.Yield)
	return appendList(b, x.Bad, func(b []byte, bad cluster.BadCommit) []byte {
		return appendString(appendString(appendCommit(b, bad.Commit), bad.Node), bad.Why)
	})
}

func (r *reader) rollout(applied string) cluster.Rollout {
	f := r.upTo(flagBusy | flagCurrent | flagRestarts | flagNext | flagUnreached | flagLeaves | flagDrained)
	x := cluster.Rollout{Head: applied, Busy: f&flagBusy != 0, Restarts: f&flagRestarts != 0, Unreached: f&flagUnreached != 0,
		Leaves: f&flagLeaves != 0, Drained: f&flagDrained != 0, Roster: r.uint64()}
	if f&flagNext != 0 {
		x.Next = r.uint64()
		r.bad = r.bad || x.Next == 0
	}
	if f&flagCurrent == 0 {
		x.Head = r.commit()
		r.bad = r.bad || x.Head == applied // there is one way to write a thing
	}
	x.Ask, x.Yield = r.commit(), r.string()
	x.Bad = list(r, func(r *reader) cluster.BadCommit {
		bad := cluster.BadCommit{Commit: r.commit(), Node: r.string(), Why: r.string()}
		r.bad = r.bad || len(bad.Why) > cluster.MostWhy
		return bad
	})
	r.bad = r.bad || len(x.Bad) > cluster.MostBad
	return x
}

// Kinds of commits on the wire.
const (
	noCommit   = iota
	hashCommit // 20 bytes, which are told in hexadecimal
	textCommit // anything else
)

// appendCommit spares half of a commit's name.
func appendCommit(b []byte, commit string) []byte {
	hash, err := hex.DecodeString(commit)
	switch {
	case commit == "":
		return append(b, noCommit)
	case err == nil && len(hash) == hashSize && hex.EncodeToString(hash) == commit:
		return append(append(b, hashCommit), hash...)
	}
	return appendString(append(b, textCommit), commit)
}

// hashSize is that of SHA-1.
const hashSize = 20

func (r *reader) commit() string {
	switch r.upTo(textCommit) {
	case hashCommit:
		return hex.EncodeToString(r.bytes(hashSize))
	case textCommit:
		text := r.string()
		hash, err := hex.DecodeString(text)
		r.bad = r.bad || text == "" || err == nil && len(hash) == hashSize && hex.EncodeToString(hash) == text // there is one way to write a thing
		return text
	}
	return ""
}

func flagIf(set bool, flag byte) byte {
	if set {
		return flag
	}
	return 0
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
	a.Commit = r.commit()
	a.Promises = list(r, func(r *reader) cluster.Promise {
		p := cluster.Promise{Duty: r.string(), Epoch: r.varint(), Holder: r.string()}
		f := r.upTo(flagLease | flagClear | flagAfterLease)
		p.Lease, p.Clear, p.AfterLease = f&flagLease != 0, f&flagClear != 0, f&flagAfterLease != 0
		return p
	})
	a.Bids = list(r, func(r *reader) cluster.Bid {
		bid := cluster.Bid{Duty: r.string(), Epoch: r.varint()}
		f := r.upTo(flagBidLease | flagLast)
		bid.Lease, bid.Last = f&flagBidLease != 0, f&flagLast != 0
		return bid
	})
	a.Holds = list(r, func(r *reader) cluster.Hold {
		h := cluster.Hold{Duty: r.string(), Epoch: r.varint(), State: cluster.HoldState(r.upTo(byte(cluster.Released))), To: r.string()}
		r.bad = r.bad || h.State == 0
		return h
	})
	a.Mirrors = list(r, func(r *reader) cluster.Mirror {
		m := cluster.Mirror{Role: r.string(), Epoch: r.varint()}
		f := r.upTo(flagSource | flagComplete)
		m.Source, m.Complete = f&flagSource != 0, f&flagComplete != 0
		m.Synced, m.From = r.varint(), r.varint()
		return m
	})
	a.Rollout = r.rollout(a.Commit)
	a.Want = list(r, func(r *reader) cluster.Move {
		return cluster.Move{Duty: r.string(), From: r.varint(), To: r.string()}
	})
	if r.bad || len(r.rest) > 0 {
		return cluster.Announcement{}, errAnnouncement
	}
	return a, nil
}

// lags are how far an announcement's mirrors are behind.
func lags(a cluster.Announcement) []lag {
	all := make([]lag, 0, len(a.Mirrors))
	for _, m := range a.Mirrors {
		all = append(all, lag{m.CaughtUp, m.Lag, m.Behind})
	}
	return all
}

func appendLag(b []byte, l lag) []byte {
	return binary.AppendUvarint(appendDuration(appendFlag(b, l.caughtUp), l.by), l.behind)
}

func (r *reader) lag() lag { return lag{r.flag(), r.duration(), r.varint()} }

// setLags is the reverse of lags.
func setLags(a *cluster.Announcement, all []lag) error {
	if len(all) != len(a.Mirrors) {
		return errAnnouncement
	}
	for i := range a.Mirrors {
		m := &a.Mirrors[i]
		m.CaughtUp, m.Lag, m.Behind = all[i].caughtUp, all[i].by, all[i].behind
	}
	return nil
}
