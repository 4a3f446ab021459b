package localcloud

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// DigitalOcean's words for the state of a droplet.
const (
	statusNew    = "new"
	statusActive = "active"
	statusOff    = "off"
)

// droplet is the record of one machine. Server.mu guards it.
type droplet struct {
	machine Machine
	host    int
	image   imageJSON
	size    Size
	region  Region
	vpc     string
	keys    []string // public keys
	backups bool
	monitor bool
	// pending is the ID of the action under way, 0 if none.
	pending int
	// networked is set when the machine has its addresses, booted when its create action is done.
	networked, booted bool
	// before is the status that was shown until the power changed at changed; for the fault StatusLag.
	before  string
	changed time.Time
	// gone is when the droplet ceased to be; zero while it exists.
	gone time.Time
}

// sortedDroplets returns all droplets by ID. The caller holds s.mu.
func (s *Server) sortedDroplets() []*droplet {
	all := make([]*droplet, 0, len(s.droplets))
	for _, d := range s.droplets {
		all = append(all, d)
	}
	slices.SortFunc(all, byID)
	return all
}

func byID(a, b *droplet) int { return a.machine.ID - b.machine.ID }

// bury removes d from the account and remembers it for lists that lag. The caller holds s.mu.
func (s *Server) bury(d *droplet, now time.Time) {
	d.gone = now
	delete(s.droplets, d.machine.ID)
	s.gone = append(s.gone, d)
	if len(s.gone) > keepGone {
		s.gone = slices.Delete(s.gone, 0, len(s.gone)-keepGone)
	}
}

type dropletJSON struct {
	ID               int             `json:"id"`
	Name             string          `json:"name"`
	Memory           int             `json:"memory"`
	VCPUs            int             `json:"vcpus"`
	Disk             int             `json:"disk"`
	DiskInfo         []diskJSON      `json:"disk_info"`
	Locked           bool            `json:"locked"`
	Status           string          `json:"status"`
	Kernel           *struct{}       `json:"kernel"`
	CreatedAt        string          `json:"created_at"`
	Features         []string        `json:"features"`
	BackupIDs        []int           `json:"backup_ids"`
	NextBackupWindow *struct{}       `json:"next_backup_window"`
	SnapshotIDs      []int           `json:"snapshot_ids"`
	Image            imageJSON       `json:"image"`
	VolumeIDs        []string        `json:"volume_ids"`
	Size             sizeJSON        `json:"size"`
	SizeSlug         string          `json:"size_slug"`
	Networks         dropletNetworks `json:"networks"`
	Region           regionJSON      `json:"region"`
	Tags             []string        `json:"tags"`
	VPCUUID          string          `json:"vpc_uuid"`

	// What resolve needs to find the status.
	booted  bool
	gone    bool
	before  string
	changed time.Time
}

type diskJSON struct {
	Type string `json:"type"`
	Size struct {
		Amount int    `json:"amount"`
		Unit   string `json:"unit"`
	} `json:"size"`
}

type dropletNetworks struct {
	V4 []networkJSON `json:"v4"`
	V6 []networkJSON `json:"v6"`
}

