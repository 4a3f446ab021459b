package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"understudy/bootstrap/control"
	"understudy/bootstrap/secrets"
)

// peerTimeout is the time one peer gets: it is near, and there are others.
const peerTimeout = time.Minute

// places are where the control repo may come from, in the order in which they are asked.
type places struct {
	all   []control.Source
	peers map[string]bool // which of them are peers, as Source.String shows them
}

// places are the configured sources, then the peers of our ticket, and last the copy in the image, which grows old.
func (b *boot) places(ctx context.Context) places {
	p := places{all: b.cfg.From(), peers: map[string]bool{}}
	peers := b.peers(ctx)
	for _, s := range peers {
		p.peers[s.String()] = true
	}
	p.all = slices.Insert(p.all, len(b.cfg.Sources), peers...)
	return p
}

// peers are the members that our ticket names. They serve whoever has joined, and the ticket stays in the user data, so they can be asked
// after a crash too. Whatever is missing for that, there are none.
func (b *boot) peers(ctx context.Context) []control.Source {
	m, err := secrets.LoadMembership(b.at.state)
	if err != nil {
		return nil // verify says what is wrong with it
	}
	text, err := b.meta.get(ctx, "user-data")
	if err != nil {
		if !errors.Is(err, errNoMetadata) {
			b.log.Warn("peers are not asked for the control repo: the ticket cannot be read", "err", err)
		}
		return nil
	}
	t, err := secrets.ParseUserData(text)
	if err != nil {
		return nil // the machine did not join by a ticket
	}
	client := secrets.ControlClient(t.Pin, m.Identity)
	var all []control.Source
	for _, peer := range t.Peers {
		all = append(all, control.Source{URL: secrets.ControlURL(peer), Client: client, Timeout: peerTimeout})
	}
	return all
}

// own is what the sources of the image failed with. What a peer says of itself is no reason to give up.
func (p places) own(err error) error {
	all, ok := errors.AsType[*control.FetchError](err)
	if !ok {
		return err
	}
	own := &control.FetchError{Branch: all.Branch}
	for _, a := range all.Attempts {
		if !p.peers[a.Source] {
			own.Attempts = append(own.Attempts, a)
		}
	}
	return own
}

// silent reports whether a peer could not be asked this time.
func (p places) silent(err error) bool {
	all, _ := errors.AsType[*control.FetchError](err)
	return all != nil && slices.ContainsFunc(all.Attempts, func(a control.Attempt) bool {
		return p.peers[a.Source] && errors.Is(a.Err, control.ErrNoNetwork)
	})
}

// pin is the commit that our peers named at the join, and which we take in place of the newest: theirs is known to be good. Empty: the
// newest. It is for a machine that has not been a node yet, and only until it has failed here for a reason that lies in the commit:
// the cure is a newer one.
func (b *boot) pin() (string, error) {
	m, err := secrets.LoadMembership(b.at.state)
	if errors.Is(err, fs.ErrNotExist) || m.Commit == "" || exists(b.at.done) {
		return "", nil
	}
	if err != nil {
		return "", fail(exitSignature, err, "repair the files in "+b.at.state+", or "+recreate)
	}
	if f := b.failed; f != nil && blamesCommit(f.Code) && b.engine.record.Commit == m.Commit && !b.noop {
		b.log.Warn("the peers' commit failed here: taking the newest", "commit", m.Commit, "reason", f.Error)
		return "", secrets.ForgetCommit(b.at.state)
	}
	return m.Commit, nil
}

// blamesCommit says which failures a newer commit can cure and another try cannot.
func blamesCommit(code int) bool {
	return slices.Contains([]int{exitUnknownHost, exitSignature, exitTooOld, exitTree, exitRoles, exitSecrets, exitCompile, exitPuppetFailed}, code)
}

// bring fetches the commit that this machine takes: the pinned one, or where that is not to be had the branch's newest.
func (b *boot) bring(ctx context.Context, from places, pin string) (control.Commit, error) {
	repo, err := b.repo(pin)
	if err != nil {
		return control.Commit{}, err
	}
	c, err := repo.Fetch(ctx, from.all, b.cfg.Branch)
	if pin == "" || err != nil && !errors.Is(err, control.ErrNoCommit) && !errors.Is(err, control.ErrNoHistory) {
		return c, err
	}
	_, oldest, trouble := b.trust()
	switch {
	case trouble != nil:
		return c, trouble
	case err == nil && errors.Is(repo.Descends(c, oldest), control.ErrTooOld):
		err = errors.New("it is older than the cluster accepts")
	case err == nil:
		return c, nil
	}
	// Somebody answered, and does not have it: his branch is behind or was rewritten. A peer that has it may answer soon.
	if b.pinned.IsZero() {
		b.pinned = time.Now()
	}
	if from.silent(err) && time.Since(b.pinned) < b.cfg.Patience.Control/2 {
		return c, retry(exitNoSource, err, "see whether this machine reaches a peer's port for joins")
	}
	b.log.Warn("the peers' commit is not to be had: taking the newest", "commit", pin, "err", err)
	return b.bring(ctx, from, "")
}
