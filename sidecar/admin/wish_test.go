package admin

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// replaced is a world in which mail1 has had machine 70 before the one it has.
func replaced() *world {
	w := calm()
	w.view.Ledger.Configured = true
	w.view.Ledger.Claims = map[string]cluster.Claim{"mail1": {Node: "mail1", Epoch: 2, Machine: "1005"}}
	w.view.Ledger.Intents = map[string]cluster.Intent{"mail1": {Node: "mail1", N: 1, Machine: "70", Replaces: 1, Unseen: true}}
	return w
}

func TestAWishIsAboutTheMachineThatIsMeant(t *testing.T) {
	silent := func(w *world) { w.silence("mail1", time.Minute, decide.Failed) }
	for _, c := range []struct {
		name   string
		change func(*world)
		fate   fate
		asked  WishFor
		want   Wished
		refuse string // part of why; empty: it is taken
	}{
		{"the one before", func(*world) {}, toDiscard, WishFor{Node: "mail1"}, Wished{Node: "mail1", Machine: "70"}, ""},
		{"kept, too", func(*world) {}, toKeep, WishFor{Node: "mail1"}, Wished{Node: "mail1", Machine: "70"}, ""},
		{"one that is named", func(*world) {}, toKeep, WishFor{Node: "mail1", Machine: "69"}, Wished{Node: "mail1", Machine: "69"}, ""},
		{"its own, which is heard", func(*world) {}, toDiscard, WishFor{Node: "mail1", Machine: "1005"}, Wished{}, "machine 1005 is mail1, which is heard"},
		{"none", func(w *world) { w.view.Ledger.Intents = nil }, toDiscard, WishFor{Node: "mail1"}, Wished{}, "knows of no machine that it had before"},
		{"its own, which is silent", func(w *world) { silent(w); w.view.Ledger.Intents = nil }, toDiscard, WishFor{Node: "mail1"},
			Wished{Node: "mail1", Machine: "1005", Silent: true}, ""},
		{"nobody can keep it so", func(w *world) { silent(w); w.view.Ledger.Intents = nil }, toKeep, WishFor{Node: "mail1"}, Wished{}, "bring it back"},
		{"one of two", silent, toDiscard, WishFor{Node: "mail1"}, Wished{}, "machine 1005, which mail1 has, or 70, which it had before: say which"},
		{"of no role with data", func(*world) {}, toDiscard, WishFor{Node: "lb1"}, Wished{}, "no node of a role with data"},
		{"without a ledger", func(w *world) { w.view.Ledger.Configured = false }, toDiscard, WishFor{Node: "mail1"}, Wished{}, "no ledger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend()
			b.world = replaced()
			for i := range b.world.policy.Roles {
				r := &b.world.policy.Roles[i]
				r.Data = r.Name == "mail"
			}
			c.change(b.world)
			client := onSocket(t, b)
			ask := client.Recover
			if c.fate == toDiscard {
				ask = client.Discard
			}
			tried := c.asked
			tried.Try = true
			if got, err := ask(t.Context(), tried); c.refuse == "" && (err != nil || got != c.want) || len(b.wished) > 0 {
				t.Errorf("tried: got %+v, %v, wished %+v; want %+v", got, err, b.wished, c.want)
			}
			got, err := ask(t.Context(), c.asked)
			if c.refuse != "" {
				if p, ok := errors.AsType[*Problem](err); !ok || !strings.Contains(p.Detail, c.refuse) || len(b.wished) > 0 {
					t.Errorf("got %v, wished %+v; want %q", err, b.wished, c.refuse)
				}
				return
			}
			c.want.Written = true
			if err != nil || got != c.want || len(b.wished) != 1 {
				t.Fatalf("got %+v, %v, wished %+v; want %+v", got, err, b.wished, c.want)
			}
			w := b.wished[0]
			if w.Node != "mail1" || w.N != 1 || w.By != "lb1" || len(w.Mark) != 32 || slices.Contains(w.Discard, got.Machine) != (c.fate == toDiscard) ||
				slices.Contains(w.Keep, got.Machine) == (c.fate == toDiscard) {
				t.Errorf("wrote %+v", w)
			}
		})
	}
}

func TestAWishRepeatsWhatStillCounts(t *testing.T) {
	was := cluster.Wish{Node: "mail1", N: 4, Keep: []string{"68", "70"}, Discard: []string{"67"}}
	w := next(was, Wished{Node: "mail1", Machine: "70"}, toDiscard)
	if w.N != 5 || !slices.Equal(w.Keep, []string{"68"}) || !slices.Equal(w.Discard, []string{"67", "70"}) || len(was.Keep) != 2 {
		t.Errorf("got %+v", w)
	}
}

func TestAWishThatCameTooLateIsRefused(t *testing.T) {
	b := newBackend()
	b.world = replaced()
	for i := range b.world.policy.Roles {
		b.world.policy.Roles[i].Data = true
	}
	b.err = Refusal("another order came first")
	_, err := onSocket(t, b).Discard(t.Context(), WishFor{Node: "mail1"})
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != http.StatusConflict {
		t.Errorf("got %v", err)
	}
}
