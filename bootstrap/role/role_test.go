package role

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func parse(t testing.TB, text string) Roster {
	t.Helper()
	roster, err := Parse("roles.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return roster
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// unjoin takes an error of errors.Join apart.
func unjoin(err error) []error { return err.(interface{ Unwrap() []error }).Unwrap() }

// holds checks what every roster promises that came without an error.
func holds(t testing.TB, r Roster) {
	t.Helper()
	owner := map[string]string{}
	var order []string
	for _, role := range r.Order() {
		for _, need := range role.Needs {
			if !slices.Contains(order, need.Role) {
				t.Errorf("%s comes before %s, which it needs", role.Name, need.Role)
			}
		}
		order = append(order, role.Name)
	}
	for _, role := range r.Roles {
		if !slices.Contains(order, role.Name) {
			t.Errorf("the order %v lacks %s", order, role.Name)
		}
		if n := len(role.Nodes); n < 2 && !role.Alone || n > 1 && role.Alone || n == 0 || n > 2 && len(role.Data) > 0 {
			t.Errorf("role %s has %d nodes: %+v", role.Name, n, role)
		}
		if j := role.Journal; j != nil && (len(role.Data) == 0 || len(role.PrimaryUnits) == 0 || j.Maildirs == "" || len(j.Domains) == 0 ||
			!j.Milter.Addr().IsLoopback() || !j.SMTP.Addr().IsLoopback() || j.Milter == j.SMTP || j.WithoutSecond == "") {
			t.Errorf("role %s has the journal %+v", role.Name, *j)
		}
		for _, node := range role.Nodes {
			if other, taken := owner[node]; taken {
				t.Errorf("%s belongs to %s and %s", node, other, role.Name)
			}
			owner[node] = role.Name
			for _, hostname := range []string{node, node + "." + r.Domain} {
				got, err := r.ForHost(hostname)
				if err != nil || !reflect.DeepEqual(got, role) {
					t.Errorf("ForHost(%s): got %+v, %v, want %s", hostname, got, err, role.Name)
				}
			}
			fact, err := r.Fact(node)
			if err != nil || fact.Node != node || fact.Role != role.Name || fact.FirstNode != (node == role.Nodes[0]) {
				t.Errorf("Fact(%s): got %+v, %v", node, fact, err)
			}
		}
	}
	if got, want := len(r.Nodes()), len(owner); got != want || want > maxNodes {
		t.Errorf("%d nodes are listed, %d have a role", got, want)
	}
}

func TestEveryKeyArrivesInTheRoster(t *testing.T) {
	want := Roster{
		Cluster:  "blog",
		Domain:   "blog.example",
		Provider: Provider{Kind: "digitalocean", Region: "lon1", Sizes: []string{"s-1", "s-2"}, Image: "base", SSHKeys: []string{"ops"}},
		Ledger:   &Ledger{Endpoint: "https://s3.store.example", Bucket: "blog-understudy", Region: "eu"},
		DNS: []DNS{
			{Kind: "rfc2136", Zone: "example", Server: "192.0.2.53:53", Key: "ddns", Algorithm: "hmac-sha512"},
			{Kind: "digitalocean", Zone: "blog.example"},
		},
		Roles: []Role{
			{
				Name: "lb", Nodes: []string{"lb1", "lb2"},
				Address: &Address{ReservedIP: netip.MustParseAddr("203.0.113.10"), Names: []string{"@", "www"}},
				Health:  Health{Units: []string{"haproxy.service"}, HTTP: []string{"http://127.0.0.1:8404/healthz"}},
				Needs:   []Need{{Role: "web", What: "a page", HTTP: "http://web.blog.example/"}},
			}, {
				Name: "web", Nodes: []string{"web09", "web10", "web-a"}, Names: []string{"web"},
				Health: Health{Command: []string{"/usr/bin/check", "-q"}},
				Needs:  []Need{{Role: "repo", What: "package blog", HTTP: "http://apt.blog.example/Packages", Contains: "Package: blog"}},
			}, {
				Name: "mail", Nodes: []string{"mx-a", "mx-b"},
				Address:       &Address{VIP: netip.MustParsePrefix("10.0.0.10/24"), Interface: "eth1", Names: []string{"mail"}, MX: 10},
				Data:          []Data{{Path: "/var/vmail", Owner: "vmail", Kind: Plain}, {Path: "/srv/mail", Kind: Maildir}},
				PrimaryUnits:  []string{"postfix.service", "dovecot.service"},
				Health:        Health{TCP: []string{"127.0.0.1:25", "[::1]:993"}},
				StandbyHealth: Health{Units: []string{"ssh.service"}},
				Drain:         []string{"/usr/local/sbin/drain", "now"},
				Journal: &Journal{Milter: netip.MustParseAddrPort("127.0.0.1:8892"), SMTP: netip.MustParseAddrPort("[::1]:26"),
					Maildirs: "/var/vmail/in", Domains: []string{"a.example", "b.example"}, WithoutSecond: Accept},
			}, {
				Name: "repo", Nodes: []string{"apt1"}, Names: []string{"apt"}, Data: []Data{{Path: "/srv/apt", Kind: Plain}},
				Publish: "/usr/local/sbin/publish", Alone: true,
			},
		},
		Beachhead: &Beachhead{
			Provider: "hetzner", WhenProviderSilent: Move,
			Machines: &Provider{Kind: "hetzner", Region: "fsn1", Sizes: []string{"cx22"}, Image: "base"},
		},
		Timings: Timings{Beat: 200 * time.Millisecond, MissedBeats: 4, ReplacementHold: 20 * time.Second,
			StartupTimeout: 5 * time.Minute, BeachheadWait: 20 * time.Minute},
		Drift: Drift{Every: 2 * time.Hour, LookOnly: true},
	}
	got := parse(t, valid)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	holds(t, got)
}

// The least a roster can say, and what holds where it says nothing.
func TestSilenceMeansTheDefaults(t *testing.T) {
	got := parse(t, `
cluster: a
domain: a.example
provider: {local: {region: x, size: y, image: z}}
dns: [{rfc2136: {server: "ns.a.example:53", zone: a.example, key: k}}]
roles: {one: {nodes: n, understudy: none}}
beachhead: {provider: hetzner}
`)
	if got.Timings != DefaultTimings() {
		t.Errorf("timings: got %+v, want %+v", got.Timings, DefaultTimings())
	}
	if got.Drift != DefaultDrift() {
		t.Errorf("drift: got %+v, want %+v", got.Drift, DefaultDrift())
	}
	if got, want := got.Beachhead, (Beachhead{Provider: "hetzner", WhenProviderSilent: Ask}); *got != want {
		t.Errorf("beachhead: got %+v, want %+v", *got, want)
	}
	if got, want := got.DNS[0].Algorithm, "hmac-sha256"; got != want {
		t.Errorf("algorithm: got %s, want %s", got, want)
	}
	if role := got.Roles[0]; got.Ledger != nil || role.HasPrimary() || !role.Health.IsZero() {
		t.Errorf("got %+v, want no ledger, no primary and no checks", got)
	}
	holds(t, got)
}

// A journal that says nothing is the usual one.
func TestAJournalFindsItsMaildirsAndItsDomain(t *testing.T) {
	text := valid[:strings.Index(valid, "    journal:")] + "    journal: {}\n" + valid[strings.Index(valid, "  repo:\n"):]
	want := Journal{Milter: netip.MustParseAddrPort("127.0.0.1:8892"), SMTP: netip.MustParseAddrPort("127.0.0.1:10026"),
		Maildirs: "/srv/mail", Domains: []string{"blog.example"}, WithoutSecond: Defer}
	if got := parse(t, text).Roles[2].Journal; !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

// The default timings have to pass the checks a file's own do.
func TestDefaultTimingsAreAllowed(t *testing.T) {
	d := DefaultTimings()
	text := strings.Replace(valid, valid[strings.Index(valid, "timings: "):], "timings: {beat: "+d.Beat.String()+
		", missed_beats: 5, replacement_hold: "+d.ReplacementHold.String()+", startup_timeout: "+d.StartupTimeout.String()+
		", beachhead_wait: "+d.BeachheadWait.String()+"}\n", 1)
	if got := parse(t, text).Timings; got != d {
		t.Errorf("got %+v, want %+v", got, d)
	}
	if got, want := d.Detection(), 500*time.Millisecond; got != want {
		t.Errorf("detection takes %v, want %v", got, want)
	}
}

// The control repo this repository is.
func TestTheReferenceClusterIsValid(t *testing.T) {
	roster := parse(t, read(t, "../../roles.yaml"))
	holds(t, roster)
	want := []string{"lb1", "lb2", "web1", "web2", "mail1", "mail2", "repo1", "repo2"}
	if got := roster.Nodes(); !slices.Equal(got, want) {
		t.Errorf("nodes: got %v, want %v", got, want)
	}
	var order []string
	for _, role := range roster.Order() {
		order = append(order, role.Name)
	}
	if want := []string{"lb", "mail", "repo", "web"}; !slices.Equal(order, want) {
		t.Errorf("order: got %v, want %v", order, want)
	}
	var publishers []string
	for _, role := range roster.Roles {
		if role.Publish != "" {
			publishers = append(publishers, role.Name)
		}
	}
	if want := []string{"repo"}; !slices.Equal(publishers, want) {
		t.Errorf("publishing: got %v, want %v", publishers, want)
	}
}

func TestEveryProblemIsToldAtOnce(t *testing.T) {
	_, err := Parse("roles.yaml", []byte(read(t, "testdata/wrong.yaml")))
	if err == nil {
		t.Fatal("accepted")
	}
	golden(t, "wrong.golden", err.Error()+"\n")
	var first *Problem
	if !errors.As(err, &first) || first.Line != 2 {
		t.Errorf("the first problem is %+v, want the one on line 2", first)
	}
}

// Puppet's manifests read this; it may only grow.
func TestFactsAreWhatManifestsWereToldTheyAre(t *testing.T) {
	roster := parse(t, valid)
	for _, hostname := range []string{"mx-a", "web10.blog.example"} {
		fact, err := roster.Fact(hostname)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(fact, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		node, _, _ := strings.Cut(hostname, ".")
		golden(t, "fact-"+node+".golden", string(got)+"\n")
	}
	if _, err := roster.Fact("nobody"); !errors.As(err, new(*UnknownHostError)) {
		t.Errorf("a stranger's fact: got %v, want an UnknownHostError", err)
	}
}

// A fact may be changed by whoever has it without changing the roster behind it.
func TestAFactSharesNothingWithTheRoster(t *testing.T) {
	roster := parse(t, valid)
	fact, err := roster.Fact("mx-a")
	if err != nil {
		t.Fatal(err)
	}
	fact.Journal.Maildirs, fact.Journal.Domains[0] = "x", "x"
	fact.Members["mail"][0], fact.Address.Names[0], fact.Data[0].Path, fact.PrimaryUnits[0] = "x", "x", "x", "x"
	fact.Roles["mail"].Nodes[0], fact.Roles["mail"].Address.Names[0], fact.Address.MX = "x", "x", 1
	if !reflect.DeepEqual(roster, parse(t, valid)) {
		t.Errorf("the roster has become %+v", roster)
	}
}

func TestAHostnameIsLookedUpAsWritten(t *testing.T) {
	roster := parse(t, valid)
	for _, tc := range []struct{ hostname, want string }{
		{"lb2", "lb"},
		{"lb2.blog.example", "lb"},
		{"web09", "web"},
		{"web9", `hostname "web9" is in no role of roles.yaml (its nodes: lb1 lb2 web09 web10 web-a mx-a mx-b apt1); did you mean web09?`},
		{"LB2", `hostname "LB2" is in no role of roles.yaml (its nodes: lb1 lb2 web09 web10 web-a mx-a mx-b apt1); did you mean lb2?`},
		{"lb2.other.example", `hostname "lb2.other.example" is in no role of roles.yaml (its nodes: lb1 lb2 web09 web10 web-a mx-a mx-b apt1)`},
		{"lb2.blog.example.", `hostname "lb2.blog.example." is in no role of roles.yaml (its nodes: lb1 lb2 web09 web10 web-a mx-a mx-b apt1)`},
		{"", `hostname "" is in no role of roles.yaml (its nodes: lb1 lb2 web09 web10 web-a mx-a mx-b apt1)`},
	} {
		role, err := roster.ForHost(tc.hostname)
		got := role.Name
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.hostname, got, tc.want)
		}
	}
}

func TestTheNodesInAMessageFitOnALine(t *testing.T) {
	for _, tc := range []struct {
		nodes int
		want  string
	}{{20, " node)"}, {50, " node and 30 more)"}} {
		err := &UnknownHostError{Hostname: "other", Known: slices.Repeat([]string{"node"}, tc.nodes)}
		if got := err.Error(); !strings.HasSuffix(got, tc.want) {
			t.Errorf("got %q, want it to end in %q", got, tc.want)
		}
	}
}

func TestAnAddressOrDataMakesAPrimary(t *testing.T) {
	for _, tc := range []struct {
		role Role
		want bool
	}{
		{Role{Names: []string{"a"}}, false},
		{Role{Address: &Address{}}, true},
		{Role{Data: []Data{{Path: "/srv/a"}}}, true},
	} {
		if got := tc.role.HasPrimary(); got != tc.want {
			t.Errorf("%+v: got %v, want %v", tc.role, got, tc.want)
		}
	}
}

func TestOrderPutsTheNeededFirstAndKeepsTheFilesOrderOtherwise(t *testing.T) {
	needs := func(names ...string) (needs []Need) {
		for _, name := range names {
			needs = append(needs, Need{Role: name})
		}
		return needs
	}
	roster := Roster{Roles: []Role{
		{Name: "a", Needs: needs("d", "b")}, {Name: "b", Needs: needs("e")}, {Name: "c"}, {Name: "d"}, {Name: "e"},
	}}
	var got []string
	for _, role := range roster.Order() {
		got = append(got, role.Name)
	}
	if want := []string{"c", "d", "e", "b", "a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Parse refuses circles, so a circle here is a roster somebody made up.
func TestOrderOfACirclePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Roster{Roles: []Role{{Name: "a", Needs: []Need{{Role: "a"}}}}}.Order()
}

func TestWordsNearEachOtherAreFound(t *testing.T) {
	known := []string{"nodes", "names", "needs", "mx"}
	for _, tc := range []struct{ word, want string }{
		{"node", "nodes"}, {"noeds", "nodes"}, {"nmaes", "names"}, {"need", "needs"}, {"xm", "mx"},
		{"data", ""}, {"", ""}, {strings.Repeat("nodes", 20), ""},
	} {
		if got := closest(tc.word, known); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.word, got, tc.want)
		}
	}
}

func TestDistanceCountsSlipsOfTheFinger(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1}, {"ab", "ba", 1},
		{"abc", "cab", 2}, {"abcd", "badc", 2}, {"abc", "xyz", 3}, {"ca", "abc", 3}, {"axb", "bya", 3},
	} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("%q, %q: got %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

// The edges of what single words may be.
func TestWordsEndWhereTheyShould(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	long := strings.Repeat(x(62)+".", 4) // 252 letters
	for _, tc := range []struct {
		valid func(string) bool
		word  string
		want  bool
	}{
		{label.MatchString, x(63), true}, {label.MatchString, x(64), false}, {label.MatchString, "a-", false}, {label.MatchString, "", false},
		{isDomain, long + "x", true}, {isDomain, long + "xx", false}, {isDomain, "a..b", false},
		{isInterface, x(15), true}, {isInterface, x(16), false}, {isInterface, ".", false}, {isInterface, "..", false},
		{isInterface, "a b", false}, {isInterface, "eth0:1", false},
		{isUnit, x(247) + ".service", true}, {isUnit, x(248) + ".service", false}, {isUnit, ".service", false},
		{isHostPort, "a.example:65535", true}, {isHostPort, "a.example:0", false}, {isHostPort, "A:1", false}, {isHostPort, ":1", false},
		{isHostPort, "a", false}, {isHostPort, "::1:1", false}, {isHostPort, "a:+1", false},
		{isURL, "https://a:1/?q", true}, {isURL, "http://[::1]:80/", true}, {isURL, "http://a:0/", false}, {isURL, "http://A/", false},
		{isURL, "http:a", false}, {isURL, "http://%zz/", false}, {isURL, "ftp://a/", false},
		{isPath, "/", true}, {isPath, "a", false}, {isPath, "/a/./b", false}, {isPath, "//a", false},
		{bucket.MatchString, "abc", true}, {bucket.MatchString, "ab", false}, {bucket.MatchString, x(63), true}, {bucket.MatchString, x(64), false},
		{roleName.MatchString, x(63), true}, {roleName.MatchString, x(64), false}, {roleName.MatchString, "1a", false},
		{userName.MatchString, x(32), true}, {userName.MatchString, x(33), false}, {userName.MatchString, "-a", false},
	} {
		if got := tc.valid(tc.word); got != tc.want {
			t.Errorf("%q: got %v, want %v", tc.word, got, tc.want)
		}
	}
}
