package main

import (
	"context"
	"errors"
	"fmt"

	"understudy/bootstrap/control"
	"understudy/bootstrap/progress"
)

// fetch brings the newest commit of the branch, or the one that the peers named, from the first source that answers and has it.
func fetch(ctx context.Context, b *boot) (string, error) {
	pin, err := b.pin()
	if err != nil {
		return "", err
	}
	from := b.places(ctx)
	c, err := b.bring(ctx, from, pin)
	if err != nil {
		return "", fetchFailure(err, from.own(err), b.cfg.Branch)
	}
	b.engine.record.Commit = c.Hash
	b.engine.relog()
	detail := fmt.Sprintf("commit %.12s of %s: %s", c.Hash, b.cfg.Branch, c.Subject)
	if c.Hash == pin {
		detail += " (as the peers say)"
	}
	return detail, nil
}

// fetchFailure gives a meaning to a fetch that came to nothing, by what the image's own sources said.
func fetchFailure(err, own error, branch string) error {
	_, known := errors.AsType[*failure](err)
	switch {
	case known:
		return err
	case errors.Is(err, control.ErrDiskFull):
		return fail(exitDiskFull, err, "make room (df -h); it is tried again by itself")
	case errors.Is(own, control.ErrNoBranch):
		return fail(exitNoBranch, err, "push the branch "+branch+", or correct `branch` in the image's bootstrap.yaml")
	case errors.Is(own, control.ErrTooLarge):
		return fail(exitTree, err, "make the repository smaller; big files belong elsewhere")
	case errors.Is(own, control.ErrAuth), errors.Is(own, control.ErrNoRepository):
		return fail(exitNoSource, err, "correct the source in the image's bootstrap.yaml, or its credentials")
	}
	return retry(exitNoSource, err, "see whether this machine reaches one of the sources in bootstrap.yaml")
}

// commit is the recorded one, as the calls of package control want it.
func (b *boot) commit() control.Commit { return control.Commit{Hash: b.engine.record.Commit} }

// verify accepts the commit only if an allowed signer signed it and it is no older than the cluster says.
func verify(ctx context.Context, b *boot) (string, error) {
	signers, oldest, err := b.trust()
	if err != nil {
		return "", err
	}
	if signers.Empty() && b.noop {
		return "not verified: the cluster names its signers at the join, and this machine has not joined", nil
	}
	if signers.Empty() {
		return "", failf(exitSignature, "bake "+b.cfg.AllowedSigners+" into the image, or give the machine a ticket",
			"nobody is allowed to sign commits: neither the cluster nor the image has named allowed signers")
	}
	repo, err := b.repo("")
	if err != nil {
		return "", err
	}
	who, err := repo.Verify(ctx, b.commit(), signers)
	if err != nil {
		return "", verifyFailure(err)
	}
	if oldest != "" {
		if err := repo.Descends(b.commit(), oldest); err != nil {
			return "", verifyFailure(err)
		}
	}
	return fmt.Sprintf("signed by %s (%s)", who.Name, who.Fingerprint), nil
}

func verifyFailure(err error) error {
	_, unknown := errors.AsType[*control.UnknownSignerError](err)
	switch {
	case errors.Is(err, control.ErrBroken):
		return &failure{code: exitNoSource, err: err, next: "see the disk's health; the copy was thrown away", back: progress.Control}
	case errors.Is(err, control.ErrTooOld):
		return fail(exitTooOld, err, "push a commit on top of the one that the cluster knows; nothing older is accepted, whoever signed it")
	case unknown:
		return fail(exitSignature, err, "push a commit signed by an allowed signer, or add the key to the cluster's allowed signers")
	case errors.Is(err, control.ErrUnsigned), errors.Is(err, control.ErrBadSignature):
		return fail(exitSignature, err, "push a signed commit (git commit -S)")
	}
	return err
}

// export writes the commit's tree as a release.
func export(ctx context.Context, b *boot) (string, error) {
	repo, err := b.repo("")
	if err != nil {
		return "", err
	}
	dir, err := repo.Export(ctx, b.commit())
	_, refused := errors.AsType[*control.TreeError](err)
	switch {
	case err == nil:
		return dir, nil
	case errors.Is(err, control.ErrDiskFull):
		return "", fail(exitDiskFull, err, "make room (df -h); it is tried again by itself")
	case errors.Is(err, control.ErrBroken):
		return "", &failure{code: exitNoSource, err: err, next: "see the disk's health; the copy was thrown away", back: progress.Control}
	case refused, errors.Is(err, control.ErrTooLarge):
		return "", fail(exitTree, err, "push a commit without it")
	}
	return "", err
}
