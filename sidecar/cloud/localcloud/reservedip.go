package localcloud

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// reservedIP is the record of one reserved address, which DigitalOcean called floating IP before and still does in
// some texts. Server.mu guards it.
type reservedIP struct {
	addr   netip.Addr
	region Region
	// holder is the droplet that has the address, 0 for nobody.
	holder int
	// locked is set while an action is under way, and target is the droplet that this action gives the address to.
	locked bool
	target int
}

// ipNames is what the two names of the same thing are in the API.
type ipNames struct {
	one, many, resource string
}

var (
	reservedNames = ipNames{"reserved_ip", "reserved_ips", "reserved_ip"}
	floatingNames = ipNames{"floating_ip", "floating_ips", "floating_ip"}
)

// projectID is the one project this cloud has.
const projectID = "746c6152-2fa2-11ed-92d3-27aaa54e4988"

// Ours: that the limits exist is documented, the words in which they are reported are not.
var (
	errIPLimit    = unprocessable("reserving this floating IP will exceed your floating IP limit")
	errIPTaken    = unprocessable("The Droplet already has a floating IP.")
	errIPRegion   = unprocessable("The floating IP and the Droplet must be in the same region.")
	errIPNoHolder = unprocessable("The floating IP is not assigned to a Droplet.")
)

type ipJSON struct {
	IP        string       `json:"ip"`
	Region    regionJSON   `json:"region"`
	Droplet   *dropletJSON `json:"droplet"`
	Locked    bool         `json:"locked"`
	ProjectID string       `json:"project_id"`
}

// addrNumber is the number that actions use for an address.
func addrNumber(a netip.Addr) int {
	b := a.As4()
	return int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
}

// heldBy returns the reserved address that a droplet holds. The caller holds s.mu.
func (s *Server) heldBy(dropletID int) (netip.Addr, bool) {
	for _, ip := range s.sortedIPs() {
		if ip.holder == dropletID {
			return ip.addr, true
		}
	}
	return netip.Addr{}, false
}

func (s *Server) sortedIPs() []*reservedIP {
	all := make([]*reservedIP, 0, len(s.ips))
	for _, ip := range s.ips {
		all = append(all, ip)
	}
	slices.SortFunc(all, func(a, b *reservedIP) int { return a.addr.Compare(b.addr) })
	return all
}

// renderIP makes the JSON of ip; the droplet in it, if any, still needs resolve. The caller holds s.mu.
func (s *Server) renderIP(ip *reservedIP) ipJSON {
	j := ipJSON{IP: ip.addr.String(), Region: s.regionJSON(ip.region), Locked: ip.locked, ProjectID: projectID}
	if d, ok := s.droplets[ip.holder]; ok {
		dj := s.render(d)
		j.Droplet = &dj
	}
	return j
}

func (s *Server) resolveIPs(c *call, all []ipJSON) {
	for _, j := range all {
		if j.Droplet != nil {
			s.resolve(c, j.Droplet)
		}
	}
}

// pathIP finds the address that the path names. The caller holds s.mu.
func (s *Server) pathIP(c *call) (*reservedIP, error) {
	a, err := c.addr("ip")
	if err != nil {
		return nil, err
	}
	ip, ok := s.ips[a]
	if !ok {
		return nil, errNotFound
	}
	return ip, nil
}

func (s *Server) listIPs(c *call, n ipNames) (reply, error) {
	s.mu.Lock()
	found := []ipJSON{}
	for _, ip := range s.sortedIPs() {
		found = append(found, s.renderIP(ip))
	}
	s.mu.Unlock()
	s.resolveIPs(c, found)
	return page(s, c, n.many, found), nil
}

func (s *Server) getIP(c *call, n ipNames) (reply, error) {
	s.mu.Lock()
	ip, err := s.pathIP(c)
	if err != nil {
		s.mu.Unlock()
		return reply{}, err
	}
	j := s.renderIP(ip)
	s.mu.Unlock()
	s.resolveIPs(c, []ipJSON{j})
	return reply{status: http.StatusOK, body: map[string]ipJSON{n.one: j}}, nil
}

// ipRequest is the body of a create and of an action.
type ipRequest struct {
	Type      string `json:"type"`
	Region    string `json:"region"`
	DropletID int    `json:"droplet_id"`
}

