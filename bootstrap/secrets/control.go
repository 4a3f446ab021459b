package secrets

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net"
	"net/http"
	"time"

	"filippo.io/age"
)

const (
	controlLabel = "understudy control repo v1"
	bearer       = "Bearer "

	// ReasonNotMember answers a wrong proof of membership.
	ReasonNotMember Reason = "caller does not have the cluster's identity"

	// packTimeout is how long the other side may take to begin a pack, which others may be waiting for too.
	packTimeout = 30 * time.Second
)

// controlToken proves that its bearer has the identity, and tells nothing of it (RFC 5869). It opens the control repo only, whose
// secrets need the identity itself.
func controlToken(id *age.X25519Identity) string {
	return hex.EncodeToString(deriveKey(NewSecret(id.String()), controlLabel))
}

// ControlURL is where a peer of a ticket serves the control repo, for ControlClient.
func ControlURL(peer string) string { return "https://" + peer + controlPath }

// ControlClient makes requests to the join servers of a ticket's peers as a machine that has joined: over TLS in which the server has
// the pinned key, directly, with the proof that this machine has the cluster's identity. Only a server with that key sees the proof.
func ControlClient(pin [sha256.Size]byte, id *age.X25519Identity) *http.Client {
	return &http.Client{
		Transport: proving{token: NewSecret(controlToken(id)), next: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:        pinnedTo(pin),
			TLSHandshakeTimeout:    dialTimeout,
			ResponseHeaderTimeout:  packTimeout,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// proving adds the proof to every request.
type proving struct {
	token Secret
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (p proving) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", bearer+p.token.Reveal())
	return p.next.RoundTrip(r)
}

// serveControl lets a member at the control repo.
func (s *JoinServer) serveControl(w http.ResponseWriter, r *http.Request, path string) {
	remote, no := s.caller(r)
	if no == nil {
		no = s.member(r)
	}
	if no != nil {
		facts := []any{"remote", remote, "reason", no.reason}
		if no.err != nil {
			facts = append(facts, "err", no.err)
		}
		s.Log.Warn("the control repo is not served", facts...)
		no.write(w)
		return
	}
	below := r.Clone(r.Context())
	below.URL.Path, below.URL.RawPath = path, ""
	s.Control.ServeHTTP(w, below)
}

// member says whether the caller has the identity that this peer has now, in time that does not depend on how wrong the proof is.
func (s *JoinServer) member(r *http.Request) *denial {
	m, err := s.Membership(r.Context(), "")
	if err != nil || m.Identity == nil {
		no := notNow("this peer has no membership to compare with")
		no.err = err
		return no
	}
	want := bearer + controlToken(m.Identity)
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
		return refuse(http.StatusForbidden, ReasonNotMember, "create the machine again, if the cluster's identity has changed")
	}
	return nil
}
