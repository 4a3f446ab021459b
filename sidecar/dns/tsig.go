package dns

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	mdns "github.com/miekg/dns"
)

// fudge is how far the clocks of signer and server may be apart, in seconds: what RFC 8945, section 10 recommends.
const fudge = 300

// verify checks that answer, which came as raw, is the server's answer to the request with the given MAC. Refusals of the
// signature itself cannot be signed (RFC 8945, 5.3.2); they, and other refusals without a signature, are errors here, so that
// an unsigned message can stop us, as cutting the connection could, but never tell us anything.
func (s *Server) verify(raw []byte, answer *mdns.Msg, requestMAC string) error {
	t := answer.IsTsig()
	if t == nil {
		if slices.Contains([]int{mdns.RcodeSuccess, mdns.RcodeNameError, mdns.RcodeNXRrset, mdns.RcodeYXRrset, mdns.RcodeYXDomain}, answer.Rcode) {
			return errors.New("the answer is not signed")
		}
		return s.refused(answer)
	}
	if t.Error == mdns.RcodeBadKey || t.Error == mdns.RcodeBadSig {
		return s.refused(answer)
	}
	if mdns.CanonicalName(t.Hdr.Name) != s.key || mdns.CanonicalName(t.Algorithm) != mdns.Fqdn(s.cfg.Algorithm) {
		return errors.New("the answer is signed with another key")
	}
	if err := s.checkMAC(raw, t, requestMAC); err != nil {
		return err
	}
	if t.Error == mdns.RcodeBadTime {
		return s.clockError(t)
	}
	if off := s.cfg.Now().Sub(time.Unix(int64(t.TimeSigned), 0)); max(off, -off) > time.Duration(t.Fudge)*time.Second {
		return fmt.Errorf("the answer was signed %v ago by this machine's clock", off.Round(time.Second))
	}
	return nil
}

// checkMAC computes the signature of RFC 8945, 4.3. It is ours because miekg/dns v1 gives up on every answer that says
// NOTAUTH, and so on the one that tells the server's time, and judges the time by no clock but the machine's.
func (s *Server) checkMAC(raw []byte, t *mdns.TSIG, requestMAC string) error {
	body, err := unsigned(raw)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(body, t.OrigId)
	request, err := hex.DecodeString(requestMAC)
	if err != nil {
		panic("a MAC that we made is no hexadecimal: " + requestMAC)
	}
	other, err := hex.DecodeString(t.OtherData)
	if err != nil {
		return fmt.Errorf("read the answer's signature: %w", err)
	}
	secret, err := base64.StdEncoding.DecodeString(s.cfg.Secret.Reveal())
	if err != nil {
		panic("the secret of " + s.cfg.Key + " was not checked")
	}
	sum := hmac.New(hashes[s.cfg.Algorithm], secret)
	write := func(parts ...[]byte) {
		for _, p := range parts {
			_, _ = sum.Write(p) // hash.Hash never fails
		}
	}
	u16 := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
	write(u16(uint16(len(request))), request, body)
	write(wireName(s.key), u16(mdns.ClassANY), binary.BigEndian.AppendUint32(nil, t.Hdr.Ttl), wireName(mdns.Fqdn(s.cfg.Algorithm)))
	write(binary.BigEndian.AppendUint64(nil, t.TimeSigned)[2:], u16(t.Fudge), u16(t.Error), u16(t.OtherLen), other)
	if got, err := hex.DecodeString(t.MAC); err != nil || !hmac.Equal(got, sum.Sum(nil)) {
		return errors.New("the answer's signature is wrong")
	}
	return nil
}

// hashes are those of roles.yaml's algorithms.
var hashes = map[string]func() hash.Hash{"hmac-sha256": sha256.New, "hmac-sha384": sha512.New384, "hmac-sha512": sha512.New}

// unsigned copies a message without the TSIG record that ends it.
func unsigned(raw []byte) ([]byte, error) {
	const header = 12
	if len(raw) < header {
		return nil, io.ErrUnexpectedEOF
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(raw[at:])) }
	off, err := header, error(nil)
	for range count(4) {
		if _, off, err = mdns.UnpackDomainName(raw, off); err != nil {
			return nil, err
		}
		off += 4
	}
	for range count(6) + count(8) + count(10) - 1 {
		if off >= len(raw) {
			return nil, io.ErrUnexpectedEOF
		}
		if _, off, err = mdns.UnpackRR(raw, off); err != nil {
			return nil, err
		}
	}
	if off > len(raw) || count(10) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	body := slices.Clone(raw[:off])
	binary.BigEndian.PutUint16(body[10:], uint16(count(10)-1))
	return body, nil
}

// wireName is a canonical name as RFC 1035, 3.1 writes it, without compression.
func wireName(name string) []byte {
	buf := make([]byte, 256)
	n, err := mdns.PackDomainName(name, buf, 0, nil, false)
	if err != nil {
		panic("a name that was checked cannot be written: " + name)
	}
	return buf[:n]
}

// clockError reads the server's time out of a BADTIME answer (RFC 8945, 5.2.3): 48 bits of seconds.
func (s *Server) clockError(t *mdns.TSIG) error {
	data, err := hex.DecodeString(t.OtherData)
	if err != nil || len(data) != 6 {
		return fmt.Errorf("%w: the server's clock and this machine's are too far apart", ErrDenied)
	}
	var seconds int64
	for _, b := range data {
		seconds = seconds<<8 | int64(b)
	}
	at := time.Unix(seconds, 0)
	return &ClockError{Server: at, Ahead: at.Sub(s.cfg.Now()).Round(time.Second)}
}

// refused says in words what the server answered.
func (s *Server) refused(answer *mdns.Msg) error {
	word := mdns.RcodeToString[answer.Rcode]
	if word == "" {
		word = fmt.Sprintf("rcode %d", answer.Rcode)
	}
	if t := answer.IsTsig(); t != nil {
		switch t.Error {
		case mdns.RcodeBadKey:
			return fmt.Errorf("%w: %s, it does not know the key %s", ErrDenied, word, s.cfg.Key)
		case mdns.RcodeBadSig:
			return fmt.Errorf("%w: %s, it has another secret for the key %s", ErrDenied, word, s.cfg.Key)
		}
	}
	switch answer.Rcode {
	case mdns.RcodeRefused, mdns.RcodeNotAuth, mdns.RcodeNotZone:
		// BIND refuses a mail exchanger without an address, too.
		return fmt.Errorf("%w: %s; is %s its zone, may the key %s change it, and has every mail exchanger an address?",
			ErrDenied, word, s.cfg.Zone, s.cfg.Key)
	}
	return fmt.Errorf("the name server answers %s", word)
}
