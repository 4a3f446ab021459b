package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cluster"
)

// Reading is what the ledger says at one moment. Its maps are the caller's.
type Reading struct {
	Duties map[string]cluster.DutyRecord // the highest epoch of each duty
	Tie    cluster.Tie                   // the newest; its zero value: there is none
	Claims map[string]cluster.Claim      // the newest of each node, with its tombstone
	Seed   uint64                        // the newest reseed; zero: there was none
	// Beats are when each node's heartbeat was last written, by the store's clock. Two readings with the same time mean that
	// it was not written between them.
	Beats map[string]Meta
	// Intents are the newest replacement of each node, with its call and its closing.
	Intents map[string]cluster.Intent
	// Destroyed is the newest machine that was destroyed on purpose; its zero value: none ever was.
	Destroyed cluster.Destruction
	// Wishes are the newest of each node.
	Wishes map[string]cluster.Wish
	// Hired are the ages, by the store's clock, of all intents that are younger than a day and replace a machine. That a node gets its
	// first one is a launch, and says nothing about how often machines are lost.
	Hired []time.Duration
}

// parallel bounds the requests of one call.
const parallel = 4

// Read returns the newest record of each kind. Whoever lets a lease hang on it counts from before the call. It returns a
// *ForgottenError when the store knows less than it did before. Any error means that nothing is known.
func (l *Ledger) Read(ctx context.Context) (Reading, error) {
	found, err := l.list(ctx)
	if err != nil {
		return Reading{}, fmt.Errorf("read the ledger: %w", err)
	}
	if err := l.fetch(ctx, found); err != nil {
		return Reading{}, fmt.Errorf("read the ledger: %w", err)
	}
	r, err := l.reading(found)
	if err != nil {
		return Reading{}, fmt.Errorf("read the ledger: %w", err)
	}
	return r, nil
}

// found is what a listing says.
type found struct {
	newest     map[string]uint64 // by series
	series     map[string]path   // of those: kind and name
	tombstones map[string]bool   // by "node/number"
	left       map[string]bool   // by "node/number"
	beats      map[string]Meta
	age        map[string]time.Duration   // of the newest, by series
	hired      map[string][]time.Duration // ages of the intents of a day, by node
	firstClaim map[string]time.Duration   // age of each node's claim 1
	claimed    map[string]bool            // nodes with any claim
}

func emptyFound() found {
	return found{newest: map[string]uint64{}, series: map[string]path{}, tombstones: map[string]bool{}, left: map[string]bool{}, beats: map[string]Meta{}, age: map[string]time.Duration{},
		hired: map[string][]time.Duration{}, firstClaim: map[string]time.Duration{}, claimed: map[string]bool{}}
}

// replaced are the ages of the intents written after their node had a machine.
func (f *found) replaced() (all []time.Duration) {
	for node, ages := range f.hired {
		if !f.claimed[node] {
			continue
		}
		first, listed := f.firstClaim[node]
		if !listed { // it has been pruned
			first = hiredFor
		}
		for _, age := range ages {
			if age <= first {
				all = append(all, age)
			}
		}
	}
	return all
}

// list reads all keys of the cluster.
func (l *Ledger) list(ctx context.Context) (found, error) {
	f := emptyFound()
	l.mu.Lock()
	before := maps.Clone(l.newest) // what is written while the listing is made need not be in it
	l.mu.Unlock()
	objects, _, err := l.store.List(ctx, l.cluster+"/", "")
	if err != nil {
		return found{}, err
	}
	for _, o := range objects {
		if err := f.add(l, o); err != nil {
			return found{}, err
		}
	}
	if again := l.series(seeds, ""); f.newest[again] > before[again] {
		l.forget()
		return f, nil
	}
	for _, series := range slices.Sorted(maps.Keys(before)) {
		if f.newest[series] < before[series] {
			return found{}, &ForgottenError{series, before[series], f.newest[series]}
		}
	}
	return f, nil
}

// add sorts one key in. One of a kind we know that is not as we write it is an error: it may hide what we must know.
func (f *found) add(l *Ledger, o Object) error {
	p, ok := l.cut(o.Key)
	if !ok {
		return fmt.Errorf("the listing has %q, which was not asked for", o.Key)
	}
	name, n := "", uint64(0)
	switch p.kind {
	case claims:
		name, n, ok = p.numbered(nodeName)
		if f.claimed[name] = true; n == 1 {
			f.firstClaim[name] = o.Age()
		}
	case tombstones:
		name, n, ok = p.numbered(nodeName)
		f.tombstones[strings.Join(p.parts, "/")] = true
	case left:
		name, n, ok = p.numbered(nodeName)
		f.left[strings.Join(p.parts, "/")] = true
	case duties:
		name, n, ok = p.numbered(dutyName)
	case intents:
		name, n, ok = p.numbered(nodeName)
		if age := o.Age(); age < hiredFor {
			f.hired[name] = append(f.hired[name], age)
		}
	case calls, closings, wishes:
		name, n, ok = p.numbered(nodeName)
	case ties, destructions, seeds:
		n, ok = parseNumber(strings.Join(p.parts, "/"))
		ok = ok && n > 0
	case heartbeats:
		ok = len(p.parts) == 1 && nodeName.MatchString(p.parts[0])
		f.beats[p.parts[0]] = o.Meta
	default:
		return nil // of a newer version
	}
	if !ok {
		return fmt.Errorf("%q is no key of ours, and it stands where ours do: somebody else writes there", o.Key)
	}
	if n > 0 {
		series := l.series(p.kind, name)
		if n >= f.newest[series] {
			f.newest[series], f.age[series] = n, o.Age()
		}
		f.series[series] = path{p.kind, []string{name}}
	}
	return nil
}

