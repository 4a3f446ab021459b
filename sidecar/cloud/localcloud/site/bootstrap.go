//go:build linux

package site

import (
	"fmt"
	"time"
)

// Bootstrap is what a node's /var/lib/understudy/bootstrap.json tells: the keys that
// understudy-bootstrap promises and we show.
type Bootstrap struct {
	Version int        `json:"version"`
	Commit  string     `json:"commit,omitempty"`
	Attempt int        `json:"attempt"`
	Phase   string     `json:"phase"`
	Message string     `json:"message"`
	Since   time.Time  `json:"since"`
	Failed  *Failed    `json:"failed"`
	Steps   []Step     `json:"steps"`
	Done    *time.Time `json:"done"`
	Usage   *Usage     `json:"usage,omitempty"`
}

// Failed is why the last attempt ended.
type Failed struct {
	Code  int    `json:"code"`
	Error string `json:"error"`
	Next  string `json:"next"`
}

// Step is one that is done.
type Step struct {
	Name     string    `json:"name"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Took     string    `json:"took"`
	Detail   string    `json:"detail"`
}

// Usage is what an attempt has cost.
type Usage struct {
	Bootstrap Cost  `json:"bootstrap"`
	Puppet    *Cost `json:"puppet,omitempty"`
}

// Cost of one program and those it waited for.
type Cost struct {
	Took   string  `json:"took"`
	CPU    float64 `json:"cpu_seconds"`
	MaxRSS int64   `json:"max_rss_bytes"`
}

// Finished tells whether the machine has become its node.
func (b *Bootstrap) Finished() bool { return b.Done != nil }

// Began is when the first step started. All nodes of a local cloud share one clock.
func (b *Bootstrap) Began() time.Time {
	if len(b.Steps) == 0 {
		return b.Since
	}
	return b.Steps[0].Started
}

// Phases are the names of the finished steps, in their order.
func (b *Bootstrap) Phases() []string {
	var names []string
	for _, s := range b.Steps {
		names = append(names, s.Name)
	}
	return names
}

// Took is how long a finished step took; 0 if there is none of that name.
func (b *Bootstrap) Took(name string) time.Duration {
	for _, s := range b.Steps {
		if s.Name == name {
			d, err := time.ParseDuration(s.Took)
			if err != nil {
				return s.Finished.Sub(s.Started)
			}
			return d
		}
	}
	return 0
}

// Line says in one line what the node does, or why it cannot go on and what to do next.
func (b *Bootstrap) Line(now time.Time) string {
	if b.Failed != nil {
		return fmt.Sprintf("failed (%d): %s; %s", b.Failed.Code, b.Failed.Error, b.Failed.Next)
	}
	return fmt.Sprintf("%s: %s, %s", b.Phase, b.Message, now.Sub(b.Since).Round(100*time.Millisecond))
}