type networkJSON struct {
	Address string `json:"ip_address"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
	Type    string `json:"type"`
}

func diskInfo(gib int) []diskJSON {
	var d diskJSON
	d.Type, d.Size.Amount, d.Size.Unit = "local", gib, "gib"
	return []diskJSON{d}
}

// render makes the JSON of d, all but its status, which resolve fills in later, without the lock. The caller holds
// s.mu.
func (s *Server) render(d *droplet) dropletJSON {
	m := d.machine
	j := dropletJSON{
		ID: m.ID, Name: m.Name, Memory: d.size.Memory, VCPUs: d.size.VCPUs, Disk: d.size.Disk, DiskInfo: diskInfo(d.size.Disk),
		Locked: d.pending != 0, CreatedAt: timestamp(m.Created), Features: []string{}, BackupIDs: []int{},
		SnapshotIDs: s.imagesOf(m.ID), Image: d.image, VolumeIDs: []string{}, Size: s.sizeJSON(d.size), SizeSlug: d.size.Slug,
		Networks: dropletNetworks{V4: []networkJSON{}, V6: []networkJSON{}},
		Region:   s.regionJSON(d.region), Tags: append([]string{}, m.Tags...), VPCUUID: d.vpc,
		booted: d.booted, gone: !d.gone.IsZero(), before: d.before, changed: d.changed,
	}
	if d.backups {
		j.Features = append(j.Features, "backups")
	}
	if d.monitor {
		j.Features = append(j.Features, "monitoring")
	}
	j.Features = append(j.Features, "private_networking")
	if d.networked {
		p := s.opt.Addresses
		j.Networks.V4 = []networkJSON{
			{m.Private.String(), netmask(p.Private), host(p.Private, 1).String(), "private"},
			{m.Public.String(), netmask(p.Public), host(p.Public, 1).String(), "public"},
		}
	}
	return j
}

// resolve asks the backend for the power of each droplet. The caller does not hold s.mu.
func (s *Server) resolve(c *call, all ...*dropletJSON) {
	for _, j := range all {
		switch {
		case j.gone:
			j.Status = statusActive // What a list that lags behind a destroy still says.
		case c.fx.statusLag > 0 && j.before != "" && c.now.Sub(j.changed) < c.fx.statusLag:
			j.Status = j.before
		default:
			j.Status = s.status(j.ID, j.booted)
		}
	}
}

func (s *Server) listDroplets(c *call) (reply, error) {
	tagName, name, kind := c.query("tag_name"), c.query("name"), c.query("type")
	if tagName != "" && (name != "" || kind != "") {
		return reply{}, badRequest("tag_name cannot be combined with name or type") // Ours; the rule is the description's.
	}
	s.mu.Lock()
	rendered := []*dropletJSON{}
	for _, d := range s.visible(c) {
		if kind == "gpus" || tagName != "" && !hasTag(d.machine.Tags, tagName) || name != "" && !equalFold(d.machine.Name, name) {
			continue
		}
		j := s.render(d)
		rendered = append(rendered, &j)
	}
	s.mu.Unlock()
	s.resolve(c, rendered...)
	return page(s, c, "droplets", rendered), nil
}

// visible returns the droplets that a list shows: those that exist, unless a fault lets the list lag. The caller
// holds s.mu.
func (s *Server) visible(c *call) []*droplet {
	var shown []*droplet
	for _, d := range s.sortedDroplets() {
		if c.fx.hideYounger == 0 || c.now.Sub(d.machine.Created) >= c.fx.hideYounger {
			shown = append(shown, d)
		}
	}
	if c.fx.showGone > 0 {
		for _, d := range s.gone {
			if c.now.Sub(d.gone) < c.fx.showGone {
				shown = append(shown, d)
			}
		}
		slices.SortFunc(shown, byID)
	}
	return shown
}

// find returns the droplet that the path names. The caller holds s.mu.
func (s *Server) find(c *call) (*droplet, error) {
	id, err := c.number("droplet")
	if err != nil {
		return nil, err
	}
	d, ok := s.droplets[id]
	if !ok || c.fx.newMissing > 0 && c.now.Sub(d.machine.Created) < c.fx.newMissing {
		return nil, errNotFound
	}
	return d, nil
}

func (s *Server) getDroplet(c *call) (reply, error) {
	s.mu.Lock()
	d, err := s.find(c)
	if err != nil {
		s.mu.Unlock()
		return reply{}, err
	}
	j := s.render(d)
	s.mu.Unlock()
	s.resolve(c, &j)
	return reply{status: http.StatusOK, body: map[string]any{"droplet": &j}}, nil
}

func (s *Server) listDropletActions(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	return page(s, c, "actions", s.actionsOf(resourceDroplet, d.machine.ID)), nil
}

func (s *Server) getDropletAction(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	return s.oneAction(c, resourceDroplet, d.machine.ID)
}

// listAssociated shows what would stay behind, and cost money, when the droplet goes.
func (s *Server) listAssociated(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	type resource struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Cost string `json:"cost"`
	}
	ips, snapshots, none := []resource{}, []resource{}, []resource{}
	if ip, ok := s.heldBy(d.machine.ID); ok {
		ips = append(ips, resource{strconv.Itoa(addrNumber(ip)), ip.String(), "5.00"})
	}
	for _, id := range s.imagesOf(d.machine.ID) {
		snapshots = append(snapshots, resource{strconv.Itoa(id), s.images[id].json.Name, "0.06"})
	}
	return reply{status: http.StatusOK, body: map[string]any{
		"reserved_ips": ips, "floating_ips": ips, "snapshots": snapshots, "volumes": none, "volume_snapshots": none,
	}}, nil
}

// refuseDeleteByTag does not do what DigitalOcean would: destroy every droplet with a tag in one call. Nothing in
// this project may ask for that.
func (s *Server) refuseDeleteByTag(c *call) (reply, error) {
	s.logger(c).Error("refused to destroy droplets by tag: find out who asked, droplets are destroyed by id only", "tag", c.query("tag_name"))
	return reply{}, errForbidden
}

// refuseActionByTag refuses to act on all droplets with a tag at once, for the same reason.
func (s *Server) refuseActionByTag(c *call) (reply, error) {
	s.logger(c).Error("refused to act on droplets by tag: find out who asked, droplets are acted on by id only", "tag", c.query("tag_name"))
	return reply{}, errForbidden
}
