package localcloud

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a create request, from DigitalOcean's description.
const (
	maxNames    = 10
	maxNameLen  = 255
	maxUserData = 64 << 10
)

// createRequest is the body of POST /v2/droplets.
type createRequest struct {
	Name       *string    `json:"name"`
	Names      []string   `json:"names"`
	Region     string     `json:"region"`
	Size       string     `json:"size"`
	Image      textOrID   `json:"image"`
	SSHKeys    []textOrID `json:"ssh_keys"`
	Backups    bool       `json:"backups"`
	IPv6       bool       `json:"ipv6"`
	Monitoring bool       `json:"monitoring"`
	Tags       []string   `json:"tags"`
	UserData   string     `json:"user_data"`
	VPC        string     `json:"vpc_uuid"`
	Public     *bool      `json:"public_networking"`
	Volumes    []any      `json:"volumes"`
}

// textOrID is a JSON value that may be a number or a string, as DigitalOcean writes ids, slugs and fingerprints.
type textOrID struct{ text string }

func (t *textOrID) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if string(data) == "null" {
		return nil
	}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &t.text)
	}
	var n int
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	t.text = strconv.Itoa(n)
	return nil
}

// id returns the value as a number, 0 if it is none.
func (t textOrID) id() int {
	n, err := strconv.Atoi(t.text)
	if err != nil {
		return 0
	}
	return n
}

// Patterns of DigitalOcean's description.
var (
	namePattern = regexp.MustCompile(`^[a-zA-Z0-9]?[a-z0-9A-Z.\-]*[a-z0-9A-Z]$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_\-:]{1,255}$`)
)

// decodeCreate reads the body of a create and returns the names it asks for; single tells which of the two forms of
// answer it gets.
func decodeCreate(data []byte) (req createRequest, names []string, single bool, err error) {
	if err := decodeJSON(data, &req); err != nil {
		return createRequest{}, nil, false, err
	}
	switch {
	case req.Name != nil && req.Names != nil:
		return createRequest{}, nil, false, unprocessable("Only one of name and names can be given.") // Ours.
	case req.Name != nil:
		names, single = []string{*req.Name}, true
	default:
		names = req.Names
	}
	if len(names) == 0 {
		return createRequest{}, nil, false, unprocessable("Name can't be blank")
	}
	if len(names) > maxNames {
		return createRequest{}, nil, false, unprocessable(fmt.Sprintf("You can only create %d droplets at once.", maxNames)) // Ours.
	}
	for _, n := range names {
		if err := checkName(n); err != nil {
			return createRequest{}, nil, false, err
		}
	}
	return req, names, single, req.check()
}

func checkName(name string) error {
	if name == "" {
		return unprocessable("Name can't be blank")
	}
	if len(name) > maxNameLen || !namePattern.MatchString(name) {
		return unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
	}
	return nil
}

// check looks at what can be judged without the account.
func (req createRequest) check() error {
	if len(req.UserData) > maxUserData {
		return unprocessable(fmt.Sprintf("User data is too long (maximum is %d bytes)", maxUserData)) // Ours.
	}
	for _, t := range req.Tags {
		if !tagPattern.MatchString(t) {
			return unprocessable(fmt.Sprintf("tag-name %q contains invalid characters", t))
		}
	}
	// What this cloud does not have is refused rather than left out in silence.
	switch {
	case req.IPv6:
		return unprocessable("This local cloud has no IPv6.")
	case req.Public != nil && !*req.Public:
		return unprocessable("This local cloud has no droplets without public networking.")
	case len(req.Volumes) > 0:
		return unprocessable("This local cloud has no volumes.")
	}
	return nil
}

// order is a create request after every name in it was looked up.
type order struct {
	region Region
	size   Size
	image  *image
	vpc    string
	keys   []string
}

