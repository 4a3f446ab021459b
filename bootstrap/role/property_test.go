package role

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// draft is a roster as a user might have it in mind, before it is written down.
type draft struct {
	hosts map[string]string // hostname → role
	order []string          // the roles
	text  string
}

// drafts makes valid rosters: up to six roles with patterns, lists and single names, stateless and
// stateful, needing any role before them.
func drafts(t *rapid.T) draft {
	d := draft{hosts: map[string]string{}}
	var b strings.Builder
	b.WriteString("cluster: c\ndomain: c.example\nprovider: {local: {region: r, size: s, image: i}}\nroles:\n")
	for i := range rapid.IntRange(1, 6).Draw(t, "roles") {
		name := fmt.Sprintf("role%c", 'a'+i)
		stateful := rapid.Bool().Draw(t, "stateful")
		most := 5
		if stateful {
			most = 2
		}
		count := rapid.IntRange(1, most).Draw(t, "nodes")
		fmt.Fprintf(&b, "  %s:\n    nodes: %s\n", name, d.nodes(t, name, count))
		if count == 1 {
			b.WriteString("    understudy: none\n")
		}
		if stateful {
			b.WriteString("    data: [{path: /srv/a}, {path: /srv/b}]\n    primary_units: w.service\n")
		}
		if rapid.Bool().Draw(t, "address") {
			fmt.Fprintf(&b, "    address: {reserved_ip: 203.0.113.%d, names: [%s]}\n", i+1, name)
		}
		if len(d.order) > 0 && rapid.Bool().Draw(t, "needy") {
			fmt.Fprintf(&b, "    needs: [{role: %s, what: it, http: http://x/}]\n", rapid.SampledFrom(d.order).Draw(t, "need"))
		}
		d.order = append(d.order, name)
	}
	d.text = b.String()
	return d
}

// nodes writes count hostnames of a role in one of the three ways there are.
func (d draft) nodes(t *rapid.T, role string, count int) string {
	style := rapid.SampledFrom([]string{"%s-%d", "%s-%02d"}).Draw(t, "style")
	first := rapid.IntRange(0, 9-count).Draw(t, "first")
	var hosts []string
	for i := range count {
		host := fmt.Sprintf(style, role, first+i)
		d.hosts[host] = role
		hosts = append(hosts, host)
	}
	if rapid.Bool().Draw(t, "list") {
		return "[" + strings.Join(hosts, ", ") + "]"
	}
	digits := func(n int) string { return strings.TrimPrefix(fmt.Sprintf(style, "", n), "-") }
	return fmt.Sprintf("%s-[%s-%s]", role, digits(first), digits(first+count-1))
}

func TestEveryNodeOfAValidRosterHasTheRoleThatListsItAndNoOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := drafts(rt)
		roster, err := Parse("roles.yaml", []byte(d.text))
		if err != nil {
			rt.Fatalf("%v\n%s", err, d.text)
		}
		holds(t, roster)
		if got, want := len(roster.Nodes()), len(d.hosts); got != want {
			rt.Fatalf("got %d nodes, want %d\n%s", got, want, d.text)
		}
		for host, want := range d.hosts {
			role, err := roster.ForHost(host)
			if err != nil || role.Name != want {
				rt.Fatalf("%s: got %q, %v, want %q\n%s", host, role.Name, err, want, d.text)
			}
		}
	})
}

// Two rosters side by side share a hostname as soon as one of them is written twice.
func TestAHostnameGivenTwiceIsRefusedWhereverItIs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := drafts(rt)
		var hosts []string
		for host := range d.hosts {
			hosts = append(hosts, host)
		}
		slices.Sort(hosts)
		host := rapid.SampledFrom(hosts).Draw(rt, "host")
		_, err := Parse("roles.yaml", []byte(d.text+"  thief: {nodes: [own, "+host+"]}\n"))
		if want := "the hostname " + host + " is taken by roles." + d.hosts[host]; err == nil || !strings.Contains(err.Error(), want) {
			rt.Fatalf("got %v, want %q\n%s", err, want, d.text)
		}
	})
}

// How a file is laid out, and which top-level key comes first, changes nothing about what it says.
func TestTheOrderOfKeysMeansNothing(t *testing.T) {
	want := parse(t, valid)
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(valid), &doc); err != nil {
		t.Fatal(err)
	}
	root := doc.Content[0]
	var pairs []int
	for i := 0; i < len(root.Content); i += 2 {
		pairs = append(pairs, i)
	}
	rapid.Check(t, func(rt *rapid.T) {
		turned := &yaml.Node{Kind: yaml.MappingNode}
		for _, i := range rapid.Permutation(pairs).Draw(rt, "order") {
			turned.Content = append(turned.Content, root.Content[i], root.Content[i+1])
		}
		data, err := yaml.Marshal(turned)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := Parse("roles.yaml", data)
		if err != nil || !reflect.DeepEqual(got, want) {
			rt.Fatalf("got %+v, %v\n%s", got, err, data)
		}
	})
}
