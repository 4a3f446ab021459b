package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger/sigv4"
)

const bucket = "blog-understudy"

// between stands between client and store, and may answer in its place. pass hands the request on and returns the answer.
type between func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder)

// fakeS3 serves gofakes3 on loopback; b may be nil.
func fakeS3(t *testing.T, b between) string {
	t.Helper()
	backend := s3mem.New()
	must(t, backend.CreateBucket(bucket))
	api := gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b == nil {
			api.ServeHTTP(w, r)
			return
		}
		b(w, r, func() *httptest.ResponseRecorder {
			rec := httptest.NewRecorder()
			api.ServeHTTP(rec, r)
			return rec
		})
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func forward(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func client(t *testing.T, url string, timeout time.Duration) *S3 {
	t.Helper()
	s, err := NewS3(S3Config{
		Endpoint: url, Bucket: bucket, Timeout: timeout,
		Keys: sigv4.Keys{AccessKey: secrets.NewSecret("a"), SecretKey: secrets.NewSecret("s")},
	})
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func TestS3StoreDoesWhatTheMemoryDoes(t *testing.T) {
	ctx := t.Context()
	for name, s := range map[string]Store{"S3": client(t, fakeS3(t, nil), 0), "memory": NewMemory()} {
		began := time.Now()
		if _, err := s.Create(ctx, "x/@a/1", []byte("one")); err != nil {
			t.Fatalf("%s: create: %v", name, err)
		}
		if _, err := s.Create(ctx, "x/@a/1", []byte("two")); !errors.Is(err, ErrExists) {
			t.Errorf("%s: create again: got %v, want ErrExists", name, err)
		}
		body, m, err := s.Get(ctx, "x/@a/1")
		if err != nil || string(body) != "one" || m.Date.Sub(began).Abs() > time.Minute || m.Modified.Sub(began).Abs() > time.Minute {
			t.Errorf("%s: get: got %q, %+v, %v", name, body, m, err)
		}
		if _, _, err := s.Get(ctx, "x/@a/2"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: get nothing: got %v, want ErrNotFound", name, err)
		}
		m, err = s.Put(ctx, "x/b", []byte("three"))
		if err != nil || m.Date.IsZero() {
			t.Errorf("%s: put: got %+v, %v; want the store's time", name, m, err)
		}
		if _, err := s.Put(ctx, "x/b", nil); err != nil {
			t.Errorf("%s: put an empty one over it: got %v", name, err)
		}
		if body, _, err := s.Get(ctx, "x/b"); err != nil || len(body) != 0 {
			t.Errorf("%s: get the empty one: got %q, %v", name, body, err)
		}
		if _, err := s.Put(ctx, "y", nil); err != nil {
			t.Errorf("%s: put: got %v", name, err)
		}
		list, m, err := s.List(ctx, "x/", "")
		if err != nil || len(list) != 2 || list[0].Key != "x/@a/1" || list[1].Key != "x/b" || m.Date.IsZero() || list[0].Age() > time.Minute {
			t.Errorf("%s: list: got %+v, %+v, %v", name, list, m, err)
		}
		if list, _, err := s.List(ctx, "x/", "x/@a/1"); err != nil || len(list) != 1 || list[0].Key != "x/b" {
			t.Errorf("%s: list after the first: got %+v, %v", name, list, err)
		}
		for range 2 {
			if err := s.Delete(ctx, "x/b"); err != nil {
				t.Errorf("%s: delete: got %v", name, err)
			}
		}
		if list, _, err := s.List(ctx, "", ""); err != nil || len(list) != 2 {
			t.Errorf("%s: list all: got %+v, %v", name, list, err)
		}
	}
}

func TestLedgerOverHTTPPassesItsSelfTestAndReads(t *testing.T) {
	ctx := t.Context()
	l := New(client(t, fakeS3(t, nil), 0), "blog")
	must(t, l.SelfTest(ctx, "web1"))
	must(t, l.WriteDuty(ctx, cluster.DutyRecord{Duty: "@cluster", Epoch: 1, Holder: "web1"}))
	must(t, l.Beat(ctx, "web1", Heartbeat{Count: 1}))
	r, err := l.Read(ctx)
	if err != nil || r.Duties["@cluster"].Holder != "web1" || r.Beats["web1"].Date.IsZero() {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestListingGoesOnToItsEnd(t *testing.T) {
	ctx := t.Context()
	s := client(t, fakeS3(t, nil), 0)
	const n = 1203 // S3 gives a thousand at a time
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				if _, err := s.Put(ctx, fmt.Sprintf("k/%05d", i), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	list, _, err := s.List(ctx, "k/", "k/00001")
	if err != nil || len(list) != n-2 || list[0].Key != "k/00002" || list[n-3].Key != fmt.Sprintf("k/%05d", n-1) {
		t.Errorf("got %d keys, %v; want %d", len(list), err, n-2)
	}
}

func TestRacingWritersOverHTTPHaveOneWinner(t *testing.T) {
	url := fakeS3(t, nil)
	for epoch := range uint64(10) {
		const writers = 12
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for i := range errs {
			l := New(client(t, url, 0), "blog")
			wg.Go(func() { errs[i] = l.WriteDuty(t.Context(), lb(epoch+1, fmt.Sprintf("lb%d", i))) })
		}
		wg.Wait()
		r, err := New(client(t, url, 0), "blog").Read(t.Context())
		must(t, err)
		for i, err := range errs {
			var taken *TakenError
			won := r.Duties["lb"].Holder == fmt.Sprintf("lb%d", i)
			if won != (err == nil) || err != nil && (!errors.As(err, &taken) || taken.By != r.Duties["lb"].Holder) {
				t.Errorf("epoch %d, lb%d: got %v; the ledger has %s", epoch+1, i, err, r.Duties["lb"].Holder)
			}
		}
	}
}

// cut ends the connection without an answer.
func cut() { panic(http.ErrAbortHandler) }

// A write whose answer is lost may have happened. Writing again must find out, and never take it for somebody else's.
func TestWriteWithoutAnAnswerIsFoundOutByWritingAgain(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		fail    func(w http.ResponseWriter, r *http.Request)
		commits bool
	}{
		"connection cut before": {func(http.ResponseWriter, *http.Request) { cut() }, false},
		"connection cut after":  {func(http.ResponseWriter, *http.Request) { cut() }, true},
		"500 before":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, false},
		"500 after":             {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, true},
		"503 after":             {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, true},
		"no answer before":      {hang, false},
		"no answer after":       {hang, true},
	} {
		var puts atomic.Int32
		url := fakeS3(t, func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder) {
			if r.Method != http.MethodPut || puts.Add(1) > 1 {
				forward(w, pass())
				return
			}
			if c.commits {
				pass()
			} else if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			c.fail(w, r)
		})
		timeout := time.Duration(0)
		if strings.HasPrefix(name, "no answer") {
			timeout = 200 * time.Millisecond
		}
		l := New(client(t, url, timeout), "blog")
		if err := l.WriteDuty(t.Context(), lb(1, "lb1")); err == nil || errors.As(err, new(*TakenError)) {
			t.Errorf("%s: got %v, want an error that names no winner", name, err)
		}
		if got := puts.Load(); got != 1 {
			t.Errorf("%s: one call made %d requests", name, got)
		}
		l = New(client(t, url, 0), "blog")
		if err := l.WriteDuty(t.Context(), lb(1, "lb1")); err != nil {
			t.Errorf("%s: again: got %v, want nil", name, err)
		}
		var taken *TakenError
		if err := l.WriteDuty(t.Context(), lb(1, "lb2")); !errors.As(err, &taken) || taken.By != "lb1" {
			t.Errorf("%s: another's: got %v, want taken by lb1", name, err)
		}
	}
}

func TestRefusalOfTheConditionIsNoDefeatUntilItIsRead(t *testing.T) {
	refuse := func(status int) between {
		return func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder) {
			if r.Method == http.MethodPut {
				w.WriteHeader(status)
				return
			}
			forward(w, pass())
		}
	}
	for _, status := range []int{http.StatusPreconditionFailed, http.StatusConflict} {
		l := New(client(t, fakeS3(t, refuse(status)), 0), "blog")
		if err := l.WriteDuty(t.Context(), lb(1, "lb1")); err == nil || errors.As(err, new(*TakenError)) {
			t.Errorf("%d and nothing there: got %v, want an error that names no winner", status, err)
		}
	}
	l := New(client(t, fakeS3(t, refuse(http.StatusNotImplemented)), 0), "blog")
	if err := l.SelfTest(t.Context(), "web1"); !errors.As(err, new(*UnsoundError)) {
		t.Errorf("501: got %v, want an *UnsoundError", err)
	}
}

func TestStoreThatIgnoresTheConditionIsFoundOut(t *testing.T) {
	url := fakeS3(t, func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder) {
		r.Header.Del("If-None-Match")
		forward(w, pass())
	})
	if err := New(client(t, url, 0), "blog").SelfTest(t.Context(), "web1"); !errors.As(err, new(*UnsoundError)) {
		t.Errorf("got %v, want an *UnsoundError", err)
	}
}

const emptyList = `<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>blog-understudy</Name><IsTruncated>false</IsTruncated></ListBucketResult>`

// No answer but a whole, proper listing means that there is nothing.
func TestAnswersThatAreNoneAreErrorsAndNeverAbsence(t *testing.T) {
	entry := func(key string) string {
		return "<Contents><Key>" + key + "</Key><LastModified>2026-01-02T15:04:05.000Z</LastModified></Contents>"
	}
	list := func(inner string) string {
		return strings.Replace(emptyList, "<IsTruncated>false</IsTruncated>", inner, 1)
	}
	if l := New(client(t, fixed(t, 200, emptyList), 0), "blog"); l != nil {
		if _, err := l.Read(t.Context()); err != nil {
			t.Errorf("a proper empty listing: got %v", err)
		}
	}
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"nothing":              {200, ""},
		"a web page":           {200, "<html><body>Welcome to the hotel</body></html>"},
		"JSON":                 {200, "{}"},
		"no content":           {204, ""},
		"half of a listing":    {200, emptyList[:150]},
		"another bucket":       {200, strings.Replace(emptyList, bucket, "other", 1)},
		"no bucket":            {200, strings.Replace(emptyList, "<Name>"+bucket+"</Name>", "", 1)},
		"cut off":              {200, list("<IsTruncated>true</IsTruncated>")},
		"no end":               {200, list("<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>")},
		"not asked for":        {200, list(entry("other/x"))},
		"not in order":         {200, list(entry("blog/z/2") + entry("blog/z/1"))},
		"twice":                {200, list(entry("blog/z/1") + entry("blog/z/1"))},
		"a time that is none":  {200, list("<Contents><Key>blog/z/1</Key><LastModified>now</LastModified></Contents>")},
		"a truth that is none": {200, list("<IsTruncated>perhaps</IsTruncated>")},
		"too much":             {200, list("<X>" + strings.Repeat("x", maxPage) + "</X>")},
		"redirect":             {301, ""},
		"not modified":         {304, ""},
		"forbidden":            {403, "<Error><Code>AccessDenied</Code></Error>"},
		"no bucket there":      {404, "<Error><Code>NoSuchBucket</Code></Error>"},
		"not found":            {404, ""},
		"500":                  {500, "oops"},
		"503":                  {503, "<Error><Code>SlowDown</Code><Message>Reduce your\nrate</Message></Error>"},
	} {
		s := client(t, fixed(t, c.status, c.body), 0)
		if r, err := New(s, "blog").Read(t.Context()); err == nil || r.Duties != nil {
			t.Errorf("%s: reading: got %+v, %v; want an error", name, r, err)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the error has several lines: %q", name, err)
		}
		if _, _, err := s.Get(t.Context(), "k"); c.status != 200 && c.status != 204 && (err == nil || errors.Is(err, ErrNotFound)) {
			t.Errorf("%s: get: got %v, want an error other than ErrNotFound", name, err)
		}
		if _, err := s.Create(t.Context(), "k", nil); c.status/100 != 2 && (err == nil || errors.Is(err, ErrExists)) {
			t.Errorf("%s: create: got %v, want an error other than ErrExists", name, err)
		}
	}
	s := client(t, fixed(t, 404, "<Error><Code>NoSuchKey</Code></Error>"), 0)
	if _, _, err := s.Get(t.Context(), "k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("NoSuchKey: got %v, want ErrNotFound", err)
	}
}

