package ledger

import (
	"context"
	"fmt"
	"slices"

	"understudy/sidecar/cluster"
)

// wishes are what persons want to become of machines.
const wishes kind = "wishes"

// WriteWish writes what a person wants to become of machines of a node. It returns a *TakenError when another wish for the node
// has the number. w.Mark must be another one in each try.
func (l *Ledger) WriteWish(ctx context.Context, w cluster.Wish) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeWish(w.Node, w.N, body)
		return other.By, err
	}
	return create(ctx, l, wishes, nodeName, w.Node, w.N, w, decoded)
}

func decodeWish(node string, n uint64, body []byte) (cluster.Wish, error) {
	w, err := decode[cluster.Wish](body)
	if err != nil {
		return cluster.Wish{}, err
	}
	both := slices.ContainsFunc(w.Keep, func(id string) bool { return slices.Contains(w.Discard, id) })
	if w.Node != node || w.N != n || both || slices.Contains(w.Keep, "") || slices.Contains(w.Discard, "") || !nodeName.MatchString(w.By) || !nonce.MatchString(w.Mark) {
		return cluster.Wish{}, fmt.Errorf("does not belong under its key: %.200q", body)
	}
	return w, nil
}
