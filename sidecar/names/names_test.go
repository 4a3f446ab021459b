package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// blog is a server that knows a small cluster.
func blog() *Server {
	s := New("blog")
	s.Set(map[string][]netip.Addr{
		"web1": addrs("10.77.0.2"), "web": addrs("10.77.0.2", "10.77.0.3", "fd00::3"), "mail": nil, "WEB2": addrs("::ffff:10.77.0.3"),
		"odd": {{}},
	})
	return s
}

// said is an answer in short: the rcode and flags, then the records.
func said(m *mdns.Msg) string {
	words := []string{mdns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		words = append(words, "aa")
	}
	var values []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *mdns.A:
			values = append(values, rr.A.String())
		case *mdns.AAAA:
			values = append(values, rr.AAAA.String())
		default:
			values = append(values, mdns.TypeToString[rr.Header().Rrtype])
		}
	}
	slices.Sort(values)
	words = append(words, values...)
	for _, rr := range m.Ns {
		words = append(words, "("+mdns.TypeToString[rr.Header().Rrtype]+")")
	}
	return strings.Join(words, " ")
}

func TestAnswers(t *testing.T) {
	cases := []struct {
		name string
		kind uint16
		want string
	}{
		{"web1.blog.internal.", mdns.TypeA, "NOERROR aa 10.77.0.2"},
		{"WEB1.Blog.Internal.", mdns.TypeA, "NOERROR aa 10.77.0.2"},
		{"web2.blog.internal.", mdns.TypeA, "NOERROR aa 10.77.0.3"},
		{"web.blog.internal.", mdns.TypeA, "NOERROR aa 10.77.0.2 10.77.0.3"},
		{"web.blog.internal.", mdns.TypeAAAA, "NOERROR aa fd00::3"},
		{"web.blog.internal.", mdns.TypeANY, "NOERROR aa 10.77.0.2 10.77.0.3 fd00::3"},
		{"web1.blog.internal.", mdns.TypeAAAA, "NOERROR aa (SOA)"},
		{"web1.blog.internal.", mdns.TypeMX, "NOERROR aa (SOA)"},
		{"mail.blog.internal.", mdns.TypeA, "NOERROR aa (SOA)"}, // nobody has the duty now
		{"odd.blog.internal.", mdns.TypeA, "NOERROR aa (SOA)"},
		{"blog.internal.", mdns.TypeSOA, "NOERROR aa SOA"},
		{"blog.internal.", mdns.TypeA, "NOERROR aa (SOA)"},
		{"web9.blog.internal.", mdns.TypeA, "NXDOMAIN aa (SOA)"},
		{"x.web1.blog.internal.", mdns.TypeA, "NXDOMAIN aa (SOA)"},
		{"notblog.internal.", mdns.TypeA, "REFUSED"},
		{"xblog.internal.", mdns.TypeA, "REFUSED"},
		{"internal.", mdns.TypeA, "REFUSED"},
		{".", mdns.TypeNS, "REFUSED"},
		{"www.example.com.", mdns.TypeA, "REFUSED"},
		{"blog.internal.", mdns.TypeAXFR, "REFUSED"},
		{"blog.internal.", mdns.TypeIXFR, "REFUSED"},
	}
	s := blog()
	for _, c := range cases {
		q := new(mdns.Msg).SetQuestion(c.name, c.kind)
		m := s.answer(q)
		if got := said(m); got != c.want || m.Id != q.Id || m.RecursionAvailable {
			t.Errorf("%s %s: got %q, want %q", c.name, mdns.TypeToString[c.kind], got, c.want)
		}
		for _, rr := range slices.Concat(m.Answer, m.Ns) {
			if rr.Header().Ttl != 1 {
				t.Errorf("%s: got TTL %d, want 1", c.name, rr.Header().Ttl)
			}
		}
		for _, rr := range m.Answer {
			if rr.Header().Name != c.name {
				t.Errorf("got owner %s, want it as it was asked for, %s", rr.Header().Name, c.name)
			}
		}
	}
}

func TestBeforeTheFirstSetNothingIsDenied(t *testing.T) {
	s := New("blog")
	if got := said(s.answer(new(mdns.Msg).SetQuestion("web1.blog.internal.", mdns.TypeA))); got != "SERVFAIL" {
		t.Errorf("got %q, want SERVFAIL", got)
	}
	if got := said(s.answer(new(mdns.Msg).SetQuestion("www.example.com.", mdns.TypeA))); got != "REFUSED" {
		t.Errorf("a foreign name: got %q, want REFUSED", got)
	}
	s.Set(nil)
	if got := said(s.answer(new(mdns.Msg).SetQuestion("web1.blog.internal.", mdns.TypeA))); got != "NXDOMAIN aa (SOA)" {
		t.Errorf("after Set: got %q, want NXDOMAIN", got)
	}
}

func TestOddQuestionsAreRefusedInForm(t *testing.T) {
	cases := map[string]struct {
		change func(q *mdns.Msg)
		want   string
	}{
		"update":        {func(q *mdns.Msg) { q.Opcode = mdns.OpcodeUpdate }, "NOTIMP"},
		"no question":   {func(q *mdns.Msg) { q.Question = nil }, "FORMERR"},
		"two questions": {func(q *mdns.Msg) { q.Question = append(q.Question, q.Question[0]) }, "FORMERR"},
		"chaos":         {func(q *mdns.Msg) { q.Question[0].Qclass = mdns.ClassCHAOS }, "REFUSED"},
		"an answer":     {func(q *mdns.Msg) { q.Response = true }, "NOTIMP"},
		"EDNS 1":        {func(q *mdns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(1) }, "BADVERS"},
		"EDNS 0":        {func(q *mdns.Msg) { q.SetEdns0(1232, true) }, "NOERROR aa 10.77.0.2"},
	}
	for name, c := range cases {
		q := new(mdns.Msg).SetQuestion("web1.blog.internal.", mdns.TypeA)
		c.change(q)
		m := blog().answer(q)
		if got := said(m); got != c.want && !(c.want == "BADVERS" && m.Rcode == mdns.RcodeBadVers) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if q.IsEdns0() != nil && m.IsEdns0() == nil {
			t.Errorf("%s: the answer has no EDNS", name)
		}
	}
}

