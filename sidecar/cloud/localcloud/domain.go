package localcloud

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// domain is the record of a DNS zone. Server.mu guards it; the zone in it never changes and is replaced when a
// record does.
type domain struct {
	name   string
	ttl    int // seconds
	serial uint32
	// records are in the order in which they were made.
	records []*record
	zone    *zone
}

type domainJSON struct {
	Name     string  `json:"name"`
	TTL      int     `json:"ttl"`
	ZoneFile *string `json:"zone_file"`
}

// rebuild makes the zone that DNS serves after a change. The serial is the time of the change, as DigitalOcean's is,
// and always above the last one. The caller holds s.mu.
func (s *Server) rebuild(d *domain, now time.Time) {
	d.serial = max(d.serial+1, uint32(now.Unix()))
	d.zone = newZone(d.name, s.opt.Nameservers[0], d.serial, d.ttl, d.records)
}

// record finds a record by ID.
func (d *domain) record(id int) (*record, bool) {
	i := slices.IndexFunc(d.records, func(r *record) bool { return r.ID == id })
	if i < 0 {
		return nil, false
	}
	return d.records[i], true
}

// pathDomain finds the domain that the path names. The caller holds s.mu.
func (s *Server) pathDomain(c *call) (*domain, error) {
	d, ok := s.domains[strings.ToLower(c.r.PathValue("domain"))]
	if !ok {
		return nil, errNotFound
	}
	return d, nil
}

func (d *domain) render() domainJSON {
	file := d.zone.file()
	return domainJSON{Name: d.name, TTL: d.ttl, ZoneFile: &file}
}

func (s *Server) listDomains(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []domainJSON{}
	for _, d := range s.domains {
		all = append(all, d.render())
	}
	slices.SortFunc(all, func(a, b domainJSON) int { return strings.Compare(a.Name, b.Name) })
	return page(s, c, "domains", all), nil
}

