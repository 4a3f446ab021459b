// Package applied is what `understudy-bootstrap -apply` writes when it has ended: how one Puppet run went. The sidecar,
// which had it started in a unit of its own, reads it; so its keys are a promise: keys are added, never changed.
package applied

import (
	"encoding/json"
	"fmt"
	"time"
)

// Version is raised when a reader of the old form would misunderstand the new one. Keys may be added without that.
const Version = 1

// Result is one run, whatever came of it. Times are the node's own clock; durations are measured.
type Result struct {
	Version int `json:"version"`
	// Commit is the full hash of the release that was applied.
	Commit string `json:"commit"`
	// Noop runs change nothing and tell what would be changed.
	Noop  bool      `json:"noop"`
	Began time.Time `json:"began"`
	// Took is the wall time of the whole run, waiting for another run included, as time.ParseDuration reads it.
	Took string `json:"took"`
	// Boot is the boot of the machine in which it ran (random(4), boot_id).
	Boot string `json:"boot_id"`
	// Code is the exit code of understudy-bootstrap; zero: the machine is, or would be, as the release wants it.
	Code int `json:"code"`
	// Phase is the last one that was begun (package progress).
	Phase string `json:"phase"`
	// Kind is what Puppet's run came to, in the words of converge.Kind. Empty: Puppet did not run to an end.
	Kind string `json:"kind,omitempty"`
	// Message says in one line what is wrong, and Next what to do. Both are empty when Code is zero.
	Message string `json:"message,omitempty"`
	Next    string `json:"next,omitempty"`
	// Fault is what has to change before another run can do better. Empty when Code is zero.
	Fault Fault `json:"fault,omitempty"`
	// Interrupted says that the run was ended from outside, by a shutdown or a time limit. Part of it may be done.
	Interrupted bool `json:"interrupted,omitempty"`

	Resources Resources `json:"resources"`
	// Failures are the first resources that failed, at most MaxFailures.
	Failures []Failure `json:"failures,omitempty"`
	// Seconds are how long Puppet's phases and the resources of each type took: "config_retrieval", "package", "total", ….
	Seconds map[string]float64 `json:"seconds,omitempty"`
	// Restarts are the units that the run has started, stopped, restarted or reloaded; with Noop, that it would have.
	Restarts []Restart `json:"restarts,omitempty"`
}

// Fault tells whose a failure is.
type Fault string

const (
	// Commit failures would come again on every machine of the role.
	Commit Fault = "commit"
	// Machine failures are of this machine or of the moment: a full disk, a lock, a shutdown. Nothing is known of the commit.
	Machine Fault = "machine"
)

// MaxFailures is how many failed resources a result names.
const MaxFailures = 10

// Resources are numbers of resources.
type Resources struct {
	Total     int `json:"total"`
	Changed   int `json:"changed"`
	Failed    int `json:"failed"` // those that could not be restarted included
	Skipped   int `json:"skipped"`
	OutOfSync int `json:"out_of_sync"`
	// Corrective are those that were changed, or would be, although the machine had this very commit already: drift. Puppet's
	// own count of that is always zero in `puppet apply` (Puppet::Transaction::Persistence#enabled?).
	Corrective int `json:"corrective"`
}

// Failure is one resource that failed.
type Failure struct {
	Resource string `json:"resource"`
	Place    string `json:"place,omitempty"` // file:line in the control repo
	Message  string `json:"message"`
}

// Restart is one act on a unit.
type Restart struct {
	Unit     string `json:"unit"`
	Verb     string `json:"verb"` // "start", "stop", "restart" or "reload"
	Resource string `json:"resource"`
}

// Good reports whether the machine is, or would be, as the release wants it.
func (r Result) Good() bool { return r.Code == 0 }

// Duration is Took. Zero if it cannot be read.
func (r Result) Duration() time.Duration {
	d, _ := time.ParseDuration(r.Took) // one of another version of us is no reason to refuse the rest
	return d
}

// Disturbs reports whether the run interrupts, or would interrupt, those who use the unit: a reload does not.
func (r Result) Disturbs(unit string) bool {
	for _, s := range r.Restarts {
		if s.Unit == unit && (s.Verb == "restart" || s.Verb == "stop") {
			return true
		}
	}
	return false
}

// Encode is the file's content.
func (r Result) Encode() ([]byte, error) {
	r.Version = Version
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the result of the run: %w", err)
	}
	return append(data, '\n'), nil
}

// Parse reads the file's content. It refuses a result of another version.
func Parse(data []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return Result{}, fmt.Errorf("read the result of the run: %w", err)
	}
	if r.Version != Version || r.Commit == "" {
		return Result{}, fmt.Errorf("read the result of the run: version %d, commit %q: want version %d and a commit", r.Version, r.Commit, Version)
	}
	return r, nil
}
