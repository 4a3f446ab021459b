//go:build linux

package site

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/go-git/go-git/v5/plumbing/filemode"

	"understudy/bootstrap/secrets"
)

// keys are what the operator of a real cluster makes once: the sealed bundle and its identities.
type keys struct {
	bundle    secrets.Bundle
	cluster   *age.X25519Identity
	signers   []byte // allowed signers of the control repo
	operator  operator
	sealed    []byte // secrets.age
	beachhead *age.X25519Identity
	offline   *age.X25519Identity
}

// newKeys makes all of them, with the provider's token and keys for the ledger inside the bundle, for the secrets that
// the control repo's template asks for.
func newKeys(dir, repo, cluster, domain, provider, token string) (*keys, error) {
	k := &keys{}
	for _, id := range []**age.X25519Identity{&k.cluster, &k.beachhead, &k.offline} {
		made, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, fmt.Errorf("make identities: %w", err)
		}
		*id = made
	}
	var err error
	if k.operator, err = newOperator(dir, "operator@"+domain); err != nil {
		return nil, err
	}
	k.signers = k.operator.allowedSigners()
	path := filepath.Join(repo, "puppet", "secrets.yaml")
	var template secrets.Template // a control repo need not ask for any
	data, err := os.ReadFile(path)
	if err == nil {
		template, err = secrets.ParseTemplate(path, data)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the secrets template: %w", err)
	}
	k.bundle = secrets.Bundle{
		Version: secrets.BundleVersion, ClusterKey: secrets.NewSecret(randomHex(32)),
		Provider: map[string]secrets.Secret{provider: secrets.NewSecret(token)},
		Ledger:   secrets.LedgerKeys{AccessKey: secrets.NewSecret("local-" + randomHex(8)), SecretKey: secrets.NewSecret(randomHex(32))},
	}
	if k.bundle, _, err = secrets.Generate(k.bundle, template, time.Now()); err != nil {
		return nil, fmt.Errorf("make the secrets of cluster %s: %w", cluster, err)
	}
	k.sealed, err = secrets.Seal(k.bundle, []age.Recipient{k.cluster.Recipient(), k.beachhead.Recipient(), k.offline.Recipient()})
	if err != nil {
		return nil, err
	}
	for name, id := range map[string]*age.X25519Identity{"offline.key": k.offline, "cluster.key": k.cluster} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(id.String()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	return k, os.WriteFile(filepath.Join(dir, "allowed_signers"), k.signers, 0o644)
}

// sealedFile is secrets.age as a file of the control repo.
func (k *keys) sealedFile() file { return file{mode: filemode.Regular, data: k.sealed} }

// randomHex is n random bytes in hexadecimal. crypto/rand does not fail (it ends the process).
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
