package role

import (
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"
)

func (p *parser) roles(v value) []Role {
	var roles []Role
	entries := p.entries(v)
	if v.Kind == yaml.MappingNode && len(v.Content) == 0 {
		p.failf(v, "there is no role")
	}
	for _, e := range entries {
		switch {
		case !roleName.MatchString(e.key):
			p.failf(e.name, "%s is not %s", quote(e.key), roleNameWanted)
		case e.key == "common":
			p.failf(e.name, "common is what belongs to every role, in Hiera and in the secrets; choose another name")
		}
		roles = append(roles, p.role(e.key, e.with))
	}
	return roles
}

func (p *parser) role(name string, v value) Role {
	r := Role{Name: name}
	at := p.mapping(v,
		field{"nodes", required, func(v value) { r.Nodes = p.hosts(v) }},
		field{"address", optional, func(v value) { r.Address = p.address(v) }},
		field{"names", optional, func(v value) { r.Names = p.published(v) }},
		field{"data", optional, func(v value) { r.Data = p.data(v) }},
		field{"primary_units", optional, func(v value) { r.PrimaryUnits = p.texts(v, isUnit, unitWanted) }},
		field{"journal", optional, func(v value) { r.Journal = p.journal(v) }},
		field{"health", optional, func(v value) { r.Health = p.health(v) }},
		field{"standby_health", optional, func(v value) { r.StandbyHealth = p.health(v) }},
		field{"needs", optional, func(v value) { r.Needs = p.needsOf(name, v) }},
		field{"publish", optional, func(v value) { r.Publish = p.publish(v) }},
		field{"drain", optional, func(v value) { r.Drain = p.command(v) }},
		field{"understudy", optional, func(v value) { r.Alone = p.oneOf(v, "none") != "" }},
	)
	p.checkCount(r, at)
	p.checkDuty(r, at)
	p.checkJournal(r.Journal, r, at)
	return r
}

// checkCount holds a role to the number of nodes that what it asks for takes.
func (p *parser) checkCount(r Role, at place) {
	n := len(r.Nodes) // zero: missing or refused already
	switch {
	case r.Alone && n > 1:
		p.failf(at.of("understudy"), "none, but there are %d nodes; leave the key out", n)
	case n == 1 && !at.has("understudy"):
		p.failf(at.of("nodes"), "one node has nobody to take over; add a second, or say understudy: none")
	case len(r.Data) > 0 && n > 2:
		p.failf(at.of("data"), "is kept on two nodes, but the role has %d", n)
	}
}

// checkDuty refuses what only a primary can do in a role that has none, and what a standby never can.
func (p *parser) checkDuty(r Role, at place) {
	if !at.has("address") && !at.has("data") {
		for _, key := range []string{"primary_units", "standby_health", "publish", "drain"} {
			if at.has(key) {
				p.failf(at.of(key), "only a role with an address or data has a primary")
			}
		}
	}
	if r.Alone && at.has("standby_health") {
		p.failf(at.of("standby_health"), "a role with understudy: none has no standby")
	}
	if r.Alone && at.has("drain") {
		p.failf(at.of("drain"), "a role with understudy: none has nobody to hand over to")
	}
	for _, unit := range r.StandbyHealth.Units {
		if slices.Contains(r.PrimaryUnits, unit) {
			p.failf(at.of("standby_health"), "%s is one of the primary_units, so it never runs on a standby", unit)
		}
	}
}

// hosts reads one hostname or pattern, or a list of them, and writes them out.
func (p *parser) hosts(v value) []string {
	var all []string
	ok := true
	for _, item := range p.items(v) {
		s := p.text(item)
		if s == "" {
			ok = false
			continue
		}
		hosts, err := expand(s)
		if err != nil {
			p.failf(item, "%v", err)
			ok = false
			continue
		}
		before := p.nodes
		if p.nodes += len(hosts); p.nodes > maxNodes {
			if before <= maxNodes { // told once, where it happens
				p.failf(item, "a cluster may have at most %d nodes", maxNodes)
			}
			return nil
		}
		for _, host := range hosts {
			p.claim(item, "the hostname "+host)
		}
		all = append(all, hosts...)
	}
	if !ok {
		return nil // how many there are is anyone's guess
	}
	return all
}

func (p *parser) address(v value) *Address {
	a := &Address{}
	at := p.mapping(v,
		field{"reserved_ip", optional, func(v value) { a.ReservedIP = p.reservedIP(v) }},
		field{"vip", optional, func(v value) { a.VIP = p.vip(v) }},
		field{"interface", optional, func(v value) { a.Interface = p.checked(v, isInterface, interfaceWanted) }},
		field{"names", optional, func(v value) { a.Names = p.published(v) }},
		field{"mx", optional, func(v value) {
			a.MX = p.number(v, 1, 65535)
			p.claim(v, "the domain's mail")
		}},
	)
	if v.Kind != yaml.MappingNode {
		return a
	}
	switch {
	case at.has("reserved_ip") == at.has("vip"):
		p.failf(v, "must say either reserved_ip or vip")
	case at.has("vip") && !at.has("interface"):
		p.failf(v, "a vip needs an interface")
	case at.has("interface") && !at.has("vip"):
		p.failf(at.of("interface"), "only a vip has an interface")
	}
	// RFC 5321, section 5.1: an MX record points at a name, never at an address.
	if at.has("mx") && !at.has("names") {
		p.failf(at.of("mx"), "the address needs names: mail is sent to the first of them")
	}
	return a
}

