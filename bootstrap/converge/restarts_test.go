package converge

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// leaveCatalog does what Puppet does with --catalog_cache_terminus=json.
func leaveCatalog(t *testing.T, args []string, content string) {
	t.Helper()
	if content == "" || !slices.Contains(args, "--catalog_cache_terminus=json") {
		return
	}
	for _, a := range args {
		if dir, ok := strings.CutPrefix(a, "--client_datadir="); ok {
			if err := os.MkdirAll(filepath.Join(dir, "catalog"), 0o750); err != nil {
				t.Error(err)
			}
			writeAs(t, []string{"=" + filepath.Join(dir, "catalog", "vm.json")}, "=", content)
		}
	}
}

func told(all []Restart) (lines []string) {
	for _, r := range all {
		lines = append(lines, r.Verb+" "+r.Unit+" by "+r.Resource)
	}
	return lines
}

// Both recordings are of the same manifest, once without and once with effects: what is foretold is what happens.
func TestRestartsAreForetoldByARunWithoutEffects(t *testing.T) {
	want := []string{
		"reload dovecot.service by Exec[reload dovecot]",
		"reload nginx.service by Service[nginx]",
		"restart opendkim.service by Service[opendkim]",
		"restart systemd-journald.service by Exec[/usr/bin/systemctl try-restart systemd-journald.service]",
		"restart systemd-sysctl.service by Exec[restart sysctl]",
		"start newd.service by Service[new]",
	}
	for _, name := range []string{"restarts_noop", "restarts"} {
		p, _ := playing(t, load(t, name))
		r := Run{Release: "/var/lib/understudy/releases/serv", Commit: "serv", Restarts: true}
		if name == "restarts_noop" {
			r.Noop, r.Scratch = true, t.TempDir()
		}
		o, err := p.Apply(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		got := told(o.Restarts)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if _, err := os.Stat(filepath.Join(p.Paths.State, "catalogs")); err == nil {
			t.Errorf("%s: the catalog, with whatever is sensitive in it, is left behind", name)
		}
		if s := o.Summary.Time; s.Types["service"] == 0 || s.Types["exec"] == 0 || s.Config == 0 || s.Types["config_retrieval"] != 0 {
			t.Errorf("%s: got times %+v, want those of services and execs, and each once", name, s)
		}
	}
}

func TestARunThatIsNotAskedForRestartsLeavesNoCatalog(t *testing.T) {
	p, fake := playing(t, load(t, "restarts"))
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "serv"})
	if err != nil || o.Restarts != nil {
		t.Errorf("got %v, %v; want none", o.Restarts, err)
	}
	if slices.Contains(fake.Calls()[0].Args, "--catalog_cache_terminus=json") {
		t.Error("Puppet was told to keep a copy of the catalog")
	}
}

// Where there is no catalog to look into, a service that would be refreshed counts as restarted, which is the worse of the two.
func TestWithoutACatalogTitlesMustDo(t *testing.T) {
	rec := load(t, "restarts_noop")
	rec.catalog = ""
	p, _ := playing(t, rec)
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "serv", Noop: true, Scratch: t.TempDir(), Restarts: true})
	if err != nil {
		t.Fatal(err)
	}
	got := told(o.Restarts)
	for _, want := range []string{"restart nginx.service by Service[nginx]", "start new.service by Service[new]",
		"restart systemd-journald.service by Exec[/usr/bin/systemctl try-restart systemd-journald.service]"} {
		if !slices.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestWhatACommandDoesToUnits(t *testing.T) {
	for command, want := range map[string]string{
		"/usr/bin/systemctl restart nginx":                               "restart nginx.service",
		"systemctl --no-block try-reload-or-restart a.service b.socket":  "reload a.service, reload b.socket",
		"/usr/bin/systemctl daemon-reload":                               "",
		"/usr/bin/systemctl daemon-reload && systemctl restart x":        "restart x.service",
		`/bin/sh -c 'systemctl stop x; systemctl start x'`:               "stop x.service, start x.service",
		`/bin/sh -c "systemctl restart x || echo no"`:                    "restart x.service",
		"/usr/bin/systemctl is-active nginx.service":                     "",
		"/usr/sbin/postconf -e systemctl_is_no_word=restart":             "",
		"/usr/bin/systemctl reload getty@tty1.service understudy.target": "reload getty@tty1.service, reload understudy.target",
		"/usr/bin/newaliases":                                            "",
	} {
		var got []string
		for _, r := range said(strings.Fields(command), "Exec[x]") {
			got = append(got, r.Verb+" "+r.Unit)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
}

func TestARefreshRunsTheCommandThatIsForIt(t *testing.T) {
	c := catalog{
		"Exec[a]":    {"command": "/usr/bin/systemctl start a", "refresh": "/usr/bin/systemctl reload a"},
		"Exec[b]":    {"command": []any{"/usr/bin/systemctl", "restart", "b.timer"}},
		"Service[c]": {"restart": "/usr/local/bin/restart-c"},
	}
	for resource, want := range map[string]Restart{
		"Exec[a]":    {"a.service", "reload", "Exec[a]"},
		"Exec[b]":    {"b.timer", "restart", "Exec[b]"},
		"Service[c]": {"c.service", "restart", "Service[c]"},
	} {
		if got := c.refresh(resource); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %v, want %v", resource, got, want)
		}
	}
	if got := c.refresh("Class[main]"); got != nil {
		t.Errorf("a class: got %v, want none", got)
	}
}
