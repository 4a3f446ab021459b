package ledger

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"understudy/sidecar/ledger/sigv4"
)

// S3Config says how a store is reached.
type S3Config struct {
	// Endpoint is the store's URL without a bucket, such as https://s3.eu-central-003.example. Buckets are named in the path.
	Endpoint string
	Bucket   string
	// Region is what signatures name. Empty: us-east-1, which stores without regions take.
	Region string
	Keys   sigv4.Keys
	// Timeout is for one request, from its beginning to the last byte of the answer. Zero: 5 s.
	Timeout time.Duration
	// Now is the wall clock for signatures and certificates. Nil: time.Now. A store that refuses a signature for its time says
	// what time it is, and that is used from then on.
	Now func() time.Time
	// Heard is told the store's clock with every answer that has a date. Nil: nobody wants to know.
	Heard func(time.Time)
	// Dial replaces the dialler, for tests and network namespaces.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots are the certificate authorities. Nil: the system's.
	Roots *x509.CertPool
}

// S3 is a Store behind the S3 API. Each of its calls is one request, or one for each thousand keys of a listing; only a
// request that was refused for the time of its signature is made again, once.
type S3 struct {
	cfg    S3Config
	base   *url.URL
	client *http.Client

	mu    sync.Mutex
	ahead time.Duration // what to add to Now for signatures
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status        int    // of HTTP
	Code, Message string // S3's own; empty if the answer was not an S3 store's
}

// Error gives what the store said.
func (e *StatusError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the store answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("the store answered %d %s: %s", e.Status, e.Code, e.Message)
}

