package main

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes. They are a promise: the unit file, tests and operators' tools tell causes by them.
const (
	exitDone            = 0
	exitUnexpected      = 1
	exitUsage           = 2
	exitNoHostname      = 10
	exitUnknownHost     = 11
	exitJoinRefused     = 12
	exitJoinUnreachable = 13
	exitNoSource        = 20
	exitNoBranch        = 21
	exitSignature       = 22
	exitTooOld          = 23
	exitTree            = 24
	exitRoles           = 25
	exitSecrets         = 26
	exitNoPuppet        = 30
	exitCompile         = 31
	exitPuppetFailed    = 32
	exitPuppetBlocked   = 33
	exitNeeds           = 35
	exitDiskFull        = 40
	exitDpkgLocked      = 41
)

// exitMeanings is what -help says about them, in their order.
var exitMeanings = []struct {
	code    int
	meaning string
}{
	{exitDone, "this machine is its node now"},
	{exitUnexpected, "something unexpected, or stopped by a signal"},
	{exitUsage, "a mistake on the command line or in the configuration"},
	{exitNoHostname, "no hostname: neither the kernel nor the metadata service has one for us"},
	{exitUnknownHost, "the hostname is in no role of roles.yaml, or in another than this machine has"},
	{exitJoinRefused, "the join was refused, or the ticket is broken"},
	{exitJoinUnreachable, "no peer answered the join, or no operator came to hand over the identity"},
	{exitNoSource, "no source of the control repo can be used"},
	{exitNoBranch, "the control repo has no such branch"},
	{exitSignature, "the commit is unsigned, or not signed by an allowed signer"},
	{exitTooOld, "the commit is older than the cluster accepts"},
	{exitTree, "the tree of the commit holds something that is refused"},
	{exitRoles, "roles.yaml is not valid"},
	{exitSecrets, "secrets.age cannot be opened"},
	{exitNoPuppet, "puppet is not installed"},
	{exitCompile, "Puppet found a mistake in the code: no catalog, nothing changed"},
	{exitPuppetFailed, "resources failed in the Puppet run"},
	{exitPuppetBlocked, "Puppet is disabled, already running, or did not end in time"},
	{exitNeeds, "what another role must provide never came"},
	{exitDiskFull, "the disk is full"},
	{exitDpkgLocked, "another program holds dpkg's lock"},
}

// failure is an error that knows what it means for the operator. It prints as one line.
type failure struct {
	code  int
	err   error
	next  string // the next thing to do; empty when err says so itself
	again bool   // whether trying again, by itself, can help
	back  string // the step to start over from, when what it brought has turned out broken
}

func (f *failure) Error() string {
	if f.next == "" {
		return oneLine(f.err)
	}
	return oneLine(f.err) + "; next: " + f.next
}

func (f *failure) Unwrap() error { return f.err }

// fail makes a failure that only a change elsewhere can cure.
func fail(code int, err error, next string) *failure {
	return &failure{code: code, err: err, next: next}
}

// failf is fail with a text of its own.
func failf(code int, next, format string, args ...any) *failure {
	return fail(code, fmt.Errorf(format, args...), next)
}

// retry makes a failure that may go away by itself.
func retry(code int, err error, next string) *failure {
	return &failure{code: code, err: err, next: next, again: true}
}

// asFailure gives every error a meaning. A full disk means the same wherever it is met.
func asFailure(err error) *failure {
	if isDiskFull(err) {
		return fail(exitDiskFull, err, "make room (df -h; journalctl --vacuum-size=100M; apt-get clean); it is tried again by itself")
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return fail(exitUnexpected, err, "run understudy-bootstrap by hand on the node to see more; it is tried again by itself")
}

// shownProblems is how many of several problems stand on the one line; the log has them all.
const shownProblems = 3

// oneLine joins an error of several lines (errors.Join) into one.
func oneLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	kept := lines[:0]
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" {
			kept = append(kept, l)
		}
	}
	if len(kept) > shownProblems {
		return fmt.Sprintf("%d problems: %s; and %d more", len(kept), strings.Join(kept[:shownProblems], "; "), len(kept)-shownProblems)
	}
	return strings.Join(kept, "; ")
}
