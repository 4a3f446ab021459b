package dns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

// RecordsConfig is a zone at a provider's records API.
type RecordsConfig struct {
	Records cloud.Records
	// Own are the names that Read asks for, relative to the zone.
	Own []string
	// TTL is that of the records we write, 30 s to a day. Zero: DefaultTTL.
	TTL time.Duration
	// Timeout is how long one Read or Update may take, all its requests together. Zero: one minute, because each record takes
	// a request of its own.
	Timeout time.Duration
}

// Records is a zone at a provider. It has no guard: two writers at once may both write, and the later one's records, or both
// writers' until one of them looks again, are what the zone says. Reading.Epoch is always zero.
type Records struct{ cfg RecordsConfig }

var _ Zone = (*Records)(nil)

// NewRecords checks the configuration and asks nothing yet.
func NewRecords(cfg RecordsConfig) (*Records, error) {
	ttl, err := checkTTL(cfg.TTL)
	errs := []error{err, checkNames(cfg.Own)}
	cfg.TTL = ttl
	if cfg.Records == nil {
		errs = append(errs, errors.New("no records API"))
	}
	if cfg.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout %v: must not be negative", cfg.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	return &Records{cfg}, nil
}

// Read lists the zone's records. Duplicates, which the API keeps, are shown once.
func (z *Records) Read(ctx context.Context) (Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, z.cfg.Timeout)
	defer cancel()
	r := Reading{Sent: boottime.Now()}
	found, err := z.list(ctx, z.cfg.Own)
	if err != nil {
		return Reading{}, err
	}
	for _, e := range found {
		r.Records = append(r.Records, e.Record)
	}
	r.Records = sorted(r.Records)
	return r, nil
}

// list returns the entries of the given names.
func (z *Records) list(ctx context.Context, names []string) ([]cloud.Entry, error) {
	found, err := z.cfg.Records.List(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(e cloud.Entry) bool { return !slices.Contains(names, e.Name) }), nil
}

// Update writes what is missing, over a record that has to go where there is one, and so without an instant in which the
// name has neither. Then it lists again, and only what the second list shows beside every record that is wanted is removed.
//
// Nothing but that order stands between two writers, so there is one rule more: of the records of a name and type, the one
// with the lowest ID is overwritten and never removed. Whoever removes a record has seen a lower one, so no two writers can
// remove each other's last.
func (z *Records) Update(ctx context.Context, change Change) error {
	if err := change.validate(); err != nil {
		return fmt.Errorf("publish records: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, z.cfg.Timeout)
	defer cancel()
	found, err := z.list(ctx, change.Own)
	if err != nil {
		return err
	}
	edits := planEdits(found, change.Want, z.cfg.TTL)
	for _, e := range edits {
		if e.ID == "" {
			_, err = z.cfg.Records.Create(ctx, e.Record, e.TTL)
		} else {
			err = z.cfg.Records.Update(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	if len(edits) > 0 {
		if found, err = z.list(ctx, change.Own); err != nil {
			return err
		}
	}
	extra, err := extras(found, change.Want)
	if err != nil {
		return err
	}
	for _, e := range extra {
		if err := z.cfg.Records.Delete(ctx, e.ID); err != nil {
			return err
		}
	}
	return nil
}

// rrset is the name and type that entries are replaced within: an entry cannot change its type.
type rrset struct{ name, kind string }

func setOf(r cluster.Record) rrset { return rrset{r.Name, r.Type} }

// planEdits returns the entries to write so that every wanted record exists and the first of each set is one; an entry without
// an ID is to be created. have is in the provider's order.
func planEdits(have []cloud.Entry, want []cluster.Record, ttl time.Duration) []cloud.Entry {
	sets := map[rrset][]cloud.Entry{}
	for _, e := range have {
		sets[setOf(e.Record)] = append(sets[setOf(e.Record)], e)
	}
	wanted := map[rrset][]cluster.Record{}
	var order []rrset
	for _, w := range want {
		if s := setOf(w); wanted[s] == nil {
			order = append(order, s)
		}
		wanted[setOf(w)] = append(wanted[setOf(w)], w)
	}
	var edits []cloud.Entry
	for _, s := range order {
		edits = append(edits, planSet(sets[s], wanted[s], ttl)...)
	}
	return edits
}

// planSet is planEdits for one set.
func planSet(have []cloud.Entry, want []cluster.Record, ttl time.Duration) []cloud.Entry {
	taken := make([]bool, len(have)) // entries that will say what is wanted
	var edits, missing []cloud.Entry
	for _, w := range want {
		e := cloud.Entry{Record: w, TTL: ttl}
		i := slices.IndexFunc(have, func(h cloud.Entry) bool { return h.Record == w })
		if i < 0 {
			missing = append(missing, e)
			continue
		}
		taken[i] = true
		if e.ID = have[i].ID; have[i].TTL != ttl {
			edits = append(edits, e)
		}
	}
	for _, e := range missing {
		if i := slices.Index(taken, false); i >= 0 { // not wanted, or a second time what another entry says
			taken[i] = true
			e.ID = have[i].ID
		}
		edits = append(edits, e)
	}
	if len(have) > 0 && !taken[0] { // all that is wanted is there, behind one that has to go
		edits = append(edits, cloud.Entry{ID: have[0].ID, Record: want[0], TTL: ttl})
	}
	return edits
}

// extras are the entries to remove: those that are not wanted, and of equal ones all but the first. If a wanted record is not
// there, or a set that is wanted does not begin with one, nothing is removed: somebody else writes, or the list lags.
func extras(have []cloud.Entry, want []cluster.Record) ([]cloud.Entry, error) {
	var all []cluster.Record
	for _, e := range have {
		all = append(all, e.Record)
	}
	gone := stale(all, want)
	var extra []cloud.Entry
	first, kept := map[rrset]cluster.Record{}, map[cluster.Record]bool{}
	for _, e := range have {
		if _, ok := first[setOf(e.Record)]; !ok {
			first[setOf(e.Record)] = e.Record
		}
		switch {
		case slices.Contains(gone, e.Record), kept[e.Record]:
			extra = append(extra, e)
		default:
			kept[e.Record] = slices.Contains(want, e.Record)
		}
	}
	for _, w := range want {
		if !kept[w] || !slices.Contains(want, first[setOf(w)]) {
			return nil, fmt.Errorf("%s %s is not what was written: %w", w.Type, w.Name, ErrRaced)
		}
	}
	return extra, nil
}
