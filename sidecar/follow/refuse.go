package follow

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"understudy/bootstrap/control"
	"understudy/bootstrap/role"
)

// refusal is why a commit does not count, and what to do. Another try would end the same.
type refusal string

func (r refusal) Error() string { return string(r) }

// verdict makes a refusal of what is wrong with the commit itself; what may be the network's, the disk's or a program's fault
// stays as it is.
func verdict(err error) error {
	unknown, isUnknown := errors.AsType[*control.UnknownSignerError](err)
	tree, isTree := errors.AsType[*control.TreeError](err)
	switch {
	case errors.Is(err, control.ErrUnsigned):
		return refusal("it is not signed; push a signed commit on top of it (git commit -S)")
	case isUnknown:
		return refusal(fmt.Sprintf("it is signed by %s, which is not an allowed signer; push a commit of an allowed signer on top of it, "+
			"or add the key to the cluster's allowed signers", unknown.Fingerprint))
	case errors.Is(err, control.ErrBadSignature):
		return refusal(fmt.Sprintf("its signature is not valid (%v); push a commit on top of it that is signed properly (git commit -S)", err))
	case errors.Is(err, control.ErrMalformed):
		return refusal(fmt.Sprintf("it is not in the form that git writes (%v); push a commit that git has made", err))
	case isTree:
		at := tree.Path
		if at == "" {
			at = "the tree"
		}
		return refusal(fmt.Sprintf("%s cannot be used: %s; push a commit without it", at, tree.Reason))
	case errors.Is(err, control.ErrTooLarge):
		return refusal(fmt.Sprintf("it is too large (%v); big files belong elsewhere: push a commit without them", err))
	}
	return err
}

// isForward refuses a commit that does not descend from the accepted one.
func (f *Follower) isForward(c control.Commit, o offer) error {
	err := f.cfg.Repo.Descends(c, f.head.Commit)
	if !errors.Is(err, control.ErrTooOld) || errors.Is(err, control.ErrNoHistory) {
		return err
	}
	back := f.cfg.Repo.Descends(control.Commit{Hash: f.head.Commit}, c.Hash)
	proven := back == nil || errors.Is(back, control.ErrTooOld) && !errors.Is(back, control.ErrNoHistory)
	switch lags := o.peer != "" || o.mirror; {
	case lags && (back == nil || !proven): // it is older, or may be
		return refusal("")
	case back == nil:
		return refusal(fmt.Sprintf("%s was set back: this cluster has accepted %.12s, which is newer, and nothing is taken back; "+
			"push a commit on top of that one (git revert)", f.cfg.Branch, f.head.Commit))
	}
	return refusal(fmt.Sprintf("%s was rewritten: it does not descend from %.12s, which this cluster has accepted, and nothing is taken back; "+
		"push a commit on top of that one (git merge)", f.cfg.Branch, f.head.Commit))
}

const (
	maxRoles    = 1 << 20 // bytes of a roles.yaml
	maxProblems = 3       // of one, that are shown
)

// checkRoles refuses a commit whose roles.yaml could not be used.
func (f *Follower) checkRoles(c control.Commit) error {
	const name = "roles.yaml"
	data, err := f.cfg.Repo.File(c, name, maxRoles)
	if errors.Is(err, fs.ErrNotExist) {
		return refusal("it has no " + name + "; push a commit that has one again")
	}
	if err != nil {
		return err
	}
	roster, err := role.Parse(name, data)
	if err != nil {
		return refusal(fmt.Sprintf("its %s has problems: %s; push a commit that corrects them", name, inOneLine(err)))
	}
	if roster.Cluster != f.cfg.Cluster {
		return refusal(fmt.Sprintf("its %s is of the cluster %s, and this one is %s; push a commit with the right name", name, roster.Cluster, f.cfg.Cluster))
	}
	if f.cfg.May == nil {
		return nil
	}
	err = f.cfg.May(Candidate{Commit: c.Hash, Roster: roster, Trailers: func() ([]Trailer, error) { return f.trailersSince(c) }})
	if _, waits := errors.AsType[NotYet](err); waits {
		return err
	}
	if err != nil {
		return refusal(err.Error() + "; push a commit without that")
	}
	return nil
}

// trailersSince are the trailers of all commits that come with c and are not accepted yet.
func (f *Follower) trailersSince(c control.Commit) (all []Trailer, err error) {
	messages, err := f.cfg.Repo.Since(c, f.head.Commit)
	for _, m := range messages {
		all = append(all, trailers(m)...)
	}
	return all, err
}

// inOneLine shows the first of many problems.
func inOneLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	if more := len(lines) - maxProblems; more > 0 {
		lines = append(lines[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}