// createIP reserves an address in a region, or reserves and assigns it at once.
func (s *Server) createIP(c *call, n ipNames) (reply, error) {
	var req ipRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	region, d, err := s.placeIP(req)
	if err != nil {
		return reply{}, err
	}
	ip := &reservedIP{addr: s.freeIP(), region: region}
	s.ips[ip.addr] = ip
	reserve := s.newAction(c, "reserve_ip", n.resource, addrNumber(ip.addr), region)
	conclude(reserve, completed, c.now)
	links := map[string]any{}
	if d != nil {
		a := s.startAssign(c, n, ip, d)
		links["droplets"] = []linkJSON{{d.machine.ID, "droplet", c.href("/v2/droplets/" + itoa(d.machine.ID))}}
		links["actions"] = []linkJSON{a.link(c, "assign_ip")}
	}
	return reply{status: http.StatusAccepted, body: map[string]any{n.one: s.renderIP(ip), "links": links}}, nil
}

// placeIP checks a create request. The droplet is nil when the address is only reserved. The caller holds s.mu.
func (s *Server) placeIP(req ipRequest) (Region, *droplet, error) {
	if len(s.ips) >= s.opt.ReservedIPLimit {
		return Region{}, nil, errIPLimit
	}
	if req.DropletID == 0 {
		r, ok := s.opt.region(req.Region)
		if !ok || req.Region == "" {
			return Region{}, nil, unprocessable("You specified an invalid region.") // Ours.
		}
		return r, nil, nil
	}
	d, ok := s.droplets[req.DropletID]
	if !ok {
		return Region{}, nil, errNotFound
	}
	return d.region, d, s.assignable(d, d.region)
}

// assignable reports why d cannot get an address of region. DigitalOcean gives the same error when the droplet
// already holds this very address. The caller holds s.mu.
func (s *Server) assignable(d *droplet, region Region) error {
	switch {
	case d.pending != 0:
		return errPending
	case d.region.Slug != region.Slug:
		return errIPRegion
	}
	for _, ip := range s.ips {
		if ip.holder == d.machine.ID || ip.target == d.machine.ID {
			return errIPTaken
		}
	}
	return nil
}

// freeIP picks the lowest address that is not reserved; Validate has seen to it that there is one. The caller holds
// s.mu.
func (s *Server) freeIP() netip.Addr {
	for n := 1; ; n++ {
		a := host(s.opt.Addresses.Reserved, n)
		if _, taken := s.ips[a]; !taken {
			return a
		}
	}
}

// deleteIP gives the address up: nobody gets its traffic any more, then the record goes.
func (s *Server) deleteIP(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ip, err := s.pathIP(c)
	if err != nil {
		return reply{}, err
	}
	if ip.locked {
		return reply{}, errIPLocked
	}
	ip.locked = true
	s.start(func(ctx context.Context) {
		err := s.backend.Route(ctx, ip.addr, netip.Addr{})
		s.mu.Lock()
		defer s.mu.Unlock()
		ip.locked = false
		if err != nil {
			s.log.Error("reserved address could not be given up", "address", ip.addr, "err", err)
			return
		}
		delete(s.ips, ip.addr)
	})
	return reply{status: http.StatusNoContent}, nil
}

func (s *Server) listIPActions(c *call, n ipNames) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ip, err := s.pathIP(c)
	if err != nil {
		return reply{}, err
	}
	found := s.selectActions(func(a *action) bool { return a.isAbout(ip) })
	for i := range found {
		found[i].ResourceType = n.resource
	}
	return page(s, c, "actions", found), nil
}

// isAbout reports whether a is an action on ip, under whichever name it was asked for.
func (a *action) isAbout(ip *reservedIP) bool {
	return a.ResourceID == addrNumber(ip.addr) && (a.ResourceType == reservedNames.resource || a.ResourceType == floatingNames.resource)
}

// ipActionJSON is an action on an address, which names its project besides.
type ipActionJSON struct {
	action
	ProjectID string `json:"project_id"`
}

func ipActionReply(status int, a *action, n ipNames) reply {
	j := ipActionJSON{*a, projectID}
	j.ResourceType = n.resource
	return reply{status: status, body: map[string]ipActionJSON{"action": j}}
}

func (s *Server) getIPAction(c *call, n ipNames) (reply, error) {
	id, err := c.number("action")
	if err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ip, err := s.pathIP(c)
	if err != nil {
		return reply{}, err
	}
	a, ok := s.lookUpAction(id)
	if !ok || !a.isAbout(ip) {
		return reply{}, errNotFound
	}
	return ipActionReply(http.StatusOK, a, n), nil
}

