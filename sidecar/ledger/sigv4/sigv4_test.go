package sigv4

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"
	"pgregory.net/rapid"

	"understudy/bootstrap/secrets"
)

var example = Keys{secrets.NewSecret("AKIAIOSFODNN7EXAMPLE"), secrets.NewSecret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")}

var exampleTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

// The four examples of "Authenticating Requests: Using the Authorization Header", Amazon S3 API reference.
func TestSignaturesAreThoseOfAWSsExamples(t *testing.T) {
	for _, c := range []struct {
		method, url, body string
		header            map[string]string
		signed, want      string
	}{
		{"GET", "/test.txt", "", map[string]string{"Range": "bytes=0-9"}, "host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"PUT", "/test$file.text", "Welcome to Amazon S3.",
			map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY"},
			"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
		{"GET", "/?lifecycle", "", nil, "host;x-amz-content-sha256;x-amz-date",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"GET", "/?max-keys=2&prefix=J", "", nil, "host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	} {
		req := httptest.NewRequest(c.method, "https://examplebucket.s3.amazonaws.com"+c.url, nil)
		for k, v := range c.header {
			req.Header.Set(k, v)
		}
		Sign(req, []byte(c.body), example, "us-east-1", exampleTime)
		want := "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=" + c.signed + ", Signature=" + c.want
		if got := req.Header.Get("Authorization"); got != want {
			t.Errorf("%s %s: got  %s\nwant %s", c.method, c.url, got, want)
		}
		if err := Verify(req, example, exampleTime.Add(time.Minute)); err != nil {
			t.Errorf("%s %s: verify: got %v", c.method, c.url, err)
		}
	}
}

// draw makes a request such as the ledger's, and some stranger ones.
func draw(t *rapid.T) (method string, u *url.URL, header http.Header) {
	path := "/" + rapid.StringMatching(`[a-zA-Z0-9@._~ $+=/-]{0,40}`).Draw(t, "path")
	query := url.Values{}
	for range rapid.IntRange(0, 3).Draw(t, "parameters") {
		query.Set(rapid.StringMatching(`[a-z-]{1,8}`).Draw(t, "name"), rapid.StringMatching(`[ -~é]{0,20}`).Draw(t, "value"))
	}
	u = &url.URL{Scheme: "http", Host: rapid.SampledFrom([]string{"s3.example", "10.77.0.1:9000", "s3.example:80"}).Draw(t, "host"), Path: path,
		RawPath: Escape(path, "/"), RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20")}
	header = http.Header{}
	if rapid.Bool().Draw(t, "condition") {
		header.Set("If-None-Match", "*")
	}
	return rapid.SampledFrom([]string{"GET", "PUT", "DELETE"}).Draw(t, "method"), u, header
}

func TestSignaturesAreThoseOfMinio(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		method, u, header := draw(t)
		body := []byte(rapid.String().Draw(t, "body"))
		theirs := &http.Request{Method: method, URL: u, Host: u.Host, Header: header.Clone()}
		theirs.Header.Set(hashHeader, Hash(body))
		theirs = signer.SignV4(*theirs, "AKIAIOSFODNN7EXAMPLE", example.SecretKey.Reveal(), "", "eu-central-1")
		at, err := time.Parse(dateFormat, theirs.Header.Get(dateHeader))
		if err != nil {
			t.Fatal(err)
		}
		ours := &http.Request{Method: method, URL: u, Host: u.Host, Header: header.Clone()}
		Sign(ours, body, example, "eu-central-1", at)
		strip := func(s string) string { return strings.ReplaceAll(s, ", ", ",") }
		if got, want := strip(ours.Header.Get("Authorization")), strip(theirs.Header.Get("Authorization")); got != want {
			t.Errorf("%s %s\ngot  %s\nwant %s", method, u, got, want)
		}
	})
}

func TestEveryChangeOfASignedRequestIsRefused(t *testing.T) {
	signed := func() *http.Request {
		req := httptest.NewRequest("PUT", "http://10.77.0.1:9000/blog/duty/%40cluster/1?x=1", nil)
		req.Header.Set("If-None-Match", "*")
		Sign(req, []byte("body"), example, "us-east-1", exampleTime)
		return req
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   error
	}{
		"nothing":         {func(*http.Request) {}, nil},
		"method":          {func(r *http.Request) { r.Method = "DELETE" }, ErrSignature},
		"path":            {func(r *http.Request) { r.URL.Path += "1" }, ErrSignature},
		"query":           {func(r *http.Request) { r.URL.RawQuery = "x=2" }, ErrSignature},
		"host":            {func(r *http.Request) { r.Host = "other" }, ErrSignature},
		"condition gone":  {func(r *http.Request) { r.Header.Del("If-None-Match") }, ErrSignature},
		"hash of body":    {func(r *http.Request) { r.Header.Set(hashHeader, Hash(nil)) }, ErrSignature},
		"date":            {func(r *http.Request) { r.Header.Set(dateHeader, "20130524T000001Z") }, ErrSignature},
		"day":             {func(r *http.Request) { r.Header.Set(dateHeader, "20130525T000000Z") }, ErrMalformed},
		"no date":         {func(r *http.Request) { r.Header.Del(dateHeader) }, ErrMalformed},
		"no signature":    {func(r *http.Request) { r.Header.Del("Authorization") }, ErrUnsigned},
		"another key":     {func(r *http.Request) { replace(r, "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7OTHER") }, ErrKey},
		"another region":  {func(r *http.Request) { replace(r, "us-east-1", "us-east-2") }, ErrSignature},
		"another service": {func(r *http.Request) { replace(r, "/s3/", "/sts/") }, ErrMalformed},
		"fewer headers":   {func(r *http.Request) { replace(r, "host;", "") }, ErrMalformed},
		"only a word":     {func(r *http.Request) { r.Header.Set("Authorization", algorithm+" x") }, ErrMalformed},
	} {
		req := signed()
		c.change(req)
		if err := Verify(req, example, exampleTime); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	for _, now := range []time.Time{exampleTime.Add(16 * time.Minute), exampleTime.Add(-16 * time.Minute)} {
		if err := Verify(signed(), example, now); !errors.Is(err, ErrSkewed) {
			t.Errorf("at %v: got %v, want %v", now, err, ErrSkewed)
		}
	}
	if err := Verify(signed(), Keys{}, exampleTime); err == nil {
		t.Error("a store without keys let somebody in")
	}
}

func replace(r *http.Request, from, to string) {
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
}

func FuzzVerify(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request, SignedHeaders=host, Signature=x", "20130524T000000Z")
	f.Fuzz(func(t *testing.T, authorization, date string) {
		req := httptest.NewRequest("GET", "http://store/", nil)
		req.Header.Set("Authorization", authorization)
		req.Header.Set(dateHeader, date)
		if Verify(req, Keys{secrets.NewSecret("a"), secrets.NewSecret("b")}, exampleTime) == nil {
			t.Error("a made-up signature was let in")
		}
	})
}
