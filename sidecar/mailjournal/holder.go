package mailjournal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Holder keeps second copies, which it cannot read, for whichever node is primary. Any live member may be one. An entry
// is named by its ID alone, so it does not matter from whom it came, nor who closes it after a failover.
type Holder struct {
	store *store
	// inFlight bounds the memory of requests that are read and not yet answered, over all streams.
	inFlight *semaphore.Weighted
}

const (
	// maxConcurrent is how many requests of one stream are worked on at a time.
	maxConcurrent = 256
	// answerWithin is how long the other side may take to read an answer before the stream is given up.
	answerWithin = 10 * time.Second
)

// OpenHolder recovers the copies in o.Dir, as Open does.
func OpenHolder(o Options) (*Holder, error) {
	s, err := openStore(o)
	if err != nil {
		return nil, err
	}
	return &Holder{store: s, inFlight: semaphore.NewWeighted(s.frameLimit() * 2)}, nil
}

// frameLimit is the largest body of a frame.
func (s *store) frameLimit() int64 { return s.o.MaxEntry + overhead }

// Close ends the holder. End all Serve before.
func (h *Holder) Close() error { return h.store.close() }

// Raise tells of an epoch that was heard of elsewhere: granted to somebody, or read in the ledger. The caller keeps it on
// disk; the holder itself remembers only the epochs of what it holds. Call it before Serve after a start.
func (h *Holder) Raise(epoch uint64) { h.store.raise(epoch) }

// Pending returns the open entries, oldest first.
func (h *Holder) Pending() []Meta { return h.store.pending() }

// Finish closes a copy that this node, primary now, has collected itself. Nil if it was never here.
func (h *Holder) Finish(ctx context.Context, id ID, how How) error {
	return h.store.put(ctx, record{how: how, id: id, epoch: h.store.highest()})
}

// Damage returns what OpenHolder could not read.
func (h *Holder) Damage() []Damage { return h.store.damage }

// Read decrypts an open entry; ErrUnknown if it is not open.
func (h *Holder) Read(sealer *Sealer, id ID) (Entry, error) {
	r, err := h.store.get(id)
	if err != nil {
		return Entry{}, err
	}
	return sealer.open(r)
}

// Serve answers one primary until it hangs up (nil) or ctx ends. The caller has made sure who that is: a member, by its
// certificate. Serve closes conn.
func (h *Holder) Serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := bufio.NewReaderSize(conn, 64<<10)
	if err := greet(conn, in); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(maxConcurrent)
	err := h.answerAll(ctx, in, &answers{conn: conn}, &g)
	conn.Close() // who still has something to say need not wait for the other side to read it
	if failed := g.Wait(); err == nil {
		err = failed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (h *Holder) answerAll(ctx context.Context, in *bufio.Reader, out *answers, g *errgroup.Group) error {
	for {
		f, err := readFrame(in, h.store.frameLimit())
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		weight := int64(len(f.body)) + overhead
		if err := h.inFlight.Acquire(ctx, weight); err != nil {
			return err
		}
		work := h.begin(ctx, f)
		g.Go(func() error {
			defer h.inFlight.Release(weight)
			reply, err := work()
			if errors.Is(err, errProtocol) {
				out.conn.Close() // what else it says cannot be trusted either
				return err
			}
			if err != nil {
				reply = refusedFrame(err)
			}
			reply.number = f.number
			return out.send(reply)
		})
	}
}

// begin takes a request on, in the order of the stream: whoever gives an append up and closes the entry must not find it
// open afterwards. What it returns does the rest, in any order.
func (h *Holder) begin(ctx context.Context, f frame) func() (frame, error) {
	if f.kind != kindAppend && f.kind != kindFinish {
		return func() (frame, error) { return h.look(f) }
	}
	req, err := h.change(ctx, f)
	return func() (frame, error) {
		if err != nil {
			return frame{}, err
		}
		return frame{kind: kindDone}, h.store.wait(ctx, req)
	}
}

func (h *Holder) change(ctx context.Context, f frame) (request, error) {
	r, err := f.record()
	if err != nil {
		return request{}, err
	}
	if known := h.store.raise(r.epoch); r.epoch < known {
		return request{}, fmt.Errorf("%w: %d, it asked in %d", ErrDeposed, known, r.epoch)
	}
	return h.store.ask(ctx, r)
}

func (h *Holder) look(f frame) (frame, error) {
	if f.kind != kindList && f.kind != kindFetch {
		return frame{}, fmt.Errorf("%w: frame %d is no request", errProtocol, f.kind)
	}
	id, err := f.id()
	if err != nil {
		return frame{}, err
	}
	if f.kind == kindList {
		return listedFrame(listFrom(h.store.pending(), id)), nil
	}
	r, err := h.store.get(id)
	return recordFrame(kindFetched, r), err
}

// listFrom returns the first maxListed entries behind an ID, by ID: what is appended or closed meanwhile moves no page.
func listFrom(list []Meta, from ID) []Meta {
	slices.SortFunc(list, func(a, b Meta) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	i, _ := slices.BinarySearchFunc(list, from, func(m Meta, id ID) int {
		if m.ID == id {
			return -1
		}
		return bytes.Compare(m.ID[:], id[:])
	})
	return list[i:min(len(list), i+maxListed)]
}

// answers is the way back, one frame at a time.
type answers struct {
	mu   sync.Mutex
	conn net.Conn
}

func (a *answers) send(f frame) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.conn.SetWriteDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	_, err := a.conn.Write(f.encode())
	if err != nil {
		a.conn.Close() // half a frame may have gone
	}
	return err
}

// greet exchanges hellos.
func greet(conn net.Conn, in io.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := io.WriteString(conn, hello)
		return err
	})
	heard := make([]byte, len(hello))
	_, err := io.ReadFull(in, heard)
	if err != nil {
		conn.Close()
	}
	if err := errors.Join(err, g.Wait()); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	if string(heard) != hello {
		return fmt.Errorf("%w: it says %q, want %q; are both of the same release?", errProtocol, heard, hello)
	}
	return conn.SetDeadline(time.Time{})
}
