package role

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzParse holds Parse to its promises for any input: it returns, it says the same twice, and it
// returns either a roster that holds or problems with a place in the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	for _, rule := range rules {
		f.Add([]byte(strings.Replace(valid, rule.old, rule.new, 1)))
	}
	for _, s := range syntax {
		if len(s.input) < 16<<10 { // the long ones teach a fuzzer nothing
			f.Add([]byte(s.input))
		}
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, "../../roles.yaml") {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		roster, err := Parse("roles.yaml", data)
		again, errAgain := Parse("roles.yaml", data)
		if !reflect.DeepEqual(roster, again) || !reflect.DeepEqual(err, errAgain) {
			t.Fatal("the same input gave two answers")
		}
		if err == nil {
			holds(t, roster)
			return
		}
		if !reflect.DeepEqual(roster, Roster{}) {
			t.Fatalf("a roster came with an error: %+v", roster)
		}
		last := strings.Count(string(data), "\n") + 1
		for _, problem := range unjoin(err) {
			var p *Problem
			if !errors.As(problem, &p) || p.Line < 0 || p.Line > last || p.Msg == "" {
				t.Fatalf("problem without a place in the file: %#v", problem)
			}
			if len(p.Msg) > 4096 || strings.ContainsAny(p.Msg, "\n\x00") {
				t.Fatalf("problem that does not fit on a line: %q", p.Msg)
			}
		}
	})
}

// FuzzForHost: a hostname belongs to the role that lists it, alone or with the domain behind it, and
// to nobody else.
func FuzzForHost(f *testing.F) {
	roster := parse(f, valid)
	for _, node := range roster.Nodes() {
		f.Add(node)
		f.Add(node + "." + roster.Domain)
		f.Add(strings.ToUpper(node))
	}
	f.Add("")
	f.Add(".blog.example")
	f.Fuzz(func(t *testing.T, hostname string) {
		role, err := roster.ForHost(hostname)
		short := strings.TrimSuffix(hostname, "."+roster.Domain)
		var listed []string
		for _, r := range roster.Roles {
			for _, n := range r.Nodes {
				if n == short {
					listed = append(listed, r.Name)
				}
			}
		}
		var unknown *UnknownHostError
		switch {
		case err == nil && !reflect.DeepEqual(listed, []string{role.Name}):
			t.Fatalf("%q got role %s, is listed in %v", hostname, role.Name, listed)
		case err != nil && (len(listed) > 0 || !errors.As(err, &unknown) || unknown.Hostname != hostname):
			t.Fatalf("%q, listed in %v, got %v", hostname, listed, err)
		}
	})
}

// FuzzExpand: what a pattern writes out are hostnames, different ones, and no more than allowed.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"web1", "lb[1-2]", "web[01-12]", "[0-9]", "a[0-999999999999999999999]", "a[1-2][1-2]", "x[9-10]y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		hosts, err := expand(pattern)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, host := range hosts {
			if seen[host] || checkHost(host) != nil {
				t.Fatalf("%q gave %v", pattern, hosts)
			}
			seen[host] = true
		}
		if len(hosts) == 0 || len(hosts) > maxNodes {
			t.Fatalf("%q gave %d hosts", pattern, len(hosts))
		}
	})
}
