//go:build linux

package datasync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"understudy/sidecar/datasync/delta"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/datasync/wire"
)

// inbox holds what the mirror has answered. It takes everything at once, so that the mirror never waits for a source that is writing; what
// it can hold is bounded by what was asked.
type inbox struct {
	news chan struct{} // has one element after something has come

	mu        sync.Mutex
	first     wire.Message // the mirror's Hello, then its Accept
	asked     int          // directories that have not begun to come
	children  []listing
	signature []byte
	signed    bool // the signature is whole
	durable   uint64
	failed    []wire.Failed
	err       error
}

// listing is one directory of the mirror.
type listing struct {
	path     string
	children []tree.Child
	whole    bool
}

func newInbox() *inbox { return &inbox{news: make(chan struct{}, 1)} }

// fill reads until the connection ends, and returns why.
func (in *inbox) fill(r *wire.Reader) error {
	for {
		m, err := r.Read()
		if err == nil {
			err = in.take(m)
		} else {
			err = fmt.Errorf("hear the mirror: %w", err)
		}
		in.mu.Lock()
		in.err = err
		in.mu.Unlock()
		select {
		case in.news <- struct{}{}:
		default:
		}
		if err != nil {
			return err
		}
	}
}

func (in *inbox) take(m wire.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch m := m.(type) {
	case *wire.Hello, *wire.Accept:
		if in.first != nil {
			return unexpected(m)
		}
		in.first = m
	case *wire.Refusal:
		return unexpected(m)
	case *wire.Children:
		if n := len(in.children); n == 0 || in.children[n-1].whole {
			if in.asked--; in.asked < 0 {
				return fmt.Errorf("%w: %q was not asked for", wire.ErrMalformed, m.Path)
			}
			in.children = append(in.children, listing{path: m.Path})
		}
		l := &in.children[len(in.children)-1]
		if n := len(l.children); l.path != m.Path || n > 0 && len(m.Children) > 0 && l.children[n-1].Name >= m.Children[0].Name {
			return fmt.Errorf("%w: the names in %q go on with others", wire.ErrMalformed, l.path)
		}
		l.children, l.whole = append(l.children, m.Children...), m.Last
	case *wire.Data:
		if in.signed || len(in.signature)+len(m.Bytes) > delta.MaxSignature {
			return fmt.Errorf("%w: a signature that was not asked for, or is too long", wire.ErrMalformed)
		}
		in.signature, in.signed = append(in.signature, m.Bytes...), len(m.Bytes) == 0
	case *wire.Durable:
		in.durable = max(in.durable, m.Seq)
	case *wire.Failed:
		in.failed = append(in.failed, *m)
	default:
		return unexpected(m)
	}
	return nil
}

// await waits until take, which is called with the inbox locked, has found what it wants.
func (in *inbox) await(ctx context.Context, take func() bool) error {
	for {
		in.mu.Lock()
		found, err := take(), in.err
		in.mu.Unlock()
		if found {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-in.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// opening waits for the mirror's Hello or Accept.
func opening[M wire.Message](ctx context.Context, in *inbox) (m M, err error) {
	err = in.await(ctx, func() bool {
		if in.first == nil {
			return false
		}
		var ok bool
		if m, ok = in.first.(M); !ok {
			in.err = errors.Join(in.err, unexpected(in.first))
			return false
		}
		in.first = nil
		return true
	})
	return m, err
}

// listed waits for the next directory that was asked for.
func (in *inbox) listed(ctx context.Context) (l listing, err error) {
	err = in.await(ctx, func() bool {
		if len(in.children) == 0 || !in.children[0].whole {
			return false
		}
		l = in.children[0]
		in.children = slices.Delete(in.children, 0, 1)
		return true
	})
	return l, err
}

// signatureOf waits for the signature that was asked for; none: the mirror has no such file.
func (in *inbox) signatureOf(ctx context.Context) (body []byte, err error) {
	err = in.await(ctx, func() bool {
		if !in.signed {
			return false
		}
		body, in.signature, in.signed = in.signature, nil, false
		return true
	})
	return body, err
}

// ask notes that a directory has been asked for.
func (in *inbox) ask() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.asked++
}

// done takes what is durable and what has failed.
func (in *inbox) done() (durable uint64, failed []wire.Failed) {
	in.mu.Lock()
	defer in.mu.Unlock()
	durable, failed = in.durable, in.failed
	in.failed = nil
	return durable, failed
}
