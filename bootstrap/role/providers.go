package role

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"

	"go.yaml.in/yaml/v3"
)

// hired is a Provider and where the file names it.
type hired struct {
	Provider
	at value
}

var providerKinds = []string{"digitalocean", "hetzner", "local"}

// providers reads the providers machines are hired at: the nodes' own, and the one a beachhead may
// move the cluster to.
func (p *parser) providers(v value) []hired {
	var all []hired
	for _, e := range p.entries(v) {
		if p.isKind(e, providerKinds) {
			all = append(all, hired{p.provider(e.key, e.with), e.name})
		}
	}
	if v.Kind == yaml.MappingNode && len(v.Content) == 0 {
		p.failf(v, "must name %s", either(providerKinds))
	}
	return all
}

func (p *parser) provider(kind string, v value) Provider {
	c := Provider{Kind: kind}
	p.mapping(v,
		field{"region", required, func(v value) { c.Region = p.checked(v, word.MatchString, wordWanted) }},
		field{"size", required, func(v value) { c.Sizes = p.texts(v, word.MatchString, wordWanted) }},
		field{"image", required, func(v value) { c.Image = p.checked(v, word.MatchString, wordWanted) }},
		field{"ssh_keys", optional, func(v value) { c.SSHKeys = p.texts(v, word.MatchString, wordWanted) }},
	)
	return c
}

// assign settles which provider the nodes live at and which is the beachhead's. The order in which
// the file names them means nothing.
func (p *parser) assign(r *Roster, at place, providers []hired) {
	if r.Beachhead != nil && r.Beachhead.Provider == "" {
		return // refused already, and without it nobody can tell which is whose
	}
	elsewhere := func(h hired) bool { return r.Beachhead != nil && h.Kind == r.Beachhead.Provider }
	var home *hired
	for _, h := range providers {
		switch {
		case elsewhere(h) && len(providers) > 1:
			r.Beachhead.Machines = &h.Provider
		case home != nil:
			p.failf(h.at, "the nodes live at %s already (line %d); beside it stands the beachhead's provider only", home.Kind, home.at.Line)
		default:
			home = &h
		}
	}
	if home == nil {
		return // missing or refused already
	}
	r.Provider = home.Provider
	switch {
	case !elsewhere(*home):
	case home.Kind == "local": // there to try things out, so it may stand for both
		r.Beachhead.Machines = &home.Provider
	default:
		p.failf(at.of("beachhead"), "must be at another provider than the nodes, or both are lost at once")
	}
}

func (p *parser) beachhead(v value) *Beachhead {
	b := &Beachhead{WhenProviderSilent: Ask}
	p.mapping(v,
		field{"provider", required, func(v value) { b.Provider = p.oneOf(v, providerKinds...) }},
		field{"when_provider_silent", optional, func(v value) {
			b.WhenProviderSilent = Silence(p.oneOf(v, string(Ask), string(Move)))
		}},
	)
	return b
}

func (p *parser) ledger(v value) *Ledger {
	l := &Ledger{}
	p.mapping(v, field{"s3", required, func(v value) {
		p.mapping(v,
			field{"endpoint", required, func(v value) { l.Endpoint = p.endpoint(v) }},
			field{"bucket", required, func(v value) { l.Bucket = p.checked(v, bucket.MatchString, bucketWanted) }},
			field{"region", optional, func(v value) { l.Region = p.checked(v, word.MatchString, wordWanted) }},
		)
	}})
	return l
}

// endpoint reads the URL of a store. Plain http would let anyone on the way rewrite the ledger, so it
// is for a store next door only.
func (p *parser) endpoint(v value) string {
	s := p.checked(v, isURL, urlWanted)
	u, err := url.Parse(s) // valid by now, or empty because it was not
	if err != nil {
		return ""
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		p.failf(v, "must end after the host; the bucket has a key of its own")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.IsPrivate() && !ip.IsLoopback()) {
		p.failf(v, "must be https; http is for a loopback or private address")
	}
	return s
}

var dnsKinds = []string{"rfc2136", "digitalocean"}

// tsigAlgorithms are those of RFC 8945, section 6, that are neither weak nor truncated.
var tsigAlgorithms = []string{"hmac-sha256", "hmac-sha384", "hmac-sha512"}

func (p *parser) dns(v value) []DNS {
	var all []DNS
	for _, item := range p.list(v) {
		entries := p.entries(item)
		if item.Kind == yaml.MappingNode && len(entries) != 1 {
			p.failf(item, "each item says exactly one of %s", either(dnsKinds))
			continue
		}
		for _, e := range entries {
			if !p.isKind(e, dnsKinds) {
				continue
			}
			d := p.dnsPlace(e)
			p.claim(e.name, "the zone "+d.Zone+" at "+cmp.Or(d.Server, d.Kind))
			all = append(all, d)
		}
	}
	return all
}

func (p *parser) dnsPlace(e entry) DNS {
	d := DNS{Kind: e.key}
	zone := field{"zone", required, func(v value) {
		if d.Zone = p.checked(v, isDomain, domainWanted); d.Zone != "" {
			p.zones = append(p.zones, v)
		}
	}}
	if e.key != "rfc2136" {
		p.mapping(e.with, zone)
		return d
	}
	d.Algorithm = tsigAlgorithms[0]
	p.mapping(e.with, zone,
		field{"server", required, func(v value) { d.Server = p.checked(v, isHostPort, hostPortWanted) }},
		field{"key", required, func(v value) { d.Key = p.checked(v, isDomain, "the name of a TSIG key, a domain name") }},
		field{"algorithm", optional, func(v value) { d.Algorithm = p.oneOf(v, tsigAlgorithms...) }},
	)
	return d
}

// isKind reports whether e's key is one of kinds, and refuses it if not.
func (p *parser) isKind(e entry, kinds []string) bool {
	if slices.Contains(kinds, e.key) {
		return true
	}
	p.failf(e.name, "unknown kind %s; %s", quote(e.key), meant(e.key, kinds))
	return false
}
