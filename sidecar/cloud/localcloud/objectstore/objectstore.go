// Package objectstore is the S3-compatible store of a local cloud: gofakes3 over files in a directory, behind the signature
// check that gofakes3 does not have.
//
// It promises what the ledger hangs on: a write with If-None-Match: * is one step, so that of several writers exactly one
// wins and the others get 412; objects appear whole; listings are complete and in order. It refuses requests that are not
// signed with its one pair of keys, and bodies that are not those that were signed. The index of objects is in memory and
// ends with the process, as the cloud does; only the bodies are on disk, as checkpoints are large.
//
// It has the faults of a store far away, for tests: see Fault.
package objectstore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/johannesboyne/gofakes3"

	"understudy/sidecar/ledger/sigv4"
)

// Options of a store. All but Now are required.
type Options struct {
	Dir     string   // empty or not there; holds the objects' bodies
	Buckets []string // that there are from the start
	Keys    sigv4.Keys
	Log     *slog.Logger
	// Now is what time it is for a request's signature. Nil: what this machine's clock says.
	Now func(*http.Request) time.Time
}

// Fault is what is wrong with the store. The zero value: nothing.
type Fault struct {
	Away   bool          `json:"away,omitempty"`     // connections end without an answer, and nothing is done
	Silent bool          `json:"silent,omitempty"`   // the same, after the work is done
	Delay  time.Duration `json:"delay_ns,omitempty"` // before every request's work
}

// Store serves the S3 API.
type Store struct {
	opt Options
	api http.Handler

	mu    sync.Mutex
	fault Fault
}

// New makes an empty store with its buckets.
func New(opt Options) (*Store, error) {
	d, err := newDisk(opt.Dir)
	if err != nil {
		return nil, err
	}
	for _, b := range opt.Buckets {
		if err := errors.Join(gofakes3.ValidateBucketName(b), d.CreateBucket(b)); err != nil {
			return nil, fmt.Errorf("object store: bucket %q: %w", b, err)
		}
	}
	// The signature check has looked at the time already.
	api := gofakes3.New(d, gofakes3.WithTimeSkewLimit(0), gofakes3.WithLogger(logger{opt.Log}))
	if opt.Now == nil {
		opt.Now = func(*http.Request) time.Time { return time.Now() }
	}
	return &Store{opt: opt, api: api.Server()}, nil
}

// Set replaces the faults, for requests that come from now on.
func (s *Store) Set(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Fault returns what Set was last told.
func (s *Store) Fault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// ServeHTTP implements http.Handler.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := s.Fault()
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-r.Context().Done():
		case <-t.C:
		}
	}
	switch {
	case f.Away:
		panic(http.ErrAbortHandler) // how a handler cuts its connection (net/http, Handler)
	case f.Silent:
		s.serve(&mute{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
	s.serve(w, r)
}

// mute is an answer that nobody gets.
type mute struct{ header http.Header }

func (m *mute) Header() http.Header         { return m.header }
func (m *mute) Write(p []byte) (int, error) { return len(p), nil }
func (m *mute) WriteHeader(int)             {}

func (s *Store) serve(w http.ResponseWriter, r *http.Request) {
	if err := sigv4.Verify(r, s.opt.Keys, s.opt.Now(r)); err != nil {
		refuse(w, err)
		return
	}
	if want := r.Header.Get("X-Amz-Content-Sha256"); len(want) == hex.EncodedLen(sha256.Size) {
		r.Body = &checked{ReadCloser: r.Body, sum: sha256.New(), want: want}
	}
	s.api.ServeHTTP(w, r)
}

// refuse answers as AWS does ("Error responses" in the Amazon S3 API reference).
func refuse(w http.ResponseWriter, err error) {
	code := "AccessDenied"
	for e, c := range map[error]string{
		sigv4.ErrKey: "InvalidAccessKeyId", sigv4.ErrSignature: "SignatureDoesNotMatch", sigv4.ErrSkewed: "RequestTimeTooSkewed",
		sigv4.ErrMalformed: "AuthorizationHeaderMalformed",
	} {
		if errors.Is(err, e) {
			code = c
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusForbidden)
	_ = xml.NewEncoder(w).Encode(struct { // the asker is gone if this fails
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
	}{Code: code, Message: err.Error()})
}

// checked is a body that ends in an error if it is not the one that was signed.
type checked struct {
	io.ReadCloser
	sum  hash.Hash
	want string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(c.sum.Sum(nil)) != c.want {
		return n, gofakes3.ErrBadDigest
	}
	return n, err
}

// logger passes on what gofakes3 calls errors and warnings; its other lines are every request there is.
type logger struct{ log *slog.Logger }

func (l logger) Print(level gofakes3.LogLevel, v ...any) {
	if level == gofakes3.LogErr || level == gofakes3.LogWarn {
		l.log.Warn("object store", "reason", fmt.Sprint(v...))
	}
}
