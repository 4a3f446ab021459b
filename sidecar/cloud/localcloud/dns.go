package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Bounds of the DNS server.
const (
	// udpSize is the largest answer over UDP, whatever the client claims to take (DNS flag day 2020).
	udpSize = 1232
	// questionsAtOnce is how many questions are worked on at a time; more are not answered.
	questionsAtOnce = 256
	// internalTTL is how long the machines' own names may be remembered, in seconds, and also that there is none.
	internalTTL = 5
	dnsTimeout  = 3 * time.Second
)

// DNS is an authoritative DNS server for the domains of the account and for Options.InternalDomain. It refuses every
// other name, and does not recurse.
func (s *Server) DNS() dns.Handler {
	slots := make(chan struct{}, questionsAtOnce)
	return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			return
		}
		answer := s.answer(q)
		limit := dns.MaxMsgSize
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			limit = answerSize(q)
		}
		answer.Truncate(limit)
		if err := w.WriteMsg(answer); err != nil {
			s.log.Debug("dns answer not sent", "err", err)
		}
	})
}

// answerSize is what a client takes over UDP (RFC 6891, 6.2.3).
func answerSize(q *dns.Msg) int {
	opt := q.IsEdns0()
	if opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
}

// answer makes the whole message for a question.
func (s *Server) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(udpSize, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	if q.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	question := q.Question[0]
	transfer := question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR
	if question.Qclass != dns.ClassINET || transfer {
		m.Rcode = dns.RcodeRefused
		return m
	}
	f := s.lookup(strings.ToLower(question.Name), question.Qtype)
	m.Rcode, m.Authoritative, m.Answer, m.Ns = f.rcode, f.authoritative, f.answer, f.authority
	m.Extra = append(m.Extra, f.add...)
	return m
}

// lookup finds the zone of a name and asks it.
func (s *Server) lookup(name string, kind uint16) finding {
	z := s.zoneOf(name)
	internal := dns.Fqdn(strings.ToLower(s.opt.InternalDomain))
	if s.opt.InternalDomain != "" && dns.IsSubDomain(internal, name) && (z == nil || dns.IsSubDomain(z.origin, internal)) {
		return s.lookupInternal(name, internal, kind)
	}
	if z == nil {
		return finding{rcode: dns.RcodeRefused}
	}
	return z.lookup(name, kind)
}

// zoneOf returns the zone nearest to name, nil if none holds it. A zone never changes, so no lock is needed later.
func (s *Server) zoneOf(name string) *zone {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := strings.TrimSuffix(name, "."); n != ""; _, n, _ = strings.Cut(n, ".") {
		if d, ok := s.domains[n]; ok {
			return d.zone
		}
	}
	return nil
}

// lookupInternal answers for the machines' own names with a zone made for this one question.
func (s *Server) lookupInternal(name, origin string, kind uint16) finding {
	z := newZone(strings.TrimSuffix(origin, "."), s.opt.Nameservers[0], uint32(time.Now().Unix()), internalTTL, nil)
	if x, ok := strings.CutSuffix(name, "."+origin); ok {
		for _, a := range s.internal(x) {
			if a = a.Unmap(); a.Is4() {
				z.add(&dns.A{Hdr: header(name, dns.TypeA, internalTTL), A: a.AsSlice()})
			} else if a.Is6() {
				z.add(&dns.AAAA{Hdr: header(name, dns.TypeAAAA, internalTTL), AAAA: a.AsSlice()})
			}
		}
	}
	return z.lookup(name, kind)
}

func (s *Server) internal(x string) []netip.Addr {
	if s.opt.Internal != nil {
		return s.opt.Internal(x)
	}
	return s.PrivateAddrs(x)
}

// ServeDNS answers DNS by h on both sockets until ctx ends, then closes them and waits for what is being answered. It
// returns nil when ctx ended it.
func ServeDNS(ctx context.Context, h dns.Handler, udp net.PacketConn, tcp net.Listener) error {
	servers := []*dns.Server{
		{PacketConn: udp, Handler: h, ReadTimeout: dnsTimeout, WriteTimeout: dnsTimeout},
		{Listener: tcp, Handler: h, ReadTimeout: dnsTimeout, WriteTimeout: dnsTimeout, MaxTCPQueries: 128,
			IdleTimeout: func() time.Duration { return dnsTimeout }},
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		g.Go(func() error {
			defer close(ended)
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("serve dns: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			select {
			case <-started:
			case <-ended:
				return nil // It never began.
			}
			<-ctx.Done()
			shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), dnsTimeout)
			defer cancel()
			if err := server.ShutdownContext(shut); err != nil && !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("stop dns: %w", err)
			}
			return nil
		})
	}
	return g.Wait()
}
