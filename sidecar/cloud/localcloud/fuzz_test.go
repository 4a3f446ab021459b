package localcloud

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func FuzzCreateBody(f *testing.F) {
	for _, seed := range []string{
		`{"name": "web1", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620, "tags": ["blog"], "ssh_keys": [1, "aa:bb"]}`,
		`{"names": ["a", "b"], "image": "debian-13-x64", "user_data": "x"}`, `{"name": null, "names": null}`, `{"image": 1e99}`, `[]`, ``, `{"image": -7}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, names, single, err := decodeCreate(data)
		if err != nil {
			return
		}
		if len(names) == 0 || len(names) > maxNames || single && len(names) != 1 || len(req.UserData) > maxUserData {
			t.Errorf("accepted %d names, %d bytes of user data", len(names), len(req.UserData))
		}
		for _, n := range names {
			if len(n) > maxNameLen || strings.ContainsAny(n, "_ /\x00\n") {
				t.Errorf("accepted the name %q", n)
			}
		}
	})
}

func FuzzDropletActionBody(f *testing.F) {
	for _, seed := range []string{`{"type": "power_off"}`, `{"type": "rename", "name": "a"}`, `{"type": "rebuild", "image": "x"}`, `{"type": null}`, `{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := decodeDropletAction(data)
		if err == nil && !slices.Contains(knownActions, req.Type) {
			t.Errorf("accepted the action %q", req.Type)
		}
	})
}

// FuzzRecordBody checks that every record that is accepted can be put into a DNS message and comes out as it went
// in, and that what the API shows of it is stable.
func FuzzRecordBody(f *testing.F) {
	for _, seed := range []string{
		`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 30}`, `{"type": "TXT", "name": "t", "data": "\u0000\"\\ü"}`,
		`{"type": "CNAME", "name": "*.x", "data": "@"}`, `{"type": "SRV", "name": "_a._tcp", "data": "b.c.", "port": 1, "priority": 2, "weight": 3}`,
		`{"type": "CAA", "name": "@", "data": "ca.", "flags": 1, "tag": "issue"}`, `{"type": "MX", "data": "m.", "priority": 9}`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := decodeRecord(data)
		if err != nil {
			return
		}
		r, err := req.build("blog.example", 1800)
		if err != nil {
			return
		}
		rr := r.rr("blog.example")
		m := &dns.Msg{Answer: []dns.RR{rr}}
		wire, err := m.Pack()
		if err != nil {
			t.Fatalf("accepted %s, which DNS cannot carry: %v", data, err)
		}
		var back dns.Msg
		if err := back.Unpack(wire); err != nil || len(back.Answer) != 1 || back.Answer[0].String() != rr.String() {
			t.Fatalf("%s: got back %v, %v, want %v", data, back.Answer, err, rr)
		}
		if newZone("blog.example", "ns.example", 1, 1800, []*record{&r}).lookup(strings.ToLower(rr.Header().Name), rr.Header().Rrtype).rcode != dns.RcodeSuccess {
			t.Errorf("%s: cannot be found under its own name %s", data, rr.Header().Name)
		}
		if r.TTL < minTTL || r.Name == "" || r.Data == "" {
			t.Errorf("accepted %+v", r)
		}
	})
}

// FuzzRequest sends anything to any endpoint: no input may panic or make a defect, and every answer is JSON.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"POST /v2/droplets {\"name\": \"a\", \"size\": \"s-1vcpu-1gb\", \"image\": 7555620}", "GET /v2/droplets?page=-1&per_page=x ",
		"POST /v2/reserved_ips {\"region\": \"lon1\"}", "POST /v2/reserved_ips/203.0.113.1/actions {\"type\": \"assign\", \"droplet_id\": -1}",
		"POST /v2/tags {\"name\": \"a\"}", "DELETE /v2/tags/a/resources {\"resources\": [{\"resource_id\": 1}]}",
		"PUT /v2/images/7555620 {\"name\": \"b\"}", "GET /v2/images/%00 ", "POST /v2/domains {\"name\": \"a.b\"}", "PATCH /v2/domains/a.b/records/1 {}",
	} {
		method, rest, _ := strings.Cut(seed, " ")
		target, body, _ := strings.Cut(rest, " ")
		f.Add(method, target, body)
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, "http://cloud.test"+target, strings.NewReader(body))
		if err != nil || r.Host != "cloud.test" {
			return
		}
		o := Defaults()
		o.Token = testToken
		var log strings.Builder
		s := New(slog.New(slog.NewTextHandler(&log, nil)), &Memory{}, o)
		r.RequestURI = target
		r.Header.Set("Authorization", "Bearer "+testToken)
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		if err := s.Close(t.Context()); err != nil { // Before the log is read.
			t.Fatal(err)
		}
		if w.Code >= 500 || strings.Contains(log.String(), "defect") {
			t.Errorf("%s %s %s: got %d %s\n%s", method, target, body, w.Code, w.Body, log.String())
		}
		if w.Body.Len() > 0 && w.Code != http.StatusMovedPermanently && w.Code != http.StatusTemporaryRedirect && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: answer %q is not JSON", method, target, w.Body)
		}
	})
}

func FuzzMetadataPath(f *testing.F) {
	for _, seed := range []string{"/metadata/v1/", "/metadata/v1", "/metadata/v1/id", "//", "/metadata/v1/tags/x"} {
		f.Add(seed)
	}
	m := metadata{machine: Machine{ID: 1, Name: "web1", UserData: "ticket"}, plan: Defaults().Addresses}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		m.serve(w, r)
		if w.Code == http.StatusOK && !strings.HasPrefix(path, "/metadata/v1") {
			t.Errorf("%q: got %q, want 404", path, w.Body)
		}
	})
}
