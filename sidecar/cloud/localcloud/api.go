package localcloud

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds a request's body. The largest honest one is a create with 64 KiB of user data, JSON-escaped.
const maxBody = 1 << 20

// call is one API request on its way through a handler.
type call struct {
	r     *http.Request
	fx    effects
	now   time.Time
	scope []string
}

// A handler does one request. An error that is no *apiError is a defect of the server and becomes a 500.
type handler func(c *call) (reply, error)

// API is the HTTP handler for /v2/.
func (s *Server) API() http.Handler { return s.api }

// newAPI puts the routes into a mux. What is not there is 404 in DigitalOcean's form.
func (s *Server) newAPI() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range s.routes() {
		mux.Handle(rt.method+" "+rt.pattern, s.serve(rt))
	}
	mux.Handle("/", s.serve(route{handle: func(c *call) (reply, error) {
		s.log.Warn("request for an endpoint that this cloud does not have", "method", c.r.Method, "path", c.r.URL.Path)
		return reply{}, errNotFound
	}}))
	return mux
}

// serve wraps a route into what every request goes through: token, rate limit, scopes, faults, log.
func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		requestID := newUUID()
		w.Header().Set("X-Request-Id", requestID)
		c := &call{r: r, now: began, scope: rt.scope}
		answer, err := s.admit(w, c)
		if err == nil {
			answer, err = s.perform(rt, c)
		}
		if err != nil {
			answer = s.failure(err, c).reply(requestID)
		}
		s.log.Debug("api request", "method", r.Method, "path", r.URL.Path, "status", answer.status, "request", requestID,
			"took", time.Since(began))
		answer.send(w)
	})
}

// admit checks token, rate and scopes, and draws the faults for the request.
func (s *Server) admit(w http.ResponseWriter, c *call) (reply, error) {
	token, scopes, ok := s.authenticate(c.r.Header.Get("Authorization"))
	left, limited := s.limiter.take(token, c.now)
	w.Header().Set("Ratelimit-Limit", strconv.Itoa(left.limit))
	w.Header().Set("Ratelimit-Remaining", strconv.Itoa(left.remaining))
	w.Header().Set("Ratelimit-Reset", strconv.FormatInt(left.reset.Unix(), 10))
	if !ok {
		return reply{}, errUnauthorized
	}
	if limited != nil {
		return reply{}, limited
	}
	for _, need := range c.scope {
		if scopes != nil && !slices.Contains(scopes, need) {
			return reply{}, errForbidden
		}
	}
	c.fx = s.faults.draw(c.r.Method, c.r.URL.Path)
	if c.fx.refusal != nil {
		return reply{}, c.fx.refusal
	}
	return reply{}, nil
}

// perform runs the handler and spoils its answer where a fault says so.
func (s *Server) perform(rt route, c *call) (reply, error) {
	if !s.linger(c) {
		return reply{}, serverError(http.StatusServiceUnavailable)
	}
	answer, err := rt.handle(c)
	switch {
	case c.fx.hangUp:
		return reply{hangUp: true}, nil
	case c.fx.lost != nil:
		return reply{}, c.fx.lost
	}
	return answer, err
}

// linger waits as long as the fault Slow says. It returns false when the server is closed.
func (s *Server) linger(c *call) bool {
	if c.fx.wait > 0 {
		timer := time.NewTimer(c.fx.wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.r.Context().Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed
}

// failure turns err into an answer.
func (s *Server) failure(err error, c *call) *apiError {
	var known *apiError
	if errors.As(err, &known) {
		return known
	}
	s.log.Error("api request failed, which is a defect of the local cloud", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	return serverError(http.StatusInternalServerError)
}

// authenticate finds the token of an Authorization header. Nil scopes mean full access. Tokens are compared in
// constant time, out of habit rather than need.
func (s *Server) authenticate(header string) (token string, scopes []string, ok bool) {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", nil, false
	}
	if subtle.ConstantTimeCompare([]byte(token), []byte(s.opt.Token)) == 1 {
		return token, nil, true
	}
	for known, granted := range s.opt.Scoped {
		if subtle.ConstantTimeCompare([]byte(token), []byte(known)) == 1 {
			return token, append([]string{}, granted...), true
		}
	}
	return "", nil, false
}

// number reads a path value that must be a positive number; anything else is a resource that does not exist.
func (c *call) number(name string) (int, error) {
	n, err := strconv.Atoi(c.r.PathValue(name))
	if err != nil || n < 1 {
		return 0, errNotFound
	}
	return n, nil
}

// addr reads a path value that must be an address.
func (c *call) addr(name string) (netip.Addr, error) {
	a, err := netip.ParseAddr(c.r.PathValue(name))
	if err != nil {
		return netip.Addr{}, errNotFound
	}
	return a, nil
}

func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }

// body reads the whole request body.
func (c *call) body() ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(c.r.Body, maxBody+1))
	if err != nil {
		return nil, errBadBody
	}
	if len(data) > maxBody {
		return nil, errTooLarge
	}
	return data, nil
}

// decode reads the request body as JSON into v. Unknown members are ignored, as DigitalOcean does.
func (c *call) decode(v any) error {
	data, err := c.body()
	if err != nil {
		return err
	}
	return decodeJSON(data, v)
}

// decodeJSON reads exactly one JSON object.
func decodeJSON(data []byte, v any) error {
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return errBadBody
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errBadBody
	}
	return nil
}

// href makes an absolute URL on the address by which the client reached us.
func (c *call) href(format string) string {
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.r.Host + format
}

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

// logger is what handlers log with.
func (s *Server) logger(c *call) *slog.Logger {
	return s.log.With("method", c.r.Method, "path", c.r.URL.Path)
}
