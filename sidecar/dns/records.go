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
func (z *Records) Update(ctx context.Context, change Change) error {
	if err := change.validate(); err != nil {
		return fmt.Errorf("publish records: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, z.cfg.Timeout)
	defer cancel()
	before, err := z.list(ctx, change.Own)
	if err != nil {
		return err
	}
	wrote, err := z.write(ctx, before, change.Want)
	if err != nil {
		return err
	}
	after := before
	if wrote {
		if after, err = z.list(ctx, change.Own); err != nil {
			return err
		}
	}
	extra, err := extras(after, change.Want)
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

// write makes every wanted record exist, and says whether it had to.
func (z *Records) write(ctx context.Context, have []cloud.Entry, want []cluster.Record) (wrote bool, err error) {
	free := replaceable(have, want)
	for _, w := range want {
		i := slices.IndexFunc(have, func(e cloud.Entry) bool { return e.Record == w })
		if i >= 0 && have[i].TTL == z.cfg.TTL {
			continue
		}
		wrote = true
		e := cloud.Entry{Record: w, TTL: z.cfg.TTL}
		same := func(o cloud.Entry) bool { return o.Name == w.Name && o.Type == w.Type }
		switch j := slices.IndexFunc(free, same); {
		case i >= 0:
			e.ID = have[i].ID
		case j >= 0:
			e.ID = free[j].ID
			free = slices.Delete(free, j, j+1)
		}
		if e.ID == "" {
			_, err = z.cfg.Records.Create(ctx, w, z.cfg.TTL)
		} else {
			err = z.cfg.Records.Update(ctx, e)
		}
		if err != nil {
			return wrote, err
		}
	}
	return wrote, nil
}

// replaceable are the entries that have to go, and so may be written over.
func replaceable(have []cloud.Entry, want []cluster.Record) []cloud.Entry {
	var all []cluster.Record
	for _, e := range have {
		all = append(all, e.Record)
	}
	gone := stale(all, want)
	return slices.DeleteFunc(slices.Clone(have), func(e cloud.Entry) bool { return !slices.Contains(gone, e.Record) })
}

// extras are the entries to remove: those that are not wanted, and of equal ones all but the first by the provider's order,
// which is the same for everybody, so that two writers never remove each other's. If a wanted record is not there, nothing
// is removed: somebody writes at the same time, or the list lags.
func extras(have []cloud.Entry, want []cluster.Record) ([]cloud.Entry, error) {
	kept := map[cluster.Record]bool{}
	extra := replaceable(have, want)
	for _, e := range have {
		if !slices.Contains(want, e.Record) {
			continue
		}
		if kept[e.Record] {
			extra = append(extra, e)
		}
		kept[e.Record] = true
	}
	for _, w := range want {
		if !kept[w] {
			return nil, fmt.Errorf("%s %s %s was written and is not listed: %w", w.Type, w.Name, w.Value, ErrRaced)
		}
	}
	return extra, nil
}
