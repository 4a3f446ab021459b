package admin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"understudy/bootstrap/secrets"
)

const (
	authorityLabel = "understudy admin authority v1"
	// serverName is what every node's certificate is for: nodes are dialled by address, and all are equal.
	serverName = "node.understudy.internal"
	minKey     = 32 // bytes of a cluster key, as package secrets wants it
)

// Authority vouches for everybody who may use the admin API over the network. All nodes have the same.
type Authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

// NewAuthority derives the authority from the cluster key.
func NewAuthority(clusterKey secrets.Secret) (*Authority, error) {
	if len(clusterKey.Reveal()) < minKey {
		return nil, fmt.Errorf("derive the admin authority: the cluster key has less than %d bytes", minKey)
	}
	seed, err := hkdf.Key(sha256.New, []byte(clusterKey.Reveal()), nil, authorityLabel, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the admin authority: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "understudy admin authority"},
		NotBefore: always, NotAfter: forever,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the admin authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the admin authority: %w", err)
	}
	return &Authority{key: key, cert: cert}, nil
}

// Nodes' certificates hold whatever the clock says.
var (
	always  = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) // RFC 5280, 4.1.2.5: no good expiration date
)

// Node makes a node's certificate, with which it serves and asks others.
func (a *Authority) Node(name string) (tls.Certificate, error) {
	return a.sign(name, always, forever, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// Operator makes a certificate that opens the API from an hour before now, for the sake of clocks, until the end.
func (a *Authority) Operator(now, end time.Time) (tls.Certificate, error) {
	return a.sign("operator", now.Add(-time.Hour), end, x509.ExtKeyUsageClientAuth)
}

func (a *Authority) sign(name string, from, to time.Time, usage ...x509.ExtKeyUsage) (tls.Certificate, error) {
	fail := func(err error) (tls.Certificate, error) {
		return tls.Certificate{}, fmt.Errorf("make an admin certificate for %s: %w", name, err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fail(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to, // a missing serial number is drawn by the library
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}
	if usage[0] == x509.ExtKeyUsageServerAuth {
		template.DNSNames = []string{serverName}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return fail(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *Authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Server is the TLS configuration of a node's listener: it lets in whom the authority vouches for, and nobody else.
func (a *Authority) Server(node tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{node},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
		SessionTicketsDisabled: true, // so that every connection is checked anew
	}
}

// Client is the TLS configuration of one who asks, with a certificate from Node or Operator.
func (a *Authority) Client(own tls.Certificate) *tls.Config { return clientConfig(own, a.pool()) }

func clientConfig(own tls.Certificate, roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: roots, ServerName: serverName}
}

// NodeName is the member at the other end of a verified connection, whichever side dialled. An operator is none.
func NodeName(state tls.ConnectionState) (string, error) {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return "", errors.New("the other side has not proved who it is")
	}
	leaf := state.PeerCertificates[0]
	// Both usages: an operator's certificate has one, and might bear any name.
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || !slices.Contains(leaf.DNSNames, serverName) || leaf.Subject.CommonName == "" {
		return "", fmt.Errorf("the certificate of %.80q is no node's", leaf.Subject.CommonName)
	}
	return leaf.Subject.CommonName, nil
}

// WritePEM is a certificate of the authority as one file: certificate, authority, private key.
func WritePEM(c tls.Certificate) ([]byte, error) {
	var out bytes.Buffer
	for _, der := range c.Certificate {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return nil, err
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	if err := pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: key}); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// ReadPEM reads what WritePEM wrote: a client's certificate with the authority behind it, and its key, which may lie in the
// same file. The configuration trusts servers of that authority only. Errors never quote the files.
func ReadPEM(cert, key []byte) (*tls.Config, error) {
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if len(own.Certificate) < 2 {
		return nil, errors.New("the certificate's authority is missing from the file; understudy access writes both")
	}
	roots := x509.NewCertPool()
	for _, der := range own.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		roots.AddCert(c)
	}
	return clientConfig(own, roots), nil
}
