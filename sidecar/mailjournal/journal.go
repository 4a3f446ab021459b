package mailjournal

import (
	"bytes"
	"cmp"
	"context"
)

// Journal is the primary's own copy. Any number of goroutines may use it.
type Journal struct{ store *store }

// Open recovers the journal in o.Dir, or begins one. See Damage for what could not be read.
func Open(o Options) (*Journal, error) {
	s, err := openStore(o)
	if err != nil {
		return nil, err
	}
	return &Journal{s}, nil
}

// Close ends the journal after what has been asked of it is done.
func (j *Journal) Close() error { return j.store.close() }

// Append returns nil once e lies on the disk, synced; repeated, it changes nothing, nor does it open a closed entry again.
// ErrFull, ErrTooLarge: nothing was written. After other errors e may be in the journal: Finish it as Refused.
func (j *Journal) Append(ctx context.Context, e Entry) error {
	return j.store.put(ctx, e.record())
}

func (e Entry) record() record {
	return record{epoch: e.Epoch, id: e.ID, at: e.Time.UnixNano(), body: e.encode()}
}

// Finish closes the entry, durably. An entry that is not open is none of its business: nil.
func (j *Journal) Finish(ctx context.Context, id ID, how How) error {
	return j.store.put(ctx, record{how: how, id: id, epoch: j.store.highest()})
}

// knows reports whether there is such an entry, open or closed not long ago.
func (j *Journal) knows(id ID) bool {
	j.store.mu.Lock()
	defer j.store.mu.Unlock()
	_, ok := j.store.places[id]
	return ok
}

// Pending returns the open entries, oldest first.
func (j *Journal) Pending() []Meta { return j.store.pending() }

// Read returns an open entry; ErrUnknown if it is not open.
func (j *Journal) Read(id ID) (Entry, error) {
	r, err := j.store.get(id)
	if err != nil {
		return Entry{}, err
	}
	return decodeEntry(r.meta(), r.body)
}

// Damage returns what Open could not read.
func (j *Journal) Damage() []Damage { return j.store.damage }

func compareMeta(a, b Meta) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), a.Time.Compare(b.Time), bytes.Compare(a.ID[:], b.ID[:]))
}
