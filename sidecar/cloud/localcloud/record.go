package localcloud

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Bounds of a record. DigitalOcean takes no TTL below 30 s; the others are those of DNS itself and, for TXT, ours.
const (
	minTTL = 30
	maxTTL = 1<<31 - 1
	maxTXT = 4096
)

// record is one DNS record as the API keeps it. Name is relative to the domain, "@" for the domain itself. Data that
// names a host is fully qualified, without the final dot, or "@".
type record struct {
	ID                            int
	Type, Name, Data              string
	TTL                           int // seconds
	Priority, Port, Weight, Flags int
	Tag                           string
}

// recordJSON shows null for what a type does not have.
type recordJSON struct {
	ID       int     `json:"id"`
	Type     string  `json:"type"`
	Name     string  `json:"name"`
	Data     string  `json:"data"`
	Priority *int    `json:"priority"`
	Port     *int    `json:"port"`
	TTL      int     `json:"ttl"`
	Weight   *int    `json:"weight"`
	Flags    *int    `json:"flags"`
	Tag      *string `json:"tag"`
}

func (r *record) render() recordJSON {
	j := recordJSON{ID: r.ID, Type: r.Type, Name: r.Name, Data: r.Data, TTL: r.TTL}
	kept := *r
	switch r.Type {
	case "MX":
		j.Priority = &kept.Priority
	case "SRV":
		j.Priority, j.Port, j.Weight = &kept.Priority, &kept.Port, &kept.Weight
	case "CAA":
		j.Flags, j.Tag = &kept.Flags, &kept.Tag
	}
	return j
}

// fqdn is the record's owner without the final dot, in lower case.
func (r *record) fqdn(domain string) string {
	if r.Name == "@" {
		return domain
	}
	return r.Name + "." + domain
}

// recordRequest is the body of a create, put or patch; nil is left out or null.
type recordRequest struct {
	Type     *string `json:"type"`
	Name     *string `json:"name"`
	Data     *string `json:"data"`
	TTL      *int    `json:"ttl"`
	Priority *int    `json:"priority"`
	Port     *int    `json:"port"`
	Weight   *int    `json:"weight"`
	Flags    *int    `json:"flags"`
	Tag      *string `json:"tag"`
}

