package contract

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud/localcloud"
)

const token = "dop_v1_test"

// exchange is one request and its answer, as they were on the wire.
type exchange struct {
	method, url   string
	requestHeader http.Header
	request       []byte
	status        int
	header        http.Header
	answer        []byte
}

// recorder is a transport that writes down what passes through it.
type recorder struct {
	mu   sync.Mutex
	sent []string // "METHOD path", also of those that got no answer
	all  []exchange
}

func (rec *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	rec.mu.Lock()
	rec.sent = append(rec.sent, r.Method+" "+r.URL.Path)
	rec.mu.Unlock()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.all = append(rec.all, exchange{
		method: r.Method, url: r.URL.String(), requestHeader: r.Header.Clone(), request: sent,
		status: resp.StatusCode, header: resp.Header.Clone(), answer: got,
	})
	return resp, nil
}

func (rec *recorder) exchanges() []exchange {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.all)
}

// bearer puts a token on every request; godo leaves that to its transport.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// account is a local cloud in memory and godo's client for it, without retries.
type account struct {
	t       testing.TB
	server  *localcloud.Server
	backend *localcloud.Memory
	api     *httptest.Server
	rec     *recorder
	do      *godo.Client
}

// open starts an empty account. change, if not nil, changes the options.
func open(t testing.TB, change func(*localcloud.Options)) *account {
	t.Helper()
	o := localcloud.Defaults()
	o.Token = token
	o.ActionDelay = 0
	o.ShutdownWait = time.Second
	o.Rate = localcloud.RateLimit{PerHour: 5000}
	o.Images = append(o.Images, localcloud.Image{
		ID: 63663980, Name: "13 (trixie) x64", Slug: "debian-13-x64", Distribution: "Debian", MinDisk: 10, SizeGB: 2.36,
		Created: time.Date(2025, 8, 9, 0, 0, 0, 0, time.UTC),
	})
	if change != nil {
		change(&o)
	}
	a := &account{t: t, backend: &localcloud.Memory{}, rec: &recorder{}}
	a.server = localcloud.New(slog.New(slog.DiscardHandler), a.backend, o)
	a.api = httptest.NewServer(a.server.API())
	a.do = a.client(token)
	t.Cleanup(func() {
		a.api.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := a.server.Close(ctx); err != nil {
			t.Errorf("close the cloud: %v", err)
		}
	})
	return a
}

// client makes godo's client with the given token.
func (a *account) client(token string) *godo.Client {
	a.t.Helper()
	do, err := godo.New(&http.Client{Transport: bearer{token, a.rec}}, godo.SetBaseURL(a.api.URL+"/"))
	if err != nil {
		a.t.Fatalf("godo: %v", err)
	}
	return do
}

// raw sends a request that godo has no method for and returns the answer's status and body.
func (a *account) raw(method, path, body string) (int, []byte) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.api.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{Transport: bearer{token, a.rec}}).Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, data
}

// until polls cond until it holds; what says what was waited for.
func (a *account) until(what string, cond func() bool) {
	a.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			a.t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// created is the request for a machine as a cluster manager would make it.
func created(name string, tags ...string) *godo.DropletCreateRequest {
	return &godo.DropletCreateRequest{
		Name: name, Region: "lon1", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{ID: 7555620},
		SSHKeys: []godo.DropletCreateSSHKey{}, Tags: tags, UserData: "#understudy-ticket v1\n{}",
	}
}

// boot creates a machine and waits until it is active.
func (a *account) boot(name string, tags ...string) godo.Droplet {
	a.t.Helper()
	d, _, err := a.do.Droplets.Create(a.t.Context(), created(name, tags...))
	if err != nil {
		a.t.Fatalf("create %s: %v", name, err)
	}
	return a.active(d.ID)
}

func (a *account) active(id int) godo.Droplet {
	a.t.Helper()
	var d *godo.Droplet
	a.until("droplet active", func() bool {
		var err error
		d, _, err = a.do.Droplets.Get(a.t.Context(), id)
		return err == nil && d.Status == "active" && !d.Locked
	})
	return *d
}

// done waits for an action to end and returns how it did.
func (a *account) done(id int) string {
	a.t.Helper()
	var act *godo.Action
	a.until("action ended", func() bool {
		var err error
		if act, _, err = a.do.Actions.Get(a.t.Context(), id); err != nil {
			a.t.Fatalf("read action %d: %v", id, err)
		}
		return act.Status != godo.ActionInProgress
	})
	return act.Status
}

// must stops the test when a call failed.
func must[T any](t testing.TB) func(v T, _ *godo.Response, err error) T {
	return func(v T, _ *godo.Response, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantRefusal checks that err is godo's error with the given status and, if not empty, message.
func wantRefusal(t testing.TB, err error, status int, message string) {
	t.Helper()
	refused, ok := err.(*godo.ErrorResponse)
	if !ok {
		t.Fatalf("got error %v, want status %d", err, status)
	}
	if refused.Response.StatusCode != status || message != "" && refused.Message != message {
		t.Fatalf("got %d %q, want %d %q", refused.Response.StatusCode, refused.Message, status, message)
	}
	if refused.RequestID == "" {
		t.Errorf("the error carries no request id: %v", err)
	}
}
