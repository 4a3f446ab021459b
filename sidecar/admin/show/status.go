package show

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Status is a whole status.
func Status(st admin.Status, look Look) string {
	p := newPage(look)
	p.headline(st)
	p.rollout(st.Rollout)
	if len(st.Doing) > 0 {
		p.heading("Being done")
		for _, s := range st.Doing {
			p.line(2, plain, fmt.Sprintf("%s: %s: %s", s.Node, s.What, s.Why))
		}
	}
	p.blocked(st.Blocked, st.Node)
	if len(st.Warnings) > 0 {
		p.heading("Take care")
		for _, w := range st.Warnings {
			p.line(2, alert, w)
		}
	}
	p.gap()
	p.roles(st)
	p.gap()
	p.nodes(st)
	p.gap()
	p.footer(st)
	return p.String()
}

// headline answers the question everybody has.
func (p *page) headline(st admin.Status) {
	if st.Redundant {
		p.line(0, good, st.Cluster+" is redundant: any one node can go")
		return
	}
	p.line(0, bad, st.Cluster+" is not redundant")
	for _, why := range st.Why {
		p.line(2, plain, why)
	}
	if len(st.Doing) == 0 && len(st.Blocked) == 0 {
		by := st.Node
		if len(st.Asked) > len(st.Mute) {
			by = "anybody who was asked"
		}
		p.line(2, plain, "nothing is being done about it by "+by)
	}
}

// rollout says how far the newest commit is, unless it is everywhere.
func (p *page) rollout(r admin.Rollout) {
	if r.Refused != "" {
		p.line(0, alert, "a push is refused: "+r.Refused)
	}
	if text := r.Line(); text != "" {
		tone := plain
		if r.Held != "" {
			tone = alert
		}
		p.line(0, tone, text)
	}
}

// blocked tells each thing once, with all nodes that are kept from it for the same reason.
func (p *page) blocked(all []admin.Blocked, self string) {
	if len(all) == 0 {
		return
	}
	p.heading("Blocked")
	type reason struct{ what, why string }
	var order []reason
	by := map[reason][]string{}
	for _, b := range all {
		r := reason{b.What, b.Why}
		if by[r] == nil {
			order = append(order, r)
		}
		by[r] = append(by[r], b.Node)
	}
	for _, r := range order {
		text := fmt.Sprintf("%s: blocked because %s", r.what, r.why)
		if !slices.Equal(by[r], []string{self}) {
			text = strings.Join(by[r], ", ") + ": " + text
		}
		p.line(2, alert, text)
	}
}

func (p *page) roles(st admin.Status) {
	t := table{columns: []column{{"ROLE", 0}, {"PRIMARY", 0}, {"SERVING", 0}, {"EPOCH", 3}, {"ADDRESS", 1}, {"NAMES", 2}}}
	for _, r := range st.Roles {
		serving := cell{fmt.Sprintf("%d of %d", r.Serving, r.Wanted), plain}
		if r.Serving < r.Wanted {
			serving.tone = alert
		}
		if r.Serving == 0 {
			serving.tone = bad
		}
		address, epoch := "", ""
		if r.Address.IsValid() {
			address = r.Address.String()
		}
		if r.Epoch != 0 {
			epoch = fmt.Sprint(r.Epoch)
		}
		t.rows = append(t.rows, []cell{{r.Name, strong}, primaryCell(r), serving, {epoch, plain}, {address, plain}, {strings.Join(r.Names, " "), plain}})
	}
	p.table(t)
}

func primaryCell(r admin.Role) cell {
	switch {
	case !r.Duty:
		return cell{"all alike", faint}
	case r.Primary == "":
		return cell{"nobody", bad}
	case r.State == cluster.Offered.String() && r.To != "":
		return cell{r.Primary + " → " + r.To, alert}
	}
	return cell{r.Primary, plain}
}

func (p *page) nodes(st admin.Status) {
	t := table{columns: []column{{"NODE", 0}, {"ROLE", 4}, {"DUTY", 1}, {"ADDRESS", 2}, {"MACHINE", 5}, {"COMMIT", 3}, {"STATE", 0}}}
	nodes := st.Nodes
	if st.Beachhead != nil {
		nodes = append(nodes[:len(nodes):len(nodes)], *st.Beachhead)
	}
	for _, n := range nodes {
		address := ""
		if n.Address.IsValid() {
			address = n.Address.String()
		}
		duty := cell{n.Duty, plain}
		if n.Duty == "primary" {
			duty.tone = strong
		}
		role := n.Role
		if role == "" {
			role = "beachhead"
		}
		t.rows = append(t.rows, []cell{{n.Name, strong}, {role, plain}, duty, {address, plain}, {n.Machine, plain}, {short(n.Commit), plain}, stateCell(n)})
	}
	p.table(t)
}

// stateCell says in a few words what a node does.
func stateCell(n admin.Node) cell {
	silent := "silent for " + admin.Words(time.Duration(n.Silent))
	switch n.Alive {
	case decide.Failed.String():
		return cell{"failed, " + silent, bad}
	case decide.NeverHeard.String():
		return cell{"never heard", bad}
	case decide.Broken.String():
		return cell{"heard by others only, " + silent, alert}
	}
	c := cell{n.Phase, alert}
	if n.Serves() || n.Role == "" {
		c.tone = plain
	}
	add := func(text string) { c.text, c.tone = c.text+", "+text, alert }
	if n.Alive == decide.Suspect.String() {
		add(silent)
	}
	if n.Health == cluster.Unhealthy.String() {
		add("unhealthy")
	}
	if !n.CaughtUp {
		add(strings.TrimPrefix(n.Copy, "is "))
	}
	if n.Paused {
		add("paused")
	} else if !n.Voting {
		add("not voting yet")
	}
	if n.ClockOff {
		add("clock off")
	}
	return c
}

// short is as much of a commit as people compare.
func short(commit string) string { return commit[:min(len(commit), 8)] }

func (p *page) footer(st admin.Status) {
	parts := []string{
		fmt.Sprintf("seen by %s %s ago", st.Node, admin.Words(time.Duration(st.Age))),
		fmt.Sprintf("%d of %d members heard, %d needed", st.Majority.Heard, st.Majority.Members, st.Majority.Needed),
	}
	switch l := st.Ledger; {
	case !l.Configured:
		parts = append(parts, "no ledger")
	case l.Usable:
		parts = append(parts, "ledger read "+admin.Words(time.Duration(l.Age))+" ago")
	default:
		parts = append(parts, "ledger not usable")
	}
	if len(st.Zones) > 0 {
		if st.Coordinator == "" {
			parts = append(parts, "nobody publishes the names")
		} else {
			parts = append(parts, "names are published by "+st.Coordinator)
		}
	}
	if len(st.Mute) > 0 {
		parts = append(parts, "asked, but did not answer: "+strings.Join(st.Mute, ", "))
	}
	p.line(0, faint, strings.Join(parts, "; "))
}
