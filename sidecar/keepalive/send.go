//go:build linux

package keepalive

import (
	"net/netip"

	"understudy/sidecar/cluster"
)

// due is the beat that is to be sent now, and to whom. Its slices are used again by the next call that is given it.
type due struct {
	packet []byte
	to     []netip.AddrPort // empty: nobody, and there is no packet
	all    bool             // with it everybody has been sent what is said
	next   cluster.Instant  // when to ask again at the latest
}

// due finds out what is due and makes d of it. The caller sends it right away: now is taken for the instant of its sending.
func (n *node) due(now cluster.Instant, d *due) {
	n.noticeStall(now)
	n.compose(now, d)
	n.awaited = d.next
}

func (n *node) compose(now cluster.Instant, d *due) {
	d.to, d.packet, d.all, d.next = d.to[:0], d.packet[:0], false, now.Add(n.cfg.Beat)
	if n.said == nil {
		return
	}
	round := n.startRound(now)
	silent := n.tellSilence(now)
	d.all = n.pending && now >= n.newsSent.Add(apart)
	d.next = min(n.regular, silent)
	if n.pending && !d.all {
		d.next = min(d.next, n.newsSent.Add(apart))
	}
	fast := now >= n.fast
	for i, p := range n.order {
		n.watch(p, now)
		hurried := p.hurried(now, n.cfg)
		switch {
		case hurried && fast:
			n.fast = now.Add(n.cfg.Fast)
			d.next = min(d.next, n.fast)
		case hurried:
			d.next = min(d.next, n.fast)
		case p.missing == 0 && p.heard != 0:
			d.next = min(d.next, p.heard.Add(twoMissed(p.pace(n.cfg))))
		}
		if p.addr.IsValid() && (d.all || hurried && fast || round && n.turnOf(i, p)) {
			d.to = append(d.to, p.addr)
			p.stats.Sent++
		}
	}
	if d.all {
		n.pending, n.newsSent = false, now
	}
	if len(d.to) > 0 {
		d.packet = n.beat(d.packet, now, nil, header{})
	}
}

// tellSilence makes news of each peer whose silence has reached the detection time, once, and returns when the next one's may.
// Whoever takes over needs a majority that has noticed, and a regular beat may have gone out just before.
func (n *node) tellSilence(now cluster.Instant) cluster.Instant {
	soonest := n.regular
	for _, p := range n.order {
		if p.heard == 0 || p.told == p.heard {
			continue
		}
		every := p.pace(n.cfg)
		if at := p.heard.Add(n.cfg.detection() * ((every + n.cfg.Beat - 1) / n.cfg.Beat)); at <= now {
			p.told, n.pending = p.heard, true
		} else {
			soonest = min(soonest, at)
		}
	}
	return soonest
}

// startRound says whether a round of regular beats is due, and sets the time of the next one, which does not drift. After a
// pause the rounds missed are not made up for.
func (n *node) startRound(now cluster.Instant) bool {
	if now < n.regular {
		return false
	}
	if n.regular = n.regular.Add(n.cfg.Beat); n.regular <= now {
		n.regular = now.Add(n.cfg.Beat)
	}
	n.round++
	return true
}

// turnOf says whether the peer at place i is sent a beat in this round. Those at the slow pace take turns.
func (n *node) turnOf(i int, p *peer) bool {
	return n.every(p) == n.cfg.Beat || (n.round+i)%slower == 0
}

// watch notes whether beats between a peer and us fail to come, in either direction. One that we have not heard at all
// misses nothing. A peer that is silent where it was last heard is looked for where it should be.
func (n *node) watch(p *peer, now cluster.Instant) {
	silent := now.Since(p.heard)
	switch missing := p.heard != 0 && (silent >= twoMissed(p.pace(n.cfg)) || p.deaf >= twoMissed(n.every(p))); {
	case !missing:
		p.missing = 0
	case p.missing == 0:
		p.missing = now
		p.stats.Missed++
	}
	if p.heard != 0 && silent > n.cfg.detection() && p.given.IsValid() {
		p.addr = p.given
	}
}

// answer is a beat that names the one whose header it is given, for its sender alone. Nil: we have said nothing yet.
func (n *node) answer(p *peer, h header, now cluster.Instant) []byte {
	if n.said == nil {
		return nil
	}
	p.stats.Sent++
	n.reply = n.beat(n.reply[:0], now, p, h)
	return n.reply
}

// beat appends our next beat to packet. Where it says what we heard of p, it names h instead; without p, nothing is replaced.
func (n *node) beat(packet []byte, now cluster.Instant, p *peer, h header) []byte {
	n.seq++
	n.sent[n.seq%uint64(len(n.sent))] = now
	n.out.said, n.out.lags = n.said, n.lags
	n.out.heard = n.out.heard[:0]
	for _, q := range n.order {
		e, at := entry{Heard: q.newest(), Every: n.every(q)}, q.heard
		switch {
		case q == p:
			e.Session, e.Seq, at = h.session, h.seq, now
		case n.looking:
			e.Heard, at = q.shown, q.shownAt
			e.Peer = q.name // it may be a peer since
		}
		e.Ago = now.Sub(at)
		n.out.heard = append(n.out.heard, e)
	}
	n.plain = appendBody(n.plain[:0], &n.out)
	return n.mine.seal(appendHeader(packet, n.cfg.Self, n.mine.session, n.seq), n.seq, n.plain)
}
