package admin

import (
	"net/http"
	"slices"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// switchover orders a planned move, unless it is plain already that nothing would come of it.
func (s *Server) switchover(r *http.Request) (Moving, error) {
	m, err := decodeMove(r.Body)
	if err != nil {
		return Moving{}, badRequest(err)
	}
	p, v, d, _, err := s.turn()
	if err != nil {
		return Moving{}, err
	}
	st := NewStatus(p, v, d)
	moving, err := checkMove(p, st, m)
	if err != nil {
		return Moving{}, err
	}
	s.cfg.Backend.Order(func(o *decide.Orders) {
		// One wish per duty; those that have come true, or are void, go.
		o.Moves = slices.DeleteFunc(o.Moves, func(old cluster.Move) bool {
			return old.Duty == m.Role || old.From < epochOf(st, old.Duty)
		})
		o.Moves = append(o.Moves, cluster.Move{Duty: m.Role, From: moving.Epoch, To: m.To})
	})
	s.cfg.Log.Info("an operator gave an order", "switchover", m.Role, "node", m.To, "epoch", moving.Epoch)
	return moving, nil
}

func epochOf(st Status, duty string) uint64 {
	for _, r := range st.Roles {
		if r.Name == duty {
			return r.Epoch
		}
	}
	return 0
}

// checkMove says what would be moved from whom.
func checkMove(p decide.Policy, st Status, m Move) (Moving, error) {
	i := slices.IndexFunc(st.Roles, func(r Role) bool { return r.Name == m.Role })
	if i < 0 || !st.Roles[i].Duty {
		var duties []string
		for _, r := range st.Roles {
			if r.Duty {
				duties = append(duties, r.Name)
			}
		}
		if i < 0 {
			return Moving{}, problem(http.StatusUnprocessableEntity, "no such role", "no role is called %.100q; a duty have: %s", m.Role, list(duties))
		}
		return Moving{}, problem(http.StatusUnprocessableEntity, "no duty", "all nodes of %s serve alike, so there is nothing to move; a duty have: %s", m.Role, list(duties))
	}
	r := st.Roles[i]
	nodes := p.Roles[i].Nodes
	find := func(name string) Node {
		return st.Nodes[slices.IndexFunc(st.Nodes, func(n Node) bool { return n.Name == name })]
	}
	switch {
	case m.To != "" && !slices.Contains(nodes, m.To):
		return Moving{}, problem(http.StatusUnprocessableEntity, "no such node", "%s is played by %s, not by %.100q", r.Name, list(nodes), m.To)
	case r.Primary == "":
		return Moving{}, problem(http.StatusConflict, "no primary", "nobody has the duty of %s now; whoever can takes it without being asked. See: understudy status", r.Name)
	case m.To == r.Primary:
		return Moving{}, problem(http.StatusConflict, "already there", "%s has the duty of %s", m.To, r.Name)
	case m.To == "" && !slices.ContainsFunc(nodes, func(n string) bool { return n != r.Primary && find(n).Serves() && !find(n).Paused }):
		return Moving{}, problem(http.StatusConflict, "nobody to take it", "no other node of %s serves and is not paused; see: understudy status", r.Name)
	case m.To != "" && !find(m.To).Serves():
		return Moving{}, problem(http.StatusConflict, "cannot take it", "%s cannot take the duty of %s: it does not serve (%s)", m.To, r.Name, find(m.To).Phase)
	case m.To != "" && find(m.To).Paused:
		return Moving{}, problem(http.StatusConflict, "paused", "%s only observes; first: understudy resume", m.To)
	}
	return Moving{Role: r.Name, From: r.Primary, Epoch: r.Epoch, To: m.To}, nil
}
