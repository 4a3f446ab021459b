package sim

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/sidecar/decide"
)

// Cluster is a user's, to be played.
type Cluster struct {
	roster   role.Roster
	policies []decide.Policy
}

// mostMembers is how many a cluster can have here.
const mostMembers = 32

// NewCluster takes a cluster from its roles.yaml. A beachhead in it takes part as a member that votes and does nothing else. It
// fails on more than 32 members.
func NewCluster(r role.Roster) (*Cluster, error) {
	all, err := policiesOf(r, r.Beachhead != nil)
	if err != nil {
		return nil, err
	}
	if len(all) > mostMembers {
		return nil, fmt.Errorf("the cluster has %d members, and the simulator plays %d at most", len(all), mostMembers)
	}
	return &Cluster{roster: r, policies: all}, nil
}

// Sweep is many histories beside each other.
type Sweep struct {
	Options
	Seed    uint64 // of the first; the others follow it
	Count   int    // of histories
	Workers int    // how many are played at a time; at least one
	// Done is told after each history how many have been played. It may be nil, and is called by one goroutine at a time.
	Done func(played int)
}

// Total is what a sweep came to.
type Total struct {
	Played                                           int
	Lost                                             int // histories in which all nodes with a role were gone at once
	Simulated                                        time.Duration
	Trace                                            uint64   // hash of all histories, in the order of their seeds
	Violations                                       []string // each with its seed
	History                                          []string // what happened, if Options.History says so
	Turns, Leaps, Takeovers, Leases, Created, Faults int
	Maimed                                           time.Duration   // in which not every node was there
	Healed                                           []time.Duration // how long each time lasted until every node was there again, sorted
	CPU                                              time.Duration   // of this process meanwhile
}

// Run plays until all is played or ctx ends; then Played says how far it came, and only whole histories count.
func (s Sweep) Run(ctx context.Context) Total {
	began := cpu()
	reports := make([]*Report, s.Count)
	todo, done := make(chan int), make(chan int)
	g, running := errgroup.WithContext(ctx)
	for range max(1, s.Workers) {
		g.Go(func() error {
			for i := range todo {
				r := Run(s.Seed+uint64(i), s.Options)
				r.Seed, reports[i] = s.Seed+uint64(i), &r
				done <- i
			}
			return nil
		})
	}
	go func() {
		defer close(todo)
		for i := range s.Count {
			select {
			case todo <- i:
			case <-running.Done():
				return
			}
		}
	}()
	go func() {
		defer close(done)
		_ = g.Wait() // the workers return no errors
	}()
	played := 0
	for range done {
		if played++; s.Done != nil {
			s.Done(played)
		}
	}
	t := s.add(reports)
	t.CPU = cpu() - began
	return t
}

func (s Sweep) add(reports []*Report) Total {
	w := world{hash: fnvOffset}
	var t Total
	for _, r := range reports {
		if r == nil {
			continue
		}
		t.Played++
		t.Simulated += r.Lasted
		if r.Lost {
			t.Lost++
		}
		w.mix(r.Trace)
		t.History = append(t.History, r.History...)
		for _, v := range r.Violations {
			t.Violations = append(t.Violations, fmt.Sprintf("seed %d: %s", r.Seed, v))
		}
		t.Turns, t.Leaps, t.Takeovers, t.Leases = t.Turns+r.Turns, t.Leaps+r.Leaps, t.Takeovers+r.Takeovers, t.Leases+r.Leases
		t.Created, t.Faults, t.Maimed = t.Created+r.Created, t.Faults+r.Faults, t.Maimed+r.Maimed
		t.Healed = append(t.Healed, r.Healed...)
	}
	slices.Sort(t.Healed)
	t.Trace = w.hash
	return t
}

// cpu is what this process has used so far (getrusage(2)).
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // only for an unknown first argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
