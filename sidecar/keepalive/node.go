//go:build linux

package keepalive

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"understudy/sidecar/cluster"
)

// node is a mesh without its socket, timers and lock: what was said and heard, as of instants that the caller passes.
type node struct {
	cfg   Config
	keys  keys
	stats Stats

	mine  sealer                // of our session
	seq   uint64                // of our newest beat
	sent  [1024]cluster.Instant // when we sent our beats, by seq modulo its length
	peers map[string]*peer
	order []*peer // by name

	said    []byte // our announcement without its lags; nil: nothing yet, so we are silent
	lags    []lag
	duties  bool // we hold duties, or bid for some
	pending bool // not everybody has been sent what is said
	looking bool // somebody has looked and not spoken yet, see look

	round    int             // of regular beats, the present one
	regular  cluster.Instant // the next round
	fast     cluster.Instant // the earliest next beat to peers where some are missing
	newsSent cluster.Instant // when everybody was last sent a beat for its news
	awaited  cluster.Instant // when due should be called again at the latest; zero: it has not been called

	open, plain, reply []byte // used again and again: a body received, a body to send, an answer
	in, out            body
}

// peer is what is known of another member.
type peer struct {
	name  string
	given netip.AddrPort // by SetPeers
	addr  netip.AddrPort // where its newest beat came from, or given

	theirs    sealer // of its session; session zero: none has begun
	candidate sealer // of the newest session of it that has not, kept so that its key is made once
	seq       uint64 // of its newest beat
	named     uint64 // the highest seq of our session that it has named

	heard     cluster.Instant // its newest beat
	told      cluster.Instant // the one after which everybody was told that it is silent
	every     time.Duration   // the pace of its beats to us
	confirmed cluster.Instant
	deaf      time.Duration // how long it had not heard us at the sending of its newest beat
	raw       []byte        // its announcement as it came
	said      cluster.Announcement
	listed    []entry                  // of its newest beat
	hears     map[string]time.Duration // made from listed when somebody asks
	duties    bool                     // it holds duties, or bids for some

	shown   cluster.Heard   // what beats name of it while somebody is looking; Ago is not used
	shownAt cluster.Instant // arrival of that

	missing cluster.Instant // since when beats fail to come, in either direction; zero: they do not
	stats   PeerStats
}

func newNode(cfg Config, session uint64) (*node, error) {
	k, err := newKeys(cfg.Key)
	if err != nil {
		return nil, err
	}
	return &node{cfg: cfg, keys: k, mine: k.of(cfg.Self, session), stats: Stats{Refused: map[Reason]uint64{}}}, nil
}

// say replaces what is announced.
func (n *node) say(a cluster.Announcement) {
	said := appendAnnouncement(nil, a)
	if n.said == nil || !bytes.Equal(said, n.said) {
		n.pending = true
	}
	n.said, n.lags, n.duties, n.looking = said, lags(a), hasDuties(a), false
}

func hasDuties(a cluster.Announcement) bool { return len(a.Holds) > 0 || len(a.Bids) > 0 }

// setPeers replaces the members. What is known of those who stay is kept, and so is the address that such a peer was heard
// from, unless another one is given than last time.
func (n *node) setPeers(given map[string]netip.AddrPort) {
	peers := make(map[string]*peer, len(given))
	for name, addr := range given {
		if name == n.cfg.Self {
			continue
		}
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		p := n.peers[name]
		if p == nil {
			p = &peer{name: name}
		}
		if p.given != addr {
			p.given, p.addr = addr, addr
		}
		peers[name] = p
	}
	n.peers = peers
	n.order = slices.SortedFunc(maps.Values(peers), func(a, b *peer) int { return cmp.Compare(a.name, b.name) })
}

// reset forgets all that was said and heard, and begins a session.
func (n *node) reset(session uint64) {
	n.mine, n.seq, n.sent = n.keys.of(n.cfg.Self, session), 0, [len(n.sent)]cluster.Instant{}
	n.said, n.pending, n.looking = nil, false, false
	for name, p := range n.peers {
		*p = peer{name: name, given: p.given, addr: p.addr, stats: p.stats}
	}
}

// look holds what beats name of others until the next say. An announcement is decided on what was heard until somebody looked;
// would a beat name a newer one before it says what was decided, it might confirm under the old promise a holder who the new
// one says has nothing more from us.
func (n *node) look(now cluster.Instant) {
	n.noticeStall(now)
	if n.looking { // what the first one saw is the least that anybody saw
		return
	}
	n.looking = true
	for _, p := range n.order {
		p.shown, p.shownAt = p.newest(), p.heard
	}
}

// noticeStall takes note that this process, or the whole machine, stood still. Silence counts only while we listen: what came
// meanwhile may lie in the socket, and who shares our processors could not send. So all that was heard moves on by as long as
// we are late, which can make a peer seem alive for longer, and never dead sooner.
func (n *node) noticeStall(now cluster.Instant) {
	late := now.Sub(n.awaited)
	if n.awaited == 0 || late <= n.cfg.Fast {
		return
	}
	n.awaited = now
	for _, p := range n.order {
		p.heard = min(p.heard.Add(late), now)
	}
}

// newest is the peer's newest beat.
func (p *peer) newest() cluster.Heard {
	return cluster.Heard{Peer: p.name, Session: p.theirs.session, Seq: p.seq}
}

// snapshot returns what is known of every peer.
func (n *node) snapshot() map[string]cluster.Peer {
	all := make(map[string]cluster.Peer, len(n.order))
	for _, p := range n.order {
		if p.hears == nil && p.heard != 0 {
			p.hears = make(map[string]time.Duration, len(p.listed))
			for _, e := range p.listed {
				p.hears[e.Peer] = e.silence()
			}
		}
		all[p.name] = cluster.Peer{Heard: p.heard, Every: p.every, Confirmed: p.confirmed, Hears: p.hears, Said: p.said}
	}
	return all
}

// intern returns the name without making a string, if it is a member's.
func (n *node) intern(name []byte) string {
	if p := n.peers[string(name)]; p != nil {
		return p.name
	}
	if string(name) == n.cfg.Self {
		return n.cfg.Self
	}
	return string(name)
}

// every is the pace of our beats to a peer.
func (n *node) every(p *peer) time.Duration {
	if len(n.order) < n.cfg.FullMesh || n.duties || p.duties || n.sameRole(p) {
		return n.cfg.Beat
	}
	return slower * n.cfg.Beat
}

func (n *node) sameRole(p *peer) bool {
	role, has := n.cfg.Roles[n.cfg.Self]
	return has && n.cfg.Roles[p.name] == role
}

// pace is that of a peer's beats to us.
func (p *peer) pace(cfg Config) time.Duration {
	if p.every > 0 {
		return p.every
	}
	return cfg.Beat
}

// hurried says whether a peer is sent beats at the fast pace.
func (p *peer) hurried(now cluster.Instant, cfg Config) bool {
	return p.missing != 0 && now.Sub(p.missing) < fastFor*cfg.detection()
}

// twoMissed is the silence after which two beats of a pace have failed to come, with half of one for jitter.
func twoMissed(every time.Duration) time.Duration { return every * 5 / 2 }
