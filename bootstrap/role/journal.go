package role

import (
	"net/netip"
	"slices"
)

// Where journal and mail server meet if nobody says otherwise.
var (
	defaultMilter = netip.MustParseAddrPort("127.0.0.1:8892")
	defaultSMTP   = netip.MustParseAddrPort("127.0.0.1:10026")
)

// journal reads what the block says. The rest follows from the role and the domain: see checkJournal and checkJournals.
func (p *parser) journal(v value) *Journal {
	j := &Journal{Milter: defaultMilter, SMTP: defaultSMTP, WithoutSecond: Defer}
	at := p.mapping(v,
		field{"milter", optional, func(v value) { j.Milter = p.loopback(v) }},
		field{"smtp", optional, func(v value) { j.SMTP = p.loopback(v) }},
		field{"maildirs", optional, func(v value) { j.Maildirs = p.checked(v, isPath, pathWanted) }},
		field{"domains", optional, func(v value) { j.Domains = p.texts(v, isDomain, domainWanted) }},
		field{"without_second", optional, func(v value) {
			j.WithoutSecond = WithoutSecond(p.oneOf(v, string(Defer), string(Accept)))
		}},
	)
	if j.Milter.IsValid() && j.Milter == j.SMTP {
		p.failf(at.of("milter"), "%s is smtp as well: there the sidecar listens, here the mail server", j.Milter)
	}
	p.journals = append(p.journals, journal{j, at})
	return j
}

// journal is one block, and where it stands.
type journal struct {
	*Journal
	at place
}

// loopback reads an address and port that nobody outside the machine can reach.
func (p *parser) loopback(v value) netip.AddrPort {
	s := p.text(v)
	if s == "" {
		return netip.AddrPort{}
	}
	at, err := netip.ParseAddrPort(s)
	switch {
	case err != nil || at.Port() == 0 || at.Addr().Zone() != "":
		p.failf(v, "%s is not ADDRESS:PORT, such as %s", quote(s), defaultMilter)
	case !at.Addr().IsLoopback() || at.Addr().Is4In6():
		p.failf(v, "%s is not on loopback: others could hand in mail there, or listen in its place", at)
	default:
		return at
	}
	return netip.AddrPort{}
}

// checkJournal relates a journal to the role that has it, and finds the Maildirs where only one directory can be meant.
func (p *parser) checkJournal(j *Journal, r Role, at place) {
	if j == nil {
		return
	}
	v := at.of("journal")
	for _, key := range []string{"data", "primary_units"} {
		if !at.has(key) {
			p.failf(v, "needs %s: it keeps mail for services that run with the duty, until their data are mirrored", key)
		}
	}
	mine := p.journals[len(p.journals)-1].at
	switch within := slices.IndexFunc(r.Data, func(d Data) bool { return overlap(d.Path, j.Maildirs) && len(d.Path) <= len(j.Maildirs) }); {
	case len(r.Data) == 0 || mine.has("maildirs") && j.Maildirs == "": // told already
	case mine.has("maildirs") && within < 0:
		p.failf(mine.of("maildirs"), "%s is in none of the role's data directories, so it is not mirrored", j.Maildirs)
	case !mine.has("maildirs"):
		var found []string
		for _, d := range r.Data {
			if d.Kind == Maildir {
				found = append(found, d.Path)
			}
		}
		if len(found) != 1 {
			p.failf(v, "%d of the role's data directories are of kind maildir: say where the maildirs are", len(found))
			return
		}
		j.Maildirs = found[0]
	}
}

// checkJournals fills in the cluster's domain where a journal names none.
func (p *parser) checkJournals(domain string) {
	for _, j := range p.journals {
		if !j.at.has("domains") && domain != "" {
			j.Domains = []string{domain}
		}
	}
}
