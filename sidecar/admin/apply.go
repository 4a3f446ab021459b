package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/decide"
)

// Apply asks a node to look for a newer commit at once.
type Apply struct {
	// Without lets roles take the newest commit although nodes of them are missing.
	Without bool `json:"without_missing,omitempty"`
	// Everywhere: the node passes the order on to every other member.
	Everywhere bool `json:"everywhere,omitempty"`
	// Confirm lets the commit that waits for that remove nodes: that one only, where Commit is given. With Try it is only told.
	Confirm bool   `json:"confirm_removal,omitempty"`
	Commit  string `json:"commit,omitempty"`
	Try     bool   `json:"try,omitempty"`
}

// Removal is a commit and the nodes that it removes.
type Removal struct {
	Commit string   `json:"commit"`
	Nodes  []string `json:"nodes"`
	// Machines are those of the nodes, in the same order; empty where one is not known.
	Machines []string `json:"machines"`
}

// Applying is the answer: where the newest commit is now. What the look finds shows in the status.
type Applying struct {
	Node    string  `json:"node"`
	Rollout Rollout `json:"rollout"`
	// Missed are members that the order did not reach, each with the reason.
	Missed []string `json:"missed"`
	// Removal is what was confirmed, or would be.
	Removal *Removal `json:"removal,omitempty"`
}

func (s *Server) apply(r *http.Request) (Applying, error) {
	var asked Apply
	if err := decode(r.Body, &asked); err != nil {
		return Applying{}, badRequest(err)
	}
	p, v, d, _, err := s.turn()
	if err != nil {
		return Applying{}, err
	}
	b := builder{p: p, v: v, d: d}
	out := Applying{Node: p.Self, Rollout: b.rollout(), Missed: []string{}}
	if v.Rollout.Head == "" {
		return Applying{}, problem(http.StatusConflict, "nothing to apply", "%s does not follow the control repo, or has not accepted a commit yet", p.Self)
	}
	if asked.Confirm {
		if out.Removal, err = s.confirm(b, asked); err != nil || asked.Try {
			return out, err
		}
	}
	s.cfg.Backend.Look()
	if asked.Without {
		s.cfg.Log.Warn("an operator lets roles change although nodes are missing", "commit", v.Rollout.Head)
		s.cfg.Backend.Order(func(o *decide.Orders) { o.Without = v.Rollout.Head })
	}
	if asked.Everywhere {
		asked.Everywhere = false
		out.Missed, err = s.passOn(r.Context(), b, func(ctx context.Context, c *Client) error {
			_, err := c.Apply(ctx, asked)
			return err
		})
	}
	return out, err
}

// NothingToConfirm is the title of the problem that no commit waits for Apply.Confirm, as far as the node knows.
const NothingToConfirm = "nothing to confirm"

// confirm lets the commit that waits for that go on.
func (s *Server) confirm(b builder, asked Apply) (*Removal, error) {
	r := s.cfg.Backend.Removal()
	switch {
	case r.Commit == "":
		return nil, problem(http.StatusConflict, NothingToConfirm, "no commit waits for a removal to be confirmed; see understudy status")
	case asked.Commit != "" && asked.Commit != r.Commit:
		return nil, problem(http.StatusConflict, "another commit", "commit %.12s waits now, and not %.12s: look at it again", r.Commit, asked.Commit)
	}
	for _, node := range r.Nodes {
		r.Machines = append(r.Machines, b.v.Ledger.Claims[node].Machine)
	}
	if !asked.Try {
		s.cfg.Log.Warn("an operator confirms that nodes are removed", "commit", r.Commit, "nodes", r.Nodes)
		s.cfg.Backend.ConfirmRemoval(r.Commit)
	}
	return &r, nil
}

// passOn gives an order to all other members, side by side, and tells which did not take it.
func (s *Server) passOn(ctx context.Context, b builder, order func(context.Context, *Client) error) ([]string, error) {
	tls, err := s.peerTLS(b.p.Self)
	if err != nil {
		return nil, err
	}
	addrs := s.addresses(b)
	to := slices.DeleteFunc(b.members(), func(n string) bool { return n == b.p.Self })
	missed := make([]string, len(to))
	var g errgroup.Group
	g.SetLimit(relaysAtOnce)
	for i, name := range to {
		g.Go(func() error {
			if addrs[name] == "" {
				missed[i] = name + ": its address is not known here"
				return nil
			}
			ctx, cancel := context.WithTimeout(ctx, relayTimeout)
			defer cancel()
			c := NewTLSClient(addrs[name], tls)
			defer c.Close()
			if err := order(ctx, c); err != nil {
				missed[i] = fmt.Sprintf("%s: %v", name, err)
			}
			return nil // told in the answer
		})
	}
	_ = g.Wait() // nothing fails
	return some(slices.DeleteFunc(missed, func(why string) bool { return why == "" })), nil
}
