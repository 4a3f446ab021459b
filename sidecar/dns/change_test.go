package dns

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
)

func TestWrongChangeIsRefusedWithEveryProblem(t *testing.T) {
	c := Change{
		Own: []string{"www", "www", "WEB", "a.", ""},
		Want: []cluster.Record{
			a("www", 1), a("www", 1), a("shop", 1), {Name: "www", Type: "TXT", Value: "x"}, {Name: "www", Type: "A", Value: "2001:db8::1"},
			{Name: "www", Type: "A", Value: "203.0.113.1", Pref: 1}, {Name: "www", Type: "AAAA", Value: "::ffff:203.0.113.1"},
			{Name: "www", Type: "AAAA", Value: "2001:DB8::1"}, {Name: "www", Type: "AAAA", Value: "fe80::1%eth0"},
			mx("www", 10, "mail"), mx("www", 70000, "mail.blog.example."), mx("www", -1, "mail.blog.example."), mx("www", 1, "."),
		},
	}
	err := c.validate()
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{
		"epoch: must be above zero", `"www" is listed twice`, `"WEB" is no name`, `"a." is no name`, `"" is no name`,
		"A www 203.0.113.1: wanted twice", "A shop: the name is not ours", "must be A, AAAA or MX", `A www "2001:db8::1": must be an IPv4`,
		"only MX has a preference", `"::ffff:203.0.113.1": must be an IPv6`, `"2001:DB8::1": must be an IPv6`, `"fe80::1%eth0": must be an IPv6`,
		`MX www "mail": must be an absolute`, `MX www "."`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if n := strings.Count(err.Error(), "preference of 0 to 65535"); n != 4 {
		t.Errorf("got %d wrong mail exchangers, want 4", n)
	}
	good := Change{Epoch: 1, Own: []string{"@", "www.blog"}, Want: []cluster.Record{a("@", 1), aaaa("www.blog", 1), mx("@", 0, "mail.blog.example.")}}
	if err := good.validate(); err != nil {
		t.Errorf("got %v for a good change", err)
	}
}

func TestWrongConfigurationIsRefusedWithEveryProblem(t *testing.T) {
	const canary = "!canary!"
	_, err := NewRFC2136(ServerConfig{
		Server: "192.0.2.53", Zone: "Blog.Example", Own: []string{"x."}, Guard: "@", Key: "", Algorithm: "hmac-md5",
		Secret: secrets.NewSecret(canary), TTL: time.Second, Timeout: -1,
	})
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{"server", "zone", "guard", "key", "algorithm", "secret", "ttl", `"x."`, "timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the secret stands in the error %v", err)
	}
	if _, err := NewRecords(RecordsConfig{TTL: 90 * time.Millisecond, Own: []string{""}, Timeout: -1}); err == nil ||
		!strings.Contains(err.Error(), "ttl") || !strings.Contains(err.Error(), "no records API") || !strings.Contains(err.Error(), `""`) || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("got %v, want four problems", err)
	}
}

// TestStaleRecordsLeaveWhatIsWanted states the law of removal: what goes is never wanted, of a kind that is wanted, and of
// such a kind nothing else is left.
func TestStaleRecordsLeaveWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawRecords(t, "have"), drawRecords(t, "want")
		gone := stale(have, want)
		kinds := map[string]bool{}
		for _, r := range want {
			kinds[kind(r)] = true
		}
		for _, r := range have {
			if should := kinds[kind(r)] && !slices.Contains(want, r); should != slices.Contains(gone, r) {
				t.Fatalf("%v: got gone %v, want %v", r, !should, should)
			}
		}
	})
}

func FuzzGuard(f *testing.F) {
	for _, seed := range []string{"epoch=1", "epoch=18446744073709551615", "epoch=0", "epoch=01", "epoch=", "epoch=+1", "1", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if epoch, ok := parseGuard(text); ok && (epoch == 0 || guardText(epoch) != text) {
			t.Errorf("%q was read as %d, which we write as %q", text, epoch, guardText(epoch))
		}
	})
}
