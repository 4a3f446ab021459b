package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/decide"
)

// gatherTimeout is how long the others may take to say what they do: somebody waits for the answer, and what they say is
// more than the answer needs.
const gatherTimeout = 1500 * time.Millisecond

func (s *Server) status(r *http.Request) (Status, error) {
	everywhere := false
	if q := r.URL.Query().Get("everywhere"); q != "" {
		var err error
		if everywhere, err = strconv.ParseBool(q); err != nil {
			return Status{}, problem(http.StatusBadRequest, "request not understood", "everywhere=%.20q is neither true nor false", q)
		}
	}
	p, v, d, at, err := s.turn()
	if err != nil {
		return Status{}, err
	}
	b := builder{p: p, v: v, d: d, trouble: map[string][]string{}}
	checks := s.checks()
	b.trouble[p.Self] = complaints(checks)
	var told []told
	if everywhere {
		told = s.gather(r.Context(), b)
		for _, other := range told {
			b.trouble[other.name] = other.trouble()
		}
	}
	st := b.status().Dated(at, time.Now()).with(told)
	st.Cluster, st.Checks = s.cfg.Cluster, checks
	if s.cfg.Journal != nil {
		st.journal(p.Self, s.cfg.Journal())
	}
	return st, nil
}

// journal adds what a node says of its mail journal.
func (st *Status) journal(node string, j *Journal) {
	i := slices.IndexFunc(st.Nodes, func(n Node) bool { return n.Name == node })
	if j == nil || i < 0 {
		return
	}
	st.Nodes[i].Journal = j
	switch {
	case j.Refusing != "":
		st.Warnings = append(st.Warnings, fmt.Sprintf("%s accepts no mail: %s", node, j.Refusing))
	case j.Second == "":
		st.Warnings = append(st.Warnings, node+" accepts mail that no other machine has: nobody takes the second copy")
	}
}

func (s *Server) checks() []Check {
	out := []Check{}
	if s.cfg.Checks == nil {
		return out
	}
	for _, c := range s.cfg.Checks() {
		out = append(out, Check{Name: c.Name, Health: c.Health.String(), Why: c.Why, Since: c.Since, Flapping: c.Flapping})
	}
	return out
}

// complaints are the checks that something is the matter with, in words.
func complaints(checks []Check) []string {
	var out []string
	for _, c := range checks {
		switch {
		case c.Why != "":
			out = append(out, c.Name+": "+c.Why)
		case c.Health == "unhealthy":
			out = append(out, c.Name)
		}
	}
	return out
}

// told is what another member said of itself.
type told struct {
	name   string
	status *Status // nil: it did not answer
}

func (t told) trouble() []string {
	if t.status == nil {
		return nil
	}
	for _, n := range t.status.Nodes {
		if n.Name == t.name {
			return n.Trouble
		}
	}
	return nil
}

// gather asks all other members that are heard, side by side.
func (s *Server) gather(ctx context.Context, b builder) []told {
	var all []told
	for _, name := range b.members() {
		if l := b.verdict(name); name != b.p.Self && (l == decide.Alive || l == decide.Suspect) {
			all = append(all, told{name: name})
		}
	}
	tls, err := s.peerTLS(b.p.Self)
	if err != nil {
		return all // whom nobody can ask does not answer
	}
	ctx, cancel := context.WithTimeout(ctx, gatherTimeout)
	defer cancel()
	addrs := s.addresses(b)
	var g errgroup.Group
	g.SetLimit(relaysAtOnce)
	for i := range all {
		g.Go(func() error {
			c := NewTLSClient(addrs[all[i].name], tls)
			defer c.Close()
			if st, err := c.Status(ctx); err == nil && st.Node == all[i].name {
				all[i].status = &st
			}
			return nil // told in the answer
		})
	}
	_ = g.Wait() // nothing fails
	return all
}

// with adds what others said they do and what blocks them. Their own word replaces what was gathered from their beats.
func (st Status) with(others []told) Status {
	for _, o := range others {
		st.Asked = append(st.Asked, o.name)
		if o.status == nil {
			st.Mute = append(st.Mute, o.name)
			continue
		}
		for _, n := range o.status.Nodes {
			if n.Name == o.name {
				st.journal(o.name, n.Journal)
			}
		}
		theirs := func(s Step) bool { return s.Node == o.name }
		own := slices.DeleteFunc(slices.Clone(o.status.Doing), func(s Step) bool { return !theirs(s) })
		st.Doing = append(slices.DeleteFunc(st.Doing, theirs), own...)
		for _, b := range o.status.Blocked {
			if b.Node == o.name {
				st.Blocked = append(st.Blocked, b)
			}
		}
	}
	slices.SortStableFunc(st.Blocked, func(a, b Blocked) int { return cmp.Compare(a.What, b.What) })
	return st
}
