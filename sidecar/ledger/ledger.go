package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"

	"understudy/sidecar/cluster"
)

// Ledger reads and writes one cluster's records. Its methods may be called by several goroutines at once.
type Ledger struct {
	store   Store
	cluster string

	mu sync.Mutex
	// bodies are the newest records of each kind that have been read or written: they never change.
	bodies map[string][]byte // by key
	// newest is the highest number ever seen in this process under each key without its number.
	newest map[string]uint64
}

// New returns the ledger of a cluster, a DNS label, in a store. It asks nothing yet.
func New(store Store, cluster string) *Ledger {
	return &Ledger{store: store, cluster: cluster, bodies: map[string][]byte{}, newest: map[string]uint64{}}
}

// TakenError says that somebody else's record has the key, so ours was not written and never will be.
type TakenError struct {
	Key string
	By  string // the other's holder, machine or winner
}

// Error says who was first.
func (e *TakenError) Error() string { return fmt.Sprintf("%s is taken by %s", e.Key, e.By) }

// ForgottenError says that the store has lost what it had shown before: a restore from an old copy, another bucket, or a
// stale replica. Nothing it says of what exists can be believed.
type ForgottenError struct {
	Key          string // without the number
	Had, Answers uint64 // what was seen before, and what the store says now; zero: nothing
}

// Error says what is missing.
func (e *ForgottenError) Error() string {
	return fmt.Sprintf("the ledger has forgotten %s: it had %d and now ends at %d", e.Key, e.Had, e.Answers)
}

// WriteDuty writes the record of a duty's epoch. It returns nil also if the identical record is there, and a *TakenError if
// another one is. After any other error the record may have been written; writing it again is safe.
func (l *Ledger) WriteDuty(ctx context.Context, d cluster.DutyRecord) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeDuty(d.Duty, d.Epoch, body)
		return other.Holder, err
	}
	return create(ctx, l, duties, dutyName, d.Duty, d.Epoch, d, decoded)
}

// ClaimIdentity writes a claim. Errors are as for WriteDuty.
func (l *Ledger) ClaimIdentity(ctx context.Context, c cluster.Claim) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeClaim(c.Node, c.Epoch, body)
		return "machine " + other.Machine, err
	}
	return create(ctx, l, claims, nodeName, c.Node, c.Epoch, c, decoded)
}

// Tombstone makes the claim of a node's epoch void, for good. Errors are as for WriteDuty, but nobody can have taken it.
func (l *Ledger) Tombstone(ctx context.Context, node string, epoch uint64) error {
	decoded := func(body []byte) (string, error) {
		_, err := decode[tombstone](body)
		return "another text", err
	}
	return create(ctx, l, tombstones, nodeName, node, epoch, tombstone{node, epoch}, decoded)
}

// Leave says that the machine of a claim ends it by itself, and makes the claim void. It never claims the node again, and whoever finds both
// objects may delete it. The first of them alone says nothing, so a call that failed between the two can be repeated, or not. Errors are as
// of Tombstone.
func (l *Ledger) Leave(ctx context.Context, node string, epoch uint64) error {
	decoded := func(body []byte) (string, error) {
		_, err := decode[tombstone](body)
		return "another text", err
	}
	if err := create(ctx, l, left, nodeName, node, epoch, tombstone{node, epoch}, decoded); err != nil {
		return err
	}
	return l.Tombstone(ctx, node, epoch)
}

// ClaimTie writes a tie. Errors are as for WriteDuty.
func (l *Ledger) ClaimTie(ctx context.Context, t cluster.Tie) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeTie(t.N, body)
		return other.Winner, err
	}
	return create(ctx, l, ties, nil, "", t.N, t, decoded)
}

// create writes the n-th record of a name once. decoded reads whose record another body is, and refuses what is none.
func create[T any](ctx context.Context, l *Ledger, k kind, valid *regexp.Regexp, name string, n uint64, value T, decoded func([]byte) (string, error)) error {
	if valid != nil && !valid.MatchString(name) || n == 0 {
		return fmt.Errorf("write %s: %q cannot have number %d", k, name, n)
	}
	series := l.series(k, name)
	key := series + number(n)
	body, err := encode(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	if _, err := decoded(body); err != nil { // what nobody could read must not be written
		return fmt.Errorf("write %s: what is to be written %w", key, err)
	}
	_, err = l.store.Create(ctx, key, body)
	if errors.Is(err, ErrExists) {
		return l.whose(ctx, series, n, body, decoded)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	l.remember(series, n, body)
	return nil
}

// whose looks at the record that kept ours from being written: an earlier try of ours whose answer was lost looks the same
// as another's record until it is read.
func (l *Ledger) whose(ctx context.Context, series string, n uint64, ours []byte, decoded func([]byte) (string, error)) error {
	key := series + number(n)
	body, _, err := l.store.Get(ctx, key)
	if errors.Is(err, ErrNotFound) { // AWS answers 409 while another writer is at work, which may yet fail
		return fmt.Errorf("write %s: refused, though there is nothing yet: another writer is at work", key)
	}
	if err != nil {
		return fmt.Errorf("write %s: refused; read whose is there: %w", key, err)
	}
	if !bytes.Equal(body, ours) {
		by, err := decoded(body)
		if err != nil {
			return fmt.Errorf("write %s: refused, and what is there %w", key, err)
		}
		l.remember(series, n, body)
		return &TakenError{key, by}
	}
	l.remember(series, n, body)
	return nil
}

// series is the key of a numbered record without its number. name is empty for ties.
func (l *Ledger) series(k kind, name string) string {
	if name == "" {
		return l.cluster + "/" + string(k) + "/"
	}
	return l.cluster + "/" + string(k) + "/" + name + "/"
}

// remember keeps what is known to be in the store.
func (l *Ledger) remember(series string, n uint64, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n >= l.newest[series] {
		delete(l.bodies, series+number(l.newest[series]))
		l.newest[series] = n
		l.bodies[series+number(n)] = body
	}
}
