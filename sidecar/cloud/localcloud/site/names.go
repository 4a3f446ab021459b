//go:build linux

package site

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/sidecar/cloud/localcloud"
)

// fixed are names of the world outside a cluster that the cloud answers for itself: the control
// repo's place, the mail relay, and Debian's mirror.
var fixed = map[string]netip.Addr{
	"control.understudy.internal.":    gateway,
	"smtp-relay.understudy.internal.": gateway,
	"deb.debian.org.":                 gateway,
}

// Source is where an image made for local clouds finds the control repo.
var Source = fmt.Sprintf("http://control.understudy.internal:%d/control.git", gitPort)

// answerFixed puts the fixed names before the zones that the API knows.
func answerFixed(next dns.Handler) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if len(r.Question) != 1 {
			next.ServeDNS(w, r)
			return
		}
		q := r.Question[0]
		addr, ok := fixed[strings.ToLower(q.Name)]
		if !ok {
			next.ServeDNS(w, r)
			return
		}
		m := new(dns.Msg).SetReply(r)
		m.Authoritative = true
		if q.Qtype == dns.TypeA && q.Qclass == dns.ClassINET {
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: addr.AsSlice(),
			}}
		}
		_ = w.WriteMsg(m) // the asker asks again
	})
}

// serveNames runs the cloud's name server on the gateway address.
func (s *Site) serveNames(ctx context.Context, g *errgroup.Group) error {
	at := netip.AddrPortFrom(gateway, 53).String()
	l, err := s.net.Listen(ctx, at)
	if err != nil {
		return err
	}
	p, err := s.net.ListenPacket(ctx, at)
	if err != nil {
		return err
	}
	g.Go(func() error { return localcloud.ServeDNS(ctx, answerFixed(s.cloud.DNS()), p, l) })
	return nil
}

// resolve finds the address of a forward's target: numeric, a node's name, or a name in the cluster's domain.
func (s *Site) resolve(name string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return a, nil
	}
	if addrs := s.cloud.PrivateAddrs(name); len(addrs) > 0 {
		return addrs[len(addrs)-1], nil // the newest machine of that name
	}
	if a, ok := fixed[dns.Fqdn(name)]; ok {
		return a, nil
	}
	for _, full := range []string{name, name + "." + s.roster.Domain} {
		if addrs := s.look(full); len(addrs) > 0 {
			return addrs[0], nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address for %q yet", name)
}

// look asks the cloud's own name server, as any client would.
func (s *Site) look(name string) []netip.Addr {
	var got reply
	s.cloud.DNS().ServeDNS(&got, new(dns.Msg).SetQuestion(dns.Fqdn(strings.ToLower(name)), dns.TypeA))
	var addrs []netip.Addr
	for _, rr := range got.msg.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// reply keeps what a handler answers. The handler uses no other methods.
type reply struct {
	dns.ResponseWriter
	msg dns.Msg
}

func (r *reply) WriteMsg(m *dns.Msg) error { r.msg = *m; return nil }

// RemoteAddr has the handler answer as it does over TCP: whole.
func (r *reply) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// published says that every name of a role leads somewhere.
func (s *Site) published(r role.Role) bool {
	names := slices.Clone(r.Names)
	if r.Address != nil {
		names = append(names, r.Address.Names...)
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		full := s.roster.Domain
		if name != "@" {
			full = name + "." + full
		}
		return len(s.look(full)) == 0
	})
}
