package localcloud

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testToken = "dop_v1_test"

// cloud is a server in memory, called without a network, so that it can live in a synctest bubble.
type cloud struct {
	t       *testing.T
	s       *Server
	backend *Memory
	log     *strings.Builder
}

// inBubble runs test with a fresh cloud on virtual time.
func inBubble(t *testing.T, change func(*Options), test func(c *cloud)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t, change)
		test(c)
		c.close()
	})
}

func newCloud(t *testing.T, change func(*Options)) *cloud {
	t.Helper()
	o := Defaults()
	o.Token = testToken
	o.ActionDelay = 2 * time.Second
	o.BootDelay = 10 * time.Second
	o.Rate = RateLimit{}
	if change != nil {
		change(&o)
	}
	c := &cloud{t: t, backend: &Memory{}, log: &strings.Builder{}}
	handler := slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelWarn})
	c.s = New(slog.New(handler), c.backend, o)
	return c
}

func (c *cloud) close() {
	c.t.Helper()
	if err := c.s.Close(c.t.Context()); err != nil {
		c.t.Errorf("close: %v", err)
	}
}

// object is decoded JSON.
type object = map[string]any

// do sends a request with the full token and returns status and body.
func (c *cloud) do(method, path, body string) (int, object) {
	c.t.Helper()
	w := c.as(testToken, method, path, body)
	var o object
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil {
			c.t.Fatalf("%s %s: answer %q: %v", method, path, w.Body, err)
		}
	}
	return w.Code, o
}

func (c *cloud) as(token, method, path, body string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequestWithContext(c.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	c.s.API().ServeHTTP(w, r)
	return w
}

// want sends a request and stops the test unless it is answered with status.
func (c *cloud) want(status int, method, path, body string) object {
	c.t.Helper()
	got, o := c.do(method, path, body)
	if got != status {
		c.t.Fatalf("%s %s %s: got %d %v, want %d", method, path, body, got, o, status)
	}
	return o
}

// refused sends a request and checks that it is answered with status and message.
func (c *cloud) refused(status int, message, method, path, body string) {
	c.t.Helper()
	got, o := c.do(method, path, body)
	if got != status || o["message"] != message || o["id"] == "" || o["request_id"] == "" {
		c.t.Errorf("%s %s %s: got %d %v, want %d %q", method, path, body, got, o, status, message)
	}
}

// create makes a droplet and returns its ID and that of its create action.
func (c *cloud) create(name string) (id, action int) {
	c.t.Helper()
	o := c.want(http.StatusAccepted, "POST", "/v2/droplets", fmt.Sprintf(
		`{"name": %q, "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620, "tags": ["blog"]}`, name))
	links := o["links"].(object)["actions"].([]any)
	return whole(o["droplet"].(object)["id"]), whole(links[0].(object)["id"])
}

// booted makes a droplet and lets the time pass until it is active.
func (c *cloud) booted(name string) int {
	c.t.Helper()
	id, _ := c.create(name)
	c.pass(time.Minute)
	if got := c.droplet(id)["status"]; got != "active" {
		c.t.Fatalf("droplet %s: got status %v, want active", name, got)
	}
	return id
}

func (c *cloud) droplet(id int) object {
	c.t.Helper()
	return c.want(http.StatusOK, "GET", fmt.Sprintf("/v2/droplets/%d", id), "")["droplet"].(object)
}

// act starts an action on a droplet and returns its ID.
func (c *cloud) act(id int, body string) int {
	c.t.Helper()
	o := c.want(http.StatusCreated, "POST", fmt.Sprintf("/v2/droplets/%d/actions", id), body)
	return whole(o["action"].(object)["id"])
}

func (c *cloud) actionStatus(id int) string {
	c.t.Helper()
	return c.want(http.StatusOK, "GET", fmt.Sprintf("/v2/actions/%d", id), "")["action"].(object)["status"].(string)
}

// listed returns the IDs in a list of droplets.
func (c *cloud) listed(query string) []int {
	c.t.Helper()
	ids := []int{}
	for _, d := range c.want(http.StatusOK, "GET", "/v2/droplets"+query, "")["droplets"].([]any) {
		ids = append(ids, whole(d.(object)["id"]))
	}
	return ids
}

// pass lets virtual time pass and everything settle that is then due.
func (c *cloud) pass(d time.Duration) {
	time.Sleep(d) // In a bubble this is what moves the clock.
	synctest.Wait()
}

func whole(v any) int { return int(v.(float64)) }

func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.backend.BootTime = time.Hour
		id, _ := c.create("web1")
		c.pass(time.Minute) // Boot is under way.
		c.close()
		if got, _ := c.do("GET", fmt.Sprintf("/v2/droplets/%d", id), ""); got != http.StatusServiceUnavailable {
			t.Errorf("after Close: got %d, want 503", got)
		}
		c.close() // Again is not an error.
	})
}

// hanging is a backend whose Boot ignores its context.
type hanging struct {
	Memory
	release chan struct{}
}

func (h *hanging) Boot(context.Context, Machine) error {
	<-h.release
	return nil
}

func TestCloseGivesUpWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t, nil)
		h := &hanging{release: make(chan struct{})}
		c.s.backend = h
		c.create("web1")
		c.pass(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.s.Close(ctx); err == nil {
			t.Error("got nil, want an error: Boot still runs")
		}
		close(h.release)
		c.close()
	})
}
