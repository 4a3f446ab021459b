package localcloud

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// zone is what DNS serves of a domain: RRsets by owner and type. It never changes.
type zone struct {
	origin string // with the final dot
	soa    *dns.SOA
	sets   map[string]map[uint16][]dns.RR
	// names are all owners and what lies between them and the origin (empty non-terminals, RFC 8020).
	names map[string]bool
}

// maxChain bounds how many CNAMEs are followed within a zone.
const maxChain = 8

// newZone makes the zone of a domain's records. A record that DNS cannot express is left out; build has refused
// those already.
func newZone(domain, nameserver string, serial uint32, ttl int, records []*record) *zone {
	origin := dns.Fqdn(domain)
	z := &zone{origin: origin, sets: map[string]map[uint16][]dns.RR{}, names: map[string]bool{origin: true}}
	// Refresh, retry and expire are those of the example in DigitalOcean's description.
	z.soa = &dns.SOA{
		Hdr: header(origin, dns.TypeSOA, ttl), Ns: dns.Fqdn(nameserver), Mbox: "hostmaster." + origin, Serial: serial,
		Refresh: 10800, Retry: 3600, Expire: 604800, Minttl: uint32(ttl),
	}
	z.add(z.soa)
	for _, r := range records {
		if rr := r.rr(domain); rr != nil {
			z.add(rr)
		}
	}
	return z
}

func header(owner string, kind uint16, ttl int) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: kind, Class: dns.ClassINET, Ttl: uint32(ttl)}
}

// add puts rr into its set, once: DNS knows no duplicates, although the records API does (RFC 2181, 5.2).
func (z *zone) add(rr dns.RR) {
	h := rr.Header()
	owner := strings.ToLower(h.Name)
	if z.sets[owner] == nil {
		z.sets[owner] = map[uint16][]dns.RR{}
	}
	set := z.sets[owner][h.Rrtype]
	if !slices.ContainsFunc(set, func(known dns.RR) bool { return dns.IsDuplicate(known, rr) }) {
		z.sets[owner][h.Rrtype] = append(set, rr)
	}
	for name := owner; name != z.origin && dns.IsSubDomain(z.origin, name); name = parent(name) {
		z.names[name] = true
	}
}

func parent(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	if rest == "" {
		return "."
	}
	return rest
}

// rr makes the resource record; nil for SOA, which newZone makes itself.
func (r *record) rr(domain string) dns.RR {
	owner := dns.Fqdn(r.fqdn(domain))
	target := dns.Fqdn(r.Data)
	if r.Data == "@" {
		target = dns.Fqdn(domain)
	}
	h := func(kind uint16) dns.RR_Header { return header(owner, kind, r.TTL) }
	switch r.Type {
	case "A":
		return &dns.A{Hdr: h(dns.TypeA), A: net.ParseIP(r.Data)}
	case "AAAA":
		return &dns.AAAA{Hdr: h(dns.TypeAAAA), AAAA: net.ParseIP(r.Data)}
	case "CNAME":
		return &dns.CNAME{Hdr: h(dns.TypeCNAME), Target: target}
	case "NS":
		return &dns.NS{Hdr: h(dns.TypeNS), Ns: target}
	case "MX":
		return &dns.MX{Hdr: h(dns.TypeMX), Preference: uint16(r.Priority), Mx: target}
	case "SRV":
		return &dns.SRV{Hdr: h(dns.TypeSRV), Priority: uint16(r.Priority), Weight: uint16(r.Weight), Port: uint16(r.Port), Target: target}
	case "TXT":
		return &dns.TXT{Hdr: h(dns.TypeTXT), Txt: characterStrings(r.Data)}
	case "CAA":
		return &dns.CAA{Hdr: h(dns.TypeCAA), Flag: uint8(r.Flags), Tag: r.Tag, Value: r.Data}
	}
	return nil
}

// characterStrings cuts text into pieces of at most 255 bytes (RFC 1035, 3.3) in presentation form, in which miekg/dns
// keeps them: there, quotes and backslashes are escaped, and so is what is not printable ASCII.
func characterStrings(text string) []string {
	var pieces []string
	for len(text) > 0 {
		n := min(len(text), 255)
		var b strings.Builder
		for _, c := range []byte(text[:n]) {
			switch {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, "\\%03d", c)
			default:
				b.WriteByte(c)
			}
		}
		pieces = append(pieces, b.String())
		text = text[n:]
	}
	return pieces
}