// fetch reads the newest records that are not known yet.
func (l *Ledger) fetch(ctx context.Context, f found) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for series, n := range f.newest {
		if k := f.series[series].kind; k == tombstones || k == left || k == seeds { // its key says all
			l.remember(series, n, nil)
			continue
		}
		if l.knows(series + number(n)) {
			continue
		}
		g.Go(func() error {
			body, _, err := l.store.Get(ctx, series+number(n))
			if errors.Is(err, ErrNotFound) {
				return fmt.Errorf("%s%s was listed and is not there: read again", series, number(n))
			}
			if err != nil {
				return fmt.Errorf("%s%s: %w", series, number(n), err)
			}
			if err := check(f.series[series], n, body); err != nil {
				return fmt.Errorf("%s%s: %w", series, number(n), err)
			}
			l.remember(series, n, body)
			return nil
		})
	}
	return g.Wait()
}

func (l *Ledger) knows(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.bodies[key]
	return ok
}

// check refuses a body before it is remembered.
func check(p path, n uint64, body []byte) (err error) {
	switch p.kind {
	case claims:
		_, err = decodeClaim(p.parts[0], n, body)
	case duties:
		_, err = decodeDuty(p.parts[0], n, body)
	case ties:
		_, err = decodeTie(n, body)
	case intents:
		_, err = decodeIntent(p.parts[0], n, body)
	case calls:
		_, err = decodeCall(p.parts[0], n, body)
	case closings:
		_, err = decodeClosing(p.parts[0], n, body)
	case destructions:
		_, err = decodeDestruction(n, body)
	case wishes:
		_, err = decodeWish(p.parts[0], n, body)
	}
	return err
}

// reading puts together what was found. A record that was written since by ourselves counts, too.
func (l *Ledger) reading(f found) (Reading, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Reading{Duties: map[string]cluster.DutyRecord{}, Claims: map[string]cluster.Claim{}, Beats: f.beats, Intents: map[string]cluster.Intent{},
		Wishes: map[string]cluster.Wish{}, Hired: f.replaced()}
	for series, p := range f.series {
		n := max(f.newest[series], l.newest[series])
		body := l.bodies[series+number(n)]
		name := p.parts[0]
		var err error
		switch p.kind {
		case claims:
			var c cluster.Claim
			c, err = decodeClaim(name, n, body)
			c.Tombstoned = f.tombstones[name+"/"+number(n)]
			c.Left = c.Tombstoned && f.left[name+"/"+number(n)]
			r.Claims[name] = c
		case duties:
			r.Duties[name], err = decodeDuty(name, n, body)
		case ties:
			r.Tie, err = decodeTie(n, body)
		case destructions:
			r.Destroyed, err = decodeDestruction(n, body)
			r.Destroyed.Age = f.age[series]
		case seeds:
			r.Seed = n
		case wishes:
			r.Wishes[name], err = decodeWish(name, n, body)
		case intents:
			r.Intents[name], err = l.replacement(f, name)
		}
		if err != nil {
			return Reading{}, fmt.Errorf("%s%s: %w", series, number(n), err)
		}
	}
	return r, nil
}

// Beat writes a node's heartbeat, over the one before. Only the node itself may do so.
func (l *Ledger) Beat(ctx context.Context, node string, h Heartbeat) error {
	h.Node = node
	body, err := encode(h)
	if err != nil || !nodeName.MatchString(node) {
		return errors.Join(fmt.Errorf("write the heartbeat of %q", node), err)
	}
	if _, err := l.store.Put(ctx, l.cluster+"/"+string(heartbeats)+"/"+node, body); err != nil {
		return fmt.Errorf("write the heartbeat of %s: %w", node, err)
	}
	return nil
}

// Heartbeats reads every node's heartbeat. Read tells more cheaply whether they change.
func (l *Ledger) Heartbeats(ctx context.Context) (map[string]Heartbeat, error) {
	prefix := l.cluster + "/" + string(heartbeats) + "/"
	objects, _, err := l.store.List(ctx, prefix, "")
	if err != nil {
		return nil, fmt.Errorf("read the heartbeats: %w", err)
	}
	read := make([]Heartbeat, len(objects))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, o := range objects {
		g.Go(func() error {
			body, meta, err := l.store.Get(ctx, o.Key)
			if err != nil {
				return fmt.Errorf("read the heartbeats: %s: %w", o.Key, err)
			}
			if read[i], err = decodeHeartbeat(strings.TrimPrefix(o.Key, prefix), body); err != nil {
				return fmt.Errorf("read the heartbeats: %s: %w", o.Key, err)
			}
			read[i].Modified, read[i].Age = meta.Modified, meta.Age()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := map[string]Heartbeat{}
	for _, h := range read {
		all[h.Node] = h
	}
	return all, nil
}

// Stale is for how long the newest answer says that a node's heartbeat had not been written, by the store's clock alone.
func (r Reading) Stale(node string) (time.Duration, bool) {
	m, ok := r.Beats[node]
	return m.Age(), ok
}
