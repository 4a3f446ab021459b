//go:build linux

package nameserver_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"

	"understudy/sidecar/cluster"
	"understudy/sidecar/dns"
)

func address(name, value string) cluster.Record {
	kind := "A"
	if strings.Contains(value, ":") {
		kind = "AAAA"
	}
	return cluster.Record{Name: name, Type: kind, Value: value}
}

func mail(name string, pref int, value string) cluster.Record {
	return cluster.Record{Name: name, Type: "MX", Value: value, Pref: pref}
}

// change owns every name that it wants something of.
func change(epoch uint64, want ...cluster.Record) dns.Change {
	c := dns.Change{Epoch: epoch, Want: want}
	for _, r := range want {
		if !slices.Contains(c.Own, r.Name) {
			c.Own = append(c.Own, r.Name)
		}
	}
	return c
}

func (s *server) update(z *dns.Server, c dns.Change) {
	s.t.Helper()
	if err := z.Update(s.t.Context(), c); err != nil {
		s.t.Fatal(err)
	}
}

// shows checks what our code reads.
func (s *server) shows(z *dns.Server, epoch uint64, want ...cluster.Record) {
	s.t.Helper()
	got, err := z.Read(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if got.Epoch != epoch || !slices.Equal(got.Records, want) || got.Sent == 0 {
		s.t.Fatalf("got epoch %d, %v, sent %d, want epoch %d, %v", got.Epoch, got.Records, got.Sent, epoch, want)
	}
}

// says checks what the server answers to everybody, in the order of the text.
func (s *server) says(name string, kind uint16, want ...string) {
	s.t.Helper()
	var got []string
	for _, rr := range s.raw(name, kind) {
		got = append(got, strings.Join(strings.Fields(rr.String())[1:], " "))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.t.Fatalf("%s %s: got %q, want %q", name, mdns.TypeToString[kind], got, want)
	}
}

func TestZoneSaysWhatIsWantedAndNothingElseChanges(t *testing.T) {
	foreign := `
@ IN TXT "v=spf1 -all"
www IN TXT "kept"
www IN AAAA 2001:db8::99
shop IN A 198.51.100.7
`
	each(t, foreign, func(t *testing.T, s *server) {
		z := s.zone(nil)
		s.shows(z, 0, address("www", "2001:db8::99"))
		s.update(z, change(3, address("@", "203.0.113.10"), address("www", "203.0.113.10"), address("mail", "203.0.113.25"),
			mail("@", 10, "mail.blog.example."), // BIND refuses one to a name without addresses
			address("web", "198.51.100.2"), address("web", "198.51.100.3"), address("web", "2001:db8::3")))
		s.says("@", mdns.TypeA, "60 IN A 203.0.113.10")
		s.says("@", mdns.TypeMX, "60 IN MX 10 mail.blog.example.")
		s.says("web", mdns.TypeA, "60 IN A 198.51.100.2", "60 IN A 198.51.100.3")
		s.says("www", mdns.TypeAAAA) // another family of ours' name went with the change
		s.says("_understudy", mdns.TypeTXT, `30 IN TXT "epoch=3"`)
		s.update(z, change(3, address("www", "203.0.113.11"), address("web", "198.51.100.4"), mail("@", 20, "mail.blog.example.")))
		s.shows(z, 3, address("@", "203.0.113.10"), mail("@", 20, "mail.blog.example."), address("mail", "203.0.113.25"),
			address("web", "198.51.100.4"), address("www", "203.0.113.11"))
		s.says("@", mdns.TypeTXT, `300 IN TXT "v=spf1 -all"`)
		s.says("www", mdns.TypeTXT, `300 IN TXT "kept"`)
		s.says("shop", mdns.TypeA, "300 IN A 198.51.100.7")
	})
}

func TestNothingWantedLeavesTheNameAsItIs(t *testing.T) {
	each(t, "www IN A 203.0.113.9\nmail IN MX 5 elsewhere.example.\n", func(t *testing.T, s *server) {
		z := s.zone(nil)
		s.update(z, dns.Change{Epoch: 1, Own: []string{"www", "mail"}, Want: []cluster.Record{address("mail", "203.0.113.25")}})
		s.shows(z, 1, address("mail", "203.0.113.25"), mail("mail", 5, "elsewhere.example."), address("www", "203.0.113.9"))
	})
}

func TestEqualZoneIsNotWrittenAgain(t *testing.T) {
	each(t, "", func(t *testing.T, s *server) {
		z := s.zone(nil)
		s.update(z, change(1, address("www", "203.0.113.10")))
		before := s.raw("@", mdns.TypeSOA)[0].(*mdns.SOA).Serial
		s.update(z, change(1, address("www", "203.0.113.10")))
		if after := s.raw("@", mdns.TypeSOA)[0].(*mdns.SOA).Serial; after != before {
			t.Errorf("got serial %d after %d, want no write", after, before)
		}
		// A new epoch is written even so, or a writer of the old one could still come.
		s.update(z, change(2, address("www", "203.0.113.10")))
		s.shows(z, 2, address("www", "203.0.113.10"))
	})
}

func TestWrongTTLIsPutRight(t *testing.T) {
	each(t, "www 86400 IN A 203.0.113.10\n", func(t *testing.T, s *server) {
		s.update(s.zone(nil), change(1, address("www", "203.0.113.10"), address("www", "203.0.113.11")))
		s.says("www", mdns.TypeA, "60 IN A 203.0.113.10", "60 IN A 203.0.113.11")
	})
}

func TestLateWriterLoses(t *testing.T) {
	each(t, "", func(t *testing.T, s *server) {
		z := s.zone(nil)
		s.update(z, change(5, address("www", "203.0.113.5")))
		if err := z.Update(t.Context(), change(4, address("www", "203.0.113.4"))); !errors.Is(err, dns.ErrSuperseded) {
			t.Errorf("got %v, want ErrSuperseded", err)
		}
		s.shows(z, 5, address("www", "203.0.113.5"))
	})
}

func TestNameIsNeverWithoutAnAddress(t *testing.T) {
	each(t, "www IN A 203.0.113.1\n", func(t *testing.T, s *server) {
		z := s.zone(nil)
		done := make(chan struct{})
		asked, empty := 0, 0
		var g sync.WaitGroup
		g.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				asked++
				if len(s.raw("www", mdns.TypeA)) == 0 {
					empty++
				}
			}
		})
		for i := range 60 {
			s.update(z, change(uint64(i+1), address("www", fmt.Sprintf("203.0.113.%d", i%2+1))))
		}
		close(done)
		g.Wait()
		if empty > 0 || asked < 20 {
			t.Errorf("got %d empty answers of %d, want none of at least 20", empty, asked)
		}
	})
}