var (
	recordTypes = []string{"A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT"}
	hostTypes   = []string{"CNAME", "MX", "NS", "SRV"}
	labelOf     = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_\-]{0,61}[a-z0-9_])?$`)
)

func decodeRecord(data []byte) (recordRequest, error) {
	var req recordRequest
	if err := decodeJSON(data, &req); err != nil {
		return recordRequest{}, err
	}
	if req.Type != nil && *req.Type != "SOA" && !slices.Contains(recordTypes, *req.Type) {
		return recordRequest{}, unprocessable("Record type is not included in the list")
	}
	return req, nil
}

// over fills in what the request leaves out from the record as it is. The data is taken as the API shows it, without
// the final dot, and so an update of a CNAME, MX, NS or SRV record that does not name its data again is refused with
// "Data needs to end with a dot (.)". DigitalOcean does the same: https://github.com/digitalocean/doctl/issues/919
func (req recordRequest) over(old record) recordRequest {
	fill := func(p **int, v int) {
		if *p == nil {
			*p = &v
		}
	}
	fillText := func(p **string, v string) {
		if *p == nil {
			*p = &v
		}
	}
	fillText(&req.Type, old.Type)
	fillText(&req.Name, old.Name)
	fillText(&req.Data, old.Data)
	fillText(&req.Tag, old.Tag)
	fill(&req.TTL, old.TTL)
	fill(&req.Priority, old.Priority)
	fill(&req.Port, old.Port)
	fill(&req.Weight, old.Weight)
	fill(&req.Flags, old.Flags)
	return req
}

// build checks the request and makes the record of it, all but its ID. zoneTTL, in seconds, is used when the request
// has none (or 0, which is how clients write none).
func (req recordRequest) build(domain string, zoneTTL int) (record, error) {
	r := record{Type: text(req.Type), TTL: number(req.TTL), Priority: number(req.Priority), Port: number(req.Port),
		Weight: number(req.Weight), Flags: number(req.Flags), Tag: text(req.Tag)}
	if !slices.Contains(recordTypes, r.Type) {
		return record{}, unprocessable("Record type is not included in the list")
	}
	var err error
	if r.Name, err = relativeName(text(req.Name), domain); err != nil {
		return record{}, err
	}
	if r.Data, err = recordData(r.Type, text(req.Data)); err != nil {
		return record{}, err
	}
	if r.TTL == 0 {
		r.TTL = zoneTTL
	}
	return r, r.checkNumbers()
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func number(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

func checkTTL(ttl int) error {
	if ttl < minTTL || ttl > maxTTL {
		return unprocessable(fmt.Sprintf("TTL must be greater than or equal to %d", minTTL)) // Ours.
	}
	return nil
}

// checkNumbers checks what only some types use, and clears what the type does not have. The texts are ours.
func (r *record) checkNumbers() error {
	if err := checkTTL(r.TTL); err != nil {
		return err
	}
	short := func(n int) bool { return n >= 0 && n <= 65535 }
	priority, port, weight, flags, tag := r.Priority, r.Port, r.Weight, r.Flags, r.Tag
	r.Priority, r.Port, r.Weight, r.Flags, r.Tag = 0, 0, 0, 0, ""
	switch r.Type {
	case "MX":
		if !short(priority) {
			return unprocessable("Priority must be between 0 and 65535")
		}
		r.Priority = priority
	case "SRV":
		if !short(priority) || !short(port) || !short(weight) {
			return unprocessable("Priority, port and weight must be between 0 and 65535")
		}
		r.Priority, r.Port, r.Weight = priority, port, weight
	case "CAA":
		if flags < 0 || flags > 255 || !slices.Contains([]string{"issue", "issuewild", "iodef"}, tag) {
			return unprocessable("Flags must be between 0 and 255, and tag one of issue, issuewild and iodef")
		}
		r.Flags, r.Tag = flags, tag
	}
	return nil
}

// recordData checks the data of a type and brings it into the form in which it is kept and shown.
func recordData(kind, data string) (string, error) {
	switch {
	case kind == "A":
		a, err := netip.ParseAddr(data)
		if err != nil || !a.Is4() {
			return "", unprocessable("IP address did not match IPv4 format (e.g. 127.0.0.1)")
		}
		return a.String(), nil
	case kind == "AAAA":
		a, err := netip.ParseAddr(data)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", unprocessable("IP address did not match IPv6 format (e.g. 2001:db8::1)")
		}
		return a.String(), nil
	case kind == "TXT":
		if data == "" || len(data) > maxTXT {
			return "", unprocessable("Data can't be blank") // The limit is ours.
		}
		return data, nil
	case data == "":
		return "", unprocessable("Data can't be blank")
	case data == "@" && slices.Contains(hostTypes, kind):
		return data, nil
	case !strings.HasSuffix(data, "."):
		return "", unprocessable("Data needs to end with a dot (.)")
	}
	host := strings.ToLower(strings.TrimSuffix(data, "."))
	if !validHostname(host) {
		return "", unprocessable("Data is not a valid host name") // Ours.
	}
	return host, nil
}

// relativeName brings an owner name into the form "@" or "a.b", relative to domain. A name with a final dot is
// absolute and must lie within.
func relativeName(name, domain string) (string, error) {
	name = strings.ToLower(name)
	if absolute, ok := strings.CutSuffix(name, "."); ok {
		switch {
		case absolute == domain:
			name = "@"
		case strings.HasSuffix(absolute, "."+domain):
			name = strings.TrimSuffix(absolute, "."+domain)
		default:
			return "", unprocessable("Name is outside of the domain") // Ours.
		}
	}
	if name == "" || name == "@" {
		return "@", nil
	}
	rest := name
	if name == "*" {
		return name, nil
	}
	rest = strings.TrimPrefix(rest, "*.")
	if !validHostname(rest) || len(name)+1+len(domain) > 253 {
		return "", unprocessable("Name is not a valid host name") // Ours.
	}
	return name, nil
}

// validHostname reports whether name, in lower case and without the final dot, is made of labels that DNS records
// may have, underscores included.
func validHostname(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !labelOf.MatchString(label) {
			return false
		}
	}
	return true
}

// conflict refuses a CNAME beside other records of the same name, which DNS forbids (RFC 1034, 3.6.2).
func (d *domain) conflict(r record) error {
	for _, other := range d.records {
		if other.ID == r.ID || other.Name != r.Name {
			continue
		}
		if r.Type == "CNAME" || other.Type == "CNAME" {
			return unprocessable("CNAME records cannot share a name with other records")
		}
	}
	return nil
}
