package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// recordVersion is raised when a reader of the old form would misunderstand the new one. Keys may be
// added without that.
const recordVersion = 1

// Names of the phases, in their order. They are a promise to everybody who reads the record.
const (
	phaseHostname = "hostname" // learn our name
	phaseJoin     = "join"     // become a member: the cluster's identity
	phaseControl  = "control"  // fetch the control repo
	phaseVerify   = "verify"   // check who signed its newest commit
	phaseExport   = "export"   // write its tree as a release
	phaseRoles    = "roles"    // find our role in roles.yaml
	phaseSecrets  = "secrets"  // open secrets.age
	phaseFacts    = "facts"    // tell Puppet what we are
	phaseNeeds    = "needs"    // wait for what other roles must provide
	phasePuppet   = "puppet"   // converge
	phaseUnits    = "units"    // start what runs on the first node only
	phaseDone     = "done"
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
	Steps []StepRecord `json:"steps"`
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

// StepRecord is one step that is done.
type StepRecord struct {
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

// step returns the record of a step that is done.
func (r Record) step(name string) (StepRecord, bool) {
	for _, s := range r.Steps {
		if s.Name == name {
			return s, true
		}
	}
	return StepRecord{}, false
}

// forget removes the steps with these names.
func (r *Record) forget(names ...string) {
	r.Steps = slices.DeleteFunc(r.Steps, func(s StepRecord) bool { return slices.Contains(names, s.Name) })
}

// add notes a step as done, once.
func (r *Record) add(s StepRecord) {
	r.forget(s.Name)
	r.Steps = append(r.Steps, s)
}

// loadRecord reads the record at path. A missing one is an empty one. One that cannot be read is put aside,
// and aside says where: then everything is done again, which is safe.
func loadRecord(path string) (r Record, aside string, err error) {
	fresh := Record{Version: recordVersion}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return fresh, "", nil
	}
	if err != nil {
		return fresh, "", fmt.Errorf("read the record of earlier steps: %w", err)
	}
	if json.Unmarshal(data, &r) == nil && r.Version == recordVersion && r.Attempt >= 0 {
		return r, "", nil
	}
	aside = path + ".unreadable"
	if err := os.Rename(path, aside); err != nil {
		return fresh, "", fmt.Errorf("put the unreadable record aside: %w", err)
	}
	return fresh, aside, nil
}

// durability says what a write has to survive.
type durability int

const (
	// replaceable content may be lost in a power failure: the step it tells of is then repeated.
	replaceable durability = iota
	// durable content is on the disk when the write returns.
	durable
)

// save replaces the record at path.
func (r Record) save(path string, d durability) error {
	if r.Steps == nil {
		r.Steps = []StepRecord{}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the record of steps: %w", err)
	}
	if err := writeFile(path, append(data, '\n'), 0o644, d); err != nil {
		return fmt.Errorf("write the record of steps: %w", err)
	}
	return nil
}

// writeFile replaces a file whole: whoever reads it sees the old content or the new one.
func writeFile(path string, data []byte, mode os.FileMode, d durability) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+filepath.Base(path)+".new") // one name, so that a crash leaves at most one
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode))
	if d == durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if d != durable {
		return nil
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isDiskFull tells the two errors by which a file system says that it has no room.
func isDiskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
