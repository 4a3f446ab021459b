package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/admin"
	pushes "understudy/sidecar/follow"
)

// removeTrailer names nodes that a commit is to remove: "Understudy-Remove: web3, web4". Case does not matter, as in git.
const removeTrailer = "Understudy-Remove"

// confirmedFor is how long an operator's word counts for a commit that has not been accepted since.
const confirmedFor = 10 * time.Minute

// removal is a commit that waits until somebody confirms the nodes that it removes.
type removal struct {
	commit string
	nodes  []string
	seen   time.Time // when it was last looked at
}

// consent is an operator's word for one commit.
type consent struct {
	commit string
	at     time.Time
}

// confirmed returns nil if somebody has said besides roles.yaml that those nodes shall go: signed trailers of the push, an operator here, or
// whoever asked another member, which goes by that roster or would.
func (p *parts) confirmed(c pushes.Candidate, want uint64, gone []string) error {
	trailers, err := c.Trailers()
	if err != nil {
		return err
	}
	named := removals(trailers)
	if !slices.ContainsFunc(gone, func(node string) bool { return !slices.Contains(named, node) }) || p.puppet.said(c.Commit) {
		return nil
	}
	_, v, _, _ := p.snapshot()
	for _, node := range p.policy.Nodes {
		if x := v.Peers[node].Said.Rollout; node != p.cfg.Node && p.hears(node) && (x.Roster == want || x.Next == want) {
			return nil
		}
	}
	p.puppet.waits(c.Commit, gone)
	all := strings.Join(gone, ", ")
	return pushes.NotYet(fmt.Sprintf("roles.yaml removes %s: confirm with `understudy apply --confirm-removal`, or by the trailer %s: %s in a signed commit",
		all, removeTrailer, all))
}

// removals are the nodes that trailers name.
func removals(trailers []pushes.Trailer) (all []string) {
	for _, t := range trailers {
		if strings.EqualFold(t.Key, removeTrailer) {
			all = append(all, strings.FieldsFunc(t.Value, func(r rune) bool { return r == ',' || r == ' ' })...)
		}
	}
	return all
}

// said reports whether an operator has confirmed a commit here.
func (p *puppet) said(commit string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.word.commit == commit && time.Since(p.word.at) < confirmedFor
}

// waits notes what an operator would be asked for.
func (p *puppet) waits(commit string, nodes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removal = removal{commit: commit, nodes: nodes, seen: time.Now()}
}

// Removal implements admin.Backend.
func (b backend) Removal() admin.Removal {
	if b.puppet == nil {
		return admin.Removal{}
	}
	p := b.puppet
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.removal.seen) > wishFor {
		return admin.Removal{} // the branch has moved on, or it was confirmed
	}
	return admin.Removal{Commit: p.removal.commit, Nodes: slices.Clone(p.removal.nodes)}
}

// ConfirmRemoval implements admin.Backend.
func (b backend) ConfirmRemoval(commit string) {
	if b.puppet == nil {
		return
	}
	b.puppet.mu.Lock()
	b.puppet.word = consent{commit: commit, at: time.Now()}
	b.puppet.mu.Unlock()
	b.puppet.repo.Poke()
}
