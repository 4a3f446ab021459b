package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"understudy/bootstrap/control"
	"understudy/bootstrap/progress"
	"understudy/bootstrap/secrets"
)

const recreate = "create this machine again, with a new ticket as its user data"

// join makes us a member: the ticket in our user data is exchanged for the cluster's identity; the first machine of a
// cluster waits for the operator instead, who hands it over. A machine that has the identity has joined; one without a ticket
// goes on without, and fails later if it needs it.
func join(ctx context.Context, b *boot) (string, error) {
	_, err := secrets.LoadMembership(b.at.state)
	if err == nil {
		return "a member already", nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fail(exitJoinRefused, err, "remove "+filepath.Join(b.at.state, "identity")+" if it is damaged, and "+recreate)
	}
	text, err := b.meta.get(ctx, "user-data")
	if errors.Is(err, errNoMetadata) {
		return "no metadata service, so no ticket: going on without the cluster's identity", nil
	}
	if err != nil {
		return "", retry(exitJoinUnreachable, err, "see whether the metadata service answers: curl "+b.meta.base+"/user-data")
	}
	seed, err := secrets.ParseSeed(text)
	switch {
	case err == nil:
		return b.beSeed(ctx, seed)
	case !errors.Is(err, secrets.ErrNoTicket):
		return "", fail(exitJoinRefused, err, "")
	}
	t, err := secrets.ParseUserData(text)
	switch {
	case errors.Is(err, secrets.ErrNoTicket):
		return "no ticket in the user data: going on without the cluster's identity", nil
	case err != nil:
		return "", fail(exitJoinRefused, err, "")
	case t.Node != b.engine.record.Node:
		return "", failf(exitJoinRefused, recreate, "the ticket is for %s, and this machine is %s", t.Node, b.engine.record.Node)
	case b.noop:
		return fmt.Sprintf("would ask %s for the identity of cluster %s", strings.Join(t.Peers, ", "), t.Cluster), nil
	}
	m, err := b.askPeers(ctx, t)
	if err != nil {
		return "", err
	}
	if err := secrets.SaveMembership(b.at.state, m); err != nil {
		return "", err
	}
	return "a member of cluster " + t.Cluster, nil
}

func (b *boot) askPeers(ctx context.Context, t secrets.Ticket) (secrets.Membership, error) {
	id, err := b.meta.line(ctx, "id")
	if err != nil || id == "" {
		return secrets.Membership{}, retry(exitJoinUnreachable, fmt.Errorf("the metadata service does not say which machine this is: %w", errors.Join(err, errNoID)),
			"see whether the metadata service answers: curl "+b.meta.base+"/id")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.Patience.Join, fmt.Errorf("asked for %v", b.cfg.Patience.Join))
	defer cancel()
	b.engine.say(progress.Join, "asking "+strings.Join(t.Peers, ", ")+" for the identity of cluster "+t.Cluster)
	m, err := secrets.Join(ctx, t, secrets.JoinOptions{MachineID: id, StateDir: b.at.state, Log: b.log})
	if err == nil {
		return m, nil
	}
	if _, refused := errors.AsType[*secrets.RefusedError](err); refused || errors.Is(err, secrets.ErrBadTicket) {
		return m, fail(exitJoinRefused, err, "")
	}
	if _, unreachable := errors.AsType[*secrets.UnreachableError](err); unreachable {
		return m, fail(exitJoinUnreachable, err, "")
	}
	return m, err
}

var errNoID = errors.New("it gives no id")

// trust is whom this machine believes of the control repo: what the cluster said at the join, else the image.
func (b *boot) trust() (signers control.Signers, oldest string, err error) {
	m, err := secrets.LoadMembership(b.at.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return signers, "", fail(exitSignature, err, "repair the files in "+b.at.state+", or "+recreate)
	}
	if len(m.AllowedSigners) > 0 {
		name := filepath.Join(b.at.state, "allowed_signers")
		signers, err = control.ParseSigners(name, m.AllowedSigners)
		if err != nil {
			return signers, "", fail(exitSignature, err, "correct the allowed signers on the peers, and "+recreate)
		}
		return signers, m.OldestCommit, nil
	}
	if b.cfg.AllowedSigners == "" {
		return signers, m.OldestCommit, nil
	}
	signers, err = control.LoadSigners(b.cfg.AllowedSigners)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return signers, "", fail(exitSignature, err, "correct "+b.cfg.AllowedSigners+" in the image")
	}
	return signers, m.OldestCommit, nil
}
