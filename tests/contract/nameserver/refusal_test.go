//go:build linux

package nameserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
	"understudy/sidecar/dns"
)

// TestWhoMayNotWriteIsTold checks that each refusal is ErrDenied, says why in words, and changes nothing.
func TestWhoMayNotWriteIsTold(t *testing.T) {
	cases := map[string]struct {
		change func(*dns.ServerConfig)
		want   string
	}{
		"a key without the right": {func(c *dns.ServerConfig) { c.Key = "idle" }, "may the key idle change it"},
		"an unknown key":          {func(c *dns.ServerConfig) { c.Key = "nobody" }, "the key nobody"},
		"another secret":          {func(c *dns.ServerConfig) { c.Secret = secrets.NewSecret(otherSecret) }, "another secret for the key ddns"},
		"another algorithm":       {func(c *dns.ServerConfig) { c.Algorithm = "hmac-sha512" }, "the key ddns"},
		"another zone":            {func(c *dns.ServerConfig) { c.Zone = "other.example" }, "is other.example its zone"},
	}
	each(t, "www IN A 203.0.113.1\n", func(t *testing.T, s *server) {
		for name, c := range cases {
			err := s.zone(c.change).Update(t.Context(), change(1, address("www", "203.0.113.66")))
			if !errors.Is(err, dns.ErrDenied) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want ErrDenied with %q", name, err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), otherSecret)) {
				t.Errorf("%s: the secret stands in the error %v", name, err)
			}
		}
		s.says("www", mdns.TypeA, "300 IN A 203.0.113.1")
		s.says("_understudy", mdns.TypeTXT)
	})
}

func TestReadingWithAWrongKeyIsAnErrorNotAnEmptyZone(t *testing.T) {
	each(t, "www IN A 203.0.113.1\n", func(t *testing.T, s *server) {
		for name, c := range map[string]func(*dns.ServerConfig){
			"unknown key":    func(c *dns.ServerConfig) { c.Key = "nobody" },
			"another secret": func(c *dns.ServerConfig) { c.Secret = secrets.NewSecret(otherSecret) },
			"another zone":   func(c *dns.ServerConfig) { c.Zone = "other.example" },
		} {
			if got, err := s.zone(c).Read(t.Context()); !errors.Is(err, dns.ErrDenied) {
				t.Errorf("%s: got %v, %v, want ErrDenied", name, got, err)
			}
		}
	})
}

// TestClockThatIsOffIsReportedAndCanBeCorrected runs on a machine whose clock is right and signs as if it were not.
func TestClockThatIsOffIsReportedAndCanBeCorrected(t *testing.T) {
	each(t, "", func(t *testing.T, s *server) {
		for _, off := range []time.Duration{-15 * time.Minute, 15 * time.Minute} {
			now := func() time.Time { return time.Now().Add(off) }
			err := s.zone(func(c *dns.ServerConfig) { c.Now = now }).Update(t.Context(), change(1, address("www", "203.0.113.66")))
			clock, ok := errors.AsType[*dns.ClockError](err)
			if !ok {
				t.Fatalf("%v off: got %v, want a ClockError", off, err)
			}
			if wrong := clock.Ahead + off; max(wrong, -wrong) > 3*time.Second {
				t.Errorf("%v off: got a server %v ahead", off, clock.Ahead)
			}
			z := s.zone(func(c *dns.ServerConfig) { c.Now = func() time.Time { return now().Add(clock.Ahead) } })
			s.shows(z, 0)
		}
		s.update(s.zone(func(c *dns.ServerConfig) { c.Now = func() time.Time { return time.Now().Add(4 * time.Minute) } }),
			change(1, address("www", "203.0.113.1"))) // within what signatures allow
	})
}

func TestServerThatIsAwayIsAnError(t *testing.T) {
	each(t, "www IN A 203.0.113.1\n", func(t *testing.T, s *server) {
		z := s.zone(nil)
		s.stop()
		if got, err := z.Read(t.Context()); err == nil {
			t.Errorf("got %v, want an error", got)
		}
		if err := z.Update(t.Context(), change(1, address("www", "203.0.113.2"))); err == nil {
			t.Error("got nil, want an error")
		}
	})
}