// file is the zone in master file form, as the API shows it: SOA first, then by owner.
func (z *zone) file() string {
	lines := []string{}
	for owner, sets := range z.sets {
		for kind, set := range sets {
			for _, rr := range set {
				if kind != dns.TypeSOA || owner != z.origin {
					lines = append(lines, strings.ReplaceAll(rr.String(), "\t", " "))
				}
			}
		}
	}
	slices.Sort(lines)
	soa := z.soa
	head := fmt.Sprintf("$ORIGIN %s\n$TTL %d\n%s IN SOA %s %s %d %d %d %d %d\n", z.origin, soa.Hdr.Ttl, z.origin,
		soa.Ns, soa.Mbox, soa.Serial, soa.Refresh, soa.Retry, soa.Expire, soa.Minttl)
	if len(lines) == 0 {
		return head
	}
	return head + strings.Join(lines, "\n") + "\n"
}

// finding is what a zone says to a question.
type finding struct {
	rcode                  int
	authoritative          bool
	answer, authority, add []dns.RR
}

// lookup answers a question about a name within the zone, by the algorithm of RFC 1034, 4.3.2, with the wildcards of
// RFC 4592. name is in lower case with the final dot.
func (z *zone) lookup(name string, kind uint16) finding {
	f := finding{authoritative: true}
	for range maxChain {
		if cut, ok := z.delegation(name, kind); ok {
			return z.refer(f, cut)
		}
		sets, owner, exists := z.match(name)
		if !exists {
			f.rcode = dns.RcodeNameError
			f.authority = append(f.authority, z.negative())
			return f
		}
		if found := pick(sets, kind); len(found) > 0 {
			f.answer = append(f.answer, renamed(found, owner, name)...)
			f.add = z.glue(f.answer)
			return f
		}
		alias := sets[dns.TypeCNAME]
		if len(alias) == 0 {
			f.authority = append(f.authority, z.negative())
			return f
		}
		f.answer = append(f.answer, renamed(alias, owner, name)...)
		name = strings.ToLower(alias[0].(*dns.CNAME).Target)
		if !dns.IsSubDomain(z.origin, name) {
			return f // The resolver goes on from here.
		}
	}
	f.rcode = dns.RcodeServerFailure // A chain without an end.
	return f
}

// match finds the sets of a name: its own, or those of the wildcard that stands for it. owner is whose they are.
func (z *zone) match(name string) (sets map[uint16][]dns.RR, owner string, exists bool) {
	if z.names[name] {
		return z.sets[name], name, true
	}
	encloser := parent(name)
	for !z.names[encloser] {
		encloser = parent(encloser)
	}
	wildcard := "*." + encloser
	if z.names[wildcard] {
		return z.sets[wildcard], wildcard, true
	}
	return nil, "", false
}

// pick returns the sets that answer a question for kind.
func pick(sets map[uint16][]dns.RR, kind uint16) []dns.RR {
	if kind != dns.TypeANY {
		return sets[kind]
	}
	kinds := make([]uint16, 0, len(sets))
	for k := range sets {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	var all []dns.RR
	for _, k := range kinds {
		all = append(all, sets[k]...)
	}
	return all
}

// renamed returns the records under the name that was asked for, when a wildcard stood in for it.
func renamed(rrs []dns.RR, owner, name string) []dns.RR {
	if owner == name {
		return rrs
	}
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Name = name
	}
	return out
}

// negative is the SOA that goes with "no": its TTL says how long that may be remembered (RFC 2308, 3).
func (z *zone) negative() dns.RR {
	soa := dns.Copy(z.soa).(*dns.SOA)
	soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	return soa
}

// delegation finds the NS set below the origin that takes name away from this zone.
func (z *zone) delegation(name string, kind uint16) ([]dns.RR, bool) {
	var cut []dns.RR
	for n := name; n != z.origin && dns.IsSubDomain(z.origin, n); n = parent(n) {
		if ns := z.sets[n][dns.TypeNS]; len(ns) > 0 && !(n == name && kind == dns.TypeDS) {
			cut = ns // The one nearest to the origin counts.
		}
	}
	return cut, len(cut) > 0
}

// refer points to the servers of a delegated name.
func (z *zone) refer(f finding, cut []dns.RR) finding {
	if len(f.answer) > 0 {
		return f // After a CNAME the resolver asks anew.
	}
	f.authoritative = false
	f.authority = append(f.authority, cut...)
	f.add = z.glue(cut)
	return f
}

// glue adds the addresses, as far as this zone has them, of hosts that the records point to.
func (z *zone) glue(rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		var target string
		switch rr := rr.(type) {
		case *dns.MX:
			target = rr.Mx
		case *dns.NS:
			target = rr.Ns
		case *dns.SRV:
			target = rr.Target
		default:
			continue
		}
		sets := z.sets[strings.ToLower(target)]
		out = append(append(out, sets[dns.TypeA]...), sets[dns.TypeAAAA]...)
	}
	return out
}
