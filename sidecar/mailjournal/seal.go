package mailjournal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sealer encrypts entries for the cluster. The key is derived from the cluster key, which every member has: the next
// primary may be a machine that does not exist yet, so there is no list of recipients to seal for, which is what age
// would want. What it keeps mail from is the holder's disk and its backups, not a member that root has been taken of:
// that one has the cluster key. XChaCha20-Poly1305, because its nonces may be random for any number of messages.
type Sealer struct {
	aeads []cipher.AEAD // the first seals, all open
}

const (
	sealLabel = "understudy mail journal v1"
	// sealing is how many bytes a sealed entry is longer: nonce and tag.
	sealing = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
)

// NewSealer derives the key from the cluster's. Former cluster keys still open what was sealed with them.
func NewSealer(clusterKey []byte, former ...[]byte) (*Sealer, error) {
	var s Sealer
	for _, secret := range append([][]byte{clusterKey}, former...) {
		if len(secret) < 16 {
			return nil, errors.New("seal mail: a cluster key of fewer than 16 bytes is none")
		}
		key, err := hkdf.Key(sha256.New, secret, nil, sealLabel, chacha20poly1305.KeySize)
		if err != nil {
			return nil, err
		}
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			return nil, err
		}
		s.aeads = append(s.aeads, aead)
	}
	return &s, nil
}

// bound is what is not secret of a record, but must not be changed: an old message under a new epoch, say.
func bound(r record) []byte {
	b := binary.BigEndian.AppendUint64(nil, r.epoch)
	return binary.BigEndian.AppendUint64(append(b, r.id[:]...), uint64(r.at))
}

// seal returns r with its body encrypted: nonce, ciphertext, tag.
func (s *Sealer) seal(r record) record {
	aead := s.aeads[0]
	out := make([]byte, aead.NonceSize(), aead.NonceSize()+len(r.body)+aead.Overhead())
	rand.Read(out)
	r.body = aead.Seal(out, out, r.body, bound(r))
	return r
}

func (s *Sealer) open(r record) (Entry, error) {
	for _, aead := range s.aeads {
		n := aead.NonceSize()
		if len(r.body) < n {
			break
		}
		if body, err := aead.Open(nil, r.body[:n], r.body[n:], bound(r)); err == nil {
			return decodeEntry(r.meta(), body)
		}
	}
	return Entry{}, fmt.Errorf("entry %v: it was not sealed with this cluster's key, or has been changed", r.id)
}
