package ledger

import (
	"context"
	"errors"
	"time"
)

// Store keeps small objects by key. Its methods may be called by several goroutines at once. Any error but those named
// below leaves open whether the call has happened: a later reading tells.
type Store interface {
	// Create writes an object that must not exist yet. ErrExists says that it has written nothing: somebody was first, or is
	// writing at this moment, which only a reading can tell apart. It is never repeated by itself.
	Create(ctx context.Context, key string, body []byte) (Meta, error)
	// Put writes an object, over an older one if there is one.
	Put(ctx context.Context, key string, body []byte) (Meta, error)
	// Get reads an object. ErrNotFound: the store has answered that there is none.
	Get(ctx context.Context, key string) ([]byte, Meta, error)
	// List returns all objects whose keys begin with prefix and lie behind after, in the order of their keys' bytes: all of
	// them, or an error.
	List(ctx context.Context, prefix, after string) ([]Object, Meta, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, key string) error
}

// ErrExists says that Create has written nothing, because of another object or another writer.
var ErrExists = errors.New("there is such an object already")

// ErrNotFound says that there is no object of that key.
var ErrNotFound = errors.New("there is no such object")

// Meta is what a store says beside an answer, by its own clock, never by ours.
type Meta struct {
	Date     time.Time // when it answered; zero: it did not say
	Modified time.Time // when the object was written; zero for an answer that is not about one object
}

// Age is how old the object was when the store answered, with both times from that one answer. It is zero if the store did
// not tell, and never below.
func (m Meta) Age() time.Duration {
	if m.Date.IsZero() || m.Modified.IsZero() {
		return 0
	}
	return max(0, m.Date.Sub(m.Modified))
}

// Object is one entry of a listing.
type Object struct {
	Key string
	Meta
}

// maxObject bounds an object's body, in bytes. Ours have a few hundred.
const maxObject = 64 << 10
