package localcloud

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

func TestRateLimits(t *testing.T) {
	inBubble(t, func(o *Options) {
		o.Rate = RateLimit{PerHour: 10, PerMinute: 3}
		o.Scoped = map[string][]string{"other": {"account:read"}}
	}, func(c *cloud) {
		began := time.Now()
		get := func() (int, http.Header) {
			w := c.as(testToken, "GET", "/v2/account", "")
			return w.Code, w.Header()
		}
		for range 3 {
			if got, _ := get(); got != http.StatusOK {
				t.Fatalf("got %d, want 200", got)
			}
			c.pass(10 * time.Second)
		}
		got, h := get() // At 30 s; the first request leaves the minute at 60 s.
		if got != http.StatusTooManyRequests || h.Get("Retry-After") != "30" || h.Get("Ratelimit-Remaining") != "7" {
			t.Errorf("burst: got %d %v, want 429, Retry-After 30, 7 remaining", got, h)
		}
		if w := c.as("other", "GET", "/v2/account", ""); w.Code != http.StatusOK {
			t.Errorf("another token: got %d, want 200: limits are per token", w.Code)
		}
		for range 7 {
			c.pass(time.Minute)
			if got, _ := get(); got != http.StatusOK {
				t.Fatalf("spread out: got %d, want 200", got)
			}
		}
		c.pass(time.Minute)
		got, h = get()
		if got != http.StatusTooManyRequests || h.Get("Retry-After") != "" || h.Get("Ratelimit-Remaining") != "0" {
			t.Errorf("hour used up: got %d %v, want 429 without Retry-After", got, h)
		}
		if want := strconv.FormatInt(began.Add(time.Hour).Unix(), 10); h.Get("Ratelimit-Reset") != want {
			t.Errorf("got reset %s, want %s: when the oldest request expires", h.Get("Ratelimit-Reset"), want)
		}
		c.pass(time.Until(began.Add(time.Hour)))
		if got, _ := get(); got != http.StatusOK {
			t.Errorf("after an hour: got %d, want 200", got)
		}
	})
}

func TestWithoutATokenNothingIsAnswered(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + testToken, testToken} {
			token, _, ok := c.s.authenticate(header)
			if ok || token == testToken {
				t.Errorf("%q: let in", header)
			}
		}
		if w := c.as("wrong", "GET", "/v2/nowhere", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("got %d, want 401 even for what does not exist", w.Code)
		}
		c.refused(404, errNotFound.message, "GET", "/v2/nowhere", "")
		c.refused(404, errNotFound.message, "PUT", "/v2/droplets", "")
	})
}
