package decide

import (
	"fmt"
	"time"

	"understudy/sidecar/cluster"
)

// judge gives every peer its verdict. Silent to me alone is a broken link; failed is what a majority of those I hear has not
// heard either. Slow beats, where the roster is large, may be silent for longer.
func (t *turn) judge() {
	t.verdicts = make(map[string]Verdict, len(t.p.Nodes))
	tm := &t.p.Timings
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
		it := t.of(k)
		heard, limit := max(it.peer.Heard, t.Started), it.detection+tm.Slack
		for _, after := range [...]time.Duration{2*it.every + tm.Slack, limit, limit + it.detection/2, tm.Reserved} {
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
	it := t.of(k)
	silent, limit := it.silent, it.detection+t.p.Timings.Slack
	switch {
	case silent > limit && t.silentToMost(k):
		return Failed
	case silent > limit+it.detection/2: // by then the others have noticed, if it is more than a link
		return Broken
	case it.peer.Heard == 0:
		return NeverHeard
	case silent > 2*it.every+t.p.Timings.Slack:
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

// Room is memory that turns use again, one after the other. It holds nothing from one to the next.
type Room struct{ seen []seen }

// seen is what a turn looks up again and again.
type seen struct {
	name      string
	peer      cluster.Peer
	silent    time.Duration
	every     time.Duration // the pace of its beats
	detection time.Duration // how long it may be silent at that pace
	alive     bool
}

// of is what was seen of a member. There are few, so looking through them is quicker than a map; most look at them in the
// roster's order, so the next one is tried first.
func (t *turn) of(k string) *seen {
	if i := t.next; i < len(t.room) && t.room[i].name == k {
		t.next++
		return &t.room[i]
	}
	for i := range t.room {
		if t.room[i].name == k {
			t.next = i + 1
			return &t.room[i]
		}
	}
	t.room = append(t.room, seen{name: k, peer: t.Peers[k]})
	t.next = len(t.room)
	s := &t.room[len(t.room)-1]
	tm := &t.p.Timings
	s.every = max(s.peer.Every, tm.Beat)
	s.detection = tm.Detection * ((s.every + tm.Beat - 1) / tm.Beat)
	s.silent = t.Now.Sub(max(s.peer.Heard, t.Started))
	s.alive = k == t.p.Self || s.peer.Heard != 0 && s.silent <= s.detection+tm.Slack
	return s
}

// detection and limit are how long a member may be silent at the pace of its beats: without and with the slack.
func (t *turn) detection(k string) time.Duration { return t.of(k).detection }

func (t *turn) limit(k string) time.Duration { return t.of(k).detection + t.p.Timings.Slack }

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
