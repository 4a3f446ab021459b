package decide

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
)

// judge gives every peer its verdict. Silent to me alone is a broken link; failed is what a majority of those I hear has not
// heard either. Slow beats, where the roster is large, may be silent for longer.
func (t *turn) judge() {
	t.verdicts = map[string]Verdict{}
	tm := t.p.Timings
	for _, k := range t.p.Nodes {
		if t.alive(k) {
			t.live = append(t.live, k)
		}
	}
	for _, k := range t.p.Nodes {
		if k == t.p.Self {
			continue
		}
		was := t.was.Verdicts[k]
		if t.was.For != t.Started {
			was = Verdict{}
		}
		now := t.verdict(k)
		if now != was.State || was.Since == 0 {
			was = Verdict{State: now, Since: t.Now}
			t.noteVerdict(k, t.was.Verdicts[k].State, now)
		}
		t.verdicts[k] = was
		heard := max(t.of(k).peer.Heard, t.Started)
		for _, after := range []time.Duration{2*t.every(k) + tm.Slack, t.limit(k), t.limit(k) + t.detection(k)/2, tm.Reserved} {
			if at := heard.Add(after); at >= t.Now {
				t.at(at + cluster.Instant(time.Millisecond))
			}
		}
	}
	if t.Now.Sub(t.Started) <= tm.Detection {
		t.at(t.Started.Add(tm.Detection) + 1)
	}
}

func (t *turn) noteVerdict(k string, was, now Liveness) {
	switch {
	case now == Failed:
		t.note(NoteFailed, k, "", fmt.Sprintf("%s has failed: silent for %s to me and to a majority of those I hear", k, ms(t.silence(k))))
	case now == Broken:
		t.note(NoteBroken, k, "", fmt.Sprintf("the link to %s is broken: silent for %s to me, but most of those I hear hear it", k, ms(t.silence(k))))
	case now == Suspect:
		t.note(NoteSuspect, k, "", fmt.Sprintf("%s is suspect: silent for %s", k, ms(t.silence(k))))
	case now == Alive && was != Suspect:
		t.note(NoteReturned, k, "", k+" is heard")
	}
}

func (t *turn) verdict(k string) Liveness {
	silent := t.silence(k)
	switch {
	case silent > t.limit(k) && t.silentToMost(k):
		return Failed
	case silent > t.limit(k)+t.detection(k)/2: // by then the others have noticed, if it is more than a link
		return Broken
	case t.of(k).peer.Heard == 0:
		return NeverHeard
	case silent > 2*t.every(k)+t.p.Timings.Slack:
		return Suspect
	}
	return Alive
}

// silentToMost says that k is silent to me and to a majority of those I hear, me included.
func (t *turn) silentToMost(k string) bool {
	silent, total := 0, 0
	for _, j := range t.live {
		if j == k {
			continue
		}
		total++
		if j == t.p.Self {
			silent++
			continue
		}
		ago, ok := t.of(j).peer.Hears[k]
		if !ok || ago >= t.detection(k) {
			silent++
		}
	}
	return 2*silent > total
}

// silence is for how long nothing has come from k, counted from our own start if nothing ever has.
func (t *turn) silence(k string) time.Duration { return t.of(k).silent }

// seen is what a turn looks up again and again.
type seen struct {
	name   string
	peer   cluster.Peer
	silent time.Duration
	alive  bool
}

// of is what was seen of a member. There are few, so looking through them is quicker than a map.
func (t *turn) of(k string) *seen {
	for i := range t.room {
		if t.room[i].name == k {
			return &t.room[i]
		}
	}
	t.room = append(t.room, seen{name: k, peer: t.Peers[k]})
	s := &t.room[len(t.room)-1]
	s.silent = t.Now.Sub(max(s.peer.Heard, t.Started))
	s.alive = k == t.p.Self || s.peer.Heard != 0 && s.silent <= t.allowed(s.peer)
	return s
}

// allowed is how long a peer may be silent.
func (t *turn) allowed(p cluster.Peer) time.Duration {
	tm := t.p.Timings
	return tm.Detection*((max(p.Every, tm.Beat)+tm.Beat-1)/tm.Beat) + tm.Slack
}

// every is the pace of k's beats, detection and limit how long it may be silent at that pace: without and with the slack.
func (t *turn) every(k string) time.Duration {
	return max(t.of(k).peer.Every, t.p.Timings.Beat)
}

func (t *turn) detection(k string) time.Duration {
	tm := t.p.Timings
	return tm.Detection * ((t.every(k) + tm.Beat - 1) / tm.Beat)
}

func (t *turn) limit(k string) time.Duration { return t.allowed(t.of(k).peer) }

// alive says that k is heard. We always hear ourselves.
func (t *turn) alive(k string) bool { return t.of(k).alive }

// said is what a member says of itself; nothing if it is not alive. It must not be changed.
func (t *turn) said(k string) *cluster.Announcement {
	if s := t.of(k); s.alive {
		return &s.peer.Said
	}
	return &t.mute
}

// ms is a duration as short as it may be in a sentence.
func ms(d time.Duration) string {
	if d >= 10*time.Second {
		return d.Round(time.Second).String()
	}
	if d >= time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}
