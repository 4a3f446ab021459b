package admin

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/secrets"
)

func operator(t *testing.T, a *Authority, from, to time.Time) tls.Certificate {
	t.Helper()
	c, err := a.Operator(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func peer(t *testing.T, a *Authority) tls.Certificate {
	t.Helper()
	c, err := a.Node("lb2")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ownSigned is a certificate that nobody has vouched for, with all the right words in it.
func ownSigned(t *testing.T) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "understudy admin authority"}, NotBefore: always, NotAfter: forever,
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{serverName},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestStrangersAreRefusedByTLS(t *testing.T) {
	ours, other := authority(t, testKey), authority(t, otherKey)
	hour := time.Now().Add(time.Hour)
	good := func() *tls.Config { return ours.Client(peer(t, ours)) }
	for _, tc := range []struct {
		claim string
		cfg   func() *tls.Config
		want  string // in the error; refusals by the server carry its alert
	}{
		{"no certificate", func() *tls.Config { c := good(); c.Certificates = nil; return c }, "certificate required"},
		{"another cluster's node", func() *tls.Config { return ours.Client(peer(t, other)) }, "unknown certificate authority"},
		{"another cluster's operator", func() *tls.Config { return ours.Client(operator(t, other, time.Now(), hour)) }, "unknown certificate authority"},
		{"a stranger under the authority's name", func() *tls.Config { return ours.Client(ownSigned(t)) }, "unknown certificate authority"},
		{"expired", func() *tls.Config {
			return ours.Client(operator(t, ours, hour.Add(-48*time.Hour), time.Now().Add(-time.Minute)))
		}, "expired certificate"},
		{"not yet valid", func() *tls.Config {
			return ours.Client(operator(t, ours, hour.Add(48*time.Hour), hour.Add(72*time.Hour)))
		}, "expired certificate"},
		{"TLS 1.2", func() *tls.Config {
			c := good()
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		}, "protocol version not supported"},
		{"a client that expects another cluster", func() *tls.Config { return other.Client(peer(t, other)) }, "certificate signed by unknown authority"},
	} {
		t.Run(tc.claim, func(t *testing.T) {
			b := newBackend()
			c := NewTLSClient(onTLS(t, b), tc.cfg())
			defer c.Close()
			_, err := c.Pause(t.Context(), Pause{})
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if b.orders.Pause {
				t.Error("the order was taken")
			}
		})
	}
}

// An operator's certificate, stolen, does not make its thief a node that others would talk to.
func TestAnOperatorCannotPoseAsANode(t *testing.T) {
	a := authority(t, testKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	posing := newServer(t, newBackend())
	cert := operator(t, a, time.Now(), time.Now().Add(time.Hour))
	run(t, func(ctx context.Context) error { return posing.ServeTLS(ctx, l, cert) })
	c := NewTLSClient(l.Addr().String(), a.Client(peer(t, a)))
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestTheAuthorityIsTheKeysAndNothingElses(t *testing.T) {
	a, b, other := authority(t, testKey), authority(t, testKey), authority(t, otherKey)
	if !bytes.Equal(a.cert.Raw, b.cert.Raw) {
		t.Error("two nodes with one key derive two authorities")
	}
	if bytes.Equal(a.cert.RawSubjectPublicKeyInfo, other.cert.RawSubjectPublicKeyInfo) {
		t.Error("two keys give one authority")
	}
	if _, err := NewAuthority(secrets.NewSecret("short")); err == nil || strings.Contains(err.Error(), "hort\"") {
		t.Errorf("a short key: got %v", err)
	}
	if n := peer(t, a).Leaf; n.IsCA || n.NotAfter.Year() != 9999 {
		t.Errorf("a node's certificate: authority %v, until %v", n.IsCA, n.NotAfter)
	}
}

// What the socket hands out opens the same node over the network.
func TestAccessFromTheSocketOpensTheNetwork(t *testing.T) {
	b := newBackend()
	text, err := onSocket(t, b).Access(t.Context(), Access{For: Duration(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ReadPEM(text, text)
	if err != nil {
		t.Fatal(err)
	}
	addr := onTLS(t, b)
	c := NewTLSClient(addr, cfg)
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	var p *Problem
	if _, err := c.Access(t.Context(), Access{}); !errors.As(err, &p) || p.Status != 404 {
		t.Errorf("over the network the same: got %v, want 404", err)
	}
}

func TestAFileWithoutItsAuthorityIsRefused(t *testing.T) {
	cert := ownSigned(t)
	text, err := WritePEM(cert)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPEM(text, text); err == nil || !strings.Contains(err.Error(), "authority is missing") {
		t.Errorf("got %v", err)
	}
	if _, err := ReadPEM([]byte("x"), text); err == nil {
		t.Error("read a certificate from nothing")
	}
}

func TestAConnectionsOtherEndIsTheNodeOfItsCertificate(t *testing.T) {
	a := authority(t, testKey)
	shaken := func(client tls.Certificate) (tls.ConnectionState, tls.ConnectionState) {
		t.Helper()
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		server, dialled := tls.Server(there, a.Server(peer(t, a))), tls.Client(here, a.Client(client))
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		if err := errors.Join(dialled.Handshake(), <-done); err != nil {
			t.Fatal(err)
		}
		return server.ConnectionState(), dialled.ConnectionState()
	}
	own, err := a.Node("web1")
	if err != nil {
		t.Fatal(err)
	}
	atServer, atClient := shaken(own)
	if got, err := NodeName(atServer); err != nil || got != "web1" {
		t.Errorf("the server is called by %q, %v; want web1", got, err)
	}
	if got, err := NodeName(atClient); err != nil || got != "lb2" {
		t.Errorf("the client is answered by %q, %v; want lb2", got, err)
	}
	atServer, _ = shaken(operator(t, a, time.Now(), time.Now().Add(time.Hour)))
	if got, err := NodeName(atServer); err == nil {
		t.Errorf("an operator passes for the node %q", got)
	}
	if got, err := NodeName(tls.ConnectionState{}); err == nil {
		t.Errorf("nobody passes for the node %q", got)
	}
}
