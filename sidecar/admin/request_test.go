package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestARequestIsUnderstoodToTheLetterOrRefused(t *testing.T) {
	for _, tc := range []struct{ claim, body, want string }{
		{"a move", `{"role":"lb","to":"lb2"}`, ""},
		{"without a target, between blanks", "\n {\"role\":\"lb\"}\t", ""},
		{"an unknown key", `{"role":"lb","force":true}`, `the body is not what this wants: json: unknown field "force"`},
		{"a second object", `{"role":"lb"}{}`, "something follows the JSON object"},
		{"garbage behind", `{"role":"lb"}x`, "something follows the JSON object"},
		{"a list", `["lb"]`, "the body must be a JSON object"},
		{"null", `null`, "the body must be a JSON object"},
		{"nothing", ``, "role is missing"},
		{"half", `{"role":`, "the body is not what this wants: unexpected EOF"},
		{"a number", `{"role":1}`, "the body is not what this wants: json: cannot unmarshal number into Go struct field Move.role of type string"},
		{"no UTF-8", "{\"role\":\"\xff\"}", "the body is not UTF-8"},
		{"a long name", `{"role":"` + strings.Repeat("x", 254) + `"}`, "a name has more than 253 bytes"},
		{"too much", `{"role":"lb"` + strings.Repeat(" ", maxRequest) + `}`, "the body has more than 4096 bytes"},
	} {
		_, err := decodeMove(strings.NewReader(tc.body))
		if got := text(err); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.claim, got, tc.want)
		}
	}
	for body, want := range map[string]string{
		"": "", `{"for":"1h"}`: "", `{"for":"59s"}`: "for 59s: must be from 1m to 87600h (ten years)",
		`{"for":"-1h"}`: "for -1h0m0s: must be from 1m to 87600h (ten years)", `{"for":"87601h"}`: "for 87601h0m0s: must be from 1m to 87600h (ten years)",
	} {
		if _, err := decodeAccess(strings.NewReader(body)); text(err) != want {
			t.Errorf("%s: got %q, want %q", body, text(err), want)
		}
	}
	for body, want := range map[string]string{
		`{"node":"web1","machine":"1003","seed":18446744073709551615,"apart":"1h","dry_run":true}`: "",
		`{"node":"web1"}`:    "node and machine must both be named",
		`{"machine":"1003"}`: "node and machine must both be named",
		`{"node":"web1","machine":"1003","apart":"-1s"}`:               "apart -1s: must not be negative",
		`{"node":"web1","machine":"` + strings.Repeat("1", 254) + `"}`: "a name has more than 253 bytes",
		`{"node":"web1","machine":"1003","force":true}`:                `the body is not what this wants: json: unknown field "force"`,
	} {
		if _, err := decodeDestroy(strings.NewReader(body)); text(err) != want {
			t.Errorf("%s: got %q, want %q", body, text(err), want)
		}
	}
	if a, err := decodeAccess(strings.NewReader("{}")); err != nil || time.Duration(a.For) != 30*24*time.Hour {
		t.Errorf("got %+v, %v", a, err)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// FuzzRequests holds every route that reads a body to its promises: it answers, with JSON, in bounds; it takes an order only
// from a body it has understood; and what it has understood is all there is in the body.
func FuzzRequests(f *testing.F) {
	routes := []string{"/v1/switchover", "/v1/pause", "/v1/resume", "/v1/access", "/v1/chaos"}
	for i := range routes {
		for _, body := range []string{"", "{}", `{"role":"lb","to":"lb2"}`, `{"everywhere":true}`, `{"for":"1h"}`, `{"node":"web1","machine":"1","apart":"1h"}`, `{"role":"lb"}x`, "[", "null", "{\"role\":\"\xff\"}"} {
			f.Add(uint8(i), []byte(body))
		}
	}
	b := newBackend()
	nobody := map[string]string{} // the others are not there
	for _, name := range b.world.policy.Nodes {
		nobody[name] = "127.0.0.1:1"
	}
	s := newServer(f, b)
	s.cfg.Peers = func() map[string]string { return nobody }
	h := s.Handler(Local)
	f.Fuzz(func(t *testing.T, route uint8, body []byte) {
		path := routes[int(route)%len(routes)]
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		ok := w.Code/100 == 2
		if path != "/v1/access" || !ok {
			if !json.Valid(w.Body.Bytes()) || w.Body.Len() > 4*maxRequest {
				t.Fatalf("%s %q: got %d %s", path, body, w.Code, w.Body)
			}
		}
		if w.Code >= 500 {
			t.Fatalf("%s %q: got %d %s", path, body, w.Code, w.Body)
		}
		trimmed := bytes.TrimSpace(body)
		if ok && (!utf8.Valid(body) || len(body) > maxRequest || len(trimmed) > 0 && !json.Valid(trimmed)) {
			t.Fatalf("%s took %q", path, body)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.orders.Moves) > 2 {
			t.Fatalf("%d wishes for two duties", len(b.orders.Moves))
		}
		for _, m := range b.orders.Moves {
			if m.Duty != "lb" && m.Duty != "mail" || m.To != "" && m.To != "lb2" && m.To != "mail2" {
				t.Fatalf("ordered %+v", m)
			}
		}
	})
}

// FuzzReadPEM: whatever the file, there is an error that does not quote it, or a configuration that trusts somebody.
func FuzzReadPEM(f *testing.F) {
	a := authority(f, testKey)
	cert, err := a.Operator(time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	good, err := WritePEM(cert)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ReadPEM(data, data)
		if err == nil && (cfg.RootCAs == nil || cfg.InsecureSkipVerify || len(cfg.Certificates) != 1) {
			t.Fatalf("got %+v", cfg)
		}
		if err != nil && len(data) > 60 && strings.Contains(err.Error(), string(data[:60])) {
			t.Fatalf("the error quotes the file: %v", err)
		}
	})
}
