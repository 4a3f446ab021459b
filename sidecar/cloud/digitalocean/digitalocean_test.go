package digitalocean

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "dop_v1_canary"

// api is a provider that answers by a script. How the local cloud answers is in tests/contract.
func api(t testing.TB, handle http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(handle)
	c, err := New(Config{Endpoint: s.URL, Token: secrets.NewSecret(canary), Tag: "blog", Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c
}

// answers gives every request the same answer.
func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

var reserved = netip.MustParseAddr("203.0.113.10")

// calls are all methods, as they would be called for machine 1.
func calls(ctx context.Context, c *Client) map[string]func() error {
	r := c.Records("blog.example")
	www := cluster.Record{Name: "www", Type: "A", Value: "203.0.113.10"}
	return map[string]func() error{
		"List":     func() error { _, err := c.List(ctx); return err },
		"Get":      func() error { _, err := c.Get(ctx, "1"); return err },
		"PowerOff": func() error { return c.PowerOff(ctx, "1", "web1") },
		"Delete":   func() error { return c.Delete(ctx, "1", "web1") },
		"Create": func() error {
			_, err := c.Create(ctx, cloud.Hiring{Name: "web1", Region: "lon1", Sizes: []string{"s"}, Image: "1"})
			return err
		},
		"AssignAddress": func() error { return c.AssignAddress(ctx, reserved, "1") },
		"Holder":        func() error { _, err := c.Holder(ctx, reserved); return err },
		"Records.List":  func() error { _, err := r.List(ctx); return err },
		"Records.Create": func() error {
			_, err := r.Create(ctx, www, time.Minute)
			return err
		},
		"Records.Update": func() error { return r.Update(ctx, cloud.Entry{ID: "1", Record: www, TTL: time.Minute}) },
		"Records.Delete": func() error { return r.Delete(ctx, "1") },
	}
}

func TestWrongConfigurationIsRefusedWithEveryProblem(t *testing.T) {
	for endpoint, good := range map[string]bool{
		"": true, "https://api.digitalocean.com": true, "https://api.digitalocean.com/": true, "http://127.0.0.1:8080": true, "http://10.77.0.1:8080": true,
		"http://api.digitalocean.com": false, "http://198.51.100.1": false, "api.digitalocean.com": false, "ftp://10.0.0.1": false,
		"https://user@api.digitalocean.com": false, "https://api.digitalocean.com?x=1": false, "https://": false,
	} {
		c, err := New(Config{Endpoint: endpoint, Token: secrets.NewSecret(canary), Tag: "blog"})
		if (err == nil) != good {
			t.Errorf("%q: got %v, want good %v", endpoint, err, good)
		}
		if err == nil && !strings.HasSuffix(c.api.BaseURL.Path, "/") {
			t.Errorf("%q: got base %s, which godo would cut", endpoint, c.api.BaseURL)
		}
	}
	_, err := New(Config{Endpoint: "x", Timeout: -1})
	for _, want := range []string{"endpoint", "token", "tag", "timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

func TestEveryCallIsOneRequestThatCarriesTheToken(t *testing.T) {
	for name := range calls(t.Context(), nil) {
		var n atomic.Int32
		c := api(t, func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			if r.Header.Get("Authorization") != "Bearer "+canary {
				t.Errorf("%s: got the header %q", name, r.Header.Get("Authorization"))
			}
			w.WriteHeader(http.StatusBadGateway)
		})
		err := calls(t.Context(), c)[name]()
		if err == nil || n.Load() != 1 {
			t.Errorf("%s: got %v after %d requests, want an error after one", name, err, n.Load())
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the token stands in %v", name, err)
		}
	}
}

func TestTheAPIsClockIsHeardFromEveryAnswer(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 5, 5, 0, time.UTC)
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if w.Header().Set("Date", at.Format(http.TimeFormat)); status == 0 {
			w.Header()["Date"] = nil
		}
		w.WriteHeader(max(status, http.StatusOK))
		_, _ = io.WriteString(w, "{}")
	}))
	defer s.Close()
	for _, c := range []struct{ status, want int }{{http.StatusOK, 1}, {http.StatusInternalServerError, 1}, {0, 0}} {
		var heard []time.Time
		client, err := New(Config{Endpoint: s.URL, Token: secrets.NewSecret(canary), Tag: "blog", Heard: func(at time.Time) { heard = append(heard, at) }})
		if err != nil {
			t.Fatal(err)
		}
		status = c.status
		_, _ = client.Holder(t.Context(), reserved) // what it makes of the answer is not the question
		client.Close()
		if len(heard) != c.want || len(heard) == 1 && !heard[0].Equal(at) {
			t.Errorf("status %d: heard %v", c.status, heard)
		}
	}
}