// createDomain makes a zone with its SOA and NS records and, if the request names an address, an A record.
func (s *Server) createDomain(c *call) (reply, error) {
	var req struct {
		Name string `json:"name"`
		IP   string `json:"ip_address"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	name := strings.ToLower(strings.TrimSuffix(req.Name, "."))
	if !validHostname(name) || !strings.Contains(name, ".") {
		return reply{}, unprocessable("Domain name is invalid") // Ours.
	}
	var addr netip.Addr
	if req.IP != "" {
		var err error
		if addr, err = netip.ParseAddr(req.IP); err != nil {
			return reply{}, unprocessable("IP address is invalid") // Ours.
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.domains[name]; taken {
		return reply{}, unprocessable("domain '" + name + "': name already exists") // Ours.
	}
	d := &domain{name: name, ttl: int(s.opt.ZoneTTL / time.Second)}
	d.records = append(d.records, &record{ID: s.newID(), Type: "SOA", Name: "@", Data: itoa(d.ttl), TTL: d.ttl})
	for _, ns := range s.opt.Nameservers {
		d.records = append(d.records, &record{ID: s.newID(), Type: "NS", Name: "@", Data: strings.TrimSuffix(ns, "."), TTL: d.ttl})
	}
	if addr.IsValid() {
		kind := "A"
		if addr.Is6() {
			kind = "AAAA"
		}
		d.records = append(d.records, &record{ID: s.newID(), Type: kind, Name: "@", Data: addr.String(), TTL: d.ttl})
	}
	s.domains[name] = d
	s.rebuild(d, c.now)
	// The description's example shows no zone file yet.
	return reply{status: http.StatusCreated, body: map[string]domainJSON{"domain": {Name: name, TTL: d.ttl}}}, nil
}

func (s *Server) getDomain(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.pathDomain(c)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: map[string]domainJSON{"domain": d.render()}}, nil
}

func (s *Server) deleteDomain(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.pathDomain(c)
	if err != nil {
		return reply{}, err
	}
	delete(s.domains, d.name)
	return reply{status: http.StatusNoContent}, nil
}

func (s *Server) listRecords(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.pathDomain(c)
	if err != nil {
		return reply{}, err
	}
	name, kind := strings.ToLower(strings.TrimSuffix(c.query("name"), ".")), c.query("type")
	found := []recordJSON{}
	for _, r := range d.records {
		if kind != "" && r.Type != kind || name != "" && r.fqdn(d.name) != name {
			continue
		}
		found = append(found, r.render())
	}
	return page(s, c, "domain_records", found), nil
}

// createRecord adds a record. As at DigitalOcean nothing keeps a client from adding the same one twice.
func (s *Server) createRecord(c *call) (reply, error) {
	req, err := s.recordRequest(c)
	if err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.pathDomain(c)
	if err != nil {
		return reply{}, err
	}
	r, err := req.build(d.name, d.ttl)
	if err != nil {
		return reply{}, err
	}
	if err := d.conflict(r); err != nil {
		return reply{}, err
	}
	r.ID = s.newID()
	d.records = append(d.records, &r)
	s.rebuild(d, c.now)
	return recordReply(http.StatusCreated, &r), nil
}

func (s *Server) recordRequest(c *call) (recordRequest, error) {
	data, err := c.body()
	if err != nil {
		return recordRequest{}, err
	}
	return decodeRecord(data)
}

func recordReply(status int, r *record) reply {
	return reply{status: status, body: map[string]recordJSON{"domain_record": r.render()}}
}

// pathRecord finds the domain and record that the path names. The caller holds s.mu.
func (s *Server) pathRecord(c *call) (*domain, *record, error) {
	d, err := s.pathDomain(c)
	if err != nil {
		return nil, nil, err
	}
	id, err := c.number("record")
	if err != nil {
		return nil, nil, err
	}
	r, ok := d.record(id)
	if !ok {
		return nil, nil, errNotFound
	}
	return d, r, nil
}

func (s *Server) getRecord(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, r, err := s.pathRecord(c)
	if err != nil {
		return reply{}, err
	}
	return recordReply(http.StatusOK, r), nil
}

// updateRecord is PUT and PATCH alike: what the request leaves out stays, except the data of records that point to a
// host, which must be sent again (see build).
func (s *Server) updateRecord(c *call) (reply, error) {
	req, err := s.recordRequest(c)
	if err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, old, err := s.pathRecord(c)
	if err != nil {
		return reply{}, err
	}
	if old.Type == "SOA" {
		return s.updateSOA(c, d, old, req)
	}
	r, err := req.over(*old).build(d.name, d.ttl)
	if err != nil {
		return reply{}, err
	}
	r.ID = old.ID
	if err := d.conflict(r); err != nil {
		return reply{}, err
	}
	*old = r
	s.rebuild(d, c.now)
	return recordReply(http.StatusOK, old), nil
}

// updateSOA changes the one thing about a zone that can be changed: its TTL. The caller holds s.mu.
func (s *Server) updateSOA(c *call, d *domain, soa *record, req recordRequest) (reply, error) {
	if req.Type != nil && *req.Type != "SOA" {
		return reply{}, unprocessable("The type of a SOA record cannot be changed.") // Ours.
	}
	if req.TTL != nil {
		if err := checkTTL(*req.TTL); err != nil {
			return reply{}, err
		}
		d.ttl, soa.TTL, soa.Data = *req.TTL, *req.TTL, itoa(*req.TTL)
	}
	s.rebuild(d, c.now)
	return recordReply(http.StatusOK, soa), nil
}

func (s *Server) deleteRecord(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, r, err := s.pathRecord(c)
	if err != nil {
		return reply{}, err
	}
	if r.Type == "SOA" {
		return reply{}, unprocessable("The SOA record of a domain cannot be deleted.") // Ours.
	}
	d.records = slices.DeleteFunc(d.records, func(x *record) bool { return x == r })
	s.rebuild(d, c.now)
	return reply{status: http.StatusNoContent}, nil
}
