package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"understudy/sidecar/decide"
)

// Pauses between two readings that nobody asks for.
const (
	progressEvery = time.Second
	unitsEvery    = time.Second
	presenceEvery = 5 * time.Second
	callTimeout   = 5 * time.Second // of one such reading
)

// observers are what looks at the world beside the loop. Each returns nil when its context has ended.
func (l *Loop) observers() []func(context.Context) error {
	var all []func(context.Context) error
	add := func(what string, every, timeout time.Duration, look func(context.Context) error) {
		all = append(all, func(ctx context.Context) error { return l.watch(ctx, what, every, timeout, nil, look) })
	}
	add("peers", peersEvery, listTimeout, l.findPeers)
	if l.world.Progress != nil {
		add("how far this node has come", progressEvery, callTimeout, l.readProgress)
	}
	for _, r := range l.cfg.Policy.Roles {
		if !slices.Contains(r.Nodes, l.cfg.Policy.Self) {
			continue
		}
		if r.PrimaryUnits && l.world.Units != nil {
			add("primary units "+r.Name, unitsEvery, callTimeout, func(ctx context.Context) error { return l.readUnits(ctx, r.Name) })
		}
		if r.Link.IsValid() {
			add("link address "+r.Name, presenceEvery, callTimeout, func(context.Context) error { return l.readPresence(r.Name) })
		}
		if r.Reserved.IsValid() && l.world.Here != nil {
			add("own metadata", l.cfg.Policy.Timings.Reconcile, callTimeout, func(ctx context.Context) error { return l.readHere(ctx, r) })
		}
	}
	if l.world.Ledger != nil {
		add("ledger's soundness", ledgerTestEvery, ledgerTimeout, l.testLedger)
		all = append(all, func(ctx context.Context) error {
			return l.watch(ctx, "identity claim", claimEvery, ledgerTimeout, l.claimNow, l.claim)
		})
		add("heartbeat", heartbeatEvery, ledgerTimeout, l.heartbeat)
		add("pruning of the ledger", pruneEvery, ledgerTimeout, l.prune)
		add("incidents", incidentsEvery, ledgerTimeout, l.writeIncidents)
	}
	return all
}

// hurry wakes an observer before its time.
type hurry chan struct{}

func (h hurry) poke() {
	select {
	case h <- struct{}{}:
	default:
	}
}

// watch calls look at once and then every so often, or when it is hurried. What fails is shown until it works again.
func (l *Loop) watch(ctx context.Context, what string, every, timeout time.Duration, soon hurry, look func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		call, cancel := context.WithTimeout(ctx, timeout)
		err := look(call)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if l.troubles.note(what, err) {
			l.board.poke()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-soon:
		}
	}
}

// troubles are the observers' errors. The loop shows them among what is blocked, where their changes are logged.
type troubles struct {
	mu  sync.Mutex
	now map[string]string
}

// note remembers an error, or that there is none any more, and says whether that is news.
func (t *troubles) note(what string, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, had := t.now[what]
	if err == nil {
		delete(t.now, what)
		return had
	}
	if t.now == nil {
		t.now = map[string]string{}
	}
	t.now[what] = err.Error()
	return !had || was != err.Error()
}

func (t *troubles) list() []decide.Blocked {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []decide.Blocked
	for _, what := range slices.Sorted(maps.Keys(t.now)) {
		all = append(all, decide.Blocked{What: what, Why: t.now[what]})
	}
	return all
}

func (l *Loop) readProgress(context.Context) error {
	phase, commit, err := l.world.Progress()
	if err != nil {
		return err
	}
	v, _ := l.board.look()
	if v.Orders.Leave || v.Phase == phase && v.Commit == commit {
		return nil
	}
	l.board.put(func(v *decide.View) { v.Phase, v.Commit = phase, commit })
	return nil
}

func (l *Loop) readHere(ctx context.Context, r decide.Role) error {
	sent := l.cfg.Now()
	here, err := l.world.Here(ctx, r.Reserved)
	if err != nil {
		return err
	}
	l.board.put(func(v *decide.View) {
		h := v.Holders[r.Name]
		h.Here, h.HereAt = here, sent
		set(&v.Holders, r.Name, h)
	})
	return nil
}
