package cloud_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cloud/localcloud"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// whole is the document of a droplet that holds a reserved address, shortened from
// https://docs.digitalocean.com/reference/api/metadata/.
const whole = `{"droplet_id": 2756294, "hostname": "lb1", "region": "lon1", "vendor_data": "#cloud-config\n", "public_keys": ["ssh-rsa x"],
"interfaces": {
  "private": [{"ipv4": {"ip_address": "10.132.255.113", "netmask": "255.255.0.0", "gateway": "10.132.0.1"}, "mac": "04:01:2a:0f:2a:02", "type": "private"}],
  "public": [{"ipv4": {"ip_address": "104.131.20.105", "netmask": "255.255.192.0", "gateway": "104.131.0.1"},
    "ipv6": {"ip_address": "2604:A880:0800:0010:0000:0000:017D:2001", "cidr": 64, "gateway": "2604:A880:0800:0010::1"},
    "anchor_ipv4": {"ip_address": "10.17.0.5", "netmask": "255.255.0.0", "gateway": "10.17.0.1"}, "mac": "04:01:2a:0f:2a:01", "type": "public"}]},
"floating_ip": {"ipv4": {"active": true, "ip_address": "203.0.113.10"}},
"reserved_ip": {"ipv4": {"active": true, "ip_address": "203.0.113.10"}},
"dns": {"nameservers": ["67.207.67.2"]}, "features": {"dhcp_enabled": false}, "tags": ["blog"]}`

// metadata serves one body with one status.
func metadata(t *testing.T, status int, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metadata/v1.json" {
			t.Errorf("got %s", r.URL)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL + "/metadata/v1"
}

func TestMetadataIsReadWhole(t *testing.T) {
	got, err := cloud.ReadMetadata(t.Context(), metadata(t, http.StatusOK, whole))
	want := cloud.Self{
		ID: "2756294", Hostname: "lb1", Region: "lon1", Private: netip.MustParseAddr("10.132.255.113"), Public: netip.MustParseAddr("104.131.20.105"),
		Anchor: netip.MustParseAddr("10.17.0.5"), ReservedActive: true, Reserved: netip.MustParseAddr("203.0.113.10"),
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestReservedAddressIsReadByEitherName(t *testing.T) {
	cases := map[string]struct {
		body   string
		active bool
	}{
		"neither":           {`{"droplet_id": 1}`, false},
		"inactive":          {`{"droplet_id": 1, "reserved_ip": {"ipv4": {"active": false}}}`, false},
		"former name":       {`{"droplet_id": 1, "floating_ip": {"ipv4": {"active": true, "ip_address": "203.0.113.10"}}}`, true},
		"present name":      {`{"droplet_id": 1, "reserved_ip": {"ipv4": {"active": true, "ip_address": "203.0.113.10"}}}`, true},
		"present one wins":  {`{"droplet_id": 1, "floating_ip": {"ipv4": {"active": true}}, "reserved_ip": {"ipv4": {"active": false}}}`, false},
		"left over address": {`{"droplet_id": 1, "reserved_ip": {"ipv4": {"active": false, "ip_address": "203.0.113.10"}}}`, false},
	}
	for name, c := range cases {
		got, err := cloud.ReadMetadata(t.Context(), metadata(t, http.StatusOK, c.body))
		if err != nil || got.ReservedActive != c.active || got.Reserved.IsValid() != c.active {
			t.Errorf("%s: got %+v, %v, want active %v", name, got, err, c.active)
		}
	}
}

func TestMetadataThatSaysNothingIsAnError(t *testing.T) {
	cases := map[string]struct {
		status     int
		body, want string
	}{
		"not found":       {http.StatusNotFound, "404 Not Found", "404"},
		"failing":         {http.StatusInternalServerError, "", "500"},
		"no JSON":         {http.StatusOK, "<html>", "read the answer"},
		"no ID":           {http.StatusOK, "{}", "droplet_id"},
		"an empty answer": {http.StatusOK, "", "read the answer"},
		"a wrong address": {http.StatusOK, `{"droplet_id": 1, "interfaces": {"private": [{"ipv4": {"ip_address": "10.0.0"}}]}}`, "private address"},
		"IPv6 for IPv4":   {http.StatusOK, `{"droplet_id": 1, "reserved_ip": {"ipv4": {"active": true, "ip_address": "::1"}}}`, "reserved address"},
		"too much":        {http.StatusOK, strings.Repeat(" ", 600<<10), "above"},
	}
	for name, c := range cases {
		got, err := cloud.ReadMetadata(t.Context(), metadata(t, c.status, c.body))
		if err == nil || !strings.Contains(err.Error(), c.want) || got != (cloud.Self{}) {
			t.Errorf("%s: got %+v, %v, want an error with %q", name, got, err, c.want)
		}
	}
}

func TestRedirectOfTheMetadataServiceIsNotFollowed(t *testing.T) {
	elsewhere := metadata(t, http.StatusOK, whole)
	s := httptest.NewServer(http.RedirectHandler(elsewhere+".json", http.StatusFound))
	defer s.Close()
	if got, err := cloud.ReadMetadata(t.Context(), s.URL+"/metadata/v1"); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("got %+v, want an error", got)
	}
}

func TestSilentMetadataServiceIsGivenUp(t *testing.T) {
	asked := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }() // ends with the request
	if got, err := cloud.ReadMetadata(ctx, s.URL+"/metadata/v1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, want an error", got)
	}
}

// TestLocalCloudTellsAMachineAboutItself reads what the local cloud serves, as a machine of it would.
func TestLocalCloudTellsAMachineAboutItself(t *testing.T) {
	o := localcloud.Defaults()
	o.Token, o.ActionDelay = "dop_v1_test", 0
	var doc []byte
	synctest.Test(t, func(t *testing.T) {
		s := localcloud.New(slog.New(slog.DiscardHandler), &localcloud.Memory{}, o)
		r := httptest.NewRequest(http.MethodPost, "/v2/droplets", strings.NewReader(`{"name": "lb1", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620}`))
		r.Header.Set("Authorization", "Bearer dop_v1_test")
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		if w.Code != http.StatusAccepted {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute) // in the bubble
		r = httptest.NewRequest(http.MethodGet, "/metadata/v1.json", nil)
		r.RemoteAddr = "10.77.0.2:40000"
		w = httptest.NewRecorder()
		s.Metadata().ServeHTTP(w, r)
		doc = w.Body.Bytes()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	got, err := cloud.ReadMetadata(t.Context(), metadata(t, http.StatusOK, string(doc)))
	if err != nil || got.Hostname != "lb1" || got.Private.String() != "10.77.0.2" || got.Anchor.String() != "10.16.0.2" || got.ReservedActive {
		t.Errorf("got %+v, %v, want lb1's own addresses and no reserved one", got, err)
	}
}
