package secrets

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Reason is why a peer refuses for good. It is the problem's title on the wire.
type Reason string

// The final reasons.
const (
	ReasonNotUnderstood Reason = "request is not understood"
	ReasonTooLarge      Reason = "request is too large"
	ReasonNotGenuine    Reason = "ticket is not genuine"
	ReasonOtherCluster  Reason = "ticket is for another cluster"
	ReasonExpired       Reason = "ticket has expired"
	ReasonUsed          Reason = "ticket was used already"
	ReasonWrongSource   Reason = "ticket was made for another machine"
)

// ErrWrongSource is what JoinConfig.Source returns when the caller is surely not the machine the ticket was made for.
var ErrWrongSource = errors.New("caller is not the machine the ticket was made for")

// answerTimeout bounds Source, Used and Membership together, for one request.
const answerTimeout = 15 * time.Second

// JoinConfig is what a join server needs. Every field but Control is required.
type JoinConfig struct {
	Log     *slog.Logger
	Cluster string
	// ClusterKey is the key under which tickets were issued.
	ClusterKey Secret
	// Certificate is from ServerIdentity or NewServerIdentity; tickets carry its pin.
	Certificate tls.Certificate
	// Membership returns what is given to whoever joins as a node, as of now.
	Membership func(ctx context.Context, node string) (Membership, error)
	// Control serves the control repo to whoever has joined and has no other way yet (see ControlClient). It sees paths below the
	// repository's. Nil: it is not served here.
	Control http.Handler
	// Source checks with the provider that machineID is a machine of the cluster, is called t.Node, is the one made for
	// this ticket where that is known, and has the address remote. ErrWrongSource is a final no; any other error means
	// that it cannot be told now (a new machine is missing from lists for seconds) and the newcomer asks again. Nothing
	// is given without a nil.
	Source func(ctx context.Context, t Ticket, remote netip.AddrPort, machineID string) error
	// Used makes tickets single use.
	Used Used
}

// JoinServer hands the membership to newcomers. It is an http.Handler; Serve runs it with the TLS and the bounds that
// the protocol asks for.
type JoinServer struct {
	JoinConfig
	limits serveLimits
	rate   *rateLimit
}

// serveLimits bound what a caller can hold. Tests shorten them.
type serveLimits struct {
	header, body, write, drain time.Duration
	conns, connsPerSource      int
}

// NewJoinServer refuses a config with anything missing, because each part of it is a check.
func NewJoinServer(c JoinConfig) (*JoinServer, error) {
	switch {
	case c.Log == nil, c.Membership == nil, c.Source == nil, c.Used == nil, len(c.Certificate.Certificate) == 0:
		return nil, errors.New("join server: log, certificate, membership, source and used are all required")
	case !keyNamePattern.MatchString(c.Cluster):
		return nil, errors.New("join server: cluster is not a name")
	case len(c.ClusterKey.Reveal()) < minClusterKey:
		return nil, fmt.Errorf("join server: cluster key %s", clusterKeyShort)
	}
	return &JoinServer{
		JoinConfig: c,
		limits: serveLimits{
			header: 5 * time.Second, body: 10 * time.Second, write: 10*time.Second + answerTimeout, drain: 5 * time.Second,
			conns: 128, connsPerSource: 8,
		},
		rate: &rateLimit{every: 500 * time.Millisecond, burst: 10, sources: 4096},
	}, nil
}

// Serve answers on ln (plain TCP) until ctx ends, then lets running requests finish for up to 5 s. It closes ln. It
// returns nil after a clean stop.
func (s *JoinServer) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.limits.header, // the TLS handshake's too
		ReadTimeout:       s.limits.body,
		WriteTimeout:      s.limits.write,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), // callers' broken handshakes
	}
	server.SetKeepAlivesEnabled(false)
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{s.Certificate},
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
	bounded := newBoundedListener(ln, s.limits.conns, s.limits.connsPerSource)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(tls.NewListener(bounded, config)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve joins: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.drain)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			return server.Close() // whoever is cut off asks the next peer
		}
		return nil
	})
	return g.Wait()
}

