package show

import (
	"fmt"
	"strings"
	"time"

	"understudy/sidecar/admin"
)

// Plan is a whole plan.
func Plan(plan admin.Plan, look Look) string {
	p := newPage(look)
	changes, routines := split(plan.Actions)
	switch {
	case plan.Paused:
		p.line(0, alert, plan.Node+" is paused and does nothing of this; to go on: understudy resume")
	case len(changes) > 0:
		p.line(0, strong, plan.Node+" does now")
	}
	for i, a := range changes {
		p.line(2, plain, fmt.Sprintf("%d. %s", i+1, a.Do))
		p.line(5, faint, "because "+a.Why)
		if len(a.Assumes) > 0 {
			p.line(5, faint, "if "+strings.Join(a.Assumes, " and "))
		}
	}
	if len(changes) == 0 {
		p.line(0, plain, plan.Node+" has nothing to change")
	}
	p.blocked(plan.Blocked, plan.Node)
	if len(routines) > 0 {
		p.heading("Routine")
		for _, a := range routines {
			p.line(2, plain, a.Do+": "+a.Why)
		}
	}
	p.gap()
	p.line(0, faint, fmt.Sprintf("decided %s ago; looks again in %s at the latest", admin.Words(time.Duration(plan.Age)), admin.Words(time.Duration(plan.LookAgain))))
	return p.String()
}

func split(all []admin.Action) (changes, routines []admin.Action) {
	for _, a := range all {
		if a.Routine {
			routines = append(routines, a)
		} else {
			changes = append(changes, a)
		}
	}
	return changes, routines
}
