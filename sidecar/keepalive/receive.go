//go:build linux

package keepalive

import (
	"bytes"
	"net/netip"
	"slices"

	"understudy/sidecar/cluster"
)

// received is what follows from a datagram.
type received struct {
	news  bool // for the one who decides
	hurry bool // beats fail to come: send more often
	// answer is a beat to send back at once to where the datagram came from, valid until the next call. Nil: none.
	answer []byte
}

// receive takes in a datagram.
func (n *node) receive(packet []byte, from netip.AddrPort, now cluster.Instant) received {
	n.noticeStall(now)
	n.stats.Received.add(len(packet))
	got, why := n.take(packet, from, now)
	if why != "" {
		n.stats.Refused[why]++
	}
	return got
}

func (n *node) take(packet []byte, from netip.AddrPort, now cluster.Instant) (received, Reason) {
	h, why := parseHeader(packet)
	if why != "" {
		return received{}, why
	}
	p := n.peers[string(h.sender)]
	if p == nil {
		return received{}, Stranger
	}
	key := n.keyOf(p, h.session)
	if n.open, why = n.unseal(key, h, packet); why != "" {
		return received{}, why
	}
	begun := h.session == p.theirs.session
	if begun && h.seq <= p.seq {
		return received{}, Stale
	}
	me := n.in.about(n.cfg.Self)
	if !begun && !n.proves(p, me) {
		return received{answer: n.answer(p, h, now)}, Unproven
	}
	changed, err := p.learn(&n.in)
	if err != nil {
		return received{}, Malformed
	}
	got := received{news: changed || !begun || now.Since(p.heard) >= twoMissed(p.pace(n.cfg))}
	p.theirs, p.seq, p.heard, p.addr = key, h.seq, now, from
	n.confirm(p, me)
	before := p.missing
	n.watch(p, now)
	got.hurry = p.missing != before && p.missing != 0
	p.stats.Received++
	if !begun {
		p.stats.Sessions++
		got.answer = n.answer(p, h, now)
	}
	return got, ""
}

// keyOf is the key of one of a peer's sessions.
func (n *node) keyOf(p *peer, session uint64) sealer {
	if session == p.theirs.session {
		return p.theirs
	}
	if session != p.candidate.session {
		p.candidate = n.keys.of(p.name, session)
	}
	return p.candidate
}

// unseal opens a packet and reads its body into n.in. It returns the space it used.
func (n *node) unseal(key sealer, h header, packet []byte) ([]byte, Reason) {
	open, err := key.open(n.open[:0], h, packet)
	if err != nil {
		return n.open, Forged
	}
	if _, err := decodeBody(open, &n.in, n.intern); err != nil {
		return open, Malformed
	}
	return open, ""
}

// proves says whether a peer's beat names a beat of ours that no beat of it has named: then it cannot be a recorded one.
func (n *node) proves(p *peer, me entry) bool {
	return me.Session == n.mine.session && me.Seq > p.named && me.Seq <= n.seq
}

// confirm notes what a peer's newest beat says of ours.
func (n *node) confirm(p *peer, me entry) {
	p.every, p.deaf = me.Every, 0
	if me.Session != n.mine.session {
		return
	}
	p.deaf = me.Ago
	if n.proves(p, me) {
		p.named = me.Seq
		if n.seq-me.Seq < uint64(len(n.sent)) { // else so long ago that it makes no difference
			p.confirmed = n.sent[me.Seq%uint64(len(n.sent))]
		}
	}
}

// learn takes in what a beat says, unless its announcement cannot be read. It tells whether that differs from the one before
// in more than lags.
func (p *peer) learn(b *body) (changed bool, err error) {
	said := p.said
	if changed = p.heard == 0 || !bytes.Equal(b.said, p.raw); changed {
		if said, err = decodeAnnouncement(b.said); err != nil {
			return false, err
		}
	}
	said.Mirrors = slices.Clone(said.Mirrors) // snapshots hold the old ones
	if err := setLags(&said, b.lags); err != nil {
		return false, err
	}
	p.raw = append(p.raw[:0], b.said...)
	p.said, p.duties = said, hasDuties(said)
	p.listed, p.hears = append(p.listed[:0], b.heard...), nil
	return changed, nil
}