// NewS3 prepares access to a bucket. It asks nothing yet.
func NewS3(cfg S3Config) (*S3, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("object store: %q is no http or https URL without a path", cfg.Endpoint)
	}
	if cfg.Bucket == "" || strings.ContainsAny(cfg.Bucket, "/?#%") {
		return nil, fmt.Errorf("object store: %q is no bucket", cfg.Bucket)
	}
	if cfg.Keys.AccessKey.IsZero() || cfg.Keys.SecretKey.IsZero() {
		return nil, errors.New("object store: an access key and its secret are needed")
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	s := &S3{cfg: cfg, base: u}
	s.client = &http.Client{
		Transport: &http.Transport{
			DialContext: cfg.Dial, TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, Time: s.now, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxIdleConns: 8, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		// A signature is for one host and path, so following would only fail later and less clearly.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// Close ends connections that are kept for the next call.
func (s *S3) Close() { s.client.CloseIdleConnections() }

func (s *S3) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Now().Add(s.ahead)
}

// Create implements Store.
func (s *S3) Create(ctx context.Context, key string, body []byte) (Meta, error) {
	_, m, err := s.do(ctx, request{method: http.MethodPut, key: key, body: body, condition: "*"})
	var refused *StatusError
	if errors.As(err, &refused) {
		switch refused.Status {
		case http.StatusPreconditionFailed, http.StatusConflict: // AWS: 409 ConditionalRequestConflict while another writes
			return m, ErrExists
		case http.StatusNotImplemented:
			return m, fmt.Errorf("%w: %w", ErrNotImplemented, err)
		}
	}
	return m, err
}

// Put implements Store.
func (s *S3) Put(ctx context.Context, key string, body []byte) (Meta, error) {
	_, m, err := s.do(ctx, request{method: http.MethodPut, key: key, body: body})
	return m, err
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, key string) ([]byte, Meta, error) {
	body, m, err := s.do(ctx, request{method: http.MethodGet, key: key, most: maxObject})
	var refused *StatusError
	// Only the code tells a missing object from a missing bucket, or from a proxy that knows nothing.
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound && refused.Code == "NoSuchKey" {
		return nil, m, ErrNotFound
	}
	return body, m, err
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, key string) error {
	_, _, err := s.do(ctx, request{method: http.MethodDelete, key: key})
	var refused *StatusError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound && refused.Code == "NoSuchKey" {
		return nil
	}
	return err
}

// maxPage bounds one page of a listing, in bytes: a thousand keys of a thousand bytes with what XML adds. maxPages bounds a
// listing.
const (
	maxPage  = 4 << 20
	maxPages = 100
)

// listing is the part of ListBucketResult that we use.
type listing struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	Name        string
	IsTruncated bool
	Next        string `xml:"NextContinuationToken"`
	Contents    []struct {
		Key          string
		LastModified time.Time
	}
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix, after string) ([]Object, Meta, error) {
	var all []Object
	var meta Meta
	query := url.Values{"list-type": {"2"}, "prefix": {prefix}}
	if after != "" {
		query.Set("start-after", after)
	}
	last := after
	for range maxPages {
		body, m, err := s.do(ctx, request{method: http.MethodGet, query: query, most: maxPage})
		if err != nil {
			return nil, m, err
		}
		if meta.Date.IsZero() {
			meta.Date = m.Date
		}
		var page listing
		if err := xml.Unmarshal(body, &page); err != nil {
			return nil, m, fmt.Errorf("the store's listing cannot be read: %w", err)
		}
		if page.Name != s.cfg.Bucket {
			return nil, m, fmt.Errorf("the store's listing is of bucket %.100q, not %q", page.Name, s.cfg.Bucket)
		}
		for _, o := range page.Contents {
			if !strings.HasPrefix(o.Key, prefix) || o.Key <= last {
				return nil, m, fmt.Errorf("the store's listing has %.200q, which was not asked for or is out of order", o.Key)
			}
			last = o.Key
			all = append(all, Object{o.Key, Meta{m.Date, o.LastModified}})
		}
		if !page.IsTruncated {
			return all, meta, nil
		}
		if page.Next == "" {
			return nil, m, errors.New("the store's listing is cut off and does not say how to go on")
		}
		query.Del("start-after")
		query.Set("continuation-token", page.Next)
	}
	return nil, meta, fmt.Errorf("the store's listing has more than %d pages", maxPages)
}

// request is one request to the store.
type request struct {
	method, key string // key empty: the bucket itself
	query       url.Values
	body        []byte
	condition   string // If-None-Match
	most        int64  // bytes of a good answer
}

// do makes a request, and makes it again after it was refused for its time: then it has done nothing.
func (s *S3) do(ctx context.Context, r request) ([]byte, Meta, error) {
	body, meta, err := s.once(ctx, r)
	var refused *StatusError
	if errors.As(err, &refused) && refused.Code == "RequestTimeTooSkewed" && !meta.Date.IsZero() {
		s.mu.Lock()
		s.ahead = meta.Date.Sub(s.cfg.Now())
		s.mu.Unlock()
		body, meta, err = s.once(ctx, r)
	}
	return body, meta, err
}

func (s *S3) once(ctx context.Context, r request) ([]byte, Meta, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, s.url(r).String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, Meta{}, err
	}
	if r.method == http.MethodPut {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.condition != "" {
		req.Header.Set("If-None-Match", r.condition)
	}
	sigv4.Sign(req, r.body, s.cfg.Keys, s.cfg.Region, s.now())
	res, err := s.client.Do(req)
	if err != nil {
		return nil, Meta{}, fmt.Errorf("ask the store: %w", bare(err))
	}
	defer res.Body.Close()
	meta := Meta{Date: httpTime(res.Header.Get("Date")), Modified: httpTime(res.Header.Get("Last-Modified"))}
	if s.cfg.Heard != nil && !meta.Date.IsZero() {
		s.cfg.Heard(meta.Date)
	}
	most := r.most
	if res.StatusCode/100 != 2 {
		most = maxObject
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return nil, meta, fmt.Errorf("read the store's answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		return nil, meta, refusal(res.StatusCode, body)
	}
	if int64(len(body)) > most {
		return nil, meta, fmt.Errorf("the store's answer has more than %d bytes", most)
	}
	return body, meta, nil
}

// url is the request's, spelt as the signature has it.
func (s *S3) url(r request) *url.URL {
	u := *s.base
	u.Path = "/" + s.cfg.Bucket
	if r.key != "" {
		u.Path += "/" + r.key
	}
	u.RawPath = sigv4.Escape(u.Path, "/")
	u.RawQuery = strings.ReplaceAll(r.query.Encode(), "+", "%20")
	return &u
}

// errCut says what EOF means here.
var errCut = errors.New("the connection ended without an answer")

// bare takes the method and the URL off an error of the HTTP client: the caller says what it was about.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

// refusal reads an error answer. One that is not an S3 store's keeps its status only.
func refusal(status int, body []byte) error {
	var x struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	e := &StatusError{Status: status}
	if xml.Unmarshal(body, &x) == nil {
		e.Code, e.Message = printable(x.Code), printable(x.Message)
	}
	return e
}

// printable keeps what others wrote to one short line.
func printable(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }), " ")
	return s[:min(len(s), 300)]
}

// httpTime reads a header's time; zero if it is none.
func httpTime(s string) time.Time {
	t, err := http.ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}