// fixed answers everything alike.
func fixed(t *testing.T, status int, body string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		if status != http.StatusNoContent && status != http.StatusNotModified {
			_, _ = io.WriteString(w, body)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestAnswerThatBreaksOffIsAnError(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(emptyList)+1000))
		_, _ = io.WriteString(w, emptyList)
	}))
	t.Cleanup(srv.Close)
	if _, err := New(client(t, srv.URL, 0), "blog").Read(t.Context()); err == nil {
		t.Error("got no error")
	}
}

func TestObjectLargerThanOursIsRefused(t *testing.T) {
	s := client(t, fixed(t, 200, strings.Repeat("x", maxObject+1)), 0)
	if _, _, err := s.Get(t.Context(), "k"); err == nil {
		t.Error("got no error")
	}
}

func TestEachRequestHasItsTimeLimit(t *testing.T) {
	url := fakeS3(t, func(_ http.ResponseWriter, r *http.Request, _ func() *httptest.ResponseRecorder) {
		<-r.Context().Done() // until the asker has gone
	})
	s := client(t, url, 100*time.Millisecond)
	calls := map[string]func() error{
		"create": func() error { _, err := s.Create(t.Context(), "k", nil); return err },
		"put":    func() error { _, err := s.Put(t.Context(), "k", nil); return err },
		"get":    func() error { _, _, err := s.Get(t.Context(), "k"); return err },
		"list":   func() error { _, _, err := s.List(t.Context(), "k", ""); return err },
		"delete": func() error { return s.Delete(t.Context(), "k") },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want the deadline", name, err)
		}
	}
}