// ServeHTTP implements http.Handler.
func (s *JoinServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.Path, controlPath+"/"); ok && s.Control != nil {
		s.serveControl(w, r, "/"+path)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	answer, no := s.answer(ctx, w, r)
	if no != nil {
		no.write(w)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(answer) // a caller that is gone asks again
}

func (s *JoinServer) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) (joinAnswer, *denial) {
	remote, no := s.caller(r)
	if no != nil {
		return joinAnswer{}, no
	}
	j, no := readJoiner(w, r)
	if no != nil {
		s.Log.Warn("join refused", "remote", remote, "reason", no.reason)
		return joinAnswer{}, no
	}
	if no := s.admit(ctx, j, remote); no != nil {
		facts := []any{"node", j.ticket.Node, "machine", j.machineID, "remote", remote, "reason", no.reason}
		if no.err != nil {
			facts = append(facts, "err", no.err)
		}
		s.Log.Warn("join refused", facts...)
		return joinAnswer{}, no
	}
	m, err := s.Membership(ctx, j.ticket.Node)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		s.Log.Error("no membership to give", "node", j.ticket.Node, "err", err)
		return joinAnswer{}, notNow("this peer has no membership to give")
	}
	answer, err := j.grant(m)
	if err != nil {
		s.Log.Error("no membership to give", "node", j.ticket.Node, "err", err)
		return joinAnswer{}, notNow("this peer cannot seal the membership")
	}
	s.Log.Info("node joined", "node", j.ticket.Node, "machine", j.machineID, "remote", remote, "recipient", j.recipient.String())
	return answer, nil
}

// caller is who asks, if he has not asked too often.
func (s *JoinServer) caller(r *http.Request) (netip.AddrPort, *denial) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return remote, notNow("the caller's address is not known")
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	if !s.rate.allow(remote.Addr(), time.Now()) {
		return remote, notNow("too many requests from this address")
	}
	return remote, nil
}

// readJoiner takes the request apart; it believes nothing of it yet.
func readJoiner(w http.ResponseWriter, r *http.Request) (joiner, *denial) {
	if r.Method != http.MethodPost || r.URL.Path != joinPath {
		return joiner{}, refuse(http.StatusNotFound, ReasonNotUnderstood, "this server answers POST "+joinPath+" only")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoinRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return joiner{}, refuse(http.StatusRequestEntityTooLarge, ReasonTooLarge, "a join request has at most "+strconv.Itoa(maxJoinRequest)+" bytes")
	} else if err != nil {
		return joiner{}, notNow("the request did not arrive whole")
	}
	j, err := parseJoinRequest(body)
	if err != nil {
		return joiner{}, refuse(http.StatusBadRequest, ReasonNotUnderstood, err.Error()+": use images of one version")
	}
	return j, nil
}

// admit checks, cheapest first, and spends the ticket last: a caller refused for any other reason has not spent it.
func (s *JoinServer) admit(ctx context.Context, j joiner, remote netip.AddrPort) *denial {
	t := j.ticket
	if !t.genuine(s.ClusterKey) {
		return refuse(http.StatusForbidden, ReasonNotGenuine, "it was changed on the way, or issued under another cluster key: create the machine again")
	}
	if t.Cluster != s.Cluster {
		return refuse(http.StatusForbidden, ReasonOtherCluster, "this peer serves cluster "+s.Cluster+": create the machine again with its own ticket")
	}
	if !time.Now().Before(t.Expires) {
		return refuse(http.StatusForbidden, ReasonExpired, "create the machine again, with a new ticket; if this one is new, compare the clocks")
	}
	if err := s.Source(ctx, t, remote, j.machineID); errors.Is(err, ErrWrongSource) {
		no := refuse(http.StatusForbidden, ReasonWrongSource, "only the machine that was created with it may use it: create this one again with its own ticket")
		no.err = err
		return no
	} else if err != nil {
		no := notNow("the provider could not be asked about this machine yet")
		no.err = err
		return no
	}
	if err := s.Used.Claim(ctx, hex.EncodeToString(t.Nonce[:]), j.recipient.String()); errors.Is(err, ErrUsed) {
		return refuse(http.StatusConflict, ReasonUsed, "if this machine has lost its join key, replace it; if it has not, another process read its user data and was first: take the machine off and change the cluster key")
	} else if err != nil {
		no := notNow("it could not be recorded that the ticket is used")
		no.err = err
		return no
	}
	return nil
}

// denial is a refusal on its way out; err, if any, stays here.
type denial struct {
	status int
	reason Reason
	hint   string
	err    error
}

func refuse(status int, reason Reason, hint string) *denial {
	return &denial{status: status, reason: reason, hint: hint}
}

// notNow is a 503: the newcomer asks another peer, and later this one again.
func notNow(reason Reason) *denial {
	return &denial{status: http.StatusServiceUnavailable, reason: reason, hint: "ask again"}
}

func (d *denial) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", problemType)
	w.Header().Set("Cache-Control", "no-store")
	if d.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(d.status)
	// A caller that is gone asks again.
	_ = json.NewEncoder(w).Encode(joinProblem{Title: string(d.reason), Status: d.status, Detail: d.hint})
}
