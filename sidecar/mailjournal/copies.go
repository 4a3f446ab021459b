package mailjournal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// ErrNoHolder: nobody could be reached who would take the second copy.
var ErrNoHolder = errors.New("no other machine takes the second copy")

// Copies puts the second copy of each entry on one of the other members, and remembers which.
type Copies struct {
	// Holders returns who may hold a copy now, the best first: the role's other node, then any live member.
	Holders func() []string
	// Dial connects to a member's holder, over mutual TLS.
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// Epoch is the duty's epoch that this node holds.
	Epoch    func() uint64
	Sealer   *Sealer
	MaxEntry int64 // as in Options
	// Try is how long one holder may take before the next is asked. Zero: 2 s.
	Try time.Duration
	Log *slog.Logger

	mu    sync.Mutex
	links map[string]*Link
	at    map[ID]string
}

// Append returns nil once one holder has e. It asks one after the other; ErrDeposed from any ends that.
func (c *Copies) Append(ctx context.Context, e Entry) error {
	var errs []error
	for _, node := range c.Holders() {
		err := c.with(ctx, node, func(ctx context.Context, l *Link) error { return l.Append(ctx, e) })
		if err == nil {
			if len(errs) == 0 { // otherwise another may have it as well, so all will be told when it is closed
				c.note(e.ID, node)
			}
			return nil
		}
		if errors.Is(err, ErrDeposed) || ctx.Err() != nil {
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", node, err))
	}
	return errors.Join(append([]error{ErrNoHolder}, errs...)...)
}

func (c *Copies) note(id ID, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == nil {
		c.at = make(map[ID]string)
	}
	c.at[id] = node
}

// Finish closes the entry wherever it may be: at the holder that is known to have it, after a restart at all. It must be
// repeated after an error. A member that is none any more need not be told: its copies are never asked for again.
func (c *Copies) Finish(ctx context.Context, id ID, how How) error {
	c.mu.Lock()
	node, known := c.at[id]
	c.mu.Unlock()
	var errs []error
	for _, holder := range c.Holders() {
		if known && holder != node {
			continue
		}
		if err := c.with(ctx, holder, func(ctx context.Context, l *Link) error { return l.Finish(ctx, c.Epoch(), id, how) }); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", holder, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.at, id)
	return nil
}

// with calls do with a link to node, and gives the link up if it is the stream that failed.
func (c *Copies) with(ctx context.Context, node string, do func(context.Context, *Link) error) error {
	ctx, cancel := context.WithTimeout(ctx, nonZero(c.Try, 2*time.Second))
	defer cancel()
	link, err := c.link(ctx, node)
	if err != nil {
		return err
	}
	err = do(ctx, link)
	// A holder that does not answer in time is dialled anew: the stream may lead to a machine that is gone.
	if errors.Is(err, errHungUp) || errors.Is(err, errProtocol) || errors.Is(err, context.DeadlineExceeded) {
		c.drop(node, link)
	}
	return err
}

func (c *Copies) link(ctx context.Context, node string) (*Link, error) {
	c.mu.Lock()
	link := c.links[node]
	c.mu.Unlock()
	if link != nil {
		return link, nil
	}
	conn, err := c.Dial(ctx, node)
	if err != nil {
		return nil, err
	}
	// The greeting has a time limit of its own; a shorter one of the caller's ends it as well.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	link, err = NewLink(conn, c.Sealer, c.MaxEntry)
	if !stop() && err == nil {
		link.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	other := c.links[node]
	if other == nil {
		if c.links == nil {
			c.links = make(map[string]*Link)
		}
		c.links[node] = link
	}
	c.mu.Unlock()
	if other != nil { // somebody was faster
		link.Close()
		return other, nil
	}
	c.Log.Info("second copies of mail go to this member too", "node", node)
	return link, nil
}

func (c *Copies) drop(node string, link *Link) {
	c.mu.Lock()
	mine := c.links[node] == link
	if mine {
		delete(c.links, node)
	}
	c.mu.Unlock()
	if mine {
		link.Close()
		c.Log.Warn("the stream for second copies of mail has ended", "node", node)
	}
}

// Close hangs up.
func (c *Copies) Close() error {
	c.mu.Lock()
	links := c.links
	c.links = nil
	c.mu.Unlock()
	for _, link := range links {
		link.Close()
	}
	return nil
}

// Ready returns the first holder that answers, and has told it of the epoch: so it would take a copy now, unless it is full.
// The error is ErrNoHolder with what each said, or ErrDeposed.
func (c *Copies) Ready(ctx context.Context) (node string, err error) {
	errs := []error{ErrNoHolder}
	for _, node := range c.Holders() {
		err := c.with(ctx, node, c.tell)
		if err == nil {
			return node, nil
		}
		if errors.Is(err, ErrDeposed) || ctx.Err() != nil {
			return "", err
		}
		errs = append(errs, fmt.Errorf("%s: %w", node, err))
	}
	return "", errors.Join(errs...)
}

// tell lets a holder know the epoch, by closing an entry that nobody has.
func (c *Copies) tell(ctx context.Context, l *Link) error {
	return l.Finish(ctx, c.Epoch(), NewID(), Refused)
}

// Collect brings the open entries of all holders into the journal: the first act of a new primary. own is this node's
// holder; nil if it has none. What cannot be read or reached is in the error, and does not keep the rest from being
// collected: call it again until the error is nil, or the member that is away has been replaced. It returns the IDs that
// are to be re-injected, oldest first: everything open in the journal.
func (c *Copies) Collect(ctx context.Context, own *Holder, journal *Journal) ([]ID, error) {
	var errs []error
	if own != nil {
		_, err := c.CollectOwn(ctx, own, journal, c.Epoch())
		errs = append(errs, err)
	}
	for _, node := range c.Holders() {
		_, err := c.CollectFrom(ctx, node, journal, c.Epoch())
		errs = append(errs, err)
	}
	var ids []ID
	for _, m := range journal.Pending() {
		ids = append(ids, m.ID)
	}
	return slices.Clip(ids), errors.Join(errs...)
}

// CollectOwn brings what this node holds for primaries of epochs below before, and returns what the journal did not know.
// It is whole when the error is nil. The copies stay open in the holder, which is to be told when an entry is closed.
func (c *Copies) CollectOwn(ctx context.Context, own *Holder, journal *Journal, before uint64) (news []ID, err error) {
	var errs []error
	for _, m := range own.Pending() {
		if m.Epoch >= before {
			continue
		}
		known := journal.knows(m.ID)
		e, err := own.Read(c.Sealer, m.ID)
		if err == nil {
			// The machine it came from may be gone, so this one would have both copies.
			err = c.adopt(ctx, journal, e, c)
		}
		if !known && journal.knows(m.ID) { // further copy or not: it must be delivered
			news = append(news, m.ID)
		}
		if err != nil && !errors.Is(err, ErrUnknown) {
			errs = append(errs, fmt.Errorf("collect mail held here: %w", err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return news, errors.Join(errs...)
}

// appender takes a further copy of what is collected. Nil: there is one already, where it came from.
type appender interface {
	Append(ctx context.Context, e Entry) error
}

func (c *Copies) adopt(ctx context.Context, journal *Journal, e Entry, further appender) error {
	e.Epoch, e.Queue = c.Epoch(), "" // it is this primary's now, whom holders listen to, and in no queue of this machine
	if err := journal.Append(ctx, e); err != nil {
		return err
	}
	if further == nil {
		return nil
	}
	return further.Append(ctx, e)
}

// CollectFrom is CollectOwn of another member. That member hears of the epoch first, so that a deposed primary cannot leave
// there what would be collected by nobody. What is of a later epoch is this primary's own, and may be on its way.
func (c *Copies) CollectFrom(ctx context.Context, node string, journal *Journal, before uint64) (news []ID, err error) {
	var list []Meta
	err = c.with(ctx, node, func(ctx context.Context, l *Link) (err error) {
		if err := c.tell(ctx, l); err != nil {
			return err
		}
		list, err = l.Pending(ctx)
		return err
	})
	var errs []error
	for _, m := range list {
		if m.Epoch >= before || journal.knows(m.ID) {
			continue
		}
		var e Entry
		err := c.with(ctx, node, func(ctx context.Context, l *Link) (err error) {
			e, err = l.Read(ctx, m.ID)
			return err
		})
		if err == nil {
			err = c.adopt(ctx, journal, e, nil)
		}
		if err == nil {
			news = append(news, m.ID)
		} else if !errors.Is(err, ErrUnknown) {
			errs = append(errs, err)
		}
		if errors.Is(err, errHungUp) || ctx.Err() != nil {
			break
		}
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return news, fmt.Errorf("collect mail from %s: %w", node, err)
	}
	return news, nil
}
