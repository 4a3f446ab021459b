package mailjournal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Link is a primary's stream to one holder. Any number of goroutines may use it; their requests do not wait for each
// other's answers. After an error of the stream every call fails: dial again.
type Link struct {
	conn   net.Conn
	sealer *Sealer
	limit  int64
	out    chan frame
	group  *errgroup.Group
	ended  <-chan struct{}

	mu      sync.Mutex
	number  uint64
	waiting map[uint64]chan frame
	why     error
}

// NewLink greets the holder at the other end of conn, which it closes with the link. MaxEntry is as in Options: equal on
// both sides. Zero: 64 MiB.
func NewLink(conn net.Conn, sealer *Sealer, maxEntry int64) (*Link, error) {
	in := bufio.NewReaderSize(conn, 64<<10)
	if err := greet(conn, in); err != nil {
		conn.Close()
		return nil, err
	}
	group, ctx := errgroup.WithContext(context.Background())
	l := &Link{conn: conn, sealer: sealer, limit: nonZero(maxEntry, 64<<20) + overhead, out: make(chan frame), group: group, ended: ctx.Done(),
		waiting: make(map[uint64]chan frame)}
	context.AfterFunc(ctx, func() { conn.Close() })
	group.Go(func() error { return l.fail(l.receive(in)) })
	group.Go(func() error { return l.fail(l.send()) })
	return l, nil
}

// Close hangs up and waits until nothing of the link runs any more. Calls in flight fail.
func (l *Link) Close() error {
	l.conn.Close()
	l.group.Wait() // always an error: that of the stream, which the callers were told
	return nil
}

var errHungUp = errors.New("the stream to the second holder has ended")

// fail notes why the link ended, first come, and makes the other goroutine end too.
func (l *Link) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == nil {
		l.why = errors.Join(errHungUp, err)
	}
	return l.why
}

func (l *Link) receive(in *bufio.Reader) error {
	for {
		f, err := readFrame(in, max(l.limit, maxListed*listedEntry))
		if err != nil {
			return err
		}
		l.mu.Lock()
		answer, ok := l.waiting[f.number]
		delete(l.waiting, f.number)
		l.mu.Unlock()
		if ok { // otherwise its caller has gone
			answer <- f
		}
	}
}

func (l *Link) send() error {
	for {
		select {
		case f := <-l.out:
			if err := l.conn.SetWriteDeadline(time.Now().Add(answerWithin)); err != nil {
				return err
			}
			if _, err := l.conn.Write(f.encode()); err != nil {
				return err
			}
		case <-l.ended:
			return errHungUp
		}
	}
}

// ask sends a request and waits for its answer. After an error other than a refusal it may have been done.
func (l *Link) ask(ctx context.Context, f frame, want kind) (frame, error) {
	answer := make(chan frame, 1)
	l.mu.Lock()
	l.number++
	f.number = l.number
	l.waiting[f.number] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, f.number)
	}()
	select {
	case l.out <- f:
	case <-l.ended:
		return frame{}, l.reason()
	case <-ctx.Done():
		return frame{}, ctx.Err()
	}
	select {
	case got := <-answer:
		switch got.kind {
		case want:
			return got, nil
		case kindRefused:
			return frame{}, got.refusal()
		}
		l.conn.Close()
		return frame{}, fmt.Errorf("%w: frame %d answers frame %d", errProtocol, got.kind, f.kind)
	case <-l.ended:
		return frame{}, l.reason()
	case <-ctx.Done():
		return frame{}, ctx.Err()
	}
}

func (l *Link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return nonZero(l.why, errHungUp)
}

// Append returns nil once e lies sealed on the holder's disk, synced. ErrDeposed, ErrFull and ErrTooLarge are the holder's
// refusals; after other errors it may have it. Repeated, it changes nothing.
func (l *Link) Append(ctx context.Context, e Entry) error {
	r := l.sealer.seal(e.record())
	if int64(len(r.body)) > l.limit-recordBound {
		return fmt.Errorf("%w (%d bytes)", ErrTooLarge, len(r.body))
	}
	_, err := l.ask(ctx, recordFrame(kindAppend, r), kindDone)
	return err
}

// Finish closes an entry, in the name of the primary of that epoch.
func (l *Link) Finish(ctx context.Context, epoch uint64, id ID, how How) error {
	_, err := l.ask(ctx, recordFrame(kindFinish, record{how: how, epoch: epoch, id: id}), kindDone)
	return err
}

// Pending returns the holder's open entries, by ID.
func (l *Link) Pending(ctx context.Context) (list []Meta, err error) {
	for from := (ID{}); ; {
		got, err := l.ask(ctx, frame{kind: kindList, body: from[:]}, kindListed)
		if err != nil {
			return nil, err
		}
		page, err := got.listed()
		if err != nil {
			return nil, err
		}
		list = append(list, page...)
		if len(page) < maxListed {
			return list, nil
		}
		last := page[len(page)-1].ID
		if last == from {
			return nil, fmt.Errorf("%w: its list does not end", errProtocol)
		}
		from = last
	}
}

// Read fetches and decrypts an open entry; ErrUnknown if it is not open there.
func (l *Link) Read(ctx context.Context, id ID) (Entry, error) {
	got, err := l.ask(ctx, frame{kind: kindFetch, body: id[:]}, kindFetched)
	if err != nil {
		return Entry{}, err
	}
	r, err := got.record()
	if err != nil {
		return Entry{}, err
	}
	if r.id != id {
		return Entry{}, fmt.Errorf("%w: asked for %v, got %v", errProtocol, id, r.id)
	}
	return l.sealer.open(r)
}
