package localcloud

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask puts a question to the server without a network and returns "RCODE", "aa" if authoritative, and the sections.
func (c *cloud) ask(name, kind string) (*dns.Msg, string) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	m := c.s.answer(q)
	parts := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		parts = append(parts, "aa")
	}
	for _, section := range []struct {
		name string
		rrs  []dns.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", m.Extra}} {
		if len(section.rrs) > 0 {
			parts = append(parts, section.name+":")
		}
		for _, rr := range section.rrs {
			text := strings.Join(strings.Fields(rr.String()), " ")
			if soa, ok := rr.(*dns.SOA); ok {
				text = fmt.Sprintf("%s %d SOA", soa.Hdr.Name, soa.Hdr.Ttl)
			}
			parts = append(parts, text)
		}
	}
	return m, strings.Join(parts, " | ")
}

// populate makes a zone with one of everything.
func (c *cloud) populate() {
	c.zoned()
	for _, body := range []string{
		`{"type": "A", "name": "@", "data": "192.0.2.1", "ttl": 60}`,
		`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 60}`,
		`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 60}`,
		`{"type": "A", "name": "www", "data": "192.0.2.2", "ttl": 60}`,
		`{"type": "CNAME", "name": "news", "data": "alias.blog.example.", "ttl": 60}`,
		`{"type": "CNAME", "name": "alias", "data": "www.blog.example.", "ttl": 60}`,
		`{"type": "CNAME", "name": "away", "data": "www.other.example.", "ttl": 60}`,
		`{"type": "CNAME", "name": "dangling", "data": "nothing.blog.example.", "ttl": 60}`,
		`{"type": "CNAME", "name": "loop", "data": "loop2.blog.example.", "ttl": 60}`,
		`{"type": "CNAME", "name": "loop2", "data": "loop.blog.example.", "ttl": 60}`,
		`{"type": "MX", "name": "@", "data": "mail.blog.example.", "priority": 10, "ttl": 60}`,
		`{"type": "A", "name": "mail", "data": "192.0.2.25", "ttl": 60}`,
		`{"type": "TXT", "name": "dkim._domainkey", "data": "p=\"x\\y\"", "ttl": 60}`,
		`{"type": "A", "name": "*.dev", "data": "192.0.2.3", "ttl": 60}`,
		`{"type": "A", "name": "fixed.dev", "data": "192.0.2.4", "ttl": 60}`,
		`{"type": "CNAME", "name": "*.pages", "data": "www.blog.example.", "ttl": 60}`,
		`{"type": "NS", "name": "sub", "data": "ns.sub.blog.example.", "ttl": 60}`,
		`{"type": "A", "name": "ns.sub", "data": "192.0.2.53", "ttl": 60}`,
	} {
		c.record(body)
	}
}

