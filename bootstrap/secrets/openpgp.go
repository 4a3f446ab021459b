package secrets

import (
	"crypto"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

type openpgpMaker struct{}

// secret makes a version 4 Ed25519 key with SHA-512 self-signatures: what gpg 2.2 (reprepro) can import and what
// Sequoia's policy (apt since Debian 13) accepts. There is no encryption subkey, for packages are only signed.
func (openpgpMaker) secret(e entry, now time.Time) (string, error) {
	name, address, _ := strings.Cut(strings.TrimSuffix(e.uid, ">"), " <")
	salted := false // the library's salt notation on signatures is its own habit; keep to what every reader knows
	config := &packet.Config{
		Algorithm:   packet.PubKeyAlgoEdDSA,
		Curve:       packet.Curve25519,
		DefaultHash: crypto.SHA512,
		Time:        func() time.Time { return now.Add(-backdate) },

		NonDeterministicSignaturesViaNotation: &salted,
	}
	key, err := openpgp.NewEntity(name, "", address, config)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	key.Subkeys = nil
	return armored(openpgp.PrivateKeyType, func(w io.Writer) error { return key.SerializePrivateWithoutSigning(w, config) })
}

func (openpgpMaker) public(_ entry, secret string, _ time.Time) (string, error) {
	keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(secret))
	if err != nil || len(keys) != 1 || keys[0].PrivateKey == nil {
		return "", errPrivateUnreadable
	}
	return armored(openpgp.PublicKeyType, keys[0].Serialize)
}

func armored(kind string, write func(io.Writer) error) (string, error) {
	var text strings.Builder
	w, err := armor.Encode(&text, kind, nil)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	if err := write(w); err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	return text.String() + "\n", nil
}
