package reconcile

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// fakePuppet takes a second for a run.
type fakePuppet struct {
	mu      sync.Mutex
	head    string
	newest  map[bool]decide.RunReading
	began   []Run
	missing [][]string
}

func (p *fakePuppet) Commits() Commits { return Commits{Head: p.head} }

func (p *fakePuppet) Newest(noop bool) decide.RunReading {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.newest[noop]
}

func (p *fakePuppet) Run(ctx context.Context, r Run) error {
	p.mu.Lock()
	p.began = append(p.began, r)
	id := fmt.Sprint(len(p.began))
	p.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.newest[r.Noop] = decide.RunReading{ID: id, Commit: r.Commit, Good: true, Judged: true}
	return nil
}

func (p *fakePuppet) Missing(all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = append(p.missing, all)
}

func (p *fakePuppet) runs() []Run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.began)
}

func withPuppet(p *fakePuppet) func(*Config, *World) {
	return func(_ *Config, w *World) { w.Puppet = p }
}

func TestARunIsBegunOnceForATry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &fakePuppet{head: "b", newest: map[bool]decide.RunReading{false: {ID: "old", Commit: "a", Good: true}}}
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision { // one that never sees that the run has ended
			m.Rollout.Try = decide.Try{Commit: "b", From: "a", After: "old"}
			return decide.Decision{Memory: m, Actions: []decide.Action{decide.Apply{Reason: "try", Commit: "b", After: "old"}}}
		}, withPuppet(p))
		r.run()
		time.Sleep(10 * time.Second)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if got := p.runs(); len(got) != 1 || got[0] != (Run{Commit: "b", Why: "rollout"}) {
			t.Errorf("got %+v, want one rollout", got)
		}
	})
}

func TestWhatIsNotTriedAnyMoreIsNotBegun(t *testing.T) {
	for name, try := range map[string]decide.Try{
		"nothing": {}, "after another run": {Commit: "b", From: "a", After: "other"}, "on the way back": {Commit: "b", From: "a", After: "old", Back: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := &fakePuppet{head: "b", newest: map[bool]decide.RunReading{false: {ID: "old", Commit: "a", Good: true}}}
				r := newRig(t, func(_ decide.View, m decide.Memory) decide.Decision {
					m.Rollout.Try = try
					return decide.Decision{Memory: m, Actions: []decide.Action{decide.Apply{Reason: "try", Commit: "b", After: "old"}}}
				}, withPuppet(p))
				r.run()
				time.Sleep(5 * time.Second)
				if err := r.stop(); err != nil {
					t.Error(err)
				}
				if got := p.runs(); len(got) != 0 {
					t.Errorf("got %+v, want nothing", got)
				}
			})
		})
	}
}

func TestARunsEndIsDatedWhenItWasNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &fakePuppet{head: "b", newest: map[bool]decide.RunReading{false: {ID: "old", Commit: "a", Good: true}}}
		var first, last decide.RunReading
		r := newRig(t, func(v decide.View, m decide.Memory) decide.Decision {
			if first.ID == "" {
				first = v.Rollout.Applied
			}
			last = v.Rollout.Applied
			m.Rollout.Try = decide.Try{Commit: "b", From: "a", After: "old"}
			return decide.Decision{Memory: m, Actions: []decide.Action{decide.Apply{Reason: "try", Commit: "b", After: "old"}}}
		}, withPuppet(p))
		begin := r.now()
		r.run()
		time.Sleep(3 * time.Second)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if after := last.At.Sub(begin); first.At != 0 || last.ID != "1" || after < time.Second || after > 1200*time.Millisecond {
			t.Errorf("got %+v, then %+v, %v after the start; want no date, then one after a second", first, last, after)
		}
	})
}

func TestOthersCommitsAreAskedForOncePerChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &fakePuppet{head: "b", newest: map[bool]decide.RunReading{}}
		r := newRig(t, func(_ decide.View, m decide.Memory) decide.Decision { return decide.Decision{Memory: m} }, withPuppet(p))
		say := func(node, head string) {
			r.mu.Lock()
			heard := map[string]cluster.Peer{}
			for k, v := range r.heard {
				heard[k] = v
			}
			heard[node] = cluster.Peer{Said: cluster.Announcement{Rollout: cluster.Rollout{Head: head}}}
			r.heard = heard
			r.mu.Unlock()
		}
		r.run()
		time.Sleep(time.Second)
		say("lb2", "c")
		time.Sleep(time.Second)
		say("web1", "c")
		time.Sleep(time.Second)
		say("web1", "b")
		say("lb2", "b")
		time.Sleep(time.Second)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(p.missing); got != "[[c] []]" {
			t.Errorf("got %s, want [[c] []]", got)
		}
	})
}
