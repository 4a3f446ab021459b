package localcloud

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// tag is the record of a label. Which resources have it is written in the resources. Server.mu guards it.
type tag struct {
	// name is spelled as it was first; comparing ignores case.
	name string
}

// tagCount is DigitalOcean's statistics of one kind of resource.
type tagCount struct {
	Count   int    `json:"count"`
	LastURI string `json:"last_tagged_uri,omitempty"`
}

type tagJSON struct {
	Name      string `json:"name"`
	Resources struct {
		tagCount
		Droplets  tagCount `json:"droplets"`
		Images    tagCount `json:"images"`
		Volumes   tagCount `json:"volumes"`
		Snapshots tagCount `json:"volume_snapshots"`
		Databases tagCount `json:"databases"`
	} `json:"resources"`
}

func hasTag(tags []string, name string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return equalFold(t, name) })
}

// addTag makes the tag if it is new and puts it on a resource. The tags stay sorted; the old slice is not touched,
// because it may still be read. The caller holds s.mu.
func (s *Server) addTag(tags *[]string, name string) {
	t, ok := s.tags[strings.ToLower(name)]
	if !ok {
		t = &tag{name: name}
		s.tags[strings.ToLower(name)] = t
	}
	if hasTag(*tags, name) {
		return
	}
	more := append(slices.Clone(*tags), t.name)
	slices.Sort(more)
	*tags = more
}

// dropTag takes a tag off a resource, likewise without touching the old slice.
func dropTag(tags *[]string, name string) {
	fewer := []string{}
	for _, t := range *tags {
		if !equalFold(t, name) {
			fewer = append(fewer, t)
		}
	}
	*tags = fewer
}

// renderTag counts what has the tag. The caller holds s.mu.
func (s *Server) renderTag(c *call, t *tag) tagJSON {
	j := tagJSON{Name: t.name}
	r := &j.Resources
	for _, im := range s.sortedImages() {
		if hasTag(im.json.Tags, t.name) {
			r.Images = tagCount{r.Images.Count + 1, c.href("/v2/images/" + itoa(im.json.ID))}
			r.LastURI = r.Images.LastURI
		}
	}
	for _, d := range s.sortedDroplets() {
		if hasTag(d.machine.Tags, t.name) {
			r.Droplets = tagCount{r.Droplets.Count + 1, c.href("/v2/droplets/" + itoa(d.machine.ID))}
			r.LastURI = r.Droplets.LastURI
		}
	}
	r.Count = r.Images.Count + r.Droplets.Count
	return j
}

// pathTag finds the tag that the path names. The caller holds s.mu.
func (s *Server) pathTag(c *call) (*tag, error) {
	t, ok := s.tags[strings.ToLower(c.r.PathValue("tag"))]
	if !ok || t.name != c.r.PathValue("tag") {
		// The URL must use the canonical capitalisation, says the description.
		return nil, errNotFound
	}
	return t, nil
}

func (s *Server) listTags(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []tagJSON{}
	for _, t := range s.tags {
		all = append(all, s.renderTag(c, t))
	}
	slices.SortFunc(all, func(a, b tagJSON) int { return strings.Compare(a.Name, b.Name) })
	return page(s, c, "tags", all), nil
}

// createTag makes a tag. One that exists already is simply shown; what DigitalOcean answers then is not documented.
func (s *Server) createTag(c *call) (reply, error) {
	var req struct {
		Name string `json:"name"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if !tagPattern.MatchString(req.Name) {
		cause := fmt.Sprintf("Error validating resource tag: \"tag-name %q contains invalid characters\"", req.Name)
		return reply{}, &apiError{
			status: http.StatusBadRequest, id: "bad_request", message: cause,
			rootCauses: []string{"rpc error: code = InvalidArgument desc = " + cause},
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var none []string
	s.addTag(&none, req.Name)
	t := s.tags[strings.ToLower(req.Name)]
	return reply{status: http.StatusCreated, body: map[string]tagJSON{"tag": s.renderTag(c, t)}}, nil
}

func (s *Server) getTag(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.pathTag(c)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: map[string]tagJSON{"tag": s.renderTag(c, t)}}, nil
}

// deleteTag takes the tag off everything and forgets it. It destroys nothing else.
func (s *Server) deleteTag(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.pathTag(c)
	if err != nil {
		return reply{}, err
	}
	for _, d := range s.droplets {
		dropTag(&d.machine.Tags, t.name)
	}
	for _, im := range s.images {
		dropTag(&im.json.Tags, t.name)
	}
	delete(s.tags, strings.ToLower(t.name))
	return reply{status: http.StatusNoContent}, nil
}

func (s *Server) tagResources(c *call) (reply, error) {
	return s.changeTagged(c, func(tags *[]string, name string) { s.addTag(tags, name) })
}

func (s *Server) untagResources(c *call) (reply, error) {
	return s.changeTagged(c, dropTag)
}

// changeTagged applies change to the tags of every resource in the body: of all of them or, if one is unknown, none.
func (s *Server) changeTagged(c *call, change func(tags *[]string, name string)) (reply, error) {
	var req struct {
		Resources []struct {
			ID   textOrID `json:"resource_id"`
			Type string   `json:"resource_type"`
		} `json:"resources"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.pathTag(c)
	if err != nil {
		return reply{}, err
	}
	var targets []*[]string
	for _, r := range req.Resources {
		d, isDroplet := s.droplets[r.ID.id()]
		im, isImage := s.images[r.ID.id()]
		switch {
		case r.Type == resourceDroplet && isDroplet:
			targets = append(targets, &d.machine.Tags)
		case r.Type == resourceImage && isImage:
			targets = append(targets, &im.json.Tags)
		default:
			return reply{}, errNotFound
		}
	}
	for _, tags := range targets {
		change(tags, t.name)
	}
	return reply{status: http.StatusNoContent}, nil
}