func TestTokenIsNotCarriedElsewhere(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed: %s %s, authorization %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	for name, call := range calls(t.Context(), c) {
		if err := call(); err == nil {
			t.Errorf("%s: got nil", name)
		}
	}
	g := &guard{token: secrets.NewSecret(canary), host: "api.digitalocean.com", next: http.DefaultTransport}
	resp, err := g.RoundTrip(httptest.NewRequest(http.MethodGet, elsewhere.URL, nil))
	if err == nil {
		_ = resp.Body.Close()
		t.Error("the transport takes a request to another host")
	}
}

// TestGoneIsBelievedInDigitalOceansWordsOnly is what stands between a wrong proxy and a machine that is taken for dead.
func TestGoneIsBelievedInDigitalOceansWordsOnly(t *testing.T) {
	cases := map[string]struct {
		body string
		gone bool
	}{
		"as documented":    {`{"id": "not_found", "message": "The resource you requested could not be found.", "request_id": "x"}`, true},
		"in former words":  {`{"id": "not_found", "message": "The resource you were accessing could not be found."}`, true},
		"a proxy's page":   {"<html><body>404 Not Found</body></html>", false},
		"nothing":          {"", false},
		"another service":  {`{"message": "not found"}`, false},
		"another reason":   {`{"id": "forbidden", "message": "not_found"}`, false},
		"somebody's array": {`[{"id": "not_found"}]`, false},
	}
	for name, c := range cases {
		p := api(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(errorID, "not_found") // which is ours to set
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, c.body)
		})
		m, err := p.Get(t.Context(), "1")
		if c.gone != (err == nil && m.Power == cluster.PowerGone && m.ID == "1") || !c.gone && err == nil {
			t.Errorf("%s: got %+v, %v, want gone %v", name, m, err, c.gone)
		}
		if err := p.PowerOff(t.Context(), "1", "web1"); errors.Is(err, cloud.ErrGone) != c.gone || err == nil {
			t.Errorf("%s: power off: got %v, want ErrGone %v", name, err, c.gone)
		}
		if err := p.AssignAddress(t.Context(), reserved, "1"); errors.Is(err, cloud.ErrGone) != c.gone || err == nil {
			t.Errorf("%s: assign: got %v, want ErrGone %v", name, err, c.gone)
		}
		if err := p.Records("blog.example").Delete(t.Context(), "1"); (err == nil) != c.gone {
			t.Errorf("%s: delete a record: got %v, want done %v", name, err, c.gone)
		}
	}
}

// TestMissingAddressIsNotAMissingMachine has DigitalOcean's same 404 for both.
func TestMissingAddressIsNotAMissingMachine(t *testing.T) {
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/droplets/") {
			answers(http.StatusOK, `{"droplet": {"id": 1, "status": "active"}}`)(w, r)
			return
		}
		answers(http.StatusNotFound, `{"id": "not_found", "message": "x"}`)(w, r)
	})
	if err := c.AssignAddress(t.Context(), reserved, "1"); err == nil || errors.Is(err, cloud.ErrGone) || !strings.Contains(err.Error(), "no such address") {
		t.Errorf("got %v, want that there is no such address", err)
	}
}

