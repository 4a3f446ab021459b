package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
)

// recovery follows what becomes of a loss that was ordered.
type recovery struct {
	Chaos
	where    *where
	out      io.Writer
	began    time.Time
	incident string            // its ID
	said     map[string]string // what was last known of each subject
}

// toldWithin is how long after the recovery whoever coordinates may take to write its end down.
const toldWithin = 15 * time.Second

// follow waits until the cluster is redundant with another machine for the node, and prints what changes, a line each. Whoever
// is asked may vanish, too. st was the status before.
func (r *recovery) follow(ctx context.Context, st admin.Status, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.said = map[string]string{}
	r.news(st) // none yet
	for {
		st, err := r.where.fullStatus(limited)
		if err == nil {
			for _, line := range r.news(st) {
				fmt.Fprintf(r.out, "%6.1f s  %s\n", time.Since(r.began).Seconds(), line)
			}
			r.judge(st)
		} else if limited.Err() == nil {
			r.Redundant, r.Why, r.Blocked = false, []string{"nobody can tell: " + err.Error()}, []admin.Blocked{}
		}
		r.Took = admin.Duration(time.Since(r.began))
		switch {
		case err == nil && r.Redundant:
			return nil
		case pace(limited, waitPace) == nil:
		case ctx.Err() != nil:
			return fmt.Errorf("no longer followed, the cluster goes on by itself; see understudy status --watch: %w", context.Cause(ctx))
		default:
			return exitCode(1)
		}
	}
}

// judge says whether it is over. For a moment after the loss nobody has noticed it.
func (r *recovery) judge(st admin.Status) {
	i := slices.IndexFunc(st.Nodes, func(n admin.Node) bool { return n.Name == r.Node })
	another := i >= 0 && st.Nodes[i].Machine != "" && st.Nodes[i].Machine != r.Machine
	r.Redundant, r.Why, r.Blocked = st.Redundant && another, st.Why, st.Blocked
	if st.Redundant && !another {
		r.Why = []string{r.Node + " has no other machine yet"}
	}
}

// news is what has changed since the last status: how far nodes are, who has which duty, what is blocked.
func (r *recovery) news(st admin.Status) []string {
	var lines []string
	tell := func(subject, text string) {
		if r.said[subject] != text {
			r.said[subject] = text
			lines = append(lines, text)
		}
	}
	for _, n := range st.Nodes {
		tell(n.Name, n.Name+" is "+n.Phase)
	}
	for _, role := range st.Roles {
		if role.Duty && role.Primary != "" {
			tell("duty of "+role.Name, fmt.Sprintf("%s has the duty of %s", role.Primary, role.Name))
		}
	}
	for _, b := range st.Blocked {
		if _, told := r.said[b.What]; !told { // once: the reasons count seconds
			tell(b.What, fmt.Sprintf("%s is blocked: %s", b.What, b.Why))
		}
	}
	return lines
}

// tell prints how it ended: the incident's timeline, and what is missing if the cluster is not redundant.
func (r *recovery) tell(ctx context.Context, problems io.Writer, timeout time.Duration) {
	r.Incident = r.timeline(ctx)
	if r.Redundant {
		fmt.Fprintf(r.out, "redundant again after %s\n", admin.Words(time.Duration(r.Took)))
	}
	if r.Incident != nil {
		fmt.Fprintf(r.out, "\n%s", show.Incidents([]admin.Incident{*r.Incident}, time.Now(), lookAt(r.out)))
	}
	if r.Redundant {
		return
	}
	fmt.Fprintf(problems, "understudy: the cluster is not redundant within %s: %s\n", admin.Words(timeout), strings.Join(r.Why, "; "))
	for _, b := range r.Blocked {
		fmt.Fprintf(problems, "blocked: %s: %s (%s)\n", b.What, b.Why, b.Node)
	}
}

// timeline reads the incident. Of one whose recovery has been seen it waits for the end to be written down.
func (r *recovery) timeline(ctx context.Context) *admin.Incident {
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	var last *admin.Incident
	for {
		if in := r.written(ctx); in != nil {
			last = in
		}
		if last != nil && (last.Over() || !r.Redundant) || pace(ctx, waitPace) != nil {
			return last
		}
	}
}

// written is the incident as far as it is in the ledger; nil: nobody can tell.
func (r *recovery) written(ctx context.Context) *admin.Incident {
	c, _, err := r.where.ask(ctx)
	if err != nil {
		return nil
	}
	defer c.Close()
	all, err := c.Incidents(ctx)
	i := slices.IndexFunc(all, func(in admin.Incident) bool { return in.ID == r.incident })
	if err != nil || i < 0 {
		return nil
	}
	return &all[i]
}
