package puppet_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/image"
)

// catalog is what the compiler made for one node.
type catalog struct {
	Resources []resource `json:"resources"`
}

type resource struct {
	Type       string         `json:"type"`
	Title      string         `json:"title"`
	Parameters map[string]any `json:"parameters"`
}

func (r resource) String() string { return fmt.Sprintf("%s[%s]", r.Type, r.Title) }

// text returns a parameter as text; "" if there is none.
func (r resource) text(parameter string) string {
	value, ok := r.Parameters[parameter]
	if !ok || value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// path is where a file goes.
func (r resource) path() string {
	if p := r.text("path"); p != "" {
		return p
	}
	return r.Title
}

// node is a node of the reference cluster with its role and catalog.
type node struct {
	name    string
	role    role.Role
	catalog catalog
}

var compiled = struct {
	once  sync.Once
	specs result
	nodes []node
}{}

// nodes runs the specs once, which compile the catalog of every node, and returns the nodes in the roster's order.
func nodes(t *testing.T) []node {
	t.Helper()
	compiled.once.Do(func() {
		dir := t.TempDir()
		compiled.specs = run(t, call{Args: []string{"/usr/bin/rspec", "--no-color", "--format", "documentation"},
			Env: []string{"CATALOGS=/srv"}, Binds: map[string]string{"/srv": dir}})
		for _, ro := range roster(t).Roles {
			for _, name := range ro.Nodes {
				n := node{name: name, role: ro}
				data, err := os.ReadFile(filepath.Join(dir, name+".json"))
				if err == nil {
					err = json.Unmarshal(data, &n.catalog)
				}
				if err != nil {
					t.Fatalf("the specs left no catalog of %s: %v\n%s", name, err, compiled.specs.stdout)
				}
				compiled.nodes = append(compiled.nodes, n)
			}
		}
	})
	if len(compiled.nodes) == 0 {
		t.Fatal("there are no catalogs; see the first test that wanted them")
	}
	return compiled.nodes
}

func TestTheSpecsOfEveryNodePass(t *testing.T) {
	nodes(t)
	if s := compiled.specs; s.code != 0 || s.stderr != "" {
		t.Fatalf("rspec: exit code %d, want 0 and no warnings\n%s%s", s.code, s.stdout, s.stderr)
	}
}

// mayBeSaid are the verbs of systemctl(1) that never start a unit which does not run.
var mayBeSaid = []string{"try-reload-or-restart", "try-restart", "reload", "is-active", "is-enabled", "status", "show"}

// startsUnit says how a resource would start or enable unit; "" if it does not.
func startsUnit(r resource, unit string) string {
	name := strings.TrimSuffix(unit, ".service")
	named := regexp.MustCompile(`(^|[\s'"/=,\[])` + regexp.QuoteMeta(name) + `(\.service)?($|[\s'",\]])`)
	switch r.Type {
	case "Service":
		if called := r.text("name"); r.Title == name || r.Title == unit || called == name || called == unit {
			return "is a service resource"
		}
	case "Exec":
		for _, parameter := range []string{"command", "onlyif", "unless"} {
			text := r.text(parameter)
			if parameter == "command" && text == "" {
				text = r.Title
			}
			if !named.MatchString(text) || !strings.Contains(text, "systemctl") {
				continue
			}
			if !slices.ContainsFunc(strings.Fields(text), func(word string) bool { return slices.Contains(mayBeSaid, word) }) {
				return "says " + text
			}
		}
	case "File":
		if p := r.path(); filepath.Base(p) == unit && regexp.MustCompile(`\.(wants|requires)$`).MatchString(filepath.Dir(p)) {
			return "enables it by a link"
		}
	}
	return ""
}

func TestNoCatalogStartsOrEnablesAPrimaryUnit(t *testing.T) {
	var units []string
	for _, ro := range roster(t).Roles {
		units = append(units, ro.PrimaryUnits...)
	}
	if len(units) == 0 {
		t.Fatal("the reference cluster has no primary_units: nothing would be tested")
	}
	for _, n := range nodes(t) {
		for _, r := range n.catalog.Resources {
			for _, unit := range units {
				if how := startsUnit(r, unit); how != "" {
					t.Errorf("%s: %v: primary unit %s: %s", n.name, r, unit, how)
				}
			}
		}
	}
}

func TestWhatStartsAUnitIsRecognised(t *testing.T) {
	exec := func(command string) resource {
		return resource{"Exec", "x", map[string]any{"command": command}}
	}
	for _, c := range []struct {
		r    resource
		want bool
	}{
		{resource{"Service", "postfix", nil}, true},
		{resource{"Service", "mail", map[string]any{"name": "postfix.service"}}, true},
		{resource{"Service", "postfix-exporter", nil}, false},
		{exec("/usr/bin/systemctl start postfix"), true},
		{exec("/usr/bin/systemctl enable --now dovecot postfix.service"), true},
		{exec("/usr/bin/systemctl restart postfix.service"), true},
		{exec("/usr/bin/systemctl reload-or-restart postfix.service"), true},
		{exec("/usr/bin/systemctl try-reload-or-restart postfix.service"), false},
		{exec("/usr/bin/systemctl restart nginx"), false},
		{exec("/usr/sbin/postconf -n"), false},
		{resource{"File", "/etc/systemd/system/multi-user.target.wants/postfix.service", nil}, true},
		{resource{"File", "/etc/systemd/system/postfix.service.d/x.conf", nil}, false},
	} {
		if how := startsUnit(c.r, "postfix.service"); (how != "") != c.want {
			t.Errorf("%v %v: got %q, want a reason: %v", c.r, c.r.Parameters, how, c.want)
		}
	}
}

var secretPath = regexp.MustCompile(`/run/understudy/secrets/([^/\s"']+)/([^/\s"']+)`)

// madeSecrets are the files that the template makes, group → names.
func madeSecrets(t *testing.T) map[string]map[string]secrets.Secret {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repo, "puppet", "secrets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	template, err := secrets.ParseTemplate("secrets.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	bundle, _, err := secrets.Generate(secrets.Bundle{}, template, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Files
}

// TestNoCatalogHoldsASecret: a catalog names where a secret lies, its group is the role's or everybody's, and the file it
// becomes shows no difference, leaves no old copy, and is nobody else's to read. Only what is public may be readable.
func TestNoCatalogHoldsASecret(t *testing.T) {
	made := madeSecrets(t)
	used := 0
	for _, n := range nodes(t) {
		for _, r := range n.catalog.Resources {
			data, err := json.Marshal(r.Parameters)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), "PRIVATE KEY") {
				t.Errorf("%s: %v holds a private key", n.name, r)
			}
			for _, found := range secretPath.FindAllStringSubmatch(string(data), -1) {
				group, name := found[1], found[2]
				used++
				if group != n.role.Name && group != "common" {
					t.Errorf("%s: %v reads %s/%s, a secret of another role", n.name, r, group, name)
				}
				if _, ok := made[group][name]; !ok {
					t.Errorf("%s: %v reads %s/%s, which puppet/secrets.yaml does not make", n.name, r, group, name)
				}
				if complaint := careless(r, group, name); complaint != "" {
					t.Errorf("%s: %v: %s", n.name, r, complaint)
				}
			}
		}
	}
	if used == 0 {
		t.Error("no catalog reads a secret: nothing was tested")
	}
}