// TestHolderDecidesWhatARefusalMeans has a refusal in words that nobody has documented: the register tells what it means.
func TestHolderDecidesWhatARefusalMeans(t *testing.T) {
	const strange, taken = "cannot be assigned", "The Droplet already has a floating IP."
	cases := map[string]struct {
		message, holder string
		locked          bool
		want            error
	}{
		"it is there":          {strange, `{"id": 1}`, false, nil},
		"on its way there":     {strange, `{"id": 1}`, true, cloud.ErrPending},
		"on its way elsewhere": {strange, `{"id": 2}`, true, cloud.ErrPending},
		"with another machine": {strange, `{"id": 2}`, false, errBut},
		"with nobody":          {strange, `null`, false, errBut},
		"another address":      {taken, `{"id": 2}`, false, cloud.ErrHolds},
		"this very address":    {taken, `{"id": 1}`, false, nil},
	}
	for name, c := range cases {
		p := api(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				answers(http.StatusUnprocessableEntity, fmt.Sprintf(`{"id": "unprocessable_entity", "message": %q}`, c.message))(w, r)
				return
			}
			answers(http.StatusOK, fmt.Sprintf(`{"reserved_ip": {"ip": "203.0.113.10", "droplet": %s, "locked": %v}}`, c.holder, c.locked))(w, r)
		})
		err := p.AssignAddress(t.Context(), reserved, "1")
		known := errors.Is(err, cloud.ErrPending) || errors.Is(err, cloud.ErrHolds) || errors.Is(err, cloud.ErrGone)
		if c.want == nil && err != nil || c.want == errBut && (err == nil || known) || c.want != nil && c.want != errBut && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// errBut stands for an error of no kind that we know.
var errBut = errors.New("another error")

func TestRefusalsAreTold(t *testing.T) {
	limited := func(after string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			answers(http.StatusTooManyRequests, `{"id": "too_many_requests", "message": "API rate limit exceeded."}`)(w, r)
		}
	}
	for after, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "x": 0, "-1": 0, "99999999999": time.Hour, "99999999999999999999": 0} {
		for name, call := range calls(t.Context(), api(t, limited(after))) {
			e, ok := errors.AsType[*cloud.RateLimitedError](call())
			if !ok || e.RetryAfter != want {
				t.Errorf("%s, Retry-After %q: got %v, want %v", name, after, e, want)
			}
		}
	}
	for status, want := range map[int]error{http.StatusUnauthorized: cloud.ErrDenied, http.StatusForbidden: cloud.ErrDenied} {
		for name, call := range calls(t.Context(), api(t, answers(status, `{"id": "unauthorized", "message": "Unable to authenticate you."}`))) {
			if err := call(); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want ErrDenied", name, err)
			}
		}
	}
}

func TestForeignWordsInErrorsAreShort(t *testing.T) {
	c := api(t, answers(http.StatusBadGateway, "<html>\n"+strings.Repeat("no\nway ", 50_000)))
	for name, call := range calls(t.Context(), c) {
		if err := call(); err == nil || len(err.Error()) > 800 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got an error of %d bytes", name, len(fmt.Sprint(err)))
		}
	}
}

