package digitalocean

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"understudy/bootstrap/secrets"
)

// Bounds of an answer. A page of 200 droplets has about 1 MB.
const (
	maxAnswer  = 16 << 20
	maxRefusal = 64 << 10
	maxMessage = 300
)

// errorID is the header in which guard hands on the id of an error body, which godo drops.
const errorID = "Understudy-Error-Id"

var errTooLarge = fmt.Errorf("answer above %d bytes", maxAnswer)

// newTransport is for a daemon that asks rarely and then in a hurry: it keeps connections warm, and finds out by pings when
// one of them leads nowhere, instead of losing a whole timeout to each request after the network was away
// (https://github.com/golang/go/issues/36026).
func newTransport(now func() time.Time) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, Time: now},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        2 * time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// guard puts the token on requests to the one host that may have it, bounds answers, and makes error bodies short and
// regular. It repeats nothing.
type guard struct {
	token secrets.Secret
	host  string
	next  http.RoundTripper
	heard func(time.Time) // nil: nobody wants to know
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != g.host {
		return nil, fmt.Errorf("the token is not for %s", r.URL.Host)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+g.token.Reveal())
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil && g.heard != nil {
		g.heard(at)
	}
	resp.Header.Del(errorID)
	if resp.StatusCode >= http.StatusBadRequest {
		return regular(resp)
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

// refusal is an error body, in the two forms that DigitalOcean has.
type refusal struct {
	ID        string `json:"id"`
	Message   string `json:"message"`
	Error     string `json:"error,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// regular replaces an error body, which may be a proxy's page of HTML, by a short one in DigitalOcean's form.
func regular(resp *http.Response) (*http.Response, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	_ = resp.Body.Close() // all that is wanted of it has been read
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	var said refusal
	if json.Unmarshal(data, &said) != nil {
		said = refusal{Message: string(data)}
	}
	if said.Message == "" {
		said.Message = said.Error
	}
	said.Error = ""
	said.Message = oneLine(said.Message)
	resp.Header.Set(errorID, oneLine(said.ID))
	if data, err = json.Marshal(said); err != nil {
		panic("a struct of strings cannot be encoded: " + err.Error())
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	resp.ContentLength = int64(len(data))
	return resp, nil
}

// oneLine makes foreign text fit to stand in an error.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = text[:maxMessage] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}

// bounded is a body that ends in an error where io.LimitReader would end silently, which a list's decoder could take for
// the list's end.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		b.left = max(b.left, 1) // an end that fits exactly is an end
	}
	return n, err
}
