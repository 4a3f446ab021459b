package digitalocean

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

// Create asks for a machine. What is refused for want of room is asked for in the next size; nothing else is asked for twice.
func (c *Client) Create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error) {
	m, err := c.create(ctx, h)
	if err != nil {
		return cluster.Machine{}, fmt.Errorf("create a machine for %s: %w", h.Name, err)
	}
	return m, nil
}

func (c *Client) create(ctx context.Context, h cloud.Hiring) (cluster.Machine, error) {
	if h.Name == "" || h.Region == "" || h.Image == "" || len(h.Sizes) == 0 {
		return cluster.Machine{}, fmt.Errorf("%w: a name, a region, an image and a size are needed", cloud.ErrRefused)
	}
	image, err := c.image(ctx, h.Image)
	if err != nil {
		return cluster.Machine{}, err
	}
	keys, err := c.keys(ctx, h.SSHKeys)
	if err != nil {
		return cluster.Machine{}, err
	}
	var full error
	for _, size := range h.Sizes {
		d, _, err := c.api.Droplets.Create(ctx, &godo.DropletCreateRequest{
			Name: h.Name, Region: h.Region, Size: size, Image: image, SSHKeys: keys, UserData: h.UserData,
			Tags: append([]string{c.tag}, h.Tags...),
		})
		if err == nil {
			return hired(d, h.Name)
		}
		if err = refusal422(explain(err)); !errors.Is(err, cloud.ErrNoRoom) {
			return cluster.Machine{}, err
		}
		full = errors.Join(full, fmt.Errorf("%s in %s: %w", size, h.Region, err))
	}
	return cluster.Machine{}, full
}

// hired reads the answer to a create. One that cannot be true does not say that there is no machine.
func hired(d *godo.Droplet, name string) (cluster.Machine, error) {
	if d == nil || d.Name != name {
		return cluster.Machine{}, errors.New("the answer is about another machine")
	}
	return machine(*d)
}

// refusal422 puts what a caller acts upon in front of a refusal. The texts are those of DigitalOcean's answers; its description
// has no codes for them.
func refusal422(err error) error {
	var said *godo.ErrorResponse
	if !errors.As(err, &said) || said.Response.StatusCode != http.StatusUnprocessableEntity {
		return err
	}
	switch {
	case says(said, "not available in this region"), says(said, "size is not available"), says(said, "region is not available"):
		return fmt.Errorf("%w: %w", cloud.ErrNoRoom, err)
	case says(said, "droplet limit"):
		return fmt.Errorf("%w: %w", cloud.ErrLimit, err)
	}
	return fmt.Errorf("%w: %w", cloud.ErrRefused, err)
}

// image finds what machines start from: an ID, the name of one of the account's own images, which have no slugs, or a slug. Of
// several images of one name it is the newest, which has the highest ID.
func (c *Client) image(ctx context.Context, want string) (godo.DropletCreateImage, error) {
	if id, err := strconv.Atoi(want); err == nil {
		return godo.DropletCreateImage{ID: id}, nil
	}
	all, err := pages(func(i godo.Image) int { return i.ID }, func(o *godo.ListOptions) ([]godo.Image, *godo.Response, error) {
		return c.api.Images.ListUser(ctx, o)
	})
	if err != nil {
		return godo.DropletCreateImage{}, fmt.Errorf("look for image %q: %w", want, err)
	}
	newest := 0
	for _, i := range all {
		if i.Name == want {
			newest = max(newest, i.ID)
		}
	}
	if newest == 0 {
		return godo.DropletCreateImage{Slug: want}, nil
	}
	return godo.DropletCreateImage{ID: newest}, nil
}

// keys finds the account's SSH keys of some names.
func (c *Client) keys(ctx context.Context, names []string) ([]godo.DropletCreateSSHKey, error) {
	if len(names) == 0 {
		return nil, nil
	}
	all, err := pages(func(k godo.Key) int { return k.ID }, func(o *godo.ListOptions) ([]godo.Key, *godo.Response, error) {
		return c.api.Keys.List(ctx, o)
	})
	if err != nil {
		return nil, fmt.Errorf("look for SSH keys: %w", err)
	}
	var found []godo.DropletCreateSSHKey
	var missing []string
	for _, name := range names {
		i := slices.IndexFunc(all, func(k godo.Key) bool { return k.Name == name })
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		found = append(found, godo.DropletCreateSSHKey{ID: all[i].ID})
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: the account has no SSH key called %s", cloud.ErrRefused, strings.Join(missing, ", "))
	}
	return found, nil
}

// Delete reads the machine right before, so that a mistaken ID ends here. It deletes by ID, never by tag.
func (c *Client) Delete(ctx context.Context, id, name string) error {
	m, err := c.get(ctx, id)
	switch {
	case err != nil:
	case m.Power == cluster.PowerGone:
		return nil
	case !c.owns(m) || m.Name != name:
		err = fmt.Errorf("it is called %s and has the tags %v: %w", m.Name, m.Tags, cloud.ErrNotOurs)
	case m.Power != cluster.PowerOff:
		err = cloud.ErrRunning
	default:
		err = c.delete(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("delete machine %s: %w", id, err)
	}
	return nil
}

func (c *Client) delete(ctx context.Context, id string) error {
	n, err := number(id)
	if err != nil {
		return err
	}
	if _, err := c.api.Droplets.Delete(ctx, n); err != nil && !isGone(err) {
		return explain(err)
	}
	return nil
}
