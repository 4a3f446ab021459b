package localcloud

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// image is the record of a disk to start from. Server.mu guards it.
type image struct {
	json imageJSON
	// backend is what the backend knows the disk by.
	backend string
	// from is the droplet the image was made of; for images that were there from the start a number that nothing
	// else has.
	from int
	made time.Time
}

type imageJSON struct {
	ID           int      `json:"id"`
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Distribution string   `json:"distribution"`
	Slug         *string  `json:"slug"`
	Public       bool     `json:"public"`
	Regions      []string `json:"regions"`
	CreatedAt    string   `json:"created_at"`
	MinDiskSize  int      `json:"min_disk_size"`
	SizeGB       float64  `json:"size_gigabytes"`
	Description  string   `json:"description"`
	Tags         []string `json:"tags"`
	Status       string   `json:"status"`
	ErrorMessage string   `json:"error_message"`
}

// noOrigin is what images of the catalogue name as the droplet they come from. No droplet ever has it.
const noOrigin = FirstID - 1

func newCatalogueImage(im Image, regions []Region) *image {
	kept := &image{backend: im.Name, from: noOrigin, made: im.Created, json: imageJSON{
		ID: im.ID, Name: im.Name, Type: "snapshot", Distribution: im.Distribution, Regions: []string{},
		CreatedAt: timestamp(im.Created), MinDiskSize: im.MinDisk, SizeGB: im.SizeGB, Tags: []string{}, Status: "available",
	}}
	if im.Slug != "" {
		kept.json.Slug, kept.json.Public, kept.json.Type = &im.Slug, true, "base"
	}
	for _, r := range regions {
		kept.json.Regions = append(kept.json.Regions, r.Slug)
	}
	return kept
}

// imageOf makes the record of an image that was taken of d.
func imageOf(d *droplet, id int, name, disk string, now time.Time) *image {
	return &image{backend: disk, from: d.machine.ID, made: now, json: imageJSON{
		ID: id, Name: name, Type: "snapshot", Distribution: d.image.Distribution, Regions: []string{d.region.Slug},
		CreatedAt: timestamp(now), MinDiskSize: d.size.Disk, SizeGB: d.image.SizeGB, Tags: []string{}, Status: "available",
	}}
}

// copyJSON returns a rendering that shares nothing which changes.
func (im *image) copyJSON() imageJSON {
	j := im.json
	j.Regions, j.Tags = slices.Clone(j.Regions), slices.Clone(j.Tags)
	return j
}

// imageForCreate finds the image that a create or rebuild may name so: any by ID, public ones by slug, none by name.
// The caller holds s.mu.
func (s *Server) imageForCreate(ref textOrID) *image {
	if im, ok := s.images[ref.id()]; ok {
		return im
	}
	for _, im := range s.images {
		if im.json.Slug != nil && *im.json.Slug == ref.text {
			return im
		}
	}
	return nil
}

// imageNamed reports whether some image has the name. The caller holds s.mu.
func (s *Server) imageNamed(name string) bool {
	for _, im := range s.images {
		if im.json.Name == name {
			return true
		}
	}
	return false
}

// sortedImages returns all images by ID. The caller holds s.mu.
func (s *Server) sortedImages() []*image {
	all := make([]*image, 0, len(s.images))
	for _, im := range s.images {
		all = append(all, im)
	}
	slices.SortFunc(all, func(a, b *image) int { return a.json.ID - b.json.ID })
	return all
}

// imagesOf returns the IDs of the images made of a droplet. The caller holds s.mu.
func (s *Server) imagesOf(dropletID int) []int {
	ids := []int{}
	for _, im := range s.sortedImages() {
		if im.from == dropletID {
			ids = append(ids, im.json.ID)
		}
	}
	return ids
}

// pathImage finds the image that the path names by ID, or by slug when it is public. The caller holds s.mu.
func (s *Server) pathImage(c *call) (*image, error) {
	if im := s.imageForCreate(textOrID{c.r.PathValue("image")}); im != nil {
		return im, nil
	}
	return nil, errNotFound
}

func imageReply(im *image) reply {
	return reply{status: http.StatusOK, body: map[string]imageJSON{"image": im.copyJSON()}}
}

func (s *Server) listImages(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	private, kind, tagName := c.query("private") == "true", c.query("type"), c.query("tag_name")
	found := []imageJSON{}
	for _, im := range s.sortedImages() {
		switch {
		case private && im.json.Public, kind == "application", kind == "distribution" && !im.json.Public:
		case tagName != "" && !hasTag(im.json.Tags, tagName):
		default:
			found = append(found, im.copyJSON())
		}
	}
	return page(s, c, "images", found), nil
}

func (s *Server) getImage(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathImage(c)
	if err != nil {
		return reply{}, err
	}
	return imageReply(im), nil
}