func TestDNSAnswers(t *testing.T) {
	const www = "www.blog.example. 60 IN A 192.0.2.1 | www.blog.example. 60 IN A 192.0.2.2"
	const negative = "authority: | blog.example. 1800 SOA"
	for _, tc := range []struct{ name, kind, want string }{
		{"www.blog.example", "A", "NOERROR | aa | answer: | " + www},
		{"WwW.Blog.ExamplE", "A", "NOERROR | aa | answer: | " + www},
		{"www.blog.example", "ANY", "NOERROR | aa | answer: | " + www},
		{"www.blog.example", "AAAA", "NOERROR | aa | " + negative},
		{"nothing.blog.example", "A", "NXDOMAIN | aa | " + negative},
		{"deep.nothing.blog.example", "A", "NXDOMAIN | aa | " + negative},
		{"below.www.blog.example", "A", "NXDOMAIN | aa | " + negative},
		{"_domainkey.blog.example", "TXT", "NOERROR | aa | " + negative}, // An empty non-terminal exists.
		{"dev.blog.example", "A", "NOERROR | aa | " + negative},
		{"blog.example", "SOA", "NOERROR | aa | answer: | blog.example. 1800 SOA"},
		{"blog.example", "MX", "NOERROR | aa | answer: | blog.example. 60 IN MX 10 mail.blog.example. | additional: | mail.blog.example. 60 IN A 192.0.2.25"},
		{"dkim._domainkey.blog.example", "TXT", `NOERROR | aa | answer: | dkim._domainkey.blog.example. 60 IN TXT "p=\"x\\y\""`},
		{"news.blog.example", "A", "NOERROR | aa | answer: | news.blog.example. 60 IN CNAME alias.blog.example. | alias.blog.example. 60 IN CNAME www.blog.example. | " + www},
		{"news.blog.example", "CNAME", "NOERROR | aa | answer: | news.blog.example. 60 IN CNAME alias.blog.example."},
		{"away.blog.example", "A", "NOERROR | aa | answer: | away.blog.example. 60 IN CNAME www.other.example."},
		{"alias.blog.example", "AAAA", "NOERROR | aa | answer: | alias.blog.example. 60 IN CNAME www.blog.example. | " + negative},
		{"dangling.blog.example", "A", "NXDOMAIN | aa | answer: | dangling.blog.example. 60 IN CNAME nothing.blog.example. | " + negative},
		{"x.dev.blog.example", "A", "NOERROR | aa | answer: | x.dev.blog.example. 60 IN A 192.0.2.3"},
		{"a.b.dev.blog.example", "A", "NOERROR | aa | answer: | a.b.dev.blog.example. 60 IN A 192.0.2.3"},
		{"x.dev.blog.example", "AAAA", "NOERROR | aa | " + negative},
		{"fixed.dev.blog.example", "A", "NOERROR | aa | answer: | fixed.dev.blog.example. 60 IN A 192.0.2.4"},
		{"fixed.dev.blog.example", "AAAA", "NOERROR | aa | " + negative},
		{"below.fixed.dev.blog.example", "A", "NXDOMAIN | aa | " + negative}, // The wildcard does not reach below a name that exists.
		{"x.pages.blog.example", "A", "NOERROR | aa | answer: | x.pages.blog.example. 60 IN CNAME www.blog.example. | " + www},
		{"host.sub.blog.example", "A", "NOERROR | authority: | sub.blog.example. 60 IN NS ns.sub.blog.example. | additional: | ns.sub.blog.example. 60 IN A 192.0.2.53"},
		{"sub.blog.example", "DS", "NOERROR | aa | " + negative},
		{"other.example", "A", "REFUSED"},
		{"example", "A", "REFUSED"},
		{".", "NS", "REFUSED"},
		{"xblog.example", "A", "REFUSED"},
		{"blog.example", "AXFR", "REFUSED"},
	} {
		inBubble(t, nil, func(c *cloud) {
			c.populate()
			if _, got := c.ask(tc.name, tc.kind); got != tc.want {
				t.Errorf("%s %s:\ngot  %s\nwant %s", tc.name, tc.kind, got, tc.want)
			}
		})
	}
}

func TestDNSRefusesWhatIsNoQuestion(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.populate()
		question := func(change func(*dns.Msg)) *dns.Msg {
			q := new(dns.Msg)
			q.SetQuestion("www.blog.example.", dns.TypeA)
			change(q)
			return c.s.answer(q)
		}
		for name, tc := range map[string]struct {
			change func(*dns.Msg)
			want   int
		}{
			"update":           {func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
			"no question":      {func(q *dns.Msg) { q.Question = nil }, dns.RcodeFormatError},
			"two questions":    {func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }, dns.RcodeFormatError},
			"chaos":            {func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
			"later edns":       {func(q *dns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
			"endless cname":    {func(q *dns.Msg) { q.Question[0].Name = "loop.blog.example." }, dns.RcodeServerFailure},
			"a plain question": {func(*dns.Msg) {}, dns.RcodeSuccess},
		} {
			if got := question(tc.change); got.Rcode != tc.want {
				t.Errorf("%s: got %s, want %s", name, dns.RcodeToString[got.Rcode], dns.RcodeToString[tc.want])
			}
		}
		if m := question(func(q *dns.Msg) { q.SetEdns0(4096, false) }); m.IsEdns0() == nil || m.IsEdns0().UDPSize() != udpSize {
			t.Errorf("got %v, want EDNS with our own size", m.IsEdns0())
		}
	})
}

func TestSerialRisesWithEveryChange(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.zoned()
		serial := func() uint32 {
			m, _ := c.ask("blog.example", "SOA")
			return m.Answer[0].(*dns.SOA).Serial
		}
		last := serial()
		if last != uint32(time.Now().Unix()) {
			t.Errorf("got serial %d, want the time", last)
		}
		for i := range 3 {
			c.record(fmt.Sprintf(`{"type": "A", "name": "h%d", "data": "192.0.2.1"}`, i))
			if got := serial(); got <= last {
				t.Errorf("got serial %d after %d, want a higher one", got, last)
			} else {
				last = got
			}
		}
	})
}

