// Package names answers for the cluster's own names on a loopback port: <node>.<cluster>.internal and
// <role>.<cluster>.internal. It is an authoritative server for that one zone (RFC 1034, 1035, EDNS of RFC 6891), and what it
// says changes within a second of a peer's replacement, without a Puppet run.
//
// It refuses every other name and does not recurse. What it does not know yet it does not deny: before the first Set it
// answers SERVFAIL, upon which resolvers and HAProxy keep what they have, and not NXDOMAIN, upon which they forget it.
package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Bounds.
const (
	// ttl is how long an answer, also a negative one, may be remembered, in seconds. Zero would be honoured less widely.
	ttl = 1
	// udpSize is the largest answer over UDP, whatever the client claims to take (DNS flag day 2020).
	udpSize = 1232
	// questionsAtOnce is how many questions are worked on at a time; more are not answered.
	questionsAtOnce = 256
	patience        = 3 * time.Second // with a slow client, and with a slow end
)

// Server answers questions. Its methods may be called concurrently.
type Server struct {
	origin string // "blog.internal."
	table  atomic.Pointer[map[string][]netip.Addr]
	turn   atomic.Uint32 // rotates answers
	slots  chan struct{}
}

// New makes a server for <cluster>.internal that knows nothing yet. The cluster's name is a single label.
func New(cluster string) *Server {
	return &Server{origin: mdns.CanonicalName(cluster + ".internal"), slots: make(chan struct{}, questionsAtOnce)}
}

// Set replaces everything the server knows. Keys are relative to the zone, such as "web1" and "web". A name without addresses
// exists and has none, which is not the same as not to exist.
func (s *Server) Set(table map[string][]netip.Addr) {
	own := make(map[string][]netip.Addr, len(table))
	for name, addrs := range table {
		name = mdns.CanonicalName(name + "." + s.origin)
		for _, a := range addrs {
			if a = a.Unmap().WithZone(""); a.IsValid() {
				own[name] = append(own[name], a)
			}
		}
		if own[name] == nil {
			own[name] = []netip.Addr{}
		}
	}
	s.table.Store(&own)
}

// Run answers on both sockets until ctx ends, then closes them and waits for what is being answered. It returns nil when
// ctx ended it.
func (s *Server) Run(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, server := range []*mdns.Server{
		{PacketConn: udp, Handler: s, ReadTimeout: patience, WriteTimeout: patience},
		{Listener: tcp, Handler: s, ReadTimeout: patience, WriteTimeout: patience, MaxTCPQueries: 128,
			IdleTimeout: func() time.Duration { return patience }},
	} {
		started, ended := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		g.Go(func() error {
			defer close(ended)
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("answer for names: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			select {
			case <-started:
			case <-ended:
				return nil // it never began
			}
			<-ctx.Done()
			shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			if err := server.ShutdownContext(shut); err != nil && !errors.Is(err, net.ErrClosed) {
				select {
				case <-ended: // it had ended by itself
				default:
					return fmt.Errorf("stop answering for names: %w", err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w mdns.ResponseWriter, q *mdns.Msg) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return
	}
	answer := s.answer(q)
	limit := mdns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		limit = mdns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			limit = min(max(int(opt.UDPSize()), mdns.MinMsgSize), udpSize) // RFC 6891, 6.2.3
		}
	}
	answer.Truncate(limit)
	_ = w.WriteMsg(answer) // who asks and goes away needs no answer
}

// answer makes the whole message for a question.
func (s *Server) answer(q *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg).SetReply(q)
	m.Compress = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(udpSize, false)
		if opt.Version() != 0 {
			m.Rcode = mdns.RcodeBadVers
			return m
		}
	}
	switch {
	case q.Response || q.Opcode != mdns.OpcodeQuery:
		m.Rcode = mdns.RcodeNotImplemented
	case len(q.Question) != 1:
		m.Rcode = mdns.RcodeFormatError
	default:
		s.lookup(m, q.Question[0])
	}
	return m
}

// lookup fills in what the zone says.
func (s *Server) lookup(m *mdns.Msg, q mdns.Question) {
	name := mdns.CanonicalName(q.Name)
	transfer := q.Qtype == mdns.TypeAXFR || q.Qtype == mdns.TypeIXFR
	if q.Qclass != mdns.ClassINET || transfer || name != s.origin && !strings.HasSuffix(name, "."+s.origin) {
		m.Rcode = mdns.RcodeRefused
		return
	}
	table := s.table.Load()
	if table == nil {
		m.Rcode = mdns.RcodeServerFailure
		return
	}
	m.Authoritative = true
	addrs, exists := (*table)[name]
	switch {
	case name == s.origin && q.Qtype == mdns.TypeSOA:
		m.Answer = []mdns.RR{s.soa(q.Name)}
	case exists:
		m.Answer = s.addresses(q, addrs)
	case name != s.origin:
		m.Rcode = mdns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		m.Ns = []mdns.RR{s.soa(s.origin)} // how long the "no" may be remembered (RFC 2308)
	}
}

// addresses are the records of a name that a question is about, beginning with another one each time, so that clients which
// take the first spread out. The owner is spelt as in the question (RFC 4343 leaves that to us; some clients compare it).
func (s *Server) addresses(q mdns.Question, addrs []netip.Addr) []mdns.RR {
	var all []mdns.RR
	for _, a := range addrs {
		h := mdns.RR_Header{Name: q.Name, Class: mdns.ClassINET, Ttl: ttl}
		switch {
		case a.Is4() && (q.Qtype == mdns.TypeA || q.Qtype == mdns.TypeANY):
			h.Rrtype = mdns.TypeA
			all = append(all, &mdns.A{Hdr: h, A: a.AsSlice()})
		case a.Is6() && (q.Qtype == mdns.TypeAAAA || q.Qtype == mdns.TypeANY):
			h.Rrtype = mdns.TypeAAAA
			all = append(all, &mdns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	if len(all) < 2 {
		return all
	}
	first := int(s.turn.Add(1)) % len(all)
	return append(all[first:len(all):len(all)], all[:first]...)
}

func (s *Server) soa(owner string) mdns.RR {
	return &mdns.SOA{
		Hdr: mdns.RR_Header{Name: owner, Rrtype: mdns.TypeSOA, Class: mdns.ClassINET, Ttl: ttl},
		Ns:  "localhost.", Mbox: "hostmaster." + s.origin, Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
	}
}
