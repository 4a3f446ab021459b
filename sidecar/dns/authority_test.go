package dns

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"understudy/bootstrap/secrets"
)

const (
	testSecret  = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
	otherSecret = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcg=="
)

// authority is a name server at the other end of a pipe, which answers by a script. Real ones are in
// tests/contract/nameserver; this one does what they do not.
type authority struct {
	t testing.TB
	// say makes the answer to a question; nil says nothing, and the asker waits.
	say func(q *mdns.Msg) *mdns.Msg
	// sign puts the signature on an answer. Nil: as a server should.
	sign func(q, answer *mdns.Msg) []byte
	// clock is how far the server's clock is ahead.
	clock   time.Duration
	updates int
}

// yes answers a question with the given records.
func yes(q *mdns.Msg, rrs ...string) *mdns.Msg {
	m := new(mdns.Msg).SetReply(q)
	m.Authoritative = true
	for _, text := range rrs {
		rr, err := mdns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if q.Opcode == mdns.OpcodeQuery && rr.Header().Name == q.Question[0].Name && rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

func (s *authority) zone(change func(*ServerConfig)) *Server {
	s.t.Helper()
	cfg := ServerConfig{
		Server: "192.0.2.53:53", Zone: "blog.example", Own: []string{"www"}, Key: "ddns", Algorithm: "hmac-sha256",
		Secret: secrets.NewSecret(testSecret), Timeout: 30 * time.Second, Dial: s.dial,
	}
	if change != nil {
		change(&cfg)
	}
	z, err := NewRFC2136(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return z
}

func (s *authority) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() { // ends with the connection, which the test waits for
		defer close(done)
		s.serve(theirs)
	}()
	s.t.Cleanup(func() { _ = theirs.Close(); <-done })
	return ours, nil
}

func (s *authority) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		raw, err := receive(conn)
		if err != nil {
			return
		}
		q := new(mdns.Msg)
		if err := q.Unpack(raw); err != nil {
			s.t.Errorf("we sent what cannot be read: %v", err)
			return
		}
		if err := mdns.TsigVerify(raw, testSecret, "", false); err != nil && s.clock == 0 {
			s.t.Errorf("we sent a wrong signature: %v", err)
		}
		if q.Opcode == mdns.OpcodeUpdate {
			s.updates++
		}
		answer := s.say(q)
		if answer == nil {
			_, _ = io.Copy(io.Discard, conn) // until the asker gives up
			return
		}
		sign := s.sign
		if sign == nil {
			sign = s.signed
		}
		if out := sign(q, answer); send(conn, out) != nil {
			return
		}
	}
}

// signed is the answer with a right signature.
func (s *authority) signed(q, answer *mdns.Msg) []byte {
	return signedBy(s.t, q, answer, "ddns.", testSecret, time.Now().Add(s.clock), 0, "")
}

// signedBy is the answer with a signature of any kind.
func signedBy(t testing.TB, q, answer *mdns.Msg, key, secret string, at time.Time, failure uint16, other string) []byte {
	answer.SetTsig(key, mdns.HmacSHA256, 300, at.Unix())
	sig := answer.IsTsig()
	sig.OrigId, sig.Error, sig.OtherData, sig.OtherLen = q.Id, failure, other, uint16(len(other)/2)
	out, _, err := mdns.TsigGenerate(answer, secret, q.IsTsig().MAC, false)
	if err != nil {
		t.Errorf("sign: %v", err)
	}
	return out
}

func packed(t testing.TB, m *mdns.Msg) []byte {
	out, err := m.Pack()
	if err != nil {
		t.Errorf("pack: %v", err)
	}
	return out
}
