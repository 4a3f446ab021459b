package localcloud

import (
	"crypto/md5" // The fingerprint of an SSH key in DigitalOcean's API is its MD5 sum (RFC 4716).
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

func itoa(n int) string { return strconv.Itoa(n) }

func (s *Server) getAccount(c *call) (reply, error) {
	a := s.opt.Account
	status, message := "active", ""
	if c.fx.accountLocked {
		status, message = "locked", "Your account is locked."
	}
	return reply{status: http.StatusOK, body: map[string]any{"account": map[string]any{
		"droplet_limit": s.opt.DropletLimit, "floating_ip_limit": s.opt.ReservedIPLimit,
		"reserved_ip_limit": s.opt.ReservedIPLimit, "volume_limit": 0,
		"email": a.Email, "name": a.Name, "uuid": a.UUID, "email_verified": true,
		"status": status, "status_message": message,
		"team": map[string]string{"uuid": a.TeamUUID, "name": a.TeamName},
	}}}, nil
}

type regionJSON struct {
	Name      string   `json:"name"`
	Slug      string   `json:"slug"`
	Features  []string `json:"features"`
	Available bool     `json:"available"`
	Sizes     []string `json:"sizes"`
}

// regionJSON needs no lock: the catalogue never changes.
func (s *Server) regionJSON(r Region) regionJSON {
	j := regionJSON{
		Name: r.Name, Slug: r.Slug, Available: !r.Full, Sizes: []string{},
		Features: []string{"backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"},
	}
	for _, z := range s.opt.Sizes {
		if z.offered(r.Slug) {
			j.Sizes = append(j.Sizes, z.Slug)
		}
	}
	return j
}

type sizeJSON struct {
	Slug         string     `json:"slug"`
	Memory       int        `json:"memory"`
	VCPUs        int        `json:"vcpus"`
	Disk         int        `json:"disk"`
	Transfer     float64    `json:"transfer"`
	PriceMonthly float64    `json:"price_monthly"`
	PriceHourly  float64    `json:"price_hourly"`
	Regions      []string   `json:"regions"`
	Available    bool       `json:"available"`
	Description  string     `json:"description"`
	DiskInfo     []diskJSON `json:"disk_info"`
}

func (s *Server) sizeJSON(z Size) sizeJSON {
	j := sizeJSON{
		Slug: z.Slug, Memory: z.Memory, VCPUs: z.VCPUs, Disk: z.Disk, Transfer: z.Transfer, PriceMonthly: z.Monthly,
		PriceHourly: z.Hourly, Regions: []string{}, Available: true, Description: z.Description, DiskInfo: diskInfo(z.Disk),
	}
	for _, r := range s.opt.Regions {
		if z.offered(r.Slug) {
			j.Regions = append(j.Regions, r.Slug)
		}
	}
	return j
}

func (s *Server) listRegions(c *call) (reply, error) {
	all := []regionJSON{}
	for _, r := range s.opt.Regions {
		all = append(all, s.regionJSON(r))
	}
	return page(s, c, "regions", all), nil
}

func (s *Server) listSizes(c *call) (reply, error) {
	all := []sizeJSON{}
	for _, z := range s.opt.Sizes {
		all = append(all, s.sizeJSON(z))
	}
	return page(s, c, "sizes", all), nil
}

// sshKey is an account's public key. Server.mu guards it.
type sshKey struct {
	ID          int    `json:"id"`
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key"`
	Name        string `json:"name"`
}

// keyBy finds a key by ID or fingerprint. The caller holds s.mu.
func (s *Server) keyBy(ref string) *sshKey {
	if id, err := strconv.Atoi(ref); err == nil {
		return s.keys[id]
	}
	for _, k := range s.keys {
		if k.Fingerprint == ref {
			return k
		}
	}
	return nil
}

func keyReply(status int, k *sshKey) reply {
	return reply{status: status, body: map[string]sshKey{"ssh_key": *k}}
}

func (s *Server) listKeys(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []sshKey{}
	for _, k := range s.keys {
		all = append(all, *k)
	}
	slices.SortFunc(all, func(a, b sshKey) int { return a.ID - b.ID })
	return page(s, c, "ssh_keys", all), nil
}

func (s *Server) createKey(c *call) (reply, error) {
	var req struct {
		Name      string `json:"name"`
		PublicKey string `json:"public_key"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if strings.TrimSpace(req.Name) == "" {
		return reply{}, unprocessable("Name can't be blank")
	}
	public, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(req.PublicKey))
	if err != nil || len(rest) > 0 {
		return reply{}, unprocessable("Key invalid, key should be of the format `type key [comment]`")
	}
	fingerprint := colonHex(public.Marshal())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keyBy(fingerprint) != nil {
		return reply{}, unprocessable("SSH Key is already in use on your account")
	}
	k := &sshKey{ID: s.newID(), Fingerprint: fingerprint, PublicKey: strings.TrimSpace(req.PublicKey), Name: req.Name}
	s.keys[k.ID] = k
	return keyReply(http.StatusCreated, k), nil
}

func colonHex(data []byte) string {
	sum := md5.Sum(data)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(parts, ":")
}

// pathKey finds the key that the path names. The caller holds s.mu.
func (s *Server) pathKey(c *call) (*sshKey, error) {
	if k := s.keyBy(c.r.PathValue("key")); k != nil {
		return k, nil
	}
	return nil, errNotFound
}

func (s *Server) getKey(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.pathKey(c)
	if err != nil {
		return reply{}, err
	}
	return keyReply(http.StatusOK, k), nil
}

func (s *Server) renameKey(c *call) (reply, error) {
	var req struct {
		Name string `json:"name"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if strings.TrimSpace(req.Name) == "" {
		return reply{}, unprocessable("Name can't be blank")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.pathKey(c)
	if err != nil {
		return reply{}, err
	}
	k.Name = req.Name
	return keyReply(http.StatusOK, k), nil
}

func (s *Server) deleteKey(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.pathKey(c)
	if err != nil {
		return reply{}, err
	}
	delete(s.keys, k.ID)
	return reply{status: http.StatusNoContent}, nil
}

// vpc is the one network of a region. This cloud has no others, so they cannot be made or changed.
type vpc struct {
	ID          string `json:"id"`
	URN         string `json:"urn"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Region      string `json:"region"`
	IPRange     string `json:"ip_range"`
	CreatedAt   string `json:"created_at"`
	Default     bool   `json:"default"`
}

// newVPCs makes each region's default network. Its ID follows from the region, so it is the same in every run.
func newVPCs(o Options, now time.Time) []vpc {
	var all []vpc
	for _, r := range o.Regions {
		sum := sha256.Sum256([]byte("understudy local cloud vpc " + r.Slug))
		id := formatUUID([16]byte(sum[:16]))
		all = append(all, vpc{
			ID: id, URN: "do:vpc:" + id, Name: "default-" + r.Slug, Region: r.Slug, IPRange: o.Addresses.Private.String(),
			CreatedAt: timestamp(now), Default: true,
		})
	}
	return all
}

// vpcFor finds the network that a create names, or the region's default.
func (s *Server) vpcFor(id, region string) (string, bool) {
	for _, v := range s.vpcs {
		if v.Region == region && (id == "" || id == v.ID) {
			return v.ID, true
		}
	}
	return "", false
}

func (s *Server) pathVPC(c *call) (vpc, error) {
	for _, v := range s.vpcs {
		if v.ID == c.r.PathValue("vpc") {
			return v, nil
		}
	}
	return vpc{}, errNotFound
}

func (s *Server) listVPCs(c *call) (reply, error) {
	return page(s, c, "vpcs", slices.Clone(s.vpcs)), nil
}

func (s *Server) getVPC(c *call) (reply, error) {
	v, err := s.pathVPC(c)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: map[string]vpc{"vpc": v}}, nil
}

func (s *Server) listVPCMembers(c *call) (reply, error) {
	v, err := s.pathVPC(c)
	if err != nil {
		return reply{}, err
	}
	type member struct {
		URN       string `json:"urn"`
		Name      string `json:"name"`
		CreatedAt string `json:"created_at"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	members := []member{}
	for _, d := range s.sortedDroplets() {
		if kind := c.query("resource_type"); d.vpc == v.ID && (kind == "" || kind == resourceDroplet) {
			members = append(members, member{"do:droplet:" + itoa(d.machine.ID), d.machine.Name, timestamp(d.machine.Created)})
		}
	}
	return page(s, c, "members", members), nil
}

// resolverList is the DNS servers in the order given.
func resolverList(addrs []netip.Addr) []string {
	list := []string{}
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return list
}
