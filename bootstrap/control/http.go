package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// userAgent starts with git/ because some servers answer only to that.
const userAgent = "git/2.0 (understudy)"

// httpRemote speaks gitprotocol-http(5), the smart form only.
type httpRemote struct {
	client   *http.Client
	base     *url.URL // without user information; follows a redirect of the first request
	user     string
	password string
	protocol string // wanted by the header Git-Protocol; empty: version 0
}

func newHTTP(s Source, user string, t *traffic) (*httpRemote, error) {
	base, err := url.Parse(s.URL)
	if err != nil {
		return nil, errors.New("not a URL of a git repository") // the error would show a password
	}
	r := &httpRemote{base: base, user: user}
	if base.User != nil {
		r.password, _ = base.User.Password()
		base.User = nil
	}
	if s.PasswordFile != "" {
		if r.password, err = secretFile(s.PasswordFile); err != nil {
			return nil, fmt.Errorf("%w: password: %w", ErrAuth, err)
		}
		r.user = or(r.user, "git")
	}
	if s.Client != nil {
		r.client = s.Client
		return r, nil
	}
	roots, err := trusted(s.CAFile)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	r.client = &http.Client{
		Timeout:       or(s.Timeout, DefaultSourceTimeout), // beside the context: it covers the body, too
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           t.dialer(dialer),
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: 3 * dialTimeout, // the server packs before it answers
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
		},
	}
	return r, nil
}

// trusted returns nil, which means the system's roots, unless there are others to add.
func trusted(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("certificates to trust: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without roots still has those of the file
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("certificates to trust: %s holds no PEM certificate", caFile)
	}
	return pool, nil
}

// checkRedirect allows what git allows by default (http.followRedirects=initial), never from https to
// http. Credentials do not follow to another host: net/http drops the header.
func checkRedirect(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	switch {
	case last.Method != http.MethodGet:
		return errors.New("redirected in the middle of the conversation")
	case len(via) > 5:
		return errors.New("more than five redirects")
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirected from https to %s", req.URL.Scheme)
	}
	return nil
}

func (r *httpRemote) close() { r.client.CloseIdleConnections() }

func (r *httpRemote) refs(ctx context.Context) (*packp.AdvRefs, error) {
	body, err := r.advertisement(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return decodeRefs(body)
}

// advertisement begins the conversation. What it returns is the caller's to close.
func (r *httpRemote) advertisement(ctx context.Context) (io.ReadCloser, error) {
	const wanted = "application/x-git-upload-pack-advertisement"
	u := *r.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/info/refs"
	u.RawPath = ""
	query := u.Query()
	query.Set("service", transport.UploadPackServiceName)
	u.RawQuery = query.Encode()
	res, err := r.do(ctx, http.MethodGet, &u, nil, "*/*")
	if err != nil {
		return nil, err
	}
	if got := res.Header.Get("Content-Type"); got != wanted {
		res.Body.Close()
		return nil, fmt.Errorf("%w: the answer is %q and not a git server's", ErrNoRepository, got)
	}
	if final := res.Request.URL; final.String() != u.String() {
		if err := r.follow(final); err != nil {
			res.Body.Close()
			return nil, err
		}
	}
	return limited{io.LimitReader(res.Body, maxAdvertisement), res.Body}, nil
}

// limited is the start of a body.
type limited struct {
	io.Reader
	io.Closer
}

// follow goes on at the place the first request was redirected to, with credentials only on the same host.
func (r *httpRemote) follow(final *url.URL) error {
	path, ok := strings.CutSuffix(final.Path, "/info/refs")
	if !ok {
		return fmt.Errorf("%w: redirected to %s, which is not a git repository", ErrNoRepository, final.Redacted())
	}
	if final.Host != r.base.Host {
		r.user, r.password = "", ""
	}
	r.base = &url.URL{Scheme: final.Scheme, Host: final.Host, Path: path}
	return nil
}

func (r *httpRemote) pack(ctx context.Context, req *packp.UploadPackRequest, w io.Writer) (packp.ShallowUpdate, error) {
	var body bytes.Buffer
	if err := encodeRequest(&body, req); err != nil {
		return packp.ShallowUpdate{}, err
	}
	u := *r.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + transport.UploadPackServiceName
	u.RawPath = ""
	res, err := r.do(ctx, http.MethodPost, &u, &body, "application/x-git-upload-pack-result")
	if err != nil {
		return packp.ShallowUpdate{}, err
	}
	return decodePack(res.Body, req, w)
}

// do sends one request; the body of the answer is the caller's to close.
func (r *httpRemote) do(ctx context.Context, method string, u *url.URL, body io.Reader, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", accept)
	if r.protocol != "" {
		req.Header.Set("Git-Protocol", r.protocol)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	}
	if r.user != "" || r.password != "" {
		req.SetBasicAuth(r.user, r.password)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	res.Body.Close()
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return nil, fmt.Errorf("%w: the server answers %s", ErrAuth, res.Status)
	case code == http.StatusNotFound || code == http.StatusGone:
		return nil, fmt.Errorf("%w: the server answers %s", ErrNoRepository, res.Status)
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return nil, fmt.Errorf("%w: the server answers %s", ErrNoNetwork, res.Status)
	}
	return nil, fmt.Errorf("the server answers %s", res.Status)
}
