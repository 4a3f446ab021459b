package main

import (
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	pushes "understudy/sidecar/follow"
)

func TestARemovalMustBeConfirmedBesidesRolesYAML(t *testing.T) {
	tip, other := strings.Repeat("a", 40), strings.Repeat("b", 40)
	const want = 7
	trailer := func(key, value string) []pushes.Trailer { return []pushes.Trailer{{Key: key, Value: value}} }
	type said = map[string]cluster.Announcement
	for _, c := range []struct {
		claim    string
		trailers []pushes.Trailer
		word     consent
		said     said
		heard    []string
		ok       bool
	}{
		{claim: "nobody says so"},
		{claim: "a trailer names both", trailers: trailer("understudy-remove", "web3, web4"), ok: true},
		{claim: "two trailers", trailers: append(trailer(removeTrailer, "web4"), trailer(removeTrailer, "web3")...), ok: true},
		{claim: "a trailer names one", trailers: trailer(removeTrailer, "web3")},
		{claim: "another trailer", trailers: trailer("Understudy-Rollout", "web3, web4")},
		{claim: "an operator", word: consent{tip, time.Now().Add(-confirmedFor + time.Minute)}, ok: true},
		{claim: "an operator, long ago", word: consent{tip, time.Now().Add(-confirmedFor)}},
		{claim: "an operator, of another commit", word: consent{other, time.Now()}},
		{claim: "a member would accept it", said: said{"web1": {Rollout: cluster.Rollout{Roster: 1, Next: want}}}, ok: true},
		{claim: "a member goes by it", said: said{"web1": {Rollout: cluster.Rollout{Roster: want}}}, ok: true},
		{claim: "a member that is not heard", said: said{"web1": {Rollout: cluster.Rollout{Next: want}}}, heard: []string{"web2"}},
		{claim: "a member would accept another", said: said{"web1": {Rollout: cluster.Rollout{Next: want + 1}}}},
	} {
		m := members(t, "mail1", "mail2", "web1", "web2")["mail1"]
		m.policy.Nodes = m.roster.Nodes()
		m.said = c.said
		if c.heard != nil {
			m.heard = c.heard
		}
		p := &puppet{node: m.node, word: c.word}
		m.puppet = p
		err := m.confirmed(pushes.Candidate{Commit: tip, Trailers: func() ([]pushes.Trailer, error) { return c.trailers, nil }}, want, []string{"web3", "web4"})
		if c.ok != (err == nil) {
			t.Errorf("%s: got %v", c.claim, err)
		}
		waits := backend{puppet: p}.Removal()
		if waiting := waits.Commit == tip && len(waits.Nodes) == 2; waiting == c.ok {
			t.Errorf("%s: an operator would be asked about %+v", c.claim, waits)
		}
		if err != nil && err.Error() != "roles.yaml removes web3, web4: confirm with `understudy apply --confirm-removal`, or by the trailer Understudy-Remove: web3, web4 in a signed commit" {
			t.Errorf("%s: got %q", c.claim, err)
		}
	}
}