func TestInternalNamesAreTheMachines(t *testing.T) {
	inBubble(t, func(o *Options) { o.InternalDomain = "blog.internal" }, func(c *cloud) {
		c.booted("web1")
		for name, want := range map[string]string{
			"web1.blog.internal":   "NOERROR | aa | answer: | web1.blog.internal. 5 IN A 10.77.0.2",
			"WEB1.blog.internal":   "NOERROR | aa | answer: | web1.blog.internal. 5 IN A 10.77.0.2",
			"web2.blog.internal":   "NXDOMAIN | aa | authority: | blog.internal. 5 SOA",
			"blog.internal":        "NOERROR | aa | authority: | blog.internal. 5 SOA",
			"web1.other.internal":  "REFUSED",
			"x.web1.blog.internal": "NXDOMAIN | aa | authority: | blog.internal. 5 SOA",
		} {
			if _, got := c.ask(name, "A"); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
		if _, got := c.ask("web1.blog.internal", "AAAA"); got != "NOERROR | aa | authority: | blog.internal. 5 SOA" {
			t.Errorf("AAAA: got %s, want no data", got)
		}
	})
}

func TestInternalNamesComeFromTheHook(t *testing.T) {
	var asked []string
	inBubble(t, func(o *Options) {
		o.InternalDomain = "blog.internal"
		o.Internal = func(x string) []netip.Addr {
			asked = append(asked, x)
			return []netip.Addr{netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("2001:db8::9")}
		}
	}, func(c *cloud) {
		if _, got := c.ask("Lb.blog.internal", "A"); got != "NOERROR | aa | answer: | lb.blog.internal. 5 IN A 10.77.0.9" {
			t.Errorf("got %s, want the hook's IPv4 address", got)
		}
		if _, got := c.ask("lb.blog.internal", "AAAA"); got != "NOERROR | aa | answer: | lb.blog.internal. 5 IN AAAA 2001:db8::9" {
			t.Errorf("got %s, want the hook's IPv6 address", got)
		}
		if !slices.Equal(asked, []string{"lb", "lb"}) {
			t.Errorf("the hook was asked for %v, want lb twice", asked)
		}
	})
}

func TestDNSOverTheNetwork(t *testing.T) {
	c := newCloud(t, nil)
	defer c.close()
	c.zoned()
	for i := range 60 {
		c.record(fmt.Sprintf(`{"type": "A", "name": "many", "data": "192.0.2.%d"}`, i+1))
	}
	c.record(`{"type": "TXT", "name": "long", "data": "` + strings.Repeat("0123456789", 40) + `"}`)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeDNS(ctx, c.s.DNS(), udp, tcp) }()
	for _, tc := range []struct {
		network   string
		edns      uint16
		name      string
		kind      uint16
		truncated bool
		answers   int // at least
		most      int // bytes
	}{
		{"udp", 0, "many.blog.example.", dns.TypeA, true, 1, 512},
		{"udp", 4096, "many.blog.example.", dns.TypeA, false, 60, udpSize},
		{"udp", 600, "many.blog.example.", dns.TypeA, true, 1, 600},
		{"udp", 100, "many.blog.example.", dns.TypeA, true, 1, 512},
		{"tcp", 0, "many.blog.example.", dns.TypeA, false, 60, 65535},
		{"tcp", 0, "long.blog.example.", dns.TypeTXT, false, 1, 65535},
	} {
		q := new(dns.Msg)
		q.SetQuestion(tc.name, tc.kind)
		if tc.edns > 0 {
			q.SetEdns0(tc.edns, false)
		}
		client := &dns.Client{Net: tc.network, UDPSize: 65535, Timeout: 5 * time.Second}
		m, _, err := client.ExchangeContext(ctx, q, udp.LocalAddr().String())
		if err != nil {
			t.Errorf("%s %s: %v", tc.network, tc.name, err)
			continue
		}
		m.Compress = true
		if m.Truncated != tc.truncated || len(m.Answer) < tc.answers || m.Len() > tc.most {
			t.Errorf("%s, edns %d: got %d answers in %d bytes, truncated %v, want at least %d in at most %d, %v",
				tc.network, tc.edns, len(m.Answer), m.Len(), m.Truncated, tc.answers, tc.most, tc.truncated)
		}
		if txt, ok := m.Answer[0].(*dns.TXT); ok && len(strings.Join(txt.Txt, "")) != 400 {
			t.Errorf("got a text of %d bytes, want 400 in pieces", len(strings.Join(txt.Txt, "")))
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if again, err := net.ListenPacket("udp", udp.LocalAddr().String()); err != nil {
		t.Errorf("the socket is still open after ServeDNS: %v", err)
	} else {
		_ = again.Close()
	}
}

func TestZoneIsReadWhileItChanges(t *testing.T) {
	c := newCloud(t, nil)
	defer c.close()
	c.populate()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			m, _ := c.ask("news.blog.example", "A")
			if _, err := m.Pack(); err != nil {
				t.Errorf("pack: %v", err)
			}
		}
	}()
	for i := range 100 {
		c.want(http.StatusCreated, "POST", recordsPath, fmt.Sprintf(`{"type": "A", "name": "h%d", "data": "192.0.2.1"}`, i))
	}
	<-done
}