// careless says what is wrong with the way r handles a secret file; "" if nothing is.
func careless(r resource, group, name string) string {
	public := group == "common" || strings.HasSuffix(name, ".crt") || strings.HasSuffix(name, ".pub")
	if r.Type != "File" || public {
		return ""
	}
	switch {
	case r.Parameters["show_diff"] != false:
		return "show_diff is not false"
	case r.Parameters["backup"] != false:
		return "backup is not false"
	case !regexp.MustCompile(`^0?[4-7][04]0$`).MatchString(r.text("mode")):
		return "mode " + r.text("mode") + " lets others read it"
	}
	return ""
}

// TestTheDataPathsAreLeftToTheHolderOfTheDuty: data has one writer. Puppet, which runs on both nodes, only makes the directory.
func TestTheDataPathsAreLeftToTheHolderOfTheDuty(t *testing.T) {
	for _, n := range nodes(t) {
		for _, data := range n.role.Data {
			made := false
			for _, r := range n.catalog.Resources {
				if r.Type != "File" {
					continue
				}
				switch p := r.path(); {
				case p == data.Path:
					made = r.text("ensure") == "directory" && r.Parameters["recurse"] == nil
				case strings.HasPrefix(p, data.Path+"/"):
					t.Errorf("%s: %v writes into the data path %s", n.name, r, data.Path)
				}
			}
			if !made {
				t.Errorf("%s: the data path %s is not made, or more than the directory itself is managed", n.name, data.Path)
			}
		}
	}
}

func TestTheImageHasEveryPackageThatARoleWants(t *testing.T) {
	baked, err := image.ReadPackages(filepath.Join(repo, image.PackageList))
	if err != nil {
		t.Fatal(err)
	}
	const own = "blog" // comes from the cluster's own repository
	wanted := map[string]bool{}
	for _, n := range nodes(t) {
		for _, r := range n.catalog.Resources {
			if r.Type == "Package" && r.Title != own {
				wanted[r.Title] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if !slices.Contains(baked, name) {
			t.Errorf("puppet/image-packages lacks %s: every first run of its role would download it", name)
		}
	}
}
