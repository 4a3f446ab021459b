//go:build linux

package site

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/sidecar/config"
	"understudy/sidecar/ledger"
	"understudy/sidecar/ledger/sigv4"
)

func TestFaultsAreReadAsTheyAreShown(t *testing.T) {
	for text, want := range map[string]objectstore.Fault{
		"ok": {}, "away": {Away: true}, "silent": {Silent: true}, "slow 500ms": {Delay: 500 * time.Millisecond},
	} {
		got, err := ParseFault(strings.Fields(text))
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
		if shown := faultWords(got); text != "ok" && shown != text || text == "ok" && shown != "" {
			t.Errorf("%s: shown as %q", text, shown)
		}
	}
	for _, text := range []string{"", "gone", "slow", "slow x", "slow -1s", "slow 2m", "slow 1s 1s", "away 1s", "ok ok"} {
		if got, err := ParseFault(strings.Fields(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

// What the operator would do by hand: the keys in the bundle open the bucket of roles.yaml, and no others do.
func TestKeysInTheBundleOpenTheLedgersBucket(t *testing.T) {
	data, err := os.ReadFile("../../../../roles.yaml")
	if err != nil {
		t.Fatal(err)
	}
	roster, err := role.Parse("roles.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	first, err := newKeys(t.TempDir(), t.TempDir(), "blog", "blog.test", "digitalocean", "token")
	if err != nil {
		t.Fatal(err)
	}
	second, err := newKeys(t.TempDir(), t.TempDir(), "blog", "blog.test", "digitalocean", "token")
	if err != nil {
		t.Fatal(err)
	}
	store, err := newObjects(t.TempDir(), roster, first.bundle.Ledger, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(store)
	defer srv.Close()
	for name, c := range map[string]struct {
		keys *keys
		ok   bool
	}{"the bundle's": {first, true}, "another cluster's": {second, false}} {
		k := c.keys.bundle.Ledger
		s3, err := ledger.NewS3(ledger.S3Config{
			Endpoint: srv.URL, Bucket: roster.Ledger.Bucket, Keys: sigv4.Keys{AccessKey: k.AccessKey, SecretKey: k.SecretKey},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s3.Close()
		if err := ledger.New(s3, roster.Cluster).SelfTest(t.Context(), "web1"); (err == nil) != c.ok {
			t.Errorf("%s keys: got %v", name, err)
		}
	}
	if _, err := config.Parse("sidecar.yaml", []byte(Sidecar)); err != nil {
		t.Errorf("what nodes are told: %v", err)
	}
}

func TestCommandLineSetsTheLedgersFault(t *testing.T) {
	store, err := newObjects(t.TempDir(), role.Roster{}, secrets.LedgerKeys{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{objects: store, log: slog.New(slog.DiscardHandler)}
	if err := s.setFault(httptest.NewRequest(http.MethodPost, "/fault", strings.NewReader(`{"away":true}`))); err != nil || !store.Fault().Away {
		t.Errorf("got %v, %+v; want away", err, store.Fault())
	}
	if err := s.setFault(httptest.NewRequest(http.MethodPost, "/fault", strings.NewReader(`?`))); err == nil || !store.Fault().Away {
		t.Errorf("garbage: got %v, %+v; want an error and no change", err, store.Fault())
	}
}
