package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"understudy/bootstrap/role"
)

// mayBecome refuses a roles.yaml that a running cluster cannot go over to node by node. In between some nodes go by the old one and some
// by the new one, so both must agree on what two nodes may never disagree on: who votes, who plays what, how long silence lasts, and
// which directories are mirrored. The error names all that differs.
func mayBecome(old, next role.Roster) error {
	was, is := players(old), players(next)
	var all []string
	for _, node := range slices.Sorted(maps.Keys(was)) {
		switch now, there := is[node]; {
		case !there:
			all = append(all, "removes "+node)
		case now != was[node]:
			all = append(all, fmt.Sprintf("makes %s a %s instead of a %s", node, now, was[node]))
		}
	}
	for _, node := range slices.Sorted(maps.Keys(is)) {
		if _, there := was[node]; !there {
			all = append(all, "adds "+node)
		}
	}
	if (old.Beachhead == nil) != (next.Beachhead == nil) {
		all = append(all, "adds or removes the beachhead")
	}
	if o, n := old.Timings, next.Timings; o.Beat != n.Beat || o.MissedBeats != n.MissedBeats {
		all = append(all, fmt.Sprintf("changes when a silent node has failed (beat × missed_beats) from %v to %v", o.Detection(), n.Detection()))
	}
	for _, r := range old.Roles {
		i := slices.IndexFunc(next.Roles, func(other role.Role) bool { return other.Name == r.Name })
		if i >= 0 && !slices.Equal(r.Data, next.Roles[i].Data) {
			all = append(all, "changes the data of "+r.Name)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New("roles.yaml " + strings.Join(all, ", ") + ", which this version cannot do while the cluster runs")
}

// players is the role of every node.
func players(r role.Roster) map[string]string {
	all := map[string]string{}
	for _, of := range r.Roles {
		for _, node := range of.Nodes {
			all[node] = of.Name
		}
	}
	return all
}