// createIPAction assigns or unassigns an address. An address may be assigned away from its holder without being
// unassigned first.
func (s *Server) createIPAction(c *call, n ipNames) (reply, error) {
	var req ipRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ip, err := s.pathIP(c)
	if err != nil {
		return reply{}, err
	}
	if ip.locked {
		return reply{}, errIPLocked
	}
	var a *action
	switch req.Type {
	case "assign":
		d, ok := s.droplets[req.DropletID]
		if !ok {
			return reply{}, errNotFound
		}
		if err := s.assignable(d, ip.region); err != nil {
			return reply{}, err
		}
		a = s.startAssign(c, n, ip, d)
	case "unassign":
		if ip.holder == 0 {
			return reply{}, errIPNoHolder
		}
		a = s.newAction(c, "unassign_ip", n.resource, addrNumber(ip.addr), ip.region)
		s.startRoute(ip, a, c.fx, 0)
	default:
		return reply{}, unprocessable("You specified an invalid type for the action.") // Ours.
	}
	return ipActionReply(http.StatusCreated, a, n), nil
}

// startAssign begins to give ip to d. The caller holds s.mu.
func (s *Server) startAssign(c *call, n ipNames, ip *reservedIP, d *droplet) *action {
	a := s.newAction(c, "assign_ip", n.resource, addrNumber(ip.addr), ip.region)
	s.startRoute(ip, a, c.fx, d.machine.ID)
	return a
}

// startRoute moves ip to the droplet target (0: to nobody) in the background. The caller holds s.mu.
func (s *Server) startRoute(ip *reservedIP, a *action, fx effects, target int) {
	ip.locked, ip.target = true, target
	s.start(func(ctx context.Context) {
		if !pause(ctx, s.opt.ActionDelay+fx.slowAction) {
			return
		}
		s.mu.Lock()
		anchor, ok := s.anchorOf(target)
		s.mu.Unlock()
		var err error = errActionFault
		if ok && !fx.errored {
			err = s.backend.Route(ctx, ip.addr, anchor)
		}
		if ctx.Err() != nil {
			return // The server closes; what is half done stays as it is.
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endRoute(ip, a, target, err)
	})
}

// anchorOf returns where traffic for target goes: the zero Addr for nobody, false for a droplet that is gone or
// going. The caller holds s.mu.
func (s *Server) anchorOf(target int) (netip.Addr, bool) {
	if target == 0 {
		return netip.Addr{}, true
	}
	d, ok := s.droplets[target]
	if !ok {
		return netip.Addr{}, false
	}
	return d.machine.Anchor, true
}

// endRoute writes down how a route went. If the new holder, or after a failure the old one, has been destroyed in
// the meantime, nobody holds the address. The caller holds s.mu.
func (s *Server) endRoute(ip *reservedIP, a *action, target int, err error) {
	ip.locked, ip.target = false, 0
	status := completed
	if err != nil {
		s.log.Error("reserved address could not be moved", "address", ip.addr, "to", target, "err", err)
		status = errored
	} else {
		ip.holder = target
		s.log.Info("reserved address moved", "address", ip.addr, "to", target)
	}
	conclude(a, status, time.Now())
	if _, ok := s.anchorOf(ip.holder); !ok {
		s.releaseIPs(ip.holder)
	}
}

// releaseIPs takes the addresses away from a droplet that is gone. One that is just being moved is looked at again
// when the move ends. The caller holds s.mu.
func (s *Server) releaseIPs(dropletID int) {
	for _, ip := range s.sortedIPs() {
		if ip.holder != dropletID || ip.locked {
			continue
		}
		ip.holder, ip.locked = 0, true
		s.start(func(ctx context.Context) {
			if err := s.backend.Route(ctx, ip.addr, netip.Addr{}); err != nil {
				s.log.Error("reserved address of a destroyed machine still leads there", "address", ip.addr, "err", err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			ip.locked = false
		})
	}
}

// startRecordAction runs an action that concerns records only. The caller holds s.mu; apply runs under it.
func (s *Server) startRecordAction(a *action, fx effects, apply func()) {
	s.start(func(ctx context.Context) {
		if !pause(ctx, s.opt.ActionDelay+fx.slowAction) {
			return
		}
		if fx.errored {
			s.fail(a, func(time.Time) {})
			return
		}
		s.finish(a, apply)
	})
}
