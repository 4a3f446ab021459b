package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Remembered is what one node knows to have been in the ledger.
type Remembered struct {
	Node   string         `json:"node"`
	Ledger Ledger         `json:"ledger"`
	Forgot string         `json:"forgot"` // what the ledger has lost of it; empty: nothing
	Known  cluster.Recall `json:"known"`
}

// Reseed asks for the ledger to be filled from what the nodes remember.
type Reseed struct {
	// Try: say what would be written, and write nothing.
	Try bool `json:"try,omitempty"`
}

// Reseeded is what was, or would be, written.
type Reseeded struct {
	Node    string         `json:"node"`    // who has written it
	Written bool           `json:"written"` // false: it was only tried
	Forgot  []string       `json:"forgot"`  // what the ledger has lost, each thing once
	Heard   []string       `json:"heard"`   // whose memory it is, in the roster's order
	Mute    []string       `json:"mute"`    // who did not answer
	Known   cluster.Recall `json:"known"`
}

// reseedTimeout bounds the writing: a few objects for each node, one after the other.
const reseedTimeout = 20 * time.Second

func (s *Server) remembered() (Remembered, error) {
	p, v, d, _, err := s.turn()
	if err != nil {
		return Remembered{}, err
	}
	r := Remembered{Node: p.Self, Ledger: builder{p: p, v: v, d: d}.ledger(), Forgot: v.Ledger.Forgot}
	if v.Ledger.Known != nil {
		r.Known = *v.Ledger.Known
	}
	return r, nil
}

func (s *Server) reseed(r *http.Request) (Reseeded, error) {
	var asked Reseed
	if err := decode(r.Body, &asked); err != nil {
		return Reseeded{}, badRequest(err)
	}
	p, v, d, _, err := s.turn()
	if err != nil {
		return Reseeded{}, err
	}
	own, err := s.remembered()
	if err != nil {
		return Reseeded{}, err
	}
	all, mute, err := s.recollect(r.Context(), builder{p: p, v: v, d: d})
	if err != nil {
		return Reseeded{}, err
	}
	out, err := newReseed(p, v.Ledger, append(all, own), mute)
	if err != nil || asked.Try {
		return out, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), reseedTimeout)
	defer cancel()
	s.cfg.Log.Warn("an operator has the ledger filled from what the nodes remember", "heard", out.Heard, "reseed", out.Known.Seed)
	if err := s.cfg.Backend.Reseed(ctx, out.Known); err != nil {
		return Reseeded{}, fmt.Errorf("%w; repeat the command", err)
	}
	out.Written = true
	return out, nil
}

// newReseed puts together what the nodes remember, and refuses where that may not be all there was.
func newReseed(p decide.Policy, l decide.Ledger, all []Remembered, mute []string) (Reseeded, error) {
	refuse := func(format string, args ...any) (Reseeded, error) {
		return Reseeded{}, problem(http.StatusConflict, "refused", format, args...)
	}
	out := Reseeded{Node: p.Self, Mute: some(mute), Forgot: []string{}, Heard: []string{}}
	slices.SortFunc(all, func(a, b Remembered) int { return slices.Index(p.Nodes, a.Node) - slices.Index(p.Nodes, b.Node) })
	for _, r := range all {
		out.Heard = append(out.Heard, r.Node)
		out.Known = decide.Raise(out.Known, r.Known)
		if r.Forgot != "" && !slices.Contains(out.Forgot, r.Forgot) {
			out.Forgot = append(out.Forgot, r.Forgot)
		}
	}
	switch need := len(p.Nodes)/2 + 1; {
	case !l.Configured:
		return refuse("the cluster has no ledger")
	case !l.Sound:
		return refuse("the store has not shown that it honours create-if-absent; understudy status says more")
	case len(out.Forgot) == 0:
		return refuse("the ledger knows all that %s remember: there is nothing to fill", strings.Join(out.Heard, ", "))
	case len(out.Heard) < need:
		return refuse("only %s answer, %d of %d members must: the others may remember more", strings.Join(out.Heard, ", "), need, len(p.Nodes))
	}
	out.Known.Seed++
	return out, nil
}

// recollect asks every other member, side by side, for what it remembers.
func (s *Server) recollect(ctx context.Context, b builder) (all []Remembered, mute []string, err error) {
	tls, err := s.peerTLS(b.p.Self)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	addrs := s.addresses(b)
	others := slices.DeleteFunc(b.members(), func(n string) bool { return n == b.p.Self })
	told := make([]*Remembered, len(others))
	var g errgroup.Group
	g.SetLimit(relaysAtOnce)
	for i, name := range others {
		g.Go(func() error {
			if addrs[name] == "" {
				return nil
			}
			c := NewTLSClient(addrs[name], tls)
			defer c.Close()
			if r, err := c.Remembered(ctx); err == nil && r.Node == name {
				told[i] = &r
			}
			return nil // told in the answer
		})
	}
	_ = g.Wait() // nothing fails
	for i, r := range told {
		if r == nil {
			mute = append(mute, others[i])
		} else {
			all = append(all, *r)
		}
	}
	return all, mute, nil
}
