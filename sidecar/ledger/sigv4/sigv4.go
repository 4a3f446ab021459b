// Package sigv4 signs requests to S3-compatible stores, and checks such signatures: AWS Signature Version 4 in the
// Authorization header, for the service s3. Source: "Authenticating Requests: Using the Authorization Header (AWS Signature
// Version 4)" in the Amazon S3 API reference. It knows no presigned URLs and signs no chunks.
//
// It reads no clock: callers pass the time, since a machine's own may be off by more than stores accept (15 minutes).
package sigv4

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/secrets"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	dateFormat = "20060102T150405Z"
	dayFormat  = "20060102"
	hashHeader = "X-Amz-Content-Sha256"
	dateHeader = "X-Amz-Date"
)

// Keys open a store.
type Keys struct {
	AccessKey, SecretKey secrets.Secret
}

// Sign signs req with all headers that it has now, and adds those that make the signature. body is the request's. A proxy
// that drops or changes one of these headers, such as the condition of a write, makes the store refuse the request.
func Sign(req *http.Request, body []byte, k Keys, region string, now time.Time) {
	req.Header.Set(hashHeader, Hash(body))
	req.Header.Set(dateHeader, now.UTC().Format(dateFormat))
	names := []string{"host"}
	for name := range req.Header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	scope := strings.Join([]string{now.UTC().Format(dayFormat), region, "s3", "aws4_request"}, "/")
	req.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		algorithm, k.AccessKey.Reveal(), scope, strings.Join(names, ";"), signature(req, names, scope, k.SecretKey)))
}

// Hash is the SHA-256 of a body in hexadecimal, as requests carry it.
func Hash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Why a request is refused. The texts may be shown to whoever asked.
var (
	ErrUnsigned  = errors.New("the request is not signed with AWS4-HMAC-SHA256 in its Authorization header")
	ErrMalformed = errors.New("the signature is malformed")
	ErrKey       = errors.New("there is no such access key")
	ErrSignature = errors.New("the signature does not match the request")
	ErrSkewed    = errors.New("the request's time is too far from the store's")
)

// maxSkew is what AWS allows between the request's time and the store's.
const maxSkew = 15 * time.Minute

// Verify checks a request's signature against the one pair of keys that there is. It does not look at the body: whoever
// reads that compares it with what the request says of it.
func Verify(req *http.Request, k Keys, now time.Time) error {
	rest, ok := strings.CutPrefix(req.Header.Get("Authorization"), algorithm+" ")
	if !ok {
		return ErrUnsigned
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	access, scope, ok := strings.Cut(fields["Credential"], "/")
	parts := strings.Split(scope, "/")
	at, err := time.Parse(dateFormat, req.Header.Get(dateHeader))
	if !ok || err != nil || len(parts) != 4 || parts[0] != at.Format(dayFormat) || parts[2] != "s3" || parts[3] != "aws4_request" {
		return ErrMalformed
	}
	if at.Sub(now).Abs() > maxSkew {
		return ErrSkewed
	}
	if subtle.ConstantTimeCompare([]byte(access), []byte(k.AccessKey.Reveal())) != 1 || k.SecretKey.IsZero() {
		return ErrKey
	}
	names := strings.Split(fields["SignedHeaders"], ";")
	for _, must := range []string{"host", strings.ToLower(hashHeader), strings.ToLower(dateHeader)} {
		if !slices.Contains(names, must) {
			return ErrMalformed
		}
	}
	want := signature(req, names, scope, k.SecretKey)
	if subtle.ConstantTimeCompare([]byte(want), []byte(fields["Signature"])) != 1 {
		return ErrSignature
	}
	return nil
}

// signature is the signature over the named headers, which are lower case and sorted.
func signature(req *http.Request, names []string, scope string, secret secrets.Secret) string {
	canonical := sha256.Sum256([]byte(canonicalRequest(req, names)))
	parts := strings.Split(scope, "/")
	key := []byte("AWS4" + secret.Reveal())
	for _, part := range parts {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, strings.Join([]string{algorithm, req.Header.Get(dateHeader), scope, hex.EncodeToString(canonical[:])}, "\n")))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonicalRequest is the text that stands for the request.
func canonicalRequest(req *http.Request, names []string) string {
	var headers strings.Builder
	for _, name := range names {
		values := slices.Clone(req.Header.Values(name))
		switch name {
		case "host":
			values = []string{cmp.Or(req.Host, req.URL.Host)} // as it is sent (net/http, Request.Host)
		case "content-length": // Go keeps it apart from the other headers
			values = []string{fmt.Sprint(req.ContentLength)}
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(values, ","))
	}
	return strings.Join([]string{
		req.Method, Escape(req.URL.Path, "/"), canonicalQuery(req.URL.Query()), headers.String(), strings.Join(names, ";"), req.Header.Get(hashHeader),
	}, "\n")
}

// canonicalQuery sorts by the name first: "a-=1" comes after "a=2", though not as a text.
func canonicalQuery(q url.Values) string {
	var pairs [][2]string
	for name, values := range q {
		for _, v := range values {
			pairs = append(pairs, [2]string{Escape(name, ""), Escape(v, "")})
		}
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	var text []string
	for _, p := range pairs {
		text = append(text, p[0]+"="+p[1])
	}
	return strings.Join(text, "&")
}

// Escape is the URI encoding that signatures are made over: of RFC 3986's unreserved characters everything but those, and
// those in safe, becomes %XX. A request must be sent in the same spelling.
func Escape(s, safe string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~"+safe, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
