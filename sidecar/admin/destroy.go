package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Destroy orders chaos: the machine of one node that serves is to vanish, as if the provider had lost it.
type Destroy struct {
	Node    string `json:"node"`
	Machine string `json:"machine"` // its ID; the order is void when the node has another one
	// Seed is by what the node was picked, for whoever wants to repeat that. Zero: it was named, perhaps.
	Seed uint64 `json:"seed"`
	// Apart refuses the order if the one before is less long ago. Zero: it is enough that its loss has been made good.
	Apart Duration `json:"apart,omitempty"`
	// DryRun: everything is checked and nothing changed.
	DryRun bool `json:"dry_run,omitempty"`
}

// Destroyed is the answer to an order that was carried out, or that nothing speaks against.
type Destroyed struct {
	Node    string `json:"node"`
	Role    string `json:"role"`
	Machine string `json:"machine"` // its ID
	DryRun  bool   `json:"dry_run"` // nothing was changed
	// Incident is the ID under which the loss and its recovery are written down. Empty after a dry run.
	Incident string `json:"incident"`
	// Deleted: the provider has confirmed that the machine is off, and has deleted it. If not, its power is cut all the same, and
	// it is deleted when it has been replaced.
	Deleted bool `json:"deleted"`
}

// destroyTimeout is how long an order may take, most of which is the provider's cutting the power. Client waits longer.
const destroyTimeout = 25 * time.Second

// Refusal is an answer that says why an order is not carried out. Nothing has happened.
func Refusal(format string, args ...any) *Problem {
	return problem(http.StatusConflict, "refused", format, args...)
}

// destroy has the backend check and carry out an order. It goes on when the asker hangs up: half of it is worse than all.
func (s *Server) destroy(r *http.Request) (Destroyed, error) {
	order, err := decodeDestroy(r.Body)
	if err != nil {
		return Destroyed{}, badRequest(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), destroyTimeout)
	defer cancel()
	return s.cfg.Backend.Destroy(ctx, order)
}

func decodeDestroy(r io.Reader) (Destroy, error) {
	var d Destroy
	if err := decode(r, &d); err != nil {
		return Destroy{}, err
	}
	switch {
	case d.Node == "" || d.Machine == "":
		return Destroy{}, errors.New("node and machine must both be named")
	case len(d.Node) > maxName || len(d.Machine) > maxName:
		return Destroy{}, fmt.Errorf("a name has more than %d bytes", maxName)
	case d.Apart < 0:
		return Destroy{}, fmt.Errorf("apart %v: must not be negative", time.Duration(d.Apart))
	}
	return d, nil
}