// TestOfTwentyRacingWritersOneWins lets twenty writers read the same guard before any of them writes.
func TestOfTwentyRacingWritersOneWins(t *testing.T) {
	const writers = 20
	for _, before := range []uint64{0, 7} {
		each(t, "", func(t *testing.T, s *server) {
			if before > 0 {
				s.update(s.zone(nil), change(before, address("www", "203.0.113.200")))
			}
			gate := &starter{want: writers, open: make(chan struct{})}
			z := s.zone(func(c *dns.ServerConfig) { c.Dial = gate.dial(s) })
			errs := make([]error, writers)
			var g sync.WaitGroup
			for i := range writers {
				g.Go(func() {
					errs[i] = z.Update(t.Context(), change(before+uint64(i)+1, address("www", fmt.Sprintf("203.0.113.%d", i+1))))
				})
			}
			g.Wait()
			winner := -1
			for i, err := range errs {
				switch {
				case err == nil && winner >= 0:
					t.Errorf("writers %d and %d have both won", winner, i)
				case err == nil:
					winner = i
				case !errors.Is(err, dns.ErrRaced) && !errors.Is(err, dns.ErrSuperseded):
					t.Errorf("writer %d: got %v, want ErrRaced or ErrSuperseded", i, err)
				}
			}
			if winner < 0 {
				t.Fatalf("nobody has won: %v", errs)
			}
			s.shows(s.zone(nil), before+uint64(winner)+1, address("www", fmt.Sprintf("203.0.113.%d", winner+1)))
		})
	}
}
