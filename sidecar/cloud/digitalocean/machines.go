package digitalocean

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

// Lists are read in the largest pages there are. A list longer than maxPages of them is not ours to read.
const (
	perPage  = 200
	maxPages = 50
)

// pages reads every page of a list by get and returns all entries. A list that has not the length it claims, or names an
// entry twice, was changed while it was read, and what is missing in it may be there: that is an error.
func pages[T any](id func(T) int, get func(*godo.ListOptions) ([]T, *godo.Response, error)) ([]T, error) {
	var all []T
	seen := map[int]bool{}
	for page := 1; ; page++ {
		some, resp, err := get(&godo.ListOptions{Page: page, PerPage: perPage})
		if err != nil {
			return nil, explain(err)
		}
		if resp.Meta == nil {
			return nil, errors.New("the answer is no list") // every list says how long it is
		}
		for _, one := range some {
			if seen[id(one)] {
				return nil, fmt.Errorf("the list names %d twice: it changed while it was read", id(one))
			}
			seen[id(one)] = true
		}
		all = append(all, some...)
		if resp.Links == nil || resp.Links.IsLastPage() {
			if resp.Meta.Total != len(all) {
				return nil, fmt.Errorf("the list has %d entries and claims %d: it changed while it was read", len(all), resp.Meta.Total)
			}
			return all, nil
		}
		if page == maxPages || len(some) == 0 {
			return nil, fmt.Errorf("the list does not end after %d pages", page)
		}
	}
}

// List returns the machines that carry the cluster's tag by their own word, whatever the list is said to be filtered by.
func (c *Client) List(ctx context.Context) ([]cluster.Machine, error) {
	found, err := pages(func(d godo.Droplet) int { return d.ID }, func(o *godo.ListOptions) ([]godo.Droplet, *godo.Response, error) {
		return c.api.Droplets.ListByTag(ctx, c.tag, o)
	})
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	slices.SortFunc(found, func(a, b godo.Droplet) int { return cmp.Compare(a.ID, b.ID) })
	var all []cluster.Machine
	for _, d := range found {
		m, err := machine(d)
		if err != nil {
			return nil, fmt.Errorf("list machines: %w", err)
		}
		if c.owns(m) {
			all = append(all, m)
		}
	}
	return all, nil
}

// owns compares tags as DigitalOcean does, which knows no case in them.
func (c *Client) owns(m cluster.Machine) bool {
	return slices.ContainsFunc(m.Tags, func(tag string) bool { return strings.EqualFold(tag, c.tag) })
}

// Get asks for one machine.
func (c *Client) Get(ctx context.Context, id string) (cluster.Machine, error) {
	m, err := c.get(ctx, id)
	if err != nil {
		return cluster.Machine{}, fmt.Errorf("ask for machine %s: %w", id, err)
	}
	return m, nil
}

func (c *Client) get(ctx context.Context, id string) (cluster.Machine, error) {
	n, err := number(id)
	if err != nil {
		return cluster.Machine{}, err
	}
	d, _, err := c.api.Droplets.Get(ctx, n)
	switch {
	case isGone(err):
		return cluster.Machine{ID: id, Power: cluster.PowerGone}, nil
	case err != nil:
		return cluster.Machine{}, explain(err)
	case d == nil || d.ID != n:
		return cluster.Machine{}, errors.New("the answer is about another machine")
	}
	return machine(*d)
}

// PowerOff reads the machine right before it asks, so that a mistaken ID ends here.
func (c *Client) PowerOff(ctx context.Context, id, name string) error {
	m, err := c.get(ctx, id)
	switch {
	case err != nil:
	case m.Power == cluster.PowerGone:
		err = cloud.ErrGone
	case !c.owns(m) || m.Name != name:
		err = fmt.Errorf("it is called %s and has the tags %v: %w", m.Name, m.Tags, cloud.ErrNotOurs)
	case m.Power != cluster.PowerOff:
		err = c.cutPower(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("power off machine %s: %w", id, err)
	}
	return nil
}

func (c *Client) cutPower(ctx context.Context, id string) error {
	n, err := number(id)
	if err != nil {
		return err
	}
	if _, _, err = c.api.DropletActions.PowerOff(ctx, n); err != nil && !refusedAs(err, "already powered off") {
		return explain(err)
	}
	return nil
}

// machine is what an answer says of a droplet. An address that is none is an error: without it the machine would look as
// if it had no address yet.
func machine(d godo.Droplet) (cluster.Machine, error) {
	if d.ID <= 0 {
		return cluster.Machine{}, fmt.Errorf("a machine has the ID %d", d.ID)
	}
	m := cluster.Machine{ID: strconv.Itoa(d.ID), Name: d.Name, Tags: d.Tags, Power: power(d.Status)}
	m.Created, _ = time.Parse(time.RFC3339, d.Created) // for showing only; zero says that it is not known
	if d.Networks == nil {
		return m, nil
	}
	for _, net := range d.Networks.V4 {
		a, err := netip.ParseAddr(net.IPAddress)
		if err != nil || !a.Is4() {
			return cluster.Machine{}, fmt.Errorf("machine %s has the %s address %q", m.ID, oneLine(net.Type), oneLine(net.IPAddress))
		}
		switch {
		case net.Type == "private" && !m.Private.IsValid():
			m.Private = a
		case net.Type == "public" && !m.Public.IsValid():
			m.Public = a
		}
	}
	return m, nil
}

// power reads a droplet's status. An archived droplet has lost its disk's place, not only its power, so it is not "off".
func power(status string) cluster.Power {
	switch status {
	case "new":
		return cluster.PowerNew
	case "active":
		return cluster.PowerOn
	case "off":
		return cluster.PowerOff
	}
	return cluster.PowerUnknown
}
