package load

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestGapAndFailuresAreSeen(t *testing.T) {
	var broken atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	l := Start(t.Context(), Config{URL: s.URL, Rate: 200, Dial: (&net.Dialer{}).DialContext})
	until(t, l, func(r Result) bool { return r.Requests > 20 })
	broken.Store(true)
	until(t, l, func(r Result) bool { return r.Failed > 20 })
	broken.Store(false)
	until(t, l, func(r Result) bool { return r.Requests > r.Failed+40 })
	r := l.Stop()
	if r.Failed < 20 || r.Errors["status 503"] != r.Failed {
		t.Errorf("got %v, want some failures, all of them status 503", r)
	}
	if r.Gap < 50*time.Millisecond {
		t.Errorf("got a gap of %v, want about that of twenty requests at 200 a second", r.Gap)
	}
}

func until(t *testing.T, l *Load, so func(Result) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		r := l.result
		l.mu.Unlock()
		if so(r) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after 10s: %v", r)
		}
	}
}