func TestAnswersBeginWithEveryAddressInTurn(t *testing.T) {
	s := New("blog")
	s.Set(map[string][]netip.Addr{"web": addrs("10.77.0.2", "10.77.0.3", "10.77.0.4")})
	first := map[string]int{}
	for range 30 {
		m := s.answer(new(mdns.Msg).SetQuestion("web.blog.internal.", mdns.TypeA))
		if len(m.Answer) != 3 {
			t.Fatalf("got %v, want three", m.Answer)
		}
		first[m.Answer[0].(*mdns.A).A.String()]++
	}
	if len(first) != 3 || first["10.77.0.2"] != 10 {
		t.Errorf("got first %v, want each ten times", first)
	}
}

func TestSetKeepsNoHoldOfItsArgument(t *testing.T) {
	table := map[string][]netip.Addr{"web": addrs("10.77.0.2")}
	s := New("blog")
	s.Set(table)
	table["web"][0] = netip.MustParseAddr("10.77.0.9")
	if got := said(s.answer(new(mdns.Msg).SetQuestion("web.blog.internal.", mdns.TypeA))); got != "NOERROR aa 10.77.0.2" {
		t.Errorf("got %q, want what was set", got)
	}
}

// serve runs s on loopback and returns where, by network. It ends, and is seen to end, with the test.
func serve(t *testing.T, s *Server) map[string]string {
	t.Helper()
	var listen net.ListenConfig
	tcp, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := listen.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	return map[string]string{"tcp": tcp.Addr().String(), "udp": udp.LocalAddr().String()}
}

func ask(t *testing.T, network string, server map[string]string, q *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := &mdns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: mdns.MaxMsgSize}
	m, _, err := c.ExchangeContext(t.Context(), q, server[network])
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	return m
}

func TestAnswersThatAreTooLargeForUDPComeByTCP(t *testing.T) {
	s := New("blog")
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}))
	}
	s.Set(map[string][]netip.Addr{"web": many})
	server := serve(t, s)
	q := func(size uint16) *mdns.Msg {
		m := new(mdns.Msg).SetQuestion("web.blog.internal.", mdns.TypeA)
		if size > 0 {
			m.SetEdns0(size, false)
		}
		return m
	}
	for size, most := range map[uint16]int{0: 512, 100: 512, 1232: 1232, 65535: 1232} {
		m := ask(t, "udp", server, q(size))
		m.Compress = true // as it was sent
		if !m.Truncated || m.Len() > most {
			t.Errorf("size %d: got %d bytes, truncated %v, want at most %d, truncated", size, m.Len(), m.Truncated, most)
		}
	}
	if m := ask(t, "tcp", server, q(0)); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("got %d addresses, truncated %v, want 200", len(m.Answer), m.Truncated)
	}
}

func TestServerEndsWithItsContextAlsoWhileClientsHangOn(t *testing.T) {
	var conn net.Conn
	t.Cleanup(func() { _ = conn.Close() }) // after the server has ended: cleanups run from the last to the first
	server := serve(t, blog())
	var err error
	if conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", server["tcp"]); err != nil {
		t.Fatal(err)
	}
	if got := said(ask(t, "udp", server, new(mdns.Msg).SetQuestion("web1.blog.internal.", mdns.TypeA))); got != "NOERROR aa 10.77.0.2" {
		t.Errorf("got %q", got)
	}
}

func TestRunReportsASocketThatIsTakenAway(t *testing.T) {
	var listen net.ListenConfig
	tcp, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := listen.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = tcp.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := blog().Run(ctx, udp, tcp); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, want an error at once", err)
	}
}

// FuzzQuestion answers whatever a client can send: with something that can be packed, that answers it, and that never claims
// a name outside the zone.
func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"web.blog.internal.", "blog.internal.", "x.example.", "."} {
		for _, kind := range []uint16{mdns.TypeA, mdns.TypeANY, mdns.TypeSOA, mdns.TypeAXFR} {
			raw, err := new(mdns.Msg).SetQuestion(name, kind).Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	s := blog()
	f.Fuzz(func(t *testing.T, raw []byte) {
		q := new(mdns.Msg)
		if q.Unpack(raw) != nil {
			return
		}
		m := s.answer(q)
		m.Truncate(mdns.MinMsgSize)
		out, err := m.Pack()
		if err != nil {
			t.Fatalf("the answer to %v cannot be packed: %v", q, err)
		}
		if len(out) > mdns.MinMsgSize && len(m.Question) < 2 {
			t.Errorf("got %d bytes", len(out))
		}
		if !m.Response || m.Id != q.Id {
			t.Errorf("got %v, want an answer to %v", m, q)
		}
		for _, rr := range m.Answer {
			if name := mdns.CanonicalName(rr.Header().Name); name != "blog.internal." && !strings.HasSuffix(name, ".blog.internal.") {
				t.Errorf("got %v", rr)
			}
		}
	})
}

func Example() {
	s := New("blog")
	s.Set(map[string][]netip.Addr{"web1": {netip.MustParseAddr("10.77.0.2")}})
	m := s.answer(new(mdns.Msg).SetQuestion("web1.blog.internal.", mdns.TypeA))
	fmt.Println(m.Answer[0].(*mdns.A).A)
	// Output: 10.77.0.2
}
