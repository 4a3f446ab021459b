package objectstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"pgregory.net/rapid"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
	"understudy/sidecar/ledger"
	"understudy/sidecar/ledger/sigv4"
)

const name = "blog-understudy"

var keys = sigv4.Keys{AccessKey: secrets.NewSecret("access"), SecretKey: secrets.NewSecret("secret")}

// start serves a store on loopback.
func start(t *testing.T) (*Store, *httptest.Server, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := New(Options{Dir: dir, Buckets: []string{name}, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, srv, dir
}

// ours is our own client.
func ours(t *testing.T, srv *httptest.Server, k sigv4.Keys) *ledger.S3 {
	t.Helper()
	c, err := ledger.NewS3(ledger.S3Config{Endpoint: srv.URL, Bucket: name, Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// theirs is a client that shares no code with the store.
func theirs(t *testing.T, srv *httptest.Server) *minio.Client {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(srv.URL, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4("access", "secret", ""), Region: "us-east-1", MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOfManyConditionalWritersExactlyOneWins(t *testing.T) {
	_, srv, dir := start(t)
	const writers = 24
	clients := make([]*ledger.S3, writers)
	for i := range clients {
		clients[i] = ours(t, srv, keys)
	}
	for round := range 20 {
		key := fmt.Sprintf("blog/duty/lb/%020d", round)
		won := make([]bool, writers)
		var wg sync.WaitGroup
		for i, c := range clients {
			wg.Go(func() {
				_, err := c.Create(t.Context(), key, fmt.Appendf(nil, "writer %d", i))
				if won[i] = err == nil; err != nil && !errors.Is(err, ledger.ErrExists) {
					t.Errorf("writer %d: got %v, want success or ErrExists", i, err)
				}
			})
		}
		wg.Wait()
		body, _, err := clients[0].Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for i := range won {
			if won[i] != (string(body) == fmt.Sprintf("writer %d", i)) {
				t.Errorf("round %d: writer %d was told %v, and the object is by %s", round, i, won[i], body)
			}
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 20 {
		t.Errorf("got %d files, %v; want one for each object and none of the losers'", len(left), err)
	}
}

func TestLedgersSelfTestPasses(t *testing.T) {
	_, srv, _ := start(t)
	if err := ledger.New(ours(t, srv, keys), "blog").SelfTest(t.Context(), "web1"); err != nil {
		t.Error(err)
	}
}

// The store's listing, by pages of any size, is the set of keys with the prefix behind the start, in order.
func TestListingIsTheSetOfKeysHoweverItIsPaged(t *testing.T) {
	s, srv, _ := start(t)
	api := theirs(t, srv)
	core := minio.Core{Client: api}
	want := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			key := rapid.StringMatching(`[ab]{1,2}(/[ab@.]{1,2}){0,2}`).Draw(t, "key")
			if rapid.Bool().Draw(t, "put") {
				if _, err := api.PutObject(context.Background(), name, key, strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
					t.Fatal(err)
				}
				want[key] = true
			} else if err := api.RemoveObject(context.Background(), name, key, minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			} else {
				delete(want, key)
			}
		}
		prefix := rapid.SampledFrom([]string{"", "a", "a/", "b/a", "c"}).Draw(t, "prefix")
		after := rapid.SampledFrom([]string{"", "a", "a/b", "b", "zz"}).Draw(t, "after")
		delimiter := rapid.SampledFrom([]string{"", "/"}).Draw(t, "delimiter")
		if delimiter != "" {
			after = "" // what a start inside a group means is S3's secret
		}
		size := rapid.IntRange(1, 5).Draw(t, "page")
		var got []string
		token := ""
		for {
			page, err := core.ListObjectsV2(name, prefix, after, token, delimiter, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Contents)+len(page.CommonPrefixes) > size {
				t.Fatalf("a page of more than %d", size)
			}
			for _, o := range page.Contents {
				got = append(got, o.Key)
			}
			for _, p := range page.CommonPrefixes {
				got = append(got, p.Prefix)
			}
			if token = page.NextContinuationToken; !page.IsTruncated {
				break
			}
		}
		slices.Sort(got) // keys and groups come apart
		var all []string
		for _, key := range slices.Sorted(maps.Keys(want)) {
			rest, ok := strings.CutPrefix(key, prefix)
			if !ok || key <= after {
				continue
			}
			if head, _, grouped := strings.Cut(rest, "/"); grouped && delimiter != "" {
				key = prefix + head + "/"
			}
			all = append(all, key)
		}
		slices.Sort(all)
		if all = slices.Compact(all); !slices.Equal(got, all) {
			t.Fatalf("prefix %q after %q delimiter %q size %d:\ngot  %q\nwant %q", prefix, after, delimiter, size, got, all)
		}
	})
	_ = s
}

func TestAnotherClientReadsWhatItWrote(t *testing.T) {
	_, srv, dir := start(t)
	api := theirs(t, srv)
	ctx := t.Context()
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	if _, err := api.PutObject(ctx, name, "a/big", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{ContentType: "x/y"}); err != nil {
		t.Fatal(err)
	}
	o, err := api.GetObject(ctx, name, "a/big", minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(data))
	}
	part := make([]byte, 4)
	if n, err := o.ReadAt(part, 13); err != nil || string(part[:n]) != "3456" {
		t.Errorf("a part: got %q, %v; want 3456", part[:n], err)
	}
	st, err := api.StatObject(ctx, name, "a/big", minio.StatObjectOptions{})
	if err != nil || st.Size != int64(len(data)) || st.ContentType != "x/y" {
		t.Errorf("stat: got %+v, %v", st, err)
	}
	if _, err := api.CopyObject(ctx, minio.CopyDestOptions{Bucket: name, Object: "b"}, minio.CopySrcOptions{Bucket: name, Object: "a/big"}); err != nil {
		t.Errorf("copy: %v", err)
	}
	opt := minio.PutObjectOptions{}
	opt.SetMatchETagExcept("*")
	if _, err := api.PutObject(ctx, name, "b", strings.NewReader("x"), 1, opt); minio.ToErrorResponse(err).StatusCode != http.StatusPreconditionFailed {
		t.Errorf("create over an object: got %v, want 412", err)
	}
	gone := make(chan minio.ObjectInfo, 2)
	gone <- minio.ObjectInfo{Key: "a/big"}
	gone <- minio.ObjectInfo{Key: "b"}
	close(gone)
	for e := range api.RemoveObjects(ctx, name, gone, minio.RemoveObjectsOptions{}) {
		t.Errorf("remove: %v", e)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files left, %v", len(left), err)
	}
}

func TestOnlyTheKeysOpenTheStore(t *testing.T) {
	_, srv, _ := start(t)
	for want, k := range map[string]sigv4.Keys{
		"SignatureDoesNotMatch": {AccessKey: keys.AccessKey, SecretKey: secrets.NewSecret("other")},
		"InvalidAccessKeyId":    {AccessKey: secrets.NewSecret("other"), SecretKey: keys.SecretKey},
	} {
		c := ours(t, srv, k)
		var refused *ledger.StatusError
		if _, err := c.Put(t.Context(), "a", nil); !errors.As(err, &refused) || refused.Status != 403 || refused.Code != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	res, err := http.Get(srv.URL + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("without a signature: got %d, want 403", res.StatusCode)
	}
}

func TestBodyThatWasNotSignedIsNotStored(t *testing.T) {
	_, srv, dir := start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+"/"+name+"/a", strings.NewReader("another"))
	if err != nil {
		t.Fatal(err)
	}
	sigv4.Sign(req, []byte("signed."), keys, "us-east-1", time.Now())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 == 2 {
		t.Errorf("got %d, want a refusal", res.StatusCode)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files left, %v", len(left), err)
	}
}

func TestClientWithAWrongClockGetsThrough(t *testing.T) {
	_, srv, _ := start(t)
	c, err := ledger.NewS3(ledger.S3Config{Endpoint: srv.URL, Bucket: name, Keys: keys, Now: func() time.Time { return time.Now().Add(-26 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), "a", []byte("x")); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestFaultsAreThoseOfAStoreFarAway(t *testing.T) {
	s, srv, _ := start(t)
	l := ledger.New(ours(t, srv, keys), "blog")
	duty := cluster.DutyRecord{Duty: "lb", Epoch: 1, Holder: "lb1"}
	s.Set(Fault{Away: true})
	if err := l.WriteDuty(t.Context(), duty); err == nil {
		t.Error("away: got no error")
	}
	s.Set(Fault{})
	if r, err := l.Read(t.Context()); err != nil || len(r.Duties) != 0 {
		t.Errorf("after it was away: got %+v, %v; want nothing written", r, err)
	}
	s.Set(Fault{Silent: true})
	if err := l.WriteDuty(t.Context(), duty); err == nil {
		t.Error("silent: got no error")
	}
	s.Set(Fault{Delay: 50 * time.Millisecond})
	began := time.Now()
	if err := l.WriteDuty(t.Context(), duty); err != nil {
		t.Errorf("slow, and written before: got %v", err)
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("took %v, want the delay of two requests", took)
	}
	s.Set(Fault{})
	if r, err := l.Read(t.Context()); err != nil || r.Duties["lb"] != duty {
		t.Errorf("after it was silent: got %+v, %v; want the record", r, err)
	}
}

func TestStoreRefusesWhatIsNoBucket(t *testing.T) {
	for _, buckets := range [][]string{{"B"}, {"a/b"}, {name, name}} {
		if _, err := New(Options{Dir: t.TempDir(), Buckets: buckets, Keys: keys, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%q: got no error", buckets)
		}
	}
}

func TestASignatureIsJudgedByTheTimeThatTheStoreIsTold(t *testing.T) {
	for by, want := range map[time.Duration]string{10 * time.Minute: "", 20 * time.Minute: "RequestTimeTooSkewed", -20 * time.Minute: "RequestTimeTooSkewed"} {
		s, err := New(Options{
			Dir: t.TempDir(), Buckets: []string{name}, Keys: keys, Log: slog.New(slog.DiscardHandler),
			Now: func(*http.Request) time.Time { return time.Now().Add(by) },
		})
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(s)
		t.Cleanup(srv.Close)
		got := ""
		if _, _, err := ours(t, srv, keys).List(t.Context(), "", ""); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("store ahead by %v: got %q, want %q", by, got, want)
		}
	}
}
