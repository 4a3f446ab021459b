//go:build linux

package puppetrun

import (
	"fmt"
	"time"

	"understudy/bootstrap/applied"
)

// unexpected is the exit code of understudy-bootstrap for what it has no other for.
const unexpected = 1

// judge says how a run went: as it told itself, unless systemd knows better.
func (r *Runner) judge(c Current, told *applied.Result, outcome string) Result {
	if told != nil && (outcome != "timeout" || !told.Interrupted) {
		return Result{*told, c.ID, c.Why}
	}
	res := silent(c, told)
	if told == nil {
		res.Took = time.Since(c.Since).Round(time.Second).String()
	}
	switch outcome {
	case "timeout":
		res.Message = fmt.Sprintf("the run had not ended after %v and was ended with all its processes", r.cfg.Limit)
		res.Next = "see what it waited for: journalctl -u " + Unit
		res.Fault = applied.Commit // the machine was well before
	case "oom-kill":
		res.Message = "the run was ended by the kernel for want of memory"
		res.Next = "give the machine more memory (journalctl -k -g oom)"
	case "success":
		res.Message = "the run has not told how it went, if it has begun at all"
		res.Next = "it is tried again by itself; see journalctl -u " + Unit
	default:
		res.Message = fmt.Sprintf("the run ended without telling how it went (%s)", outcome)
		res.Next = "see journalctl -u " + Unit
	}
	return res
}

// rebooted is the result of a run after which the machine has started again. It may have ended before.
func rebooted(c Current, told *applied.Result) Result {
	if told != nil && !told.Interrupted {
		return Result{*told, c.ID, c.Why}
	}
	res := silent(c, told)
	res.Message, res.Next = "the run was interrupted by a reboot", "it is tried again by itself"
	return res
}

// silent is the result of a run that has not told how it went to its end.
func silent(c Current, told *applied.Result) Result {
	res := Result{ID: c.ID, Why: c.Why}
	if told != nil {
		res.Result = *told
	}
	res.Version, res.Commit, res.Noop, res.Boot = applied.Version, c.Commit, c.Noop, c.Boot
	if res.Began.IsZero() {
		res.Began = c.Since
	}
	res.Code, res.Interrupted, res.Fault = unexpected, true, applied.Machine
	return res
}
