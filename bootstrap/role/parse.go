package role

import (
	"slices"
	"strings"
)

// Parse reads a roles.yaml. The name is what problems call the file. The error joins every *Problem
// there is, and with an error the Roster is zero: a bad file changes nothing. No input makes it panic.
func Parse(name string, data []byte) (Roster, error) {
	p := &parser{reader: reader{problems{file: name}}, owners: map[string]value{}}
	var roster Roster
	if root, ok := p.document(data); ok {
		roster = p.roster(root)
	}
	if err := p.err(); err != nil {
		return Roster{}, err
	}
	return roster, nil
}

// parser knows what the values of a roles.yaml mean. It keeps what only the whole file can judge.
type parser struct {
	reader
	owners map[string]value // "the hostname web1", "the name www", … → where it is given away
	nodes  int              // of all roles so far
	names  []value          // published, relative to the domain
	zones  []value
	needs  []need

	journals []journal
}

// need is one dependency between roles, and where the file states it.
type need struct {
	from, to string
	at       value
}

// claim makes v the only place that a thing belongs to.
func (p *parser) claim(v value, thing string) {
	if first, taken := p.owners[thing]; taken {
		p.failf(v, "%s is taken by %s on line %d", thing, first.path, first.Line)
		return
	}
	p.owners[thing] = v
}

func (p *parser) roster(v value) Roster {
	r := Roster{Timings: DefaultTimings(), Drift: DefaultDrift()}
	var providers []hired
	at := p.mapping(v,
		field{"cluster", required, func(v value) { r.Cluster = p.checked(v, label.MatchString, labelWanted) }},
		field{"domain", required, func(v value) { r.Domain = p.checked(v, isDomain, domainWanted) }},
		field{"provider", required, func(v value) { providers = p.providers(v) }},
		field{"ledger", optional, func(v value) { r.Ledger = p.ledger(v) }},
		field{"dns", optional, func(v value) { r.DNS = p.dns(v) }},
		field{"roles", required, func(v value) { r.Roles = p.roles(v) }},
		field{"beachhead", optional, func(v value) { r.Beachhead = p.beachhead(v) }},
		field{"timings", optional, func(v value) { r.Timings = p.timings(v) }},
		field{"drift", optional, func(v value) { r.Drift = p.drift(v) }},
	)
	p.assign(&r, at, providers)
	p.checkDomain(r.Domain, at.of("domain"))
	p.checkRoleNames(r.Roles)
	p.checkNeeds(r.Roles)
	p.checkJournals(r.Domain)
	return r
}

// checkDomain relates the domain to the zones and names that belong to it.
func (p *parser) checkDomain(domain string, at value) {
	if domain == "" {
		return // missing or refused already
	}
	if within(domain, "internal") {
		p.failf(at, "names below internal are the cluster's own (<node>.<cluster>.internal)")
	}
	for _, zone := range p.zones {
		if !within(domain, zone.Value) {
			p.failf(zone, "the domain %s is not in the zone %s", quote(domain), quote(zone.Value))
		}
	}
	for _, name := range p.names {
		if name.Value != "@" && !isDomain(name.Value+"."+domain) {
			p.failf(name, "%s is too long below the domain: 253 letters are the most", quote(name.Value))
		}
	}
}

// checkRoleNames keeps the two meanings of a name below the cluster's own domain apart.
func (p *parser) checkRoleNames(roles []Role) {
	for _, role := range roles {
		if node, taken := p.owners["the hostname "+role.Name]; taken {
			p.failf(node, "%s is a role too; both would be called %[1]s.<cluster>.internal", role.Name)
		}
	}
}

// checkNeeds refuses needs of a role that is not there, and circles: a cluster that starts from
// nothing would wait in one for ever.
func (p *parser) checkNeeds(roles []Role) {
	known := make([]string, len(roles))
	for i, role := range roles {
		known[i] = role.Name
	}
	after := map[string][]string{} // role → those it needs
	for _, n := range p.needs {
		if !slices.Contains(known, n.to) {
			p.failf(n.at, "there is no role %s; %s", quote(n.to), meant(n.to, known))
			continue
		}
		if way := route(after, n.to, n.from, map[string]bool{}); way != nil {
			p.failf(n.at, "needs in a circle: %s", strings.Join(append([]string{n.from}, way...), " → "))
			continue // leaving this one out, so that each circle is told once
		}
		after[n.from] = append(after[n.from], n.to)
	}
}

// route returns the way from one role to another along what they need, both ends included, or nil.
func route(after map[string][]string, from, to string, seen map[string]bool) []string {
	if from == to {
		return []string{to}
	}
	seen[from] = true
	for _, next := range after[from] {
		if seen[next] {
			continue
		}
		if way := route(after, next, to, seen); way != nil {
			return append([]string{from}, way...)
		}
	}
	return nil
}