func TestAnswersThatCannotBeTrueAreErrors(t *testing.T) {
	cases := map[string]string{
		"nothing":            "",
		"an empty object":    "{}",
		"null":               "null",
		"no JSON":            "<html>welcome</html>",
		"without meta":       `{"droplets": [], "domain_records": []}`,
		"too short":          `{"droplets": [], "domain_records": [], "meta": {"total": 3}}`,
		"twice the same":     `{"droplets": [{"id": 1, "tags": ["blog"]}, {"id": 1, "tags": ["blog"]}], "domain_records": [{"id": 1}, {"id": 1}], "meta": {"total": 2}}`,
		"without end":        `{"droplets": [], "domain_records": [], "meta": {"total": 0}, "links": {"pages": {"next": "http://127.0.0.1/v2/x?page=2"}}}`,
		"machine without ID": `{"droplets": [{"tags": ["blog"]}], "domain_records": [{"id": 1, "type": "A", "data": "nonsense"}], "meta": {"total": 1}, "droplet": {"id": 0}}`,
		"wrong address": `{"droplets": [{"id": 1, "networks": {"v4": [{"type": "private", "ip_address": "10.0.0"}]}}], "meta": {"total": 1},
			"droplet": {"id": 1, "networks": {"v4": [{"type": "private", "ip_address": ""}]}}, "domain_records": [{"id": 1, "type": "AAAA", "data": ""}]}`,
		"another thing":     `{"droplet": {"id": 2}, "reserved_ip": {"ip": "203.0.113.11"}, "domain_record": {"id": 5, "type": "TXT"}}`,
		"holder without ID": `{"reserved_ip": {"ip": "203.0.113.10", "droplet": {}}}`,
	}
	// A change that was accepted is done, whatever the answer says; what came of it is read back.
	accepted := []string{"AssignAddress", "Records.Update", "Records.Delete"}
	for name, body := range cases {
		p := api(t, answers(http.StatusOK, body))
		for method, call := range calls(t.Context(), p) {
			if slices.Contains(accepted, method) {
				continue
			}
			if err := call(); err == nil {
				t.Errorf("%s: %s: got nil", name, method)
			}
		}
	}
}

