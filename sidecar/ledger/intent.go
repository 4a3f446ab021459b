package ledger

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cluster"
)

// The objects of replacements. An intent is followed by its call, at most one, and by its closing, exactly one.
const (
	intents  kind = "intents"
	calls    kind = "calls"
	closings kind = "closed"
)

// hiredFor is how far back Reading.Hired looks.
const hiredFor = 24 * time.Hour

var nonce = regexp.MustCompile(`^[0-9a-f]{32}$`)

// WriteIntent writes that a node shall get a new machine. Errors are as for WriteDuty.
func (l *Ledger) WriteIntent(ctx context.Context, i cluster.Intent) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeIntent(i.Node, i.N, body)
		return other.By, err
	}
	return create(ctx, l, intents, nodeName, i.Node, i.N, i, decoded)
}

// WriteCall writes that the provider is about to be asked for an intent's machine. Only whoever gets nil asks, and only once. So,
// other than for WriteDuty, an error says that one must not ask: c.Mark must be another one in each try.
func (l *Ledger) WriteCall(ctx context.Context, c cluster.Call) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeCall(c.Node, c.N, body)
		return other.By, err
	}
	return create(ctx, l, calls, nodeName, c.Node, c.N, c, decoded)
}

// WriteClosing writes how a replacement ended. Errors are as for WriteDuty.
func (l *Ledger) WriteClosing(ctx context.Context, c cluster.Closing) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeClosing(c.Node, c.N, body)
		return other.By, err
	}
	return create(ctx, l, closings, nodeName, c.Node, c.N, c, decoded)
}

func decodeIntent(node string, n uint64, body []byte) (cluster.Intent, error) {
	i, err := decode[cluster.Intent](body)
	if err == nil && (i.Node != node || i.N != n || !nonce.MatchString(i.Nonce) || !nodeName.MatchString(i.By) || i.Try < 1 ||
		(i.Replaces == 0) != (i.Machine == "")) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.Intent{}, err
	}
	return i, nil
}

func decodeCall(node string, n uint64, body []byte) (cluster.Call, error) {
	c, err := decode[cluster.Call](body)
	if err == nil && (c.Node != node || c.N != n || !nodeName.MatchString(c.By) || !nonce.MatchString(c.Mark)) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.Call{}, err
	}
	return c, nil
}

func decodeClosing(node string, n uint64, body []byte) (cluster.Closing, error) {
	c, err := decode[cluster.Closing](body)
	known := c.Outcome == cluster.Done || c.Outcome == cluster.Aborted || c.Outcome == cluster.Failed
	if err == nil && (c.Node != node || c.N != n || !nodeName.MatchString(c.By) || !known) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.Closing{}, err
	}
	return c, nil
}

// replacement puts together what the newest objects of a node's replacements say. l.mu is held.
func (l *Ledger) replacement(f found, node string) (cluster.Intent, error) {
	newest := func(k kind) (series string, n uint64) {
		series = l.series(k, node)
		return series, max(f.newest[series], l.newest[series])
	}
	series, n := newest(intents)
	in, err := decodeIntent(node, n, l.bodies[series+number(n)])
	if err != nil {
		return cluster.Intent{}, fmt.Errorf("%s%s: %w", series, number(n), err)
	}
	in.Age = f.age[series]
	if series, called := newest(calls); called == n {
		in.Called = max(1, f.age[series])
	}
	if series, closed := newest(closings); closed == n {
		if in.Closed, err = decodeClosing(node, n, l.bodies[series+number(n)]); err != nil {
			return cluster.Intent{}, fmt.Errorf("%s%s: %w", series, number(n), err)
		}
		in.Closed.Age = f.age[series]
	}
	return in, nil
}

// History is all that a node's machines have ever been.
type History struct {
	Nonces map[string]bool   // of its intents
	Claims map[string]uint64 // the newest epoch of each machine that has claimed it
}

// History reads every claim and intent of a node.
func (l *Ledger) History(ctx context.Context, node string) (History, error) {
	h := History{Nonces: map[string]bool{}, Claims: map[string]uint64{}}
	if !nodeName.MatchString(node) {
		return History{}, fmt.Errorf("read the history of %q: that is no node", node)
	}
	for _, k := range []kind{intents, claims} {
		series := l.series(k, node)
		objects, _, err := l.store.List(ctx, series, "")
		if err != nil {
			return History{}, fmt.Errorf("read the history of %s: %w", node, err)
		}
		bodies := make([][]byte, len(objects))
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(parallel)
		for i, o := range objects {
			g.Go(func() (err error) {
				bodies[i], _, err = l.store.Get(ctx, o.Key)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return History{}, fmt.Errorf("read the history of %s: %w", node, err)
		}
		for i, o := range objects {
			n, ok := parseNumber(strings.TrimPrefix(o.Key, series))
			if !ok {
				return History{}, fmt.Errorf("read the history of %s: %q is no key of ours", node, o.Key)
			}
			if err := h.add(k, node, n, bodies[i]); err != nil {
				return History{}, fmt.Errorf("read the history of %s: %s: %w", node, o.Key, err)
			}
		}
	}
	return h, nil
}

func (h History) add(k kind, node string, n uint64, body []byte) error {
	if k == intents {
		in, err := decodeIntent(node, n, body)
		h.Nonces[in.Nonce] = err == nil
		return err
	}
	c, err := decodeClaim(node, n, body)
	h.Claims[c.Machine] = max(h.Claims[c.Machine], n)
	return err
}

// tickets are what newcomers have joined with, each by its nonce.
const tickets kind = "tickets"

// ticket is the body of one.
type ticket struct {
	Nonce     string `json:"nonce"`
	Recipient string `json:"recipient"`
}

// SpendTicket writes who has used a join ticket, by its nonce in hexadecimal. It returns nil for the same recipient every time,
// and a *TakenError for all others.
func (l *Ledger) SpendTicket(ctx context.Context, n, recipient string) error {
	key := l.cluster + "/" + string(tickets) + "/" + n
	if !nonce.MatchString(n) || recipient == "" {
		return fmt.Errorf("write that a ticket is used: %q is no nonce, or %q nobody", n, recipient)
	}
	body, err := encode(ticket{n, recipient})
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	_, err = l.store.Create(ctx, key, body)
	if !errors.Is(err, ErrExists) {
		if err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
		return nil
	}
	there, _, err := l.store.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("write %s: refused; read whose is there: %w", key, err)
	}
	other, err := decode[ticket](there)
	if err != nil {
		return fmt.Errorf("write %s: refused, and what is there %w", key, err)
	}
	if other.Recipient != recipient {
		return &TakenError{key, other.Recipient}
	}
	return nil
}
