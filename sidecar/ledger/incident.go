package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Phases of an incident, in their order. Their names are a promise: keys and `incidents --json` have them.
var phases = [...]string{"lost", "detected", "taken over", "fenced", "created", "booted", "applied", "synced", "redundant"}

// Phases returns the names of an incident's phases in their order.
func Phases() []string { return slices.Clone(phases[:]) }

// Step is one step of an incident, as the node that saw it wrote it down. The first to write a step wins.
type Step struct {
	Incident string `json:"incident"` // its ID: see ValidIncident
	Node     string `json:"node"`     // that was lost
	Role     string `json:"role"`
	Phase    string `json:"phase"` // one of Phases
	// Cause is why the node was lost, where that is known: cluster.Chaos. Only the first step of an incident has it.
	Cause string `json:"cause,omitempty"`
	// At is the wall clock of the node that wrote it: for people, never for deciding.
	At time.Time `json:"at"`
	// Took is how long after the incident's beginning that was, in nanoseconds, by the writer's own steady clock. Zero: it
	// had not seen the beginning.
	Took   time.Duration `json:"took_ns,omitempty"`
	By     string        `json:"by"`               // the node that wrote it
	Detail string        `json:"detail,omitempty"` // one sentence for people
}

// Incident is one loss and its recovery.
type Incident struct {
	ID, Node, Role string
	Cause          string // empty: not known
	Steps          []Step // in the order of the phases
}

// ValidIncident tells whether an ID can stand in a key: 1 to 127 letters, digits and hyphens, not beginning with one. IDs that
// begin with a time, such as 20260102T150405Z-web1, sort as they happened.
func ValidIncident(id string) bool { return incidentID.MatchString(id) }

// Over says whether the cluster was redundant again.
func (in Incident) Over() bool {
	return len(in.Steps) > 0 && in.Steps[len(in.Steps)-1].Phase == phases[len(phases)-1]
}

// AppendIncident writes a step of an incident. It returns nil also if the identical step is there, and a *TakenError if
// somebody else has written it; other errors as for WriteDuty.
func (l *Ledger) AppendIncident(ctx context.Context, s Step) error {
	n := slices.Index(phases[:], s.Phase)
	if n < 0 || !ValidIncident(s.Incident) {
		return fmt.Errorf("write incident %q: %q is no phase, or the ID is none", s.Incident, s.Phase)
	}
	s.At = s.At.UTC().Round(time.Millisecond)
	key := l.incidents() + s.Incident + "/" + stepName(n)
	body, err := encode(s)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	_, err = l.store.Create(ctx, key, body)
	if !errors.Is(err, ErrExists) {
		if err != nil {
			err = fmt.Errorf("write %s: %w", key, err)
		}
		return err
	}
	there, _, err := l.store.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("write %s: refused; read whose is there: %w", key, err)
	}
	if bytes.Equal(there, body) {
		return nil
	}
	other, err := decodeStep(s.Incident, n, there)
	if err != nil {
		return fmt.Errorf("write %s: refused, and what is there %w", key, err)
	}
	return &TakenError{key, other.By}
}

// stepName is the last part of a step's key: 02-taken-over.
func stepName(n int) string {
	return fmt.Sprintf("%02d-%s", n, strings.ReplaceAll(phases[n], " ", "-"))
}

func (l *Ledger) incidents() string { return l.cluster + ".incidents/" }

func decodeStep(id string, n int, body []byte) (Step, error) {
	s, err := decode[Step](body)
	if err == nil && (s.Incident != id || s.Phase != phases[n]) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return Step{}, err
	}
	return s, nil
}

// Incidents reads the newest incidents, at most that many, the newest last.
func (l *Ledger) Incidents(ctx context.Context, most int) ([]Incident, error) {
	objects, _, err := l.store.List(ctx, l.incidents(), "")
	if err != nil {
		return nil, fmt.Errorf("read the incidents: %w", err)
	}
	type place struct {
		id, key string
		n       int
	}
	var places []place
	var ids []string
	for _, o := range objects {
		id, rest, _ := strings.Cut(strings.TrimPrefix(o.Key, l.incidents()), "/")
		num, _, _ := strings.Cut(rest, "-")
		n, err := strconv.Atoi(num)
		if err != nil || n < 0 || n >= len(phases) || rest != stepName(n) || !ValidIncident(id) {
			return nil, fmt.Errorf("read the incidents: %q is no key of ours", o.Key)
		}
		places, ids = append(places, place{id, o.Key, n}), append(ids, id)
	}
	ids = slices.Compact(ids) // they come sorted
	ids = ids[max(0, len(ids)-max(most, 0)):]
	places = slices.DeleteFunc(places, func(p place) bool { return !slices.Contains(ids, p.id) })
	steps := make([]Step, len(places))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, p := range places {
		g.Go(func() error {
			body, _, err := l.store.Get(ctx, p.key)
			if err == nil {
				steps[i], err = decodeStep(p.id, p.n, body)
			}
			if err != nil {
				return fmt.Errorf("read the incidents: %s: %w", p.key, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return together(steps), nil
}

// together makes incidents of steps that come in the order of their keys.
func together(steps []Step) []Incident {
	var all []Incident
	for _, s := range steps {
		if len(all) == 0 || all[len(all)-1].ID != s.Incident {
			all = append(all, Incident{ID: s.Incident})
		}
		in := &all[len(all)-1]
		in.Node, in.Role, in.Cause = cmp.Or(in.Node, s.Node), cmp.Or(in.Role, s.Role), cmp.Or(in.Cause, s.Cause)
		in.Steps = append(in.Steps, s)
	}
	return all
}
