//go:build linux

package health

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
)

func TestAURLMustAnswer2xx(t *testing.T) {
	mux := http.NewServeMux()
	for _, code := range []int{200, 204, 301, 404, 500, 503} {
		mux.HandleFunc(fmt.Sprintf("/%d", code), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/200")
			w.WriteHeader(code)
		})
	}
	hang := make(chan struct{})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-hang })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("not all of it"))
	})
	for name, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		srv := start(mux)
		defer srv.Close()
		for path, want := range map[string]string{
			"/200": "", "/204": "", "/301": "answers 301 Moved Permanently", "/404": "answers 404 Not Found",
			"/503": "answers 503 Service Unavailable", "/cut": "unexpected EOF", "/hang": "does not answer within 100ms",
		} {
			timeout := 10 * time.Second
			if path == "/hang" {
				timeout = 100 * time.Millisecond
			}
			p := newProbes(healthOf("http", srv.URL+path), Options{Timeout: timeout})[0]
			if got := p.look(t.Context()); got.ok != (want == "") || got.why != want {
				t.Errorf("%s %s: got %+v, want %q", name, path, got, want)
			}
		}
	}
	close(hang)
}

// A certificate is looked at where it is not our own service that we talk to.
func TestOnlyOwnCertificatesGoUnchecked(t *testing.T) {
	for target, own := range map[string]bool{
		"https://127.0.0.1/": true, "https://[::1]:8443/": true, "https://localhost/": true,
		"https://blog.example/": false, "https://192.0.2.1/": false, "https://localhost.example/": false,
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := tlsFor(u).InsecureSkipVerify; got != own {
			t.Errorf("%s: got %v, want %v", target, got, own)
		}
	}
}

func TestAPortMustAccept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newProbes(healthOf("tcp", l.Addr().String()), Options{Timeout: 10 * time.Second})[0]
	if got := p.look(t.Context()); !got.ok {
		t.Errorf("listening: got %+v", got)
	}
	l.Close()
	if got := p.look(t.Context()); got.ok || got.why != "connection refused" {
		t.Errorf("closed: got %+v, want connection refused", got)
	}
}

func TestACommandMustExitZero(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0":                        "",
		"echo fine; exit 7":             "exits 7: fine",
		"echo no >&2; echo yes; exit 1": "exits 1: no",
		"kill -9 $$":                    "run /bin/sh: ended by signal killed",
		"exec sleep 100":                "does not answer within 300ms",
	} {
		got := lookByCommand(t.Context(), command.Exec{}, []string{"/bin/sh", "-c", script}, 300*time.Millisecond)
		if got.ok != (want == "") || (got.why != want && !strings.HasPrefix(want, "run ")) {
			t.Errorf("%s: got %+v, want %q", script, got, want)
		}
	}
	got := lookByCommand(t.Context(), command.Exec{}, []string{"/nowhere"}, time.Second)
	if got.ok || !strings.Contains(got.why, "no such file") {
		t.Errorf("got %+v, want no such file", got)
	}
}

func TestWordsOfOthersAreBounded(t *testing.T) {
	long := strings.Repeat("ü", 1000)
	for _, s := range []string{long, "a\x00b\nc\x1b[31m", "\xff\xfe", inWords(errors.New(long), 0)} {
		got := cut(s)
		if len(got) > 210 || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\n\x1b") {
			t.Errorf("got %q", got)
		}
	}
}

func healthOf(kind, target string) (h role.Health) {
	switch kind {
	case "http":
		h.HTTP = []string{target}
	case "tcp":
		h.TCP = []string{target}
	}
	return h
}
