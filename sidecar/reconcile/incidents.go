package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// IncidentStep is one step of the loss of a node and the recovery from it.
type IncidentStep struct {
	Incident string // its ID
	Node     string // that was lost
	Role     string
	Phase    string    // lost, detected, taken over or redundant
	At       time.Time // the wall clock, for people
	Took     time.Duration
	Detail   string
}

// chronicler follows losses as the coordinator sees them. It belongs to the loop; only the coordinator writes, so that an
// incident is told once.
type chronicler struct {
	open map[string]*incident // by the node that was lost
}

type incident struct {
	id, role string
	began    cluster.Instant
	duties   []string // that the node held, and nobody has taken over yet
	detail   string
	told     map[string]bool // phases of the replacement
}

// follow turns what has changed since the last turn into steps.
func (c *chronicler) follow(v decide.View, d decide.Decision, p decide.Policy, wall time.Time) []IncidentStep {
	if d.Memory.Duties[cluster.Coordinator].Hold.State != cluster.Held {
		c.open = nil
		return nil
	}
	if c.open == nil {
		c.open = map[string]*incident{}
	}
	at := func(i cluster.Instant) time.Time { return wall.Add(i.Sub(v.Now)) }
	var steps []IncidentStep
	for _, k := range p.Nodes {
		verdict := d.Memory.Verdicts[k]
		heard := v.Peers[k].Heard
		if verdict.State != decide.Failed || heard == 0 || c.open[k] != nil {
			continue // who was never heard was not lost on our watch
		}
		in := &incident{id: cluster.IncidentID(at(heard), k), role: roleOf(p, k), began: heard, told: map[string]bool{}}
		for _, h := range v.Peers[k].Said.Holds {
			if h.State == cluster.Held || h.State == cluster.Offered {
				in.duties = append(in.duties, h.Duty)
			}
		}
		c.open[k] = in
		steps = append(steps, in.step(k, "lost", at(heard), 0, "nothing came from "+k+" after this"),
			in.step(k, "detected", at(verdict.Since), verdict.Since.Sub(heard), k+" is silent to a majority of those that are heard"))
	}
	whole := redundant(v, d, p)
	for _, k := range slices.Sorted(maps.Keys(c.open)) {
		in := c.open[k]
		if in.taken(v, d, p, k) {
			steps = append(steps, in.step(k, "taken over", wall, v.Now.Sub(in.began), in.detail))
		}
		for _, phase := range in.replaced(v, k) {
			steps = append(steps, in.step(k, phase.name, wall, v.Now.Sub(in.began), phase.detail))
		}
		if whole && v.Peers[k].Said.Claim > 0 { // without a claim it could not take a duty over yet
			steps = append(steps, in.step(k, "redundant", wall, v.Now.Sub(in.began), "every node serves again"))
			delete(c.open, k)
		}
	}
	return steps
}

// taken says, once, that others hold all that the lost node held.
func (in *incident) taken(v decide.View, d decide.Decision, p decide.Policy, lost string) bool {
	if len(in.duties) == 0 {
		return false
	}
	by := ""
	for _, duty := range in.duties {
		holder := ""
		for _, k := range p.Nodes {
			holds := v.Peers[k].Said.Holds
			if k == p.Self {
				holds = d.Say.Holds
			}
			for _, h := range holds {
				if k != lost && h.Duty == duty && h.State == cluster.Held {
					holder = k
				}
			}
		}
		if holder == "" {
			return false
		}
		by += fmt.Sprintf("%s has %s; ", holder, duty)
	}
	in.duties, in.detail = nil, by[:len(by)-2]
	return true
}

// phase is something that a replacement has come to.
type phase struct {
	name, detail string
	so           bool
}

// replaced lists, each once, the phases that a replacement of the lost node has come to.
func (in *incident) replaced(v decide.View, k string) []phase {
	i, m, said := v.Ledger.Intents[k], v.Machines[k], v.Peers[k].Said
	if !i.Open() || i.Machine == "" {
		return nil
	}
	// By its own word, which comes sooner than our next reading of its claim: by then it may serve, and the tale be over.
	joined := said.Claim > i.Replaces && said.Machine != i.Machine
	var all []phase
	for _, p := range []phase{
		{"fenced", "machine " + i.Machine + " is off or gone", m.ID == i.Machine && (m.Power == cluster.PowerOff || m.Power == cluster.PowerGone)},
		{"created", "the provider was asked for a new machine", i.Called > 0},
		{"booted", "machine " + said.Machine + " is up and has joined as " + k, joined},
		{"applied", "its role is applied", joined && said.Phase >= cluster.Applied},
	} {
		if p.so && !in.told[p.name] {
			in.told[p.name] = true
			all = append(all, p)
		}
	}
	return all
}

func (in *incident) step(node, phase string, at time.Time, took time.Duration, detail string) IncidentStep {
	return IncidentStep{Incident: in.id, Node: node, Role: in.role, Phase: phase, At: at, Took: took, Detail: detail}
}

func roleOf(p decide.Policy, node string) string {
	for _, r := range p.Roles {
		if slices.Contains(r.Nodes, node) {
			return r.Name
		}
	}
	return ""
}

// redundant says that every node of the roster is heard and serves.
func redundant(v decide.View, d decide.Decision, p decide.Policy) bool {
	for _, k := range p.Nodes {
		phase := v.Peers[k].Said.Phase
		if k == p.Self {
			phase = d.Say.Phase
		} else if d.Memory.Verdicts[k].State != decide.Alive && d.Memory.Verdicts[k].State != decide.Suspect {
			return false
		}
		if phase != cluster.Serving {
			return false
		}
	}
	return true
}

// maxSteps bounds what waits for the ledger to come back.
const maxSteps = 256

// steps are those that are not in the ledger yet.
type steps struct {
	mu   sync.Mutex
	wait []IncidentStep
	ids  map[string]string // the ID that an incident of ours has in the ledger, where somebody else opened it before us
}

func (s *steps) add(more []IncidentStep) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait = append(s.wait, more...)
	if dropped = len(s.wait) - maxSteps; dropped > 0 {
		s.wait = slices.Clone(s.wait[dropped:])
		return dropped
	}
	return 0
}

func (s *steps) first() (IncidentStep, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wait) == 0 {
		return IncidentStep{}, false
	}
	return s.wait[0], true
}

func (s *steps) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wait) > 0 {
		s.wait = s.wait[1:]
	}
}

// writeIncidents brings waiting steps into the ledger, in their order.
func (l *Loop) writeIncidents(ctx context.Context) error {
	for {
		step, ok := l.steps.first()
		if !ok {
			return nil
		}
		if err := l.writeStep(ctx, step); err != nil {
			return fmt.Errorf("write the incident of %s down: %w", step.Node, err)
		}
		l.steps.drop()
	}
}

func (l *Loop) writeStep(ctx context.Context, step IncidentStep) error {
	s := &l.steps
	if s.ids == nil {
		s.ids = map[string]string{}
	}
	id, known := s.ids[step.Incident]
	if !known {
		// The coordinator may have been lost in the middle, and the one before it has begun the tale.
		open, err := l.world.Ledger.OpenIncident(ctx, step.Node)
		if err != nil {
			return err
		}
		if id = step.Incident; open != "" {
			id = open
		}
		s.ids[step.Incident] = id
	}
	own := step.Incident
	step.Incident = id
	err := l.world.Ledger.AppendIncident(ctx, step)
	if errors.Is(err, ErrTaken) {
		err = nil // told already
	}
	if err == nil && step.Phase == "redundant" {
		delete(s.ids, own)
	}
	return err
}
