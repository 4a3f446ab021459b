// Package progress is /var/lib/understudy/bootstrap.json: how far a machine has come on its way to
// being a node. understudy-bootstrap writes it; `understudy local status` and the sidecar read it, so
// its keys and the names of the phases are a promise: keys are added, never changed.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Version is raised when a reader of the old form would misunderstand the new one. Keys may be added
// without that.
const Version = 1

// Names of the phases, in their order. They are a promise to everybody who reads the record.
const (
	Hostname = "hostname" // learn our name
	Join     = "join"     // become a member: the cluster's identity
	Control  = "control"  // fetch the control repo
	Verify   = "verify"   // check who signed its newest commit
	Export   = "export"   // write its tree as a release
	Roles    = "roles"    // find our role in roles.yaml
	Secrets  = "secrets"  // open secrets.age
	Facts    = "facts"    // tell Puppet what we are
	Needs    = "needs"    // wait for what other roles must provide
	Puppet   = "puppet"   // converge
	Done     = "done"
)

// Record is /var/lib/understudy/bootstrap.json: how far this machine has come. `understudy local status`
// and the sidecar read it, so its keys and the names of the phases are a promise: keys are added, never
// changed. It is replaced whole. Times are the node's own clock, which may be set while we run, so
// durations are measured separately and stand in `took`, as Go's time.ParseDuration reads them.
type Record struct {
	Version int `json:"version"`
	// Machine is the incarnation that all this is about.
	Machine Machine `json:"machine"`
	Node    string  `json:"node,omitempty"`
	Role    string  `json:"role,omitempty"`
	Commit  string  `json:"commit,omitempty"` // of the control repo, once fetched
	// Attempt counts the starts of understudy-bootstrap on this incarnation, from 1.
	Attempt int `json:"attempt"`
	// Phase, Message and Since say what is being done or waited for: "waiting for package blog from
	// apt.blog.example (404 Not Found)", since then. After the end Phase is "done" or that of Failed.
	Phase   string    `json:"phase"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
	// Failed is how the last attempt ended; null while it runs and when it ended well.
	Failed *Failed `json:"failed"`
	// Steps are those that are done, in the order in which they were.
	Steps []Step `json:"steps"`
	// Done is when the machine had become its node. Null: not yet.
	Done *time.Time `json:"done"`
	// Usage is filled at the end of an attempt.
	Usage *Usage `json:"usage,omitempty"`
}

// Machine tells one incarnation from another.
type Machine struct {
	MachineID string `json:"machine_id"`           // /etc/machine-id
	DropletID string `json:"droplet_id,omitempty"` // the provider's, once the metadata service has said it
}

// Step is one that is done.
type Step struct {
	Name     string    `json:"name"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Took     string    `json:"took"`
	Detail   string    `json:"detail"`  // for people
	Attempt  int       `json:"attempt"` // the attempt that did it
	Tries    int       `json:"tries"`   // how often it was tried in that attempt, from 1
	Boot     string    `json:"boot_id"` // the boot in which it was done
}

// Failed is an error that ended an attempt.
type Failed struct {
	Code  int       `json:"code"`  // the exit code
	Error string    `json:"error"` // one line: what and why
	Next  string    `json:"next"`  // the next thing to do
	At    time.Time `json:"at"`
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
	// Preloaded says of Puppet that its code was loaded while something else was waited for. Took begins
	// after that, CPU has it.
	Preloaded bool `json:"preloaded,omitempty"`
}

// Finished reports whether the machine has become its node.
func (r Record) Finished() bool { return r.Done != nil }

// Step returns the record of a step that is done.
func (r Record) Step(name string) (Step, bool) {
	for _, s := range r.Steps {
		if s.Name == name {
			return s, true
		}
	}
	return Step{}, false
}

// Duration is how long the step took, by the node's monotonic clock where the record tells it.
func (s Step) Duration() time.Duration {
	if d, err := time.ParseDuration(s.Took); err == nil {
		return d
	}
	return s.Finished.Sub(s.Started)
}

// Began is when the first of the recorded steps started; without any, when the present phase did.
func (r Record) Began() time.Time {
	if len(r.Steps) == 0 {
		return r.Since
	}
	return r.Steps[0].Started
}

// Forget removes the steps with these names.
func (r *Record) Forget(names ...string) {
	r.Steps = slices.DeleteFunc(r.Steps, func(s Step) bool { return slices.Contains(names, s.Name) })
}

// Add notes a step as done, once.
func (r *Record) Add(s Step) {
	r.Forget(s.Name)
	r.Steps = append(r.Steps, s)
}

// Line says in one line what the node does, or why it cannot go on and what to do next.
func (r Record) Line(now time.Time) string {
	if r.Failed != nil {
		return fmt.Sprintf("failed (%d): %s; %s", r.Failed.Code, r.Failed.Error, r.Failed.Next)
	}
	return fmt.Sprintf("%s: %s, %s", r.Phase, r.Message, now.Sub(r.Since).Round(100*time.Millisecond))
}

// Parse reads a record. It refuses one of another version, or none.
func Parse(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("read the record of steps: %w", err)
	}
	if r.Version != Version || r.Attempt < 0 {
		return Record{}, fmt.Errorf("read the record of steps: version %d, attempt %d: want version %d", r.Version, r.Attempt, Version)
	}
	return r, nil
}

// Load reads the record at path. A missing one is an empty one. One that cannot be read is put aside,
// and aside says where: then everything is done again, which is safe.
func Load(path string) (r Record, aside string, err error) {
	fresh := Record{Version: Version}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return fresh, "", nil
	}
	if err != nil {
		return fresh, "", fmt.Errorf("read the record of earlier steps: %w", err)
	}
	if r, err := Parse(data); err == nil {
		return r, "", nil
	}
	aside = path + ".unreadable"
	if err := os.Rename(path, aside); err != nil {
		return fresh, "", fmt.Errorf("put the unreadable record aside: %w", err)
	}
	return fresh, aside, nil
}
