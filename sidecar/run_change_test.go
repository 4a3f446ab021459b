package main

import (
	"os"
	"strings"
	"testing"

	"understudy/bootstrap/role"
)

func TestARosterMayChangeInWhatTheNodesNeedNotAgreeOn(t *testing.T) {
	data, err := os.ReadFile("../roles.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parse := func(text string) role.Roster {
		r, err := role.Parse("roles.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	old := parse(string(data))
	for _, c := range []struct{ claim, from, to, want string }{
		{"a name", "names: [web]", "names: [web, blog]", ""},
		{"a health check", "tcp: 127.0.0.1:80", "tcp: 127.0.0.1:8080", ""},
		{"an address", "203.0.113.25", "203.0.113.26", ""},
		{"a node more", "nodes: web[1-2]", "nodes: web[1-3]", ""},
		{"two nodes more", "nodes: web[1-2]", "nodes: web[1-4]", ""},
		{"three nodes more", "nodes: web[1-2]", "nodes: web[1-5]", "adds web3, web4, web5 at once, where 2 may be added at a time"},
		{"a role more", "  web:\n    nodes: web[1-2]", "  cache:\n    nodes: cache[1-2]\n  web:\n    nodes: web[1-2]", ""},
		{"a node less and one of another name", "nodes: web[1-2]", "nodes: [web1, www2]", "removes web2"},
		{"a directory", "path: /srv/apt", "path: /srv/debs", "changes the data of repo"},
	} {
		if strings.Count(string(data), c.from) != 1 {
			t.Fatalf("%s: %q is there %d times", c.claim, c.from, strings.Count(string(data), c.from))
		}
		err := mayBecome(old, parse(strings.Replace(string(data), c.from, c.to, 1)))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.claim, err, c.want)
		}
	}
	next := old
	next.Timings.Beat *= 2
	next.Beachhead = nil
	for _, want := range []string{"from 500ms to 1s", "beachhead"} {
		if err := mayBecome(old, next); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestAnyMajorityOfTheOldMembersMeetsAnyOfTheNew(t *testing.T) {
	for n := 1; n < 40; n++ {
		for more := range 10 {
			if majority(n)+majority(n+more) <= n+more { // refused
				continue
			}
			// The least that two majorities share of n+more members, all of the first being among the n.
			if share := majority(n) - (n + more - majority(n+more)); share < 1 {
				t.Errorf("%d and %d members: majorities may miss each other", n, n+more)
			}
		}
	}
}
