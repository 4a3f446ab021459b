package admin

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// WishFor asks for what shall become of a machine that may have data of a node's role that no other machine has.
type WishFor struct {
	Node string `json:"node"`
	// Machine is its ID. Empty: the one that is meant can be nothing else.
	Machine string `json:"machine,omitempty"`
	// Try: say which machine it would be, and write nothing.
	Try bool `json:"try,omitempty"`
}

// Wished is what was, or would be, written down.
type Wished struct {
	Node    string `json:"node"`
	Machine string `json:"machine"`
	// Written: the ledger has it, and whoever coordinates acts on it within seconds. False: it was only tried.
	Written bool `json:"written"`
	// Silent: the machine is still the node's, which is silent; it is switched off first, and the node gets another one.
	Silent bool `json:"silent"`
}

// fate is what is wished for.
type fate uint8

const (
	toKeep fate = iota
	toDiscard
)

// wish writes an order into the ledger, unless it is plain already that nothing would come of it.
func (s *Server) wish(r *http.Request, f fate) (Wished, error) {
	asked, err := decodeWish(r.Body)
	if err != nil {
		return Wished{}, badRequest(err)
	}
	p, v, d, _, err := s.turn()
	if err != nil {
		return Wished{}, err
	}
	b := builder{p: p, v: v, d: d}
	out, err := b.meant(asked, f)
	if err != nil || asked.Try {
		return out, err
	}
	w := next(v.Ledger.Wishes[asked.Node], out, f)
	w.By = p.Self
	if err := s.cfg.Backend.Wish(r.Context(), w); err != nil {
		return Wished{}, err
	}
	s.cfg.Log.Warn("an operator gave an order about a machine with data", "node", out.Node, "machine", out.Machine, "discard", f == toDiscard)
	out.Written = true
	return out, nil
}

func decodeWish(r io.Reader) (WishFor, error) {
	var w WishFor
	if err := decode(r, &w); err != nil {
		return WishFor{}, err
	}
	switch {
	case w.Node == "":
		return WishFor{}, errors.New("node must be named")
	case len(w.Node) > maxName || len(w.Machine) > maxName:
		return WishFor{}, fmt.Errorf("a name has more than %d bytes", maxName)
	}
	return w, nil
}

// next is the wish that repeats what still counts of the one before.
func next(was cluster.Wish, now Wished, f fate) cluster.Wish {
	without := func(all []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(id string) bool { return id == now.Machine })
	}
	w := cluster.Wish{Node: now.Node, N: was.N + 1, Keep: without(was.Keep), Discard: without(was.Discard)}
	if f == toDiscard {
		w.Discard = append(w.Discard, now.Machine)
	} else {
		w.Keep = append(w.Keep, now.Machine)
	}
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	w.Mark = hex.EncodeToString(b[:])
	return w
}

// meant finds the machine that an order is about: the node's own while that is silent, or the one it had before.
func (b builder) meant(asked WishFor, f fate) (Wished, error) {
	i := slices.IndexFunc(b.p.Roles, func(r decide.Role) bool { return slices.Contains(r.Nodes, asked.Node) })
	if i < 0 || !b.p.Roles[i].Data {
		return Wished{}, problem(http.StatusUnprocessableEntity, "no such node", "no node of a role with data is called %.100q", asked.Node)
	}
	if !b.v.Ledger.Configured {
		return Wished{}, Refusal("the cluster has no ledger to write it down in, and deletes no machines by itself; see to it at the provider")
	}
	claim, before := b.v.Ledger.Claims[asked.Node], b.v.Ledger.Intents[asked.Node]
	lives := claim.Machine != "" && !claim.Tombstoned && b.here(asked.Node)
	var could []string
	if claim.Machine != "" && !lives {
		could = append(could, claim.Machine)
	}
	if before.Machine != "" && before.Machine != claim.Machine {
		could = append(could, before.Machine)
	}
	m := asked.Machine
	switch {
	case m == claim.Machine && m != "" && lives:
		return Wished{}, Refusal("machine %s is %s, which is heard", m, asked.Node)
	case m == "" && len(could) == 0:
		return Wished{}, Refusal("%s is heard, and the ledger knows of no machine that it had before", asked.Node)
	case m == "" && len(could) > 1:
		return Wished{}, Refusal("it may be about machine %s, which %s has, or %s, which it had before: say which", could[0], asked.Node, could[1])
	case m == "":
		m = could[0]
	}
	out := Wished{Node: asked.Node, Machine: m, Silent: m == claim.Machine && !claim.Tombstoned}
	if f == toKeep && out.Silent {
		return Wished{}, Refusal("machine %s is still %s; it is silent, and nothing is deleted as long as it may have the only newest data: bring it back", m, asked.Node)
	}
	return out, nil
}
