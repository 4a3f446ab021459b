package dns

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	mdns "github.com/miekg/dns"
)

// fudge is how far the clocks of signer and server may be apart, in seconds: what RFC 8945, section 10 recommends.
const fudge = 300

// verify checks that answer, which came as raw, is the server's answer to the request with the given MAC. Refusals of the
// signature itself cannot be signed (RFC 8945, 5.3.2); they, and other refusals without a signature, are errors here, so that
// an unsigned message can stop us, as cutting the connection could, but never tell us anything.
func (s *Server) verify(raw []byte, answer *mdns.Msg, mac string) error {
	t := answer.IsTsig()
	if t == nil {
		if answer.Rcode == mdns.RcodeSuccess || answer.Rcode == mdns.RcodeNameError || answer.Rcode == mdns.RcodeNXRrset || answer.Rcode == mdns.RcodeYXRrset {
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
	err := mdns.TsigVerify(raw, s.cfg.Secret.Reveal(), mac, false)
	if err != nil && !errors.Is(err, mdns.ErrTime) {
		return fmt.Errorf("the answer's signature is wrong: %w", err)
	}
	if t.Error == mdns.RcodeBadTime {
		return s.clockError(t)
	}
	// ErrTime comes only after the signature itself was found right, and by the machine's clock, which Now may correct.
	if off := s.cfg.Now().Sub(time.Unix(int64(t.TimeSigned), 0)); max(off, -off) > time.Duration(t.Fudge)*time.Second {
		return fmt.Errorf("the answer was signed %v ago by this machine's clock", off.Round(time.Second))
	}
	return nil
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
		return fmt.Errorf("%w: %s, is %s its zone, and may the key %s change it?", ErrDenied, word, s.cfg.Zone, s.cfg.Key)
	}
	return fmt.Errorf("the name server answers %s", word)
}
