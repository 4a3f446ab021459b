package digitalocean

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

// records is one zone's part of the domains API.
type records struct {
	client *Client
	zone   string // without the final dot
}

// Records is the zone's records API.
func (c *Client) Records(zone string) cloud.Records {
	return &records{client: c, zone: strings.TrimSuffix(strings.ToLower(zone), ".")}
}

// List reads all records, because filters by name would take a request per name. A zone always has its NS records, so an
// empty list is a wrong answer.
func (r *records) List(ctx context.Context) ([]cloud.Entry, error) {
	found, err := pages(func(d godo.DomainRecord) int { return d.ID }, func(o *godo.ListOptions) ([]godo.DomainRecord, *godo.Response, error) {
		return r.page(ctx, o)
	})
	if err == nil && len(found) == 0 {
		err = errors.New("the list is empty, but every zone has records")
	}
	if err != nil {
		return nil, fmt.Errorf("list records of %s: %w", r.zone, err)
	}
	slices.SortFunc(found, func(a, b godo.DomainRecord) int { return cmp.Compare(a.ID, b.ID) })
	var all []cloud.Entry
	for _, d := range found {
		e, ours, err := r.entry(d)
		if err != nil {
			return nil, fmt.Errorf("list records of %s: %w", r.zone, err)
		}
		if ours {
			all = append(all, e)
		}
	}
	return all, nil
}

// page reads one page of the list. godo's own method drops the list's length.
func (r *records) page(ctx context.Context, o *godo.ListOptions) ([]godo.DomainRecord, *godo.Response, error) {
	api := r.client.api
	path := fmt.Sprintf("v2/domains/%s/records?page=%d&per_page=%d", url.PathEscape(r.zone), o.Page, o.PerPage)
	req, err := api.NewRequest(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, nil, err
	}
	var list struct {
		Records []godo.DomainRecord `json:"domain_records"`
		Links   *godo.Links         `json:"links"`
		Meta    *godo.Meta          `json:"meta"`
	}
	resp, err := api.Do(ctx, req, &list)
	if err != nil {
		return nil, resp, err
	}
	resp.Links, resp.Meta = list.Links, list.Meta
	return list.Records, resp, nil
}

// entry reads a record, if it is of a type that we know. DigitalOcean shows an MX record's target without the final dot, or
// as "@" for the zone itself.
func (r *records) entry(d godo.DomainRecord) (e cloud.Entry, ours bool, err error) {
	e = cloud.Entry{ID: strconv.Itoa(d.ID), TTL: time.Duration(d.TTL) * time.Second}
	e.Record = cluster.Record{Name: strings.ToLower(d.Name), Type: d.Type, Value: d.Data}
	switch d.Type {
	case "A", "AAAA":
		a, err := netip.ParseAddr(d.Data)
		if err != nil {
			return cloud.Entry{}, false, fmt.Errorf("record %d is an %s of %q", d.ID, d.Type, oneLine(d.Data))
		}
		e.Value = a.String()
	case "MX":
		e.Pref = d.Priority
		if d.Data == "@" {
			e.Value = r.zone
		}
		e.Value = strings.TrimSuffix(strings.ToLower(e.Value), ".") + "."
	default:
		return cloud.Entry{}, false, nil
	}
	return e, true, nil
}

func edit(rec cluster.Record, ttl time.Duration) *godo.DomainRecordEditRequest {
	return &godo.DomainRecordEditRequest{Type: rec.Type, Name: rec.Name, Data: rec.Value, Priority: rec.Pref, TTL: int(ttl / time.Second)}
}

// Create adds a record with one POST. DigitalOcean keeps duplicates.
func (r *records) Create(ctx context.Context, rec cluster.Record, ttl time.Duration) (cloud.Entry, error) {
	d, _, err := r.client.api.Domains.CreateRecord(ctx, r.zone, edit(rec, ttl))
	if err != nil {
		return cloud.Entry{}, fmt.Errorf("add %s %s to %s: %w", rec.Type, rec.Name, r.zone, explain(err))
	}
	var e cloud.Entry
	var ours bool
	if d != nil {
		e, ours, err = r.entry(*d)
	}
	if err == nil && !ours {
		err = errors.New("the answer is about another record")
	}
	if err != nil {
		return cloud.Entry{}, fmt.Errorf("add %s %s to %s: %w", rec.Type, rec.Name, r.zone, err)
	}
	return e, nil
}

// Update overwrites all of a record with one PUT.
func (r *records) Update(ctx context.Context, e cloud.Entry) error {
	id, err := number(e.ID)
	if err == nil {
		_, _, err = r.client.api.Domains.EditRecord(ctx, r.zone, id, edit(e.Record, e.TTL))
	}
	if err != nil {
		return fmt.Errorf("change record %s of %s to %s %s: %w", e.ID, r.zone, e.Type, e.Name, explain(err))
	}
	return nil
}

// Delete removes a record.
func (r *records) Delete(ctx context.Context, id string) error {
	n, err := number(id)
	if err == nil {
		_, err = r.client.api.Domains.DeleteRecord(ctx, r.zone, n)
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove record %s of %s: %w", id, r.zone, explain(err))
	}
	return nil
}
