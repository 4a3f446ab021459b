package show

import (
	"fmt"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
)

// Incidents is the cluster's history, the newest last, as somebody who reads a terminal from below wants it.
func Incidents(all []admin.Incident, now time.Time, look Look) string {
	p := newPage(look)
	if len(all) == 0 {
		p.line(0, plain, "no node was ever lost")
		return p.String()
	}
	for i, inc := range all {
		if i > 0 {
			p.gap()
		}
		p.incident(inc, now)
	}
	return p.String()
}

func (p *page) incident(inc admin.Incident, now time.Time) {
	who := inc.Node
	if inc.Role != "" {
		who += " (" + inc.Role + ")"
	}
	lost := "was lost"
	if inc.Cause == cluster.Chaos {
		lost = "was destroyed by chaos"
	}
	switch {
	case len(inc.Phases) == 0:
		p.line(0, bad, who+": nothing is written about it yet")
		return
	case inc.Over():
		p.line(0, good, fmt.Sprintf("%s %s; redundant again after %s", who, lost, admin.Words(inc.Took())))
	default:
		p.line(0, bad, fmt.Sprintf("%s %s %s ago and is not made good yet", who, lost, admin.Words(max(now.Sub(inc.Phases[0].At), 0))))
	}
	t := table{columns: []column{{"", 0}, {"", 2}, {"", 0}, {"", 1}}}
	for i, ph := range inc.Phases {
		took := "+" + admin.Words(time.Duration(ph.Took))
		if i == 0 {
			took = ""
		}
		t.rows = append(t.rows, []cell{{"  " + ph.Name, plain}, {ph.At.In(p.look.Zone).Format("2006-01-02 15:04:05.0"), faint}, {took, plain}, {seen(ph), faint}})
	}
	p.table(t)
}

// seen says who saw a phase, and what of it.
func seen(ph admin.IncidentPhase) string {
	switch {
	case ph.By == "":
		return ph.Detail
	case ph.Detail == "":
		return "seen by " + ph.By
	}
	return ph.By + ": " + ph.Detail
}
