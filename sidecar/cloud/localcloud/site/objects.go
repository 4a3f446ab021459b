//go:build linux

package site

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/sidecar/ledger/sigv4"
)

// newObjects makes the store that roles.yaml's ledger is in here, with its bucket.
func newObjects(dir string, r role.Roster, k secrets.LedgerKeys, log *slog.Logger) (*objectstore.Store, error) {
	o := objectstore.Options{Dir: dir, Keys: sigv4.Keys{AccessKey: k.AccessKey, SecretKey: k.SecretKey}, Log: log}
	if r.Ledger != nil {
		o.Buckets = []string{r.Ledger.Bucket}
	}
	return objectstore.New(o)
}

// maxDelay bounds a slow ledger: no client waits longer for an answer.
const maxDelay = time.Minute

// ParseFault reads what is to be wrong with the ledger: ok, away, silent, or slow with a duration.
func ParseFault(words []string) (objectstore.Fault, error) {
	kind, more := "", []string(nil)
	if len(words) > 0 {
		kind, more = words[0], words[1:]
	}
	switch {
	case kind == "slow" && len(more) == 1:
		d, err := time.ParseDuration(more[0])
		if err != nil || d <= 0 || d > maxDelay {
			return objectstore.Fault{}, fmt.Errorf("fault slow: %q is not a duration up to %v, such as 500ms", more[0], maxDelay)
		}
		return objectstore.Fault{Delay: d}, nil
	case kind == "slow":
		return objectstore.Fault{}, fmt.Errorf("fault slow: say by how much, such as: slow 500ms")
	case len(more) == 0 && kind == "ok":
		return objectstore.Fault{}, nil
	case len(more) == 0 && kind == "away":
		return objectstore.Fault{Away: true}, nil
	case len(more) == 0 && kind == "silent":
		return objectstore.Fault{Silent: true}, nil
	}
	return objectstore.Fault{}, fmt.Errorf("fault %q: want ok, away, silent, or slow DURATION", strings.Join(words, " "))
}

// faultWords is what ParseFault reads, joined; empty if nothing is wrong.
func faultWords(f objectstore.Fault) string {
	switch {
	case f.Away:
		return "away"
	case f.Silent:
		return "silent"
	case f.Delay > 0:
		return "slow " + f.Delay.String()
	}
	return ""
}

// setFault makes the ledger misbehave from now on.
func (s *Site) setFault(r *http.Request) error {
	var f objectstore.Fault
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&f); err != nil {
		return fmt.Errorf("fault: %w", err)
	}
	s.objects.Set(f)
	s.log.Info("the ledger's fault is set", "reason", faultWords(f))
	return nil
}

// Fault sets what is wrong with the cloud's ledger; the zero Fault ends it.
func (c Client) Fault(ctx context.Context, f objectstore.Fault) error {
	return c.call(ctx, http.MethodPost, "/fault", f, nil)
}
