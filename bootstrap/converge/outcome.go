package converge

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"understudy/bootstrap/command"
)

// Kind is what a run came to. The zero value is invalid.
type Kind int

const (
	// Unchanged: the node already was as the catalog wants it.
	Unchanged Kind = iota + 1
	// Changed: something was changed, and everything succeeded.
	Changed
	// WouldChange: a run without effects found something to change.
	WouldChange
	// CompileError: there was no catalog, so nothing was changed. Another try needs another commit.
	CompileError
	// Failed: some resources failed or could not be restarted; others may have been changed.
	Failed
	// NoSummary: Puppet claims success but has not written the summary that every finished run writes.
	NoSummary
	// TimedOut: stopped by us, in the middle.
	TimedOut
	// Killed: ended by a signal that was not ours.
	Killed
	// DiskFull: failed because a file system has no room.
	DiskFull
	// DpkgLocked: failed because somebody else held dpkg's or apt's lock for too long.
	DpkgLocked
)

var kindNames = map[Kind]string{Unchanged: "unchanged", Changed: "changed", WouldChange: "would change",
	CompileError: "compile error", Failed: "failed", NoSummary: "no summary", TimedOut: "timed out", Killed: "killed",
	DiskFull: "disk full", DpkgLocked: "dpkg locked"}

func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Good says whether the node is now, or would be, as the catalog wants it.
func (k Kind) Good() bool { return k == Unchanged || k == Changed || k == WouldChange }

// Outcome is how a run went.
type Outcome struct {
	Kind Kind
	// Message is one line on what is wrong, with file and line where Puppet knows them. Empty when good.
	Message string
	// ExitCode is Puppet's, -1 when a signal ended it.
	ExitCode int
	// Summary is what this run wrote about itself; nil when it wrote none.
	Summary *Summary
	// Failures are the resources that failed, in the order in which they did.
	Failures []Failure
	// Restarts are what the run did to units, or would have done. Only for a Run that asked for it.
	Restarts []Restart
	// Took is the wall time from the handing over of the arguments to the end.
	Took time.Duration
	// UserCPU and SystemCPU include Puppet's children, and the loading where the run was Preloaded.
	UserCPU, SystemCPU time.Duration
	// MaxRSS is the peak memory in bytes of the largest process of the run.
	MaxRSS int64
	// Preloaded says whether the code had been loaded ahead of the run.
	Preloaded bool

	summaryErr error
}

// Failure is one resource that failed.
type Failure struct {
	Resource string // such as Package[nginx]
	Place    string // file:line in the release, empty when unknown
	Message  string // one line
}

func (f Failure) String() string {
	switch {
	case f.Message == "":
		return f.Resource
	case f.Place == "":
		return f.Resource + ": " + f.Message
	}
	return f.Resource + " at " + f.Place + ": " + f.Message
}

// judge decides the kind. Exit codes: puppet-apply(8), --detailed-exitcodes; a run without effects always
// exits 0 when there is a catalog.
func (o *Outcome) judge(r Run, err error, heard *ear) {
	if len(o.Failures) == 0 {
		o.Failures = heard.failures
	}
	late, isLate := errors.AsType[*command.TimeoutError](err)
	killed, isKilled := errors.AsType[*command.SignalError](err)
	s := o.Summary
	switch {
	case isLate:
		o.Kind, o.Message = TimedOut, fmt.Sprintf("puppet had not finished after %v; the last it said: %s", late.After, heard.lastWords())
	case isKilled:
		o.Kind, o.Message = Killed, killed.Error()
	case o.ExitCode == 0 || o.ExitCode == 2:
		o.judgeSuccess(r.Noop)
	case o.ExitCode == 1 && !heard.compiled:
		o.Kind, o.Message = CompileError, heard.cause("puppet exited 1 without saying why")
	case o.ExitCode == 1:
		o.Kind, o.Message = Failed, heard.cause("puppet could not apply the catalog and did not say why")
	case (o.ExitCode == 4 || o.ExitCode == 6) && s != nil && s.Resources.Failed+s.Resources.FailedToRestart > 0:
		o.Kind, o.Message = Failed, describeFailures(s, o.Failures)
	default:
		o.Kind, o.Message = Failed, heard.cause(fmt.Sprintf("puppet exited %d", o.ExitCode))
	}
	if o.Kind.Good() || isLate {
		return
	}
	switch { // whatever else failed, these two are the cause to be removed first
	case heard.diskFull != "":
		o.Kind, o.Message = DiskFull, heard.diskFull
	case heard.dpkgLocked != "":
		o.Kind, o.Message = DpkgLocked, heard.dpkgLocked
	}
}

func (o *Outcome) judgeSuccess(noop bool) {
	s := o.Summary
	switch {
	case s == nil:
		o.Kind, o.Message = NoSummary, fmt.Sprintf("puppet exited %d, but has left no summary of this run (%v)", o.ExitCode, o.summaryErr)
	case s.Resources.Failed+s.Resources.FailedToRestart > 0:
		o.Kind, o.Message = Failed, describeFailures(s, o.Failures)
	case noop && s.Resources.OutOfSync > 0: // the exit code is always 0 then
		o.Kind = WouldChange
	case s.Resources.Changed > 0 || o.ExitCode == 2:
		o.Kind = Changed
	default:
		o.Kind = Unchanged
	}
}

// shownFailures is how many failed resources a one-line message names.
const shownFailures = 3

func describeFailures(s *Summary, failures []Failure) string {
	var b strings.Builder
	n := s.Resources.Failed + s.Resources.FailedToRestart
	fmt.Fprintf(&b, "%d of %d resources failed", n, s.Resources.Total)
	if s.Resources.Skipped > 0 {
		fmt.Fprintf(&b, ", %d skipped because of that", s.Resources.Skipped)
	}
	for i, f := range failures {
		if i == shownFailures {
			fmt.Fprintf(&b, "; and %d more", len(failures)-i)
			break
		}
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + f.String())
	}
	return b.String()
}
