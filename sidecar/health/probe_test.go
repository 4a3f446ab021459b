//go:build linux

package health

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

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

// The kernel's word and connecting must agree, for every way to listen and every way to ask.
func TestAPortMustAccept(t *testing.T) {
	for _, listen := range []string{"tcp4 127.0.0.1", "tcp4 0.0.0.0", "tcp6 ::1", "tcp6 ::", "tcp ::"} {
		network, host, _ := strings.Cut(listen, " ")
		l, err := net.Listen(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		for _, open := range []bool{true, false} {
			for _, own := range []string{"127.0.0.1", "127.0.0.7", "::1"} {
				target := net.JoinHostPort(own, port)
				asked := newProbes(healthOf("tcp", target), Options{Timeout: 10 * time.Second})[0].look(t.Context())
				conn, err := net.Dial("tcp", target)
				if err == nil {
					conn.Close()
				}
				if asked.ok != (err == nil) || !asked.ok && asked.why != "connection refused" {
					t.Errorf("%s (open %v), asked at %s: got %+v, connecting gives %v", listen, open, own, asked, err)
				}
			}
			l.Close()
		}
	}
}

func TestAPortElsewhereIsConnectedTo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if got := lookAtPort(t.Context(), "localhost:"+port, 10*time.Second); !got.ok {
		t.Errorf("listening: got %+v", got)
	}
	l.Close()
	if got := lookAtPort(t.Context(), "localhost:"+port, 10*time.Second); got.ok || got.why != "connection refused" {
		t.Errorf("closed: got %+v, want connection refused", got)
	}
}

// A service that hangs accepts nothing any more, once the queue is full.
func TestAFullQueueAcceptsNothing(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	target := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	for range 2 { // one more than asked for: listen(2)
		if got := lookAtPort(t.Context(), target.String(), time.Second); !got.ok {
			t.Fatalf("with room: got %+v", got)
		}
		conn, err := net.Dial("tcp", target.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if got := lookAtPort(t.Context(), target.String(), time.Second); got.ok || got.why != "accepts no more connections" {
		t.Errorf("full: got %+v, want that nothing more is accepted", got)
	}
}

func FuzzParseListeners(f *testing.F) {
	f.Add([]byte{})
	f.Add(listenersRequest(unix.AF_INET, 25))
	done := make([]byte, unix.NLMSG_HDRLEN+4)
	done[0], done[4] = byte(len(done)), unix.NLMSG_DONE
	f.Add(done)
	answer := make([]byte, unix.NLMSG_HDRLEN+messageSize+8)
	answer[0], answer[4], answer[unix.NLMSG_HDRLEN] = byte(len(answer)), sockDiag, unix.AF_INET6
	copy(answer[unix.NLMSG_HDRLEN+messageSize:], []byte{5, 0, attrV6Only, 0, 1})
	f.Add(answer)
	f.Fuzz(func(t *testing.T, data []byte) {
		all, _, err := parseListeners(data)
		if err == nil && len(all) > len(data)/messageSize {
			t.Errorf("%d listeners in %d bytes", len(all), len(data))
		}
	})
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
