// Package cloud says, in our nouns, what the sidecar asks of a hosting provider: which machines there are, who holds a
// reserved address, which records a zone has. One package below it per provider does the asking.
//
// A Provider reports what the provider said and judges nothing. It never takes an error, or an answer that cannot be true,
// for an empty one: external-dns users lost whole zones that way. It repeats no request by itself, because a repeated POST is
// a second machine or a second record; whoever calls decides when to ask again. An error of a changing call means that the
// change may have happened, unless the error's own comment says that it has not.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"understudy/sidecar/cluster"
)

// Provider is a hosting provider's API, seen from one cluster. Its methods may be called concurrently; each request has a
// timeout of its own besides the context's.
type Provider interface {
	// List returns every machine that carries the cluster's tag, from all pages, sorted by ID, or an error. Lists may lag: a
	// new machine may be missing and a destroyed one still there, so absence is proven by Get alone.
	List(ctx context.Context) ([]cluster.Machine, error)
	// Get asks for one machine by its ID, whatever its tags are. PowerGone and no error: the provider says that there is none.
	// A refusal that may mean something else, such as a proxy's 404, is an error.
	Get(ctx context.Context, id string) (cluster.Machine, error)
	// Create asks for a machine and returns what the provider says it will be, or an error. ErrNoRoom, ErrLimit, ErrDenied,
	// ErrRefused and a *RateLimitedError say that there will be none; after any other error there may be one, which a list shows
	// after a while. It asks again only for another size, and only after ErrNoRoom.
	Create(ctx context.Context, h Hiring) (cluster.Machine, error)
	// Delete deletes a machine that is off, by its ID; one that is gone is no error. It reads the machine right before, and
	// returns ErrNotOurs for one that is called otherwise or has not the cluster's tag, ErrRunning for one that is not off.
	Delete(ctx context.Context, id, name string) error
	// PowerOff asks to cut a machine's power and returns when that is accepted; Get tells when it is off. It does nothing for
	// a machine that is off already. It reads the machine right before, and returns ErrNotOurs for one that is called otherwise or
	// has not the cluster's tag, ErrGone for none.
	PowerOff(ctx context.Context, id, name string) error
	// AssignAddress asks to give a reserved address to a machine, away from whoever holds it, and returns when that is
	// accepted; Holder tells when it has happened. It does nothing if the machine is the settled holder already. ErrGone: no
	// such machine. ErrHolds: the machine has another address, and may have only one.
	AssignAddress(ctx context.Context, ip netip.Addr, id string) error
	// Holder reads who has a reserved address. An address that is not the account's is an error.
	Holder(ctx context.Context, ip netip.Addr) (cluster.AddressHolder, error)
	// Records is the zone's records API. It asks nothing yet.
	Records(zone string) Records
}

// Hiring is what a new machine shall be. The cluster's tag is added to Tags.
type Hiring struct {
	Name     string
	Tags     []string
	Region   string
	Sizes    []string // the preferred first; the next is tried where the provider has no room for one
	Image    string   // slug, ID or name
	SSHKeys  []string // names
	UserData string
}

// Records is a provider's list of a zone's DNS records. It has no compare-and-set: two writers overwrite each other.
type Records interface {
	// List returns the records of the types that cluster.Record knows, all others left out, sorted by ID. A zone that is not
	// there, or looks as no zone can, is an error.
	List(ctx context.Context) ([]Entry, error)
	// Create adds a record, even where there is an equal one.
	Create(ctx context.Context, r cluster.Record, ttl time.Duration) (Entry, error)
	// Update overwrites a record in place: there is no instant with neither. ErrGone: there is no such record.
	Update(ctx context.Context, e Entry) error
	// Delete removes a record; one that is gone already is no error.
	Delete(ctx context.Context, id string) error
}

// Entry is a record and what the provider calls it.
type Entry struct {
	ID string
	cluster.Record
	TTL time.Duration
}

// Refusals that a caller acts upon. None of them has changed anything.
var (
	// ErrPending: another action on the same machine or address is under way. It clears by itself.
	ErrPending = errors.New("the provider is still busy with an earlier action")
	// ErrGone: the provider says that what is to be changed does not exist.
	ErrGone = errors.New("the provider knows no such thing")
	// ErrNotOurs: the machine does not carry the cluster's tag.
	ErrNotOurs = errors.New("the machine does not carry the cluster's tag")
	// ErrHolds: the machine has another reserved address already.
	ErrHolds = errors.New("the machine has another reserved address")
	// ErrNoRoom: the provider has no such size in the region, now or at all.
	ErrNoRoom = errors.New("the provider has no room for such a machine")
	// ErrLimit: the account may not have more machines. It takes a human.
	ErrLimit = errors.New("the account may not have more machines")
	// ErrRefused: the request is one that the provider does not accept. It takes a human.
	ErrRefused = errors.New("the provider refuses it")
	// ErrRunning: the machine is not off.
	ErrRunning = errors.New("the machine is not off")
	// ErrDenied: the token is not valid, or may not do this. It takes a human.
	ErrDenied = errors.New("the provider denies it")
)

// Refused says of Create's error that there will be no machine.
func Refused(err error) bool {
	_, limited := errors.AsType[*RateLimitedError](err)
	return limited || errors.Is(err, ErrNoRoom) || errors.Is(err, ErrLimit) || errors.Is(err, ErrDenied) || errors.Is(err, ErrRefused)
}

// RateLimitedError is a refusal because of too many requests. Nothing was changed.
type RateLimitedError struct {
	// RetryAfter is how long the provider asks to wait. Zero: it does not say.
	RetryAfter time.Duration
}

func (e *RateLimitedError) Error() string {
	if e.RetryAfter == 0 {
		return "the provider wants fewer requests"
	}
	return fmt.Sprintf("the provider wants fewer requests: again in %v", e.RetryAfter)
}
