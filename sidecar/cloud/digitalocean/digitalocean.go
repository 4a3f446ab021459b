// Package digitalocean is the cloud.Provider for DigitalOcean's API, and for the local cloud, which speaks the same. Its
// source is DigitalOcean's API description (https://github.com/digitalocean/openapi) and its client godo.
//
// It uses godo without the retries that godo.NewFromToken switches on: one create against a server that answered 502 sent
// three POSTs. It sends the token to the configured endpoint and nowhere else, follows no redirect, and bounds what it
// reads. It believes a 404 only in DigitalOcean's own words, because "gone" is what lets others take a machine's place.
package digitalocean

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud"
)

// DefaultEndpoint is where DigitalOcean's API is.
const DefaultEndpoint = "https://api.digitalocean.com"

// defaultTimeout is how long one request may take. DigitalOcean answers most within half a second; some take several.
const defaultTimeout = 10 * time.Second

// Config says which account is asked, and for whom.
type Config struct {
	// Endpoint is the API's URL without the version. Empty: DefaultEndpoint. Plain http, by which everybody on the way can
	// read the token, is for loopback and private addresses.
	Endpoint string
	// Token is the account's. Not empty.
	Token secrets.Secret
	// Tag is the cluster's: machines that carry it are its own, and no other is looked at or touched. Not empty.
	Tag string
	// Timeout is how long one request may take. Zero: 10 s.
	Timeout time.Duration
	// Transport carries the requests. Nil: one that trusts the system's authorities and uses no proxy.
	Transport http.RoundTripper
	// Now is the wall clock for certificates, unless Transport is set. Nil: time.Now.
	Now func() time.Time
	// Heard is told the API's clock with every answer that has a date. Nil: nobody wants to know.
	Heard func(time.Time)
}

// Client asks DigitalOcean.
type Client struct {
	api *godo.Client
	tag string
	own *http.Transport // nil if Config named one
}

var _ cloud.Provider = (*Client)(nil)

// New checks the configuration and asks nothing yet. Every problem is reported at once.
func New(cfg Config) (*Client, error) {
	if cfg.Endpoint == "" {
		cfg.Endpoint = DefaultEndpoint
	}
	endpoint, err := parseEndpoint(cfg.Endpoint)
	errs := []error{err}
	if cfg.Token.IsZero() {
		errs = append(errs, errors.New("token: must not be empty"))
	}
	if cfg.Tag == "" {
		errs = append(errs, errors.New("tag: must not be empty"))
	}
	if cfg.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout %v: must not be negative", cfg.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("digitalocean: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Client{tag: cfg.Tag}
	if cfg.Transport == nil {
		c.own = newTransport(cfg.Now)
		cfg.Transport = c.own
	}
	c.api = godo.NewClient(&http.Client{ // not NewFromToken: that one repeats POSTs
		Transport: &guard{token: cfg.Token, host: endpoint.Host, next: cfg.Transport, heard: cfg.Heard},
		Timeout:   cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the API redirects, which it never does")
		},
	})
	c.api.BaseURL = endpoint
	return c, nil
}

// Close gives kept connections back. The client may be used again.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// parseEndpoint returns the URL with the final slash that godo resolves its paths against.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("endpoint %q: must be an https URL of a host", text)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.IsPrivate() && !ip.IsLoopback()) {
		return nil, fmt.Errorf("endpoint %q: must be https; http is for a loopback or private address", text)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/"
	return u, nil
}

// number reads an ID of ours back into DigitalOcean's form.
func number(id string) (int, error) {
	n, err := strconv.Atoi(id)
	if err != nil || n <= 0 || strconv.Itoa(n) != id {
		return 0, fmt.Errorf("%q is no ID of DigitalOcean's", id)
	}
	return n, nil
}
