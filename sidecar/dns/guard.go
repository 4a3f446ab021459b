package dns

import (
	"fmt"
	"strconv"
	"strings"

	mdns "github.com/miekg/dns"
)

// The guard is one TXT record, "epoch=7".
const guardPrefix = "epoch="

// epoch reads the guard. Zero: there is none. A guard that we cannot read is an error and stays: whoever wrote it may know
// of a higher epoch than ours.
func (c *conversation) epoch() (uint64, error) {
	name := c.server.guard
	found, err := c.ask(name, mdns.TypeTXT)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	text := ""
	if t, ok := found[0].(*mdns.TXT); ok {
		text = strings.Join(t.Txt, "")
	}
	epoch, ok := parseGuard(text)
	if !ok || len(found) > 1 {
		return 0, fmt.Errorf("the guard record %s is not one that we wrote: it has %d values, the first is %q; delete it to let us write a new one",
			name, len(found), cut(text))
	}
	return epoch, nil
}

// parseGuard reads what guardText wrote, and nothing else.
func parseGuard(text string) (uint64, bool) {
	digits, ok := strings.CutPrefix(text, guardPrefix)
	epoch, err := strconv.ParseUint(digits, 10, 64)
	return epoch, ok && err == nil && epoch > 0 && guardText(epoch) == text
}

func guardText(epoch uint64) string { return guardPrefix + strconv.FormatUint(epoch, 10) }

// setGuard puts into m that the guard still is what we read, from, and that it becomes to. The server compares the whole
// RRset (RFC 2136, 2.4.2), so of writers that read the same only one wins.
func (s *Server) setGuard(m *mdns.Msg, from, to uint64) {
	guard := func(epoch uint64, ttl uint32) []mdns.RR {
		return []mdns.RR{&mdns.TXT{
			Hdr: mdns.RR_Header{Name: s.guard, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: ttl}, Txt: []string{guardText(epoch)},
		}}
	}
	if from == 0 {
		m.RRsetNotUsed(guard(to, 0))
	} else {
		m.Used(guard(from, 0))
	}
	if from == to {
		return
	}
	m.Insert(guard(to, uint32(minTTL.Seconds())))
	if from != 0 {
		m.Remove(guard(from, 0))
	}
}

// cut keeps foreign text in an error short.
func cut(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