func TestEndlessAnswerIsCut(t *testing.T) {
	c := api(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"droplets": [`)
		for {
			if _, err := io.WriteString(w, strings.Repeat(`{"id": 1},`, 10_000)); err != nil {
				return
			}
		}
	})
	if _, err := c.List(t.Context()); err == nil || !strings.Contains(err.Error(), "answer above") {
		t.Errorf("got %v, want that the answer is too large", err)
	}
}

func TestMachinesOfOthersAreLeftOutAndLeftAlone(t *testing.T) {
	posts := 0
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			posts++
		case r.URL.Path == "/v2/droplets":
			answers(http.StatusOK, `{"droplets": [{"id": 9, "name": "web2", "tags": ["Blog"], "status": "active"}, {"id": 3, "name": "shop1", "tags": ["shop", "blogs"]}],
				"meta": {"total": 2}}`)(w, r)
		default:
			answers(http.StatusOK, `{"droplet": {"id": 3, "name": "shop1", "tags": ["shop"], "status": "active"}}`)(w, r)
		}
	})
	got, err := c.List(t.Context())
	if err != nil || len(got) != 1 || got[0].ID != "9" || got[0].Power != cluster.PowerOn {
		t.Errorf("got %+v, %v, want web2 alone", got, err)
	}
	if err := c.PowerOff(t.Context(), "3", "shop1"); !errors.Is(err, cloud.ErrNotOurs) || posts != 0 {
		t.Errorf("got %v after %d POSTs, want ErrNotOurs after none", err, posts)
	}
}

func TestIDsAreTakenLiterally(t *testing.T) {
	c := api(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked %s %s", r.Method, r.URL) })
	for _, id := range []string{"", "0", "-1", "01", "1/actions", "1?x", " 1", "１", "99999999999999999999"} {
		if _, err := c.Get(t.Context(), id); err == nil {
			t.Errorf("get %q: got nil", id)
		}
		if err := c.PowerOff(t.Context(), id, "web1"); err == nil {
			t.Errorf("power off %q: got nil", id)
		}
		if err := c.Delete(t.Context(), id, "web1"); err == nil {
			t.Errorf("delete %q: got nil", id)
		}
		if err := c.AssignAddress(t.Context(), reserved, id); err == nil {
			t.Errorf("assign to %q: got nil", id)
		}
		if err := c.Records("blog.example").Delete(t.Context(), id); err == nil {
			t.Errorf("delete record %q: got nil", id)
		}
	}
	v6 := netip.MustParseAddr("2001:db8::1")
	if _, err := c.Holder(t.Context(), v6); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("holder of %s: got %v, want that it is unsupported", v6, err)
	}
	if err := c.AssignAddress(t.Context(), v6, "1"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("assign %s: got %v, want that it is unsupported", v6, err)
	}
}

func TestOfTwoImagesOfANameTheNewerIsTaken(t *testing.T) {
	var asked string
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/images" {
			answers(http.StatusOK, `{"images": [{"id": 7, "name": "base"}, {"id": 9, "name": "base"}, {"id": 11, "name": "bases"}], "meta": {"total": 3}}`)(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		asked = string(body)
		answers(http.StatusAccepted, `{"droplet": {"id": 3, "name": "web1", "tags": ["blog"], "status": "new"}}`)(w, r)
	})
	if _, err := c.Create(t.Context(), cloud.Hiring{Name: "web1", Region: "lon1", Sizes: []string{"s"}, Image: "base"}); err != nil || !strings.Contains(asked, `"image":9,`) {
		t.Errorf("got %v, asked %s, want image 9", err, asked)
	}
}

func TestStatusIsReadByItsWord(t *testing.T) {
	for status, want := range map[string]cluster.Power{
		"new": cluster.PowerNew, "active": cluster.PowerOn, "off": cluster.PowerOff, "archive": cluster.PowerUnknown, "": cluster.PowerUnknown, "OFF": cluster.PowerUnknown,
	} {
		c := api(t, answers(http.StatusOK, fmt.Sprintf(`{"droplet": {"id": 1, "status": %q}}`, status)))
		if m, err := c.Get(t.Context(), "1"); err != nil || m.Power != want {
			t.Errorf("%q: got %v, %v, want %v", status, m.Power, err, want)
		}
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server sees the client go only once it has read what was sent
		<-r.Context().Done()
	}))
	c, err := New(Config{Endpoint: s.URL, Token: secrets.NewSecret(canary), Tag: "blog", Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	for name, call := range calls(t.Context(), c) {
		if err := call(); err == nil {
			t.Errorf("%s: got nil", name)
		}
	}
}

// transportFunc is a transport without a network.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzAnswers gives every call an answer of any kind. No call may panic, none may take a machine for gone without
// DigitalOcean's word, and a machine that is read is the one that was asked for.
func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`{"droplet": {"id": 1, "status": "active", "networks": {"v4": [{"type": "public", "ip_address": "192.0.2.1"}]}}}`))
	f.Add(200, []byte(`{"droplets": [{"id": 1, "tags": ["blog"]}], "meta": {"total": 1}, "links": {"pages": {"next": "x"}}}`))
	f.Add(200, []byte(`{"domain_records": [{"id": 1, "type": "MX", "name": "@", "data": "@"}], "meta": {"total": 1}, "domain_record": {"id": 1, "type": "A", "data": "192.0.2.1"}}`))
	f.Add(200, []byte(`{"reserved_ip": {"ip": "203.0.113.10", "droplet": {"id": 1}, "locked": true}}`))
	f.Add(404, []byte(`{"id": "not_found", "message": "x"}`))
	f.Add(422, []byte(`{"id": "unprocessable_entity", "message": "Droplet already has a pending event."}`))
	f.Add(400, []byte(`{"error": {"code": 1}, "messages": [], "root_causes": []}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 || status/100 == 3 {
			return
		}
		c, err := New(Config{Token: secrets.NewSecret(canary), Tag: "blog", Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Status: "x", Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body))), Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls(t.Context(), c) {
			if err := call(); err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		}
		m, err := c.Get(t.Context(), "1")
		if err == nil && (m.ID != "1" || m.Power == cluster.PowerGone && (status != 404 || !strings.Contains(string(body), "id"))) {
			t.Errorf("got %+v", m)
		}
		if got, err := c.List(t.Context()); err == nil && status >= 300 {
			t.Errorf("got the list %v with status %d", got, status)
		}
	})
}
