package ledger

import (
	"context"
	"fmt"

	"understudy/sidecar/cluster"
)

// destructions are what was destroyed on purpose.
const destructions kind = "chaos"

// WriteDestruction writes that the provider is about to be asked to destroy a machine on purpose. As with WriteCall, only whoever
// gets nil asks, and only once: d.Mark must be another one in each try.
func (l *Ledger) WriteDestruction(ctx context.Context, d cluster.Destruction) error {
	decoded := func(body []byte) (string, error) {
		other, err := decodeDestruction(d.N, body)
		return other.By, err
	}
	return create(ctx, l, destructions, nil, "", d.N, d, decoded)
}

func decodeDestruction(n uint64, body []byte) (cluster.Destruction, error) {
	d, err := decode[cluster.Destruction](body)
	if err == nil && (d.N != n || d.Machine == "" || !nodeName.MatchString(d.Node) || !nodeName.MatchString(d.By) || !nonce.MatchString(d.Mark)) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.Destruction{}, err
	}
	return d, nil
}
