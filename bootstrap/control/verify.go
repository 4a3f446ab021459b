package control

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Signer is whose signature was accepted.
type Signer struct {
	Kind        string // "ssh" or "openpgp"
	Name        string // principals of the line, or the certificate's user; for people to read only
	Fingerprint string // SHA256:… of the SSH key, or hexadecimal of the OpenPGP primary key
}

// UnknownSignerError says that the commit is signed, by a key that is not among the allowed signers.
type UnknownSignerError struct {
	Commit      string
	Fingerprint string
}

func (e *UnknownSignerError) Error() string {
	return fmt.Sprintf("commit %.12s is signed by %s, which is not an allowed signer", e.Commit, e.Fingerprint)
}

// Verify returns who signed a fetched commit. The signature covers the commit's raw bytes as stored, so
// message, tree, parents, author and times; with what Export checks it covers every file.
//
// SSH signatures (namespace git, SHA-512 or SHA-256) are checked here, OpenPGP ones by git and gpg with a
// keyring that holds the allowed certificates only. As git does, valid-after and valid-before of a line
// are compared with the committer's time, so that old commits stay valid after a key was retired. Whoever
// holds the retired key can write any time there: remove the line of a key that was stolen.
//
// The error wraps ErrUnsigned, ErrBadSignature, ErrBroken (the local copy was thrown away: fetch again),
// is a *UnknownSignerError, or comes from running git.
func (r *Repo) Verify(ctx context.Context, c Commit, allowed Signers) (Signer, error) {
	if !isHash(c.Hash) {
		return Signer{}, fmt.Errorf("verify: %q is not a full commit hash", c.Hash)
	}
	s, done := r.reader()
	parsed, raw, err := s.commit(plumbing.NewHash(c.Hash))
	if err := done(err); err != nil {
		return Signer{}, fmt.Errorf("verify: %w", err)
	}
	if parsed.signature == nil {
		return Signer{}, fmt.Errorf("verify %.12s: %w (git commit -S signs)", c.Hash, ErrUnsigned)
	}
	if err := sameForGoGit(raw, parsed); err != nil {
		return Signer{}, fmt.Errorf("verify %.12s: %w: %w", c.Hash, ErrBadSignature, err)
	}
	var who Signer
	switch {
	case bytes.HasPrefix(parsed.signature, []byte("-----BEGIN SSH SIGNATURE-----\n")):
		who, err = verifySSH(c.Hash, parsed, allowed)
	case bytes.HasPrefix(parsed.signature, []byte("-----BEGIN PGP SIGNATURE-----\n")):
		who, err = r.verifyOpenPGP(ctx, c.Hash, raw, allowed)
	default:
		err = fmt.Errorf("%w: neither SSH nor OpenPGP", ErrBadSignature)
	}
	if err != nil {
		return Signer{}, fmt.Errorf("verify %.12s: %w", c.Hash, err)
	}
	return who, nil
}

// sameForGoGit asks go-git for its reading of the commit, and refuses one that is read in two ways.
func sameForGoGit(raw []byte, ours parsedCommit) error {
	source := new(plumbing.MemoryObject)
	source.SetType(plumbing.CommitObject)
	if _, err := source.Write(raw); err != nil {
		return err
	}
	theirs, payload := new(object.Commit), new(plumbing.MemoryObject)
	if err := theirs.Decode(source); err != nil {
		return err
	}
	if err := theirs.EncodeWithoutSignature(payload); err != nil {
		return err
	}
	r, err := payload.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	var signed bytes.Buffer
	if _, err := signed.ReadFrom(r); err != nil {
		return err
	}
	if !bytes.Equal(signed.Bytes(), ours.payload) || theirs.TreeHash != ours.tree {
		return errors.New("the commit can be read in two ways")
	}
	return nil
}

// verifySSH checks a signature in the format of OpenSSH's PROTOCOL.sshsig.
func verifySSH(commit string, c parsedCommit, allowed Signers) (Signer, error) {
	block, rest := pem.Decode(c.signature)
	if block == nil || len(rest) > 0 || len(block.Headers) > 0 || block.Type != sshsig.PEMType {
		return Signer{}, fmt.Errorf("%w: malformed SSH signature", ErrBadSignature)
	}
	sig, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	fingerprint := ssh.FingerprintSHA256(sig.PublicKey)
	wire := sig.PublicKey.Marshal()
	unknown, why := true, error(nil)
	for _, s := range allowed.ssh {
		if !bytes.Equal(s.key, wire) {
			continue
		}
		unknown = false
		if !s.after.IsZero() && c.when.Before(s.after) || !s.before.IsZero() && c.when.After(s.before) {
			why = fmt.Errorf("%w: the key of %s was not valid at the commit's time, %s", ErrBadSignature, s.principals, c.when)
			continue
		}
		if err := sshsig.Verify(bytes.NewReader(c.payload), sig, sig.PublicKey, sig.HashAlgorithm, gitNamespace); err != nil {
			return Signer{}, fmt.Errorf("%w: of %s: %w", ErrBadSignature, s.principals, err)
		}
		return Signer{"ssh", s.principals, fingerprint}, nil
	}
	if unknown {
		return Signer{}, &UnknownSignerError{commit, fingerprint}
	}
	return Signer{}, why
}

// strong refuses keys that can be broken.
func strong(key ssh.PublicKey) error {
	if key.Type() == "ssh-dss" {
		return errors.New("DSA keys are too weak")
	}
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil // a security key: ed25519 or P-256
	}
	if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		return fmt.Errorf("an RSA key of %d bits is too weak: at least 2048", k.N.BitLen())
	}
	return nil
}
