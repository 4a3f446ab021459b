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
		{"another node instead of one", "nodes: web[1-2]", "nodes: [web1, www2]", ""},
		{"a node of a role with data less", "nodes: mail[1-2]", "nodes: [mail1, post2]", "removes mail2, a machine with data of mail"},
		{"every primary less", "nodes: lb[1-2]", "nodes: [ha1, ha2]", "removes every node of lb, so that nobody is left to take its duty"},
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
		for less := range min(n, 10) {
			for more := range 10 {
				next := n - less + more
				if majority(n)+majority(next) <= n+more { // refused
					continue
				}
				// The least that two majorities share of all members that there are, however they lie.
				if share := majority(n) + majority(next) - (n + more); share < 1 {
					t.Errorf("%d members of which %d go and %d come: majorities may miss each other", n, less, more)
				}
			}
		}
	}
}

func TestANodeMayGoWhereTheOthersCanDoWithout(t *testing.T) {
	parse := func(web string) role.Roster {
		r, err := role.Parse("roles.yaml", []byte("cluster: blog\ndomain: blog.example\nprovider:\n  local: {region: here, size: small, image: base}\n"+
			"roles:\n  web: {nodes: \""+web+"\", names: [web]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct{ old, next, want string }{
		{"web[1-3]", "web[1-2]", ""},
		{"web[1-8]", "web[1-6]", ""},
		{"web[1-8]", "web[1-5]", "removes web6, web7, web8 at once, where 2 may be removed at a time"},
		{"web[1-7]", "web[1-5]", "removes web6, web7 at once, where 1 may be removed at a time"},
		{"web[1-4]", "web[2-5]", ""},
		{"web[1-4]", "web[3-6]", "adds web5, web6 and removes web1, web2 at once, which are too many"},
	} {
		err := mayBecome(parse(c.old), parse(c.next))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s to %s: got %v, want %q", c.old, c.next, err, c.want)
		}
	}
}
