package secrets

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const serverKeyLabel = "understudy join server key v1"

// ErrWrongPin says that whoever answered does not hold the key that the ticket names.
var ErrWrongPin = errors.New("the server's key is not the one pinned in the ticket")

// NewServerIdentity makes a TLS identity with a random key, for a join server that stands alone, and the pin that
// tickets carry for it.
func NewServerIdentity() (tls.Certificate, [sha256.Size]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, [sha256.Size]byte{}, fmt.Errorf("make join server key: %w", err)
	}
	return certify(key)
}

// ServerIdentity derives the TLS identity that all members share from the cluster key, so that whoever issues a ticket
// knows the pin of every peer in it. Who has the cluster key can issue tickets anyway; TLS 1.3 agrees on a fresh key for
// every connection, so the key opens no recorded one.
func ServerIdentity(clusterKey Secret) (tls.Certificate, [sha256.Size]byte, error) {
	if len(clusterKey.Reveal()) < minClusterKey {
		return tls.Certificate{}, [sha256.Size]byte{}, fmt.Errorf("derive join server key: cluster key %s", clusterKeyShort)
	}
	return certify(ed25519.NewKeyFromSeed(deriveKey(clusterKey, serverKeyLabel)))
}

// certify wraps key in a self-signed certificate. Its names and dates mean nothing: the pin is on the key.
func certify(key ed25519.PrivateKey) (tls.Certificate, [sha256.Size]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "understudy join"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no good expiration date
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, [sha256.Size]byte{}, fmt.Errorf("make join server certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, [sha256.Size]byte{}, fmt.Errorf("make join server certificate: %w", err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return cert, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), nil
}

// pinnedTo trusts the one key and nothing else. InsecureSkipVerify switches off the check of names, dates and chain,
// none of which could add anything: the newcomer knows no authority, its clock may be far off, and peers are dialled by
// address. That the server holds the private key is still proven by TLS itself (RFC 8446, CertificateVerify), and
// VerifyConnection runs on every connection, resumed ones included (there are none: no session cache).
func pinnedTo(pin [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return ErrWrongPin
			}
			got := sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
				return ErrWrongPin
			}
			return nil
		},
	}
}