func TestNobodyThereIsAnErrorThatShowsNoSecret(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close()) // nobody listens there now
	s, err := NewS3(S3Config{Endpoint: "http://" + l.Addr().String(), Bucket: bucket,
		Keys: sigv4.Keys{AccessKey: secrets.NewSecret("AKIDKEY"), SecretKey: secrets.NewSecret("HUSHHUSH")}})
	must(t, err)
	_, err = s.Put(t.Context(), "k", nil)
	if err == nil || strings.Contains(err.Error(), "AKIDKEY") || strings.Contains(fmt.Sprintf("%v %+v", s, s.cfg), "HUSHHUSH") {
		t.Errorf("got %v", err)
	}
}

// A store refuses signatures of a wrong time and says what time it is. The refused request has done nothing.
func TestWrongClockIsCorrectedByTheStores(t *testing.T) {
	var requests atomic.Int32
	url := fakeS3(t, func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder) {
		requests.Add(1)
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || time.Since(at).Abs() > 15*time.Minute {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>")
			return
		}
		forward(w, pass())
	})
	for _, off := range []time.Duration{26 * time.Hour, -40 * 365 * 24 * time.Hour} {
		s, err := NewS3(S3Config{Endpoint: url, Bucket: bucket, Now: func() time.Time { return time.Now().Add(off) },
			Keys: sigv4.Keys{AccessKey: secrets.NewSecret("a"), SecretKey: secrets.NewSecret("s")}})
		must(t, err)
		requests.Store(0)
		for range 3 {
			if _, err := s.Put(t.Context(), "k", []byte("x")); err != nil {
				t.Errorf("%v off: got %v", off, err)
			}
		}
		if got := requests.Load(); got != 4 {
			t.Errorf("%v off: got %d requests for three calls, want one more than three", off, got)
		}
	}
	// A store that says so whatever it is told is asked twice and no more.
	requests.Store(0)
	broken := fakeS3(t, func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) {
		requests.Add(1)
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>RequestTimeTooSkewed</Code></Error>")
	})
	if _, err := client(t, broken, 0).Put(t.Context(), "k", nil); err == nil || requests.Load() != 2 {
		t.Errorf("got %v after %d requests, want an error after 2", err, requests.Load())
	}
}