// lookUp finds everything that req names. The caller holds s.mu.
func (s *Server) lookUp(req createRequest, c *call) (order, error) {
	var o order
	var ok bool
	if o.size, ok = s.opt.size(req.Size); !ok {
		return o, unprocessable("You specified an invalid size for Droplet creation.")
	}
	if o.image = s.imageForCreate(req.Image); o.image == nil {
		if s.imageNamed(req.Image.text) {
			s.logger(c).Warn("a create names a private image: as at DigitalOcean only its id is taken", "image", req.Image.text)
		}
		return o, unprocessable("You specified an invalid image for Droplet creation.")
	}
	if o.region, ok = s.opt.region(req.Region); !ok {
		return o, unprocessable("You specified an invalid region for Droplet creation.")
	}
	if o.region.Full || !o.size.offered(o.region.Slug) || c.fx.sizeMissing(req.Size) {
		return o, errNoSize
	}
	if !slices.Contains(o.image.json.Regions, o.region.Slug) {
		return o, unprocessable("The image you specified is not available in the selected region for Droplet creation.")
	}
	if o.image.json.MinDiskSize > o.size.Disk {
		return o, unprocessable("The image you specified is too large for the selected size.") // Ours.
	}
	var unknown []string
	for _, k := range req.SSHKeys {
		if key := s.keyBy(k.text); key != nil {
			o.keys = append(o.keys, key.PublicKey)
		} else {
			unknown = append(unknown, k.text)
		}
	}
	if len(unknown) > 0 {
		return o, unprocessable(strings.Join(unknown, ", ") + " are invalid key identifiers for Droplet creation.")
	}
	o.vpc, ok = s.vpcFor(req.VPC, o.region.Slug)
	if !ok {
		return o, unprocessable("Failed to resolve VPC")
	}
	return o, nil
}

func (s *Server) createDroplets(c *call) (reply, error) {
	data, err := c.body()
	if err != nil {
		return reply{}, err
	}
	req, names, single, err := decodeCreate(data)
	if err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.lookUp(req, c)
	if err != nil {
		return reply{}, err
	}
	if len(s.droplets)+len(names) > s.opt.DropletLimit {
		return reply{}, errLimit
	}
	var made []dropletJSON
	var links []linkJSON
	for _, name := range names {
		d, err := s.addDroplet(name, req, o, c)
		if err != nil {
			return reply{}, err
		}
		a := s.newAction(c, "create", resourceDroplet, d.machine.ID, d.region)
		d.pending = a.ID
		j := s.render(d)
		j.Status = statusNew
		made, links = append(made, j), append(links, a.link(c, "create"))
		s.startCreate(d, a, c.fx)
	}
	body := map[string]any{"links": map[string]any{"actions": links}}
	if single {
		body["droplet"] = made[0]
	} else {
		body["droplets"] = made
	}
	return reply{status: http.StatusAccepted, body: body}, nil
}

// addDroplet makes the record. The caller holds s.mu.
func (s *Server) addDroplet(name string, req createRequest, o order, c *call) (*droplet, error) {
	n, ok := s.freeHost()
	if !ok {
		return nil, fmt.Errorf("no machine number is free for %s", name)
	}
	p := s.opt.Addresses
	d := &droplet{
		machine: Machine{
			ID: s.newID(), Name: name, Image: o.image.backend, Region: o.region.Slug, Size: o.size.Slug, UserData: req.UserData,
			Public: host(p.Public, n), Private: host(p.Private, n), Anchor: host(p.Anchor, n), Created: c.now,
		},
		host: n, image: o.image.copyJSON(), size: o.size, region: o.region, vpc: o.vpc, keys: o.keys,
		backups: req.Backups, monitor: req.Monitoring,
	}
	for _, t := range req.Tags {
		s.addTag(&d.machine.Tags, t)
	}
	s.droplets[d.machine.ID] = d
	return d, nil
}

// startCreate boots d in the background. The caller holds s.mu.
func (s *Server) startCreate(d *droplet, a *action, fx effects) {
	id, name := d.machine.ID, d.machine.Name
	if fx.vanish {
		s.vanish(d, a)
		return
	}
	s.start(func(ctx context.Context) {
		if !pause(ctx, s.opt.BootDelay+fx.slowAction) {
			return
		}
		s.mu.Lock()
		d.networked = true
		m := d.machine.clone()
		s.mu.Unlock()
		err := errActionFault
		if !fx.errored {
			err = s.backend.Boot(ctx, m)
		}
		if ctx.Err() != nil {
			return // The server closes; what is half done stays as it is.
		}
		if err == nil {
			s.finish(a, func() { d.booted, d.pending = true, 0 })
			s.log.Info("droplet created", "machine", id, "name", name)
			return
		}
		s.log.Error("droplet could not be created; its record goes away", "machine", id, "name", name, "err", err)
		if err := s.backend.Erase(ctx, id); err != nil {
			s.log.Error("what is left of a droplet that could not be created stays behind", "machine", id, "err", err)
		}
		s.fail(a, func(now time.Time) { s.bury(d, now) })
	})
}

// vanish lets an accepted create come to nothing: no machine, no record, and the action is gone as well. The caller
// holds s.mu.
func (s *Server) vanish(d *droplet, a *action) {
	delete(s.droplets, d.machine.ID)
	a.hidden = true
}