// TestLostAnswerMayBeAskedAgain loses the answer to an update that the server has made.
func TestLostAnswerMayBeAskedAgain(t *testing.T) {
	each(t, "www IN A 203.0.113.1\n", func(t *testing.T, s *server) {
		deaf := s.zone(func(c *dns.ServerConfig) {
			c.Timeout = 300 * time.Millisecond
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := s.dial(ctx, network, address)
				return &deafConn{Conn: conn}, err
			}
		})
		want := change(1, address("www", "203.0.113.2"))
		if err := deaf.Update(t.Context(), want); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the end of the timeout", err)
		}
		s.await("the update is made all the same", func() bool { return len(s.raw("_understudy", mdns.TypeTXT)) == 1 })
		s.update(s.zone(nil), want)
		s.shows(s.zone(nil), 1, address("www", "203.0.113.2"))
	})
}

// deafConn hears nothing after it has sent an update.
type deafConn struct {
	net.Conn
	deaf bool
}

func (c *deafConn) Write(b []byte) (int, error) {
	c.deaf = c.deaf || int(b[4]>>3&0xf) == mdns.OpcodeUpdate
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if !c.deaf || err != nil {
			return n, err
		}
	}
}

// TestManyForeignAddressesAreReadAndRemoved has more of them than one UDP answer, or one update of ours, holds.
func TestManyForeignAddressesAreReadAndRemoved(t *testing.T) {
	var records strings.Builder
	const many = 1200
	for i := range many {
		fmt.Fprintf(&records, "www IN A 10.1.%d.%d\n", i/250, i%250+1)
	}
	each(t, records.String(), func(t *testing.T, s *server) {
		z := s.zone(nil)
		got, err := z.Read(t.Context())
		if err != nil || len(got.Records) != many {
			t.Fatalf("got %d records, %v, want %d", len(got.Records), err, many)
		}
		for range 3 { // 500 at a time
			s.update(z, change(1, address("www", "203.0.113.1")))
		}
		s.shows(z, 1, address("www", "203.0.113.1"))
	})
}

// TestWhatWeCannotOwnStopsUs checks that a zone made in a way that we did not expect is an error, not a guess.
func TestWhatWeCannotOwnStopsUs(t *testing.T) {
	cases := map[string]struct{ records, want string }{
		"alias":         {"www IN CNAME elsewhere.example.\n", "alias"},
		"inner alias":   {"www IN CNAME ns1\n", "alias"},
		"delegation":    {"www IN NS ns.elsewhere.example.\n", "authority"},
		"foreign guard": {`_understudy IN TXT "hands off"` + "\n", "not one that we wrote"},
		"two guards":    {"_understudy IN TXT \"epoch=1\"\n_understudy IN TXT \"epoch=2\"\n", "2 values"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			each(t, c.records, func(t *testing.T, s *server) {
				z := s.zone(nil)
				before := s.raw("@", mdns.TypeSOA)[0].String()
				if got, err := z.Read(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("read: got %v, %v, want an error with %q", got, err, c.want)
				}
				err := z.Update(t.Context(), change(9, address("www", "203.0.113.1")))
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("update: got %v, want an error with %q", err, c.want)
				}
				if after := s.raw("@", mdns.TypeSOA)[0].String(); after != before {
					t.Errorf("the zone was changed: %s, before %s", after, before)
				}
			})
		})
	}
}

// TestWildcardDoesNotHideAName publishes below a wildcard, whose records a server shows under every name.
func TestWildcardDoesNotHideAName(t *testing.T) {
	each(t, "* IN A 198.51.100.99\n", func(t *testing.T, s *server) {
		z := s.zone(func(c *dns.ServerConfig) { c.Own = []string{"www"} })
		s.update(z, change(1, address("www", "203.0.113.1")))
		s.shows(z, 1, address("www", "203.0.113.1"))
		s.says("anything", mdns.TypeA, "300 IN A 198.51.100.99")
	})
}

func TestClustersThatShareAZoneHaveAGuardEach(t *testing.T) {
	each(t, "", func(t *testing.T, s *server) {
		blog := s.zone(func(c *dns.ServerConfig) { c.Guard, c.Own = "_understudy.blog", []string{"www.blog"} })
		shop := s.zone(func(c *dns.ServerConfig) { c.Guard, c.Own = "_understudy.shop", []string{"www.shop"} })
		s.update(blog, change(9, address("www.blog", "203.0.113.1")))
		s.update(shop, change(1, address("www.shop", "203.0.113.2")))
		s.shows(blog, 9, address("www.blog", "203.0.113.1"))
		s.shows(shop, 1, cluster.Record{Name: "www.shop", Type: "A", Value: "203.0.113.2"})
	})
}