func (p *parser) reservedIP(v value) netip.Addr {
	s := p.text(v)
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.failf(v, "%s is not an IP address", quote(s))
		return netip.Addr{}
	}
	p.unicast(v, a)
	return a
}

func (p *parser) vip(v value) netip.Prefix {
	s := p.text(v)
	if s == "" {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		p.failf(v, "%s is not an address with its prefix length, such as 10.0.0.10/24", quote(s))
		return netip.Prefix{}
	}
	p.unicast(v, prefix.Addr())
	// RFC 3021: only in a network of one or two are the first and the last address those of hosts.
	first, last := prefix == prefix.Masked(), prefix.Addr().Is4() && !prefix.Contains(prefix.Addr().Next())
	if prefix.Bits() < prefix.Addr().BitLen()-1 && (first || last) {
		p.failf(v, "%s is the network's own or its broadcast address, not one of a host in it", prefix)
	}
	return prefix
}

// unicast refuses what cannot be the address of a machine, and a second owner of one that can.
func (p *parser) unicast(v value, a netip.Addr) {
	switch {
	case a.Is4In6():
		p.failf(v, "%s is an IPv4 address: write %s", a, a.Unmap())
	case a.Zone() != "":
		p.failf(v, "%s: an address that moves has no zone", a)
	case !a.IsGlobalUnicast():
		p.failf(v, "%s is no address to be reached at: loopback, link-local, multicast and the like are refused", a)
	default:
		p.claim(v, "the address "+a.String())
	}
}

// published reads names relative to the domain, each of which has one owner.
func (p *parser) published(v value) []string {
	valid := func(s string) bool { return s == "@" || isDomain(s) }
	var names []string
	for _, item := range p.items(v) {
		if name := p.checked(item, valid, `a name below the domain, or "@" for the domain itself`); name != "" {
			p.claim(item, "the name "+name)
			p.names = append(p.names, item)
			names = append(names, name)
		}
	}
	return names
}

// reservedTrees hold what makes a machine this machine. A role's data neither lies in one of them
// nor has one in it, because the standby's copy would be overwritten by the primary's.
var reservedTrees = []string{
	"/bin", "/boot", "/dev", "/etc/puppet", "/etc/puppetlabs", "/etc/ssh", "/etc/systemd", "/etc/understudy", "/lib", "/lib64",
	"/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var/lib/dpkg", "/var/lib/systemd", "/var/lib/understudy", "/var/log/journal",
}

// data reads the directories of one role. Those of different roles may have the same paths, because
// no machine ever has two roles.
func (p *parser) data(v value) []Data {
	var all []Data
	for _, item := range p.list(v) {
		d := Data{Kind: Plain}
		at := p.mapping(item,
			field{"path", required, func(v value) { d.Path = p.checked(v, isPath, pathWanted) }},
			field{"owner", optional, func(v value) { d.Owner = p.checked(v, userName.MatchString, userNameWanted) }},
			field{"kind", optional, func(v value) { d.Kind = Kind(p.oneOf(v, string(Maildir), string(Apt), string(Plain))) }},
		)
		if d.Path == "" {
			continue
		}
		for _, tree := range reservedTrees {
			if overlap(d.Path, tree) {
				p.failf(at.of("path"), "%s overlaps %s, which belongs to the machine and not to the role", d.Path, tree)
				break // of which one is enough to know
			}
		}
		for _, other := range all {
			if overlap(d.Path, other.Path) {
				p.failf(at.of("path"), "%s overlaps %s: each file is mirrored once", d.Path, other.Path)
			}
		}
		all = append(all, d)
	}
	return all
}

func (p *parser) health(v value) Health {
	var h Health
	p.mapping(v,
		field{"units", optional, func(v value) { h.Units = p.texts(v, isUnit, unitWanted) }},
		field{"http", optional, func(v value) { h.HTTP = p.texts(v, isURL, urlWanted) }},
		field{"tcp", optional, func(v value) { h.TCP = p.texts(v, isHostPort, hostPortWanted) }},
		field{"command", optional, func(v value) { h.Command = p.command(v) }},
	)
	if v.Kind == yaml.MappingNode && len(v.Content) == 0 {
		p.failf(v, "asks for nothing; leave the key out instead")
	}
	return h
}

// command reads an argv. A line of text is refused: no shell would split it.
func (p *parser) command(v value) []string {
	var argv []string
	for i, item := range p.list(v) {
		s := p.text(item)
		if i == 0 && s != "" && !isPath(s) {
			p.failf(item, "the program %s is not %s", quote(s), pathWanted)
		}
		argv = append(argv, s)
	}
	return argv
}

func (p *parser) needsOf(role string, v value) []Need {
	var all []Need
	for _, item := range p.list(v) {
		var n Need
		at := p.mapping(item,
			field{"role", required, func(v value) { n.Role = p.text(v) }},
			field{"what", required, func(v value) { n.What = p.text(v) }},
			field{"http", required, func(v value) { n.HTTP = p.checked(v, isURL, urlWanted) }},
			field{"contains", optional, func(v value) { n.Contains = p.text(v) }},
		)
		if n.Role != "" {
			p.needs = append(p.needs, need{role, n.Role, at.of("role")})
		}
		all = append(all, n)
	}
	return all
}

func (p *parser) publish(v value) string {
	p.claim(v, "publishing")
	return p.checked(v, isPath, pathWanted)
}