func TestAgeIsTheStoresDateMinusItsLastModified(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", "Fri, 02 Jan 2026 15:05:05 GMT") // whatever our own clock says
		w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 15:04:35 GMT")
		if r.URL.Query().Has("list-type") {
			_, _ = io.WriteString(w, strings.Replace(emptyList, "<IsTruncated>",
				"<Contents><Key>blog/heartbeat/web1</Key><LastModified>2026-01-02T15:04:05.000Z</LastModified></Contents><IsTruncated>", 1))
		}
	}))
	t.Cleanup(srv.Close)
	s := client(t, srv.URL, 0)
	var heard time.Time
	s.cfg.Heard = func(at time.Time) { heard = at }
	if _, m, err := s.Get(t.Context(), "k"); err != nil || m.Age() != 30*time.Second {
		t.Errorf("get: got %v, %v; want 30s", m.Age(), err)
	}
	l := New(s, "blog")
	r, err := l.Read(t.Context())
	must(t, err)
	if age, ok := r.Stale("web1"); !ok || age != time.Minute {
		t.Errorf("list: got %v, %v; want 1m", age, ok)
	}
	if want := time.Date(2026, 1, 2, 15, 5, 5, 0, time.UTC); !heard.Equal(want) {
		t.Errorf("clock: heard %v, want %v", heard, want)
	}
}

func TestStoreThatCannotBeReachedIsRefusedAtOnce(t *testing.T) {
	good := S3Config{Endpoint: "https://s3.example", Bucket: bucket, Keys: sigv4.Keys{AccessKey: secrets.NewSecret("a"), SecretKey: secrets.NewSecret("s")}}
	if _, err := NewS3(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*S3Config){
		"no endpoint":  func(c *S3Config) { c.Endpoint = "" },
		"no scheme":    func(c *S3Config) { c.Endpoint = "s3.example" },
		"a path":       func(c *S3Config) { c.Endpoint += "/bucket" },
		"no bucket":    func(c *S3Config) { c.Bucket = "" },
		"a path again": func(c *S3Config) { c.Bucket = "a/b" },
		"no keys":      func(c *S3Config) { c.Keys = sigv4.Keys{} },
		"half of them": func(c *S3Config) { c.Keys.SecretKey = secrets.Secret{} },
	} {
		c := good
		change(&c)
		if _, err := NewS3(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
