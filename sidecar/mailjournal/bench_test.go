package mailjournal

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkAccepted is what a message of 4 KiB costs from the end of its data to the milter's answer: the own journal and
// a holder over TLS on loopback, both synced. Both are on one disk here, on two in a cluster. Sixteen senders, and one.
func BenchmarkAccepted(b *testing.B) {
	for name, senders := range map[string]int{"senders=1": 1, "senders=16": 16} {
		b.Run(name, func(b *testing.B) { benchmark(b, senders) })
	}
}

func benchmark(b *testing.B, senders int) {
	m := newMember(b, options(b.TempDir()))
	m.ln.Close()
	own, config := overTLS(b)
	var g errgroup.Group
	ctx, cancel := context.WithCancel(context.Background())
	g.Go(func() error {
		for {
			conn, err := own.Accept()
			if err != nil {
				return nil
			}
			g.Go(func() error {
				m.Serve(ctx, conn)
				return nil
			})
		}
	})
	b.Cleanup(func() {
		cancel()
		own.Close()
		g.Wait()
	})
	copies := &Copies{
		Holders: func() []string { return []string{"other"} }, Epoch: func() uint64 { return 7 }, Sealer: sealer(b), Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			d := tls.Dialer{Config: config}
			return d.DialContext(ctx, "tcp", own.Addr().String())
		},
	}
	b.Cleanup(func() { copies.Close() })
	s := serve(b, copies)
	body := strings.Repeat("x", 4096)
	var clients []*postfix
	for range senders {
		clients = append(clients, connect(b, s.address))
	}
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	b.ResetTimer()
	var senderGroup errgroup.Group
	for _, p := range clients {
		p.conn.SetDeadline(time.Time{})
		senderGroup.Go(func() error {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				if _, answer, err := p.deliver(plain, body); err != nil || answer != "accept" {
					b.Errorf("got %q, %v", answer, err)
					return err
				}
				took[i] = time.Since(p.end)
			}
			return nil
		})
	}
	senderGroup.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// overTLS listens on loopback with a certificate made for the occasion, mutually required.
func overTLS(b *testing.B) (net.Listener, *tls.Config) {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"member"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool, ClientCAs: pool,
		ServerName: "member", ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		b.Fatal(err)
	}
	return ln, config
}