func (s *Server) updateImage(c *call) (reply, error) {
	var req struct {
		Name         *string `json:"name"`
		Description  *string `json:"description"`
		Distribution *string `json:"distribution"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathImage(c)
	if err != nil {
		return reply{}, err
	}
	if im.json.Public {
		return reply{}, errForbidden
	}
	if req.Name != nil {
		if strings.TrimSpace(*req.Name) == "" {
			return reply{}, unprocessable("Name can't be blank")
		}
		im.json.Name = *req.Name
	}
	if req.Description != nil {
		im.json.Description = *req.Description
	}
	return imageReply(im), nil
}

func (s *Server) deleteImage(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathImage(c)
	if err != nil {
		return reply{}, err
	}
	if im.json.Public {
		return reply{}, errForbidden
	}
	delete(s.images, im.json.ID)
	return reply{status: http.StatusNoContent}, nil
}

func (s *Server) listImageActions(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathImage(c)
	if err != nil {
		return reply{}, err
	}
	return page(s, c, "actions", s.actionsOf(resourceImage, im.json.ID)), nil
}

func (s *Server) getImageAction(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathImage(c)
	if err != nil {
		return reply{}, err
	}
	return s.oneAction(c, resourceImage, im.json.ID)
}

// createImageAction transfers an image to another region, or converts a backup, which this cloud never has.
func (s *Server) createImageAction(c *call) (reply, error) {
	var req struct {
		Type   string `json:"type"`
		Region string `json:"region"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathImage(c)
	if err != nil {
		return reply{}, err
	}
	if req.Type != "transfer" {
		return reply{}, unprocessable("This local cloud has no backups that could be converted.")
	}
	r, ok := s.opt.region(req.Region)
	if !ok || r.Slug != req.Region {
		return reply{}, unprocessable("You specified an invalid region.") // Ours.
	}
	a := s.newAction(c, req.Type, resourceImage, im.json.ID, r)
	answer := actionReply(http.StatusCreated, a)
	s.startRecordAction(a, c.fx, func() {
		if !slices.Contains(im.json.Regions, r.Slug) {
			im.json.Regions = append(im.json.Regions, r.Slug)
		}
	})
	return answer, nil
}

type snapshotJSON struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	CreatedAt    string   `json:"created_at"`
	Regions      []string `json:"regions"`
	ResourceID   string   `json:"resource_id"`
	ResourceType string   `json:"resource_type"`
	MinDiskSize  int      `json:"min_disk_size"`
	SizeGB       float64  `json:"size_gigabytes"`
	Tags         []string `json:"tags"`
}

func (im *image) snapshot() snapshotJSON {
	j := im.copyJSON()
	return snapshotJSON{
		ID: strconv.Itoa(j.ID), Name: j.Name, CreatedAt: j.CreatedAt, Regions: j.Regions, ResourceID: strconv.Itoa(im.from),
		ResourceType: resourceDroplet, MinDiskSize: j.MinDiskSize, SizeGB: j.SizeGB, Tags: j.Tags,
	}
}

func (s *Server) listSnapshots(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []snapshotJSON{}
	for _, im := range s.sortedImages() {
		if !im.json.Public && c.query("resource_type") != "volume" {
			found = append(found, im.snapshot())
		}
	}
	return page(s, c, "snapshots", found), nil
}

// pathSnapshot finds the private image that the path names. The caller holds s.mu.
func (s *Server) pathSnapshot(c *call) (*image, error) {
	im, ok := s.images[textOrID{c.r.PathValue("image")}.id()]
	switch {
	case !ok:
		return nil, errNotFound
	case im.json.Public:
		return nil, badRequest("the resource is not a snapshot")
	}
	return im, nil
}

func (s *Server) getSnapshot(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathSnapshot(c)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: map[string]snapshotJSON{"snapshot": im.snapshot()}}, nil
}

func (s *Server) deleteSnapshot(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.pathSnapshot(c)
	if err != nil {
		return reply{}, err
	}
	delete(s.images, im.json.ID)
	return reply{status: http.StatusNoContent}, nil
}

// listDropletSnapshots shows the images made of one droplet, in a form of their own: numbers for IDs and a type.
func (s *Server) listDropletSnapshots(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	type entry struct {
		ID          int      `json:"id"`
		Name        string   `json:"name"`
		Type        string   `json:"type"`
		CreatedAt   string   `json:"created_at"`
		Regions     []string `json:"regions"`
		MinDiskSize int      `json:"min_disk_size"`
		SizeGB      float64  `json:"size_gigabytes"`
	}
	found := []entry{}
	for _, id := range s.imagesOf(d.machine.ID) {
		j := s.images[id].copyJSON()
		found = append(found, entry{j.ID, j.Name, j.Type, j.CreatedAt, j.Regions, j.MinDiskSize, j.SizeGB})
	}
	return page(s, c, "snapshots", found), nil
}
