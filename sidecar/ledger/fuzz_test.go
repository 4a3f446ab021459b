package ledger

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger/sigv4"
)

// Whatever is read is exactly what would be written.
func FuzzObjects(f *testing.F) {
	for _, v := range []any{
		cluster.DutyRecord{Duty: "lb", Epoch: 1, Holder: "lb1"}, cluster.Claim{Node: "lb1", Epoch: 1, Machine: "1"},
		cluster.Tie{N: 1, Winner: "lb1", Members: []string{"a"}}, Heartbeat{Node: "lb1", Count: 1}, Step{Incident: "i", Phase: "lost"},
		aDestruction(1),
	} {
		body, err := encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		same := func(v any, err error) {
			if err != nil {
				return
			}
			if again, err := encode(v); err != nil || !bytes.Equal(again, body) {
				t.Errorf("read %+v of %q, which is written as %q, %v", v, body, again, err)
			}
		}
		d, err := decodeDuty("lb", 1, body)
		same(d, err)
		c, err := decodeClaim("lb1", 1, body)
		same(c, err)
		tie, err := decodeTie(1, body)
		same(tie, err)
		h, err := decodeHeartbeat("lb1", body)
		same(h, err)
		s, err := decodeStep("i", 0, body)
		same(s, err)
		destroyed, err := decodeDestruction(1, body)
		same(destroyed, err)
	})
}

// Whatever a store answers to a listing, what comes of it was asked for and is in order.
func FuzzListing(f *testing.F) {
	f.Add([]byte(emptyList))
	f.Add([]byte(`<ListBucketResult><Name>blog-understudy</Name><Contents><Key>blog/tie/1</Key></Contents></ListBucketResult>`))
	var answer atomic.Pointer[[]byte]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(*answer.Load()) }))
	f.Cleanup(srv.Close)
	s, err := NewS3(S3Config{Endpoint: srv.URL, Bucket: bucket, Keys: sigv4.Keys{AccessKey: secrets.NewSecret("a"), SecretKey: secrets.NewSecret("s")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		answer.Store(&body)
		list, _, err := s.List(t.Context(), "blog/", "blog/c")
		if err != nil {
			return
		}
		last := "blog/c"
		for _, o := range list {
			if o.Key <= last || o.Key[:5] != "blog/" {
				t.Errorf("got %q after %q", o.Key, last)
			}
			last = o.Key
		}
	})
}
