package converge

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Restart is one unit that a run has started, stopped, restarted or reloaded, or would have without its being Noop.
type Restart struct {
	Unit     string // such as nginx.service
	Verb     string // "start", "stop", "restart" or "reload"
	Resource string // why: such as Service[nginx]
}

// wouldRefresh is how Puppet says in the log that a run without effects would have refreshed a resource. It says so
// nowhere else: such a resource has no event in the report and does not count as out of sync (Puppet 7 and 8,
// Transaction::EventManager#process_noop_events).
const wouldRefresh = "Would have triggered 'refresh'"

// restarts lists what the run did to units, in the order of the report and each once. It errs on the side of more: Puppet
// also reports the refresh of a service that does not run and is therefore left alone.
func (r report) restarts(c catalog) []Restart {
	var all []Restart
	note := func(found []Restart) {
		for _, f := range found {
			if !slices.ContainsFunc(all, func(have Restart) bool { return have.Unit == f.Unit && have.Verb == f.Verb }) {
				all = append(all, f)
			}
		}
	}
	for _, s := range r.statuses() {
		if s.FailedToRestart {
			note(c.refresh(s.resource))
		}
		for _, e := range s.Events {
			switch e.Name {
			case "refresh":
				note(c.refresh(s.resource))
			case "service_started":
				note(c.service(s.resource, "start"))
			case "service_stopped":
				note(c.service(s.resource, "stop"))
			case "executed_command":
				note(c.command(s.resource, "command"))
			}
		}
	}
	for _, l := range r.Logs {
		if m := lastResource.FindStringSubmatch(l.Source); m != nil && strings.HasPrefix(l.Message, wouldRefresh) {
			note(c.refresh(m[1]))
		}
	}
	return all
}

// catalog is what was compiled, as far as it tells what a refresh does: resource → its parameters. Without one (Puppet
// has left none) titles must do.
type catalog map[string]map[string]any

// readCatalog reads the one catalog that Puppet has left in dir, its client_datadir.
func readCatalog(dir string) catalog {
	found, err := filepath.Glob(filepath.Join(dir, "catalog", "*.json"))
	if err != nil || len(found) != 1 {
		return nil
	}
	data, err := readBounded(found[0])
	if err != nil {
		return nil
	}
	var file struct {
		Resources []struct {
			Type, Title string
			Parameters  map[string]any
		}
	}
	if json.Unmarshal(data, &file) != nil {
		return nil
	}
	c := catalog{}
	for _, r := range file.Resources {
		c[r.Type+"["+r.Title+"]"] = r.Parameters
	}
	return c
}

// takeCatalog reads the catalog of the run that has ended and removes it: values that manifests call Sensitive stand in it.
func (f runFiles) takeCatalog() (catalog, error) {
	c := readCatalog(f.catalogs)
	return c, os.RemoveAll(f.catalogs)
}

// refresh is what the refreshing of a resource does to units.
func (c catalog) refresh(resource string) []Restart {
	if kind, _, _ := strings.Cut(resource, "["); kind == "Service" {
		if own := c.command(resource, "restart"); len(own) > 0 {
			return own
		}
		return c.service(resource, "restart")
	}
	if own := c.command(resource, "refresh"); len(own) > 0 {
		return own
	}
	return c.command(resource, "command")
}

// service is one act on a service resource's own unit.
func (c catalog) service(resource, verb string) []Restart {
	kind, title := apart(resource)
	if kind != "Service" {
		return nil
	}
	if name, ok := c[resource]["name"].(string); ok {
		title = name
	}
	return []Restart{{unitName(title), verb, resource}}
}

// command is what the command in a parameter does to units. An Exec without a command runs its title.
func (c catalog) command(resource, parameter string) []Restart {
	kind, title := apart(resource)
	if kind != "Service" && kind != "Exec" {
		return nil
	}
	var words []string
	switch v := c[resource][parameter].(type) {
	case string:
		words = strings.Fields(v)
	case []any:
		for _, w := range v {
			if s, ok := w.(string); ok {
				words = append(words, s)
			}
		}
	}
	if len(words) == 0 && kind == "Exec" && parameter == "command" {
		words = strings.Fields(title)
	}
	return said(words, resource)
}

func apart(resource string) (kind, title string) {
	kind, title, _ = strings.Cut(strings.TrimSuffix(resource, "]"), "[")
	return kind, title
}

// verbs are those of systemctl(1) that touch a running unit. What may restart instead of reloading is called a reload:
// systemd restarts then only what cannot reload.
var verbs = map[string]string{
	"start": "start", "stop": "stop", "restart": "restart", "try-restart": "restart", "condrestart": "restart",
	"reload": "reload", "reload-or-restart": "reload", "try-reload-or-restart": "reload", "force-reload": "reload",
}

// said finds every `systemctl VERB UNIT…` in a command line, which may be a shell's.
func said(words []string, resource string) (all []Restart) {
	for i, w := range words {
		if path.Base(strings.Trim(w, `'"`)) != "systemctl" {
			continue
		}
		verb := ""
		for _, arg := range words[i+1:] {
			end := strings.ContainsAny(arg, ";&|")
			arg, _, _ = strings.Cut(arg, ";")
			arg = strings.Trim(arg, `'"`)
			switch {
			case arg == "" || strings.HasPrefix(arg, "-") || strings.ContainsAny(arg, "&|"):
			case verb == "":
				if verb = verbs[arg]; verb == "" {
					end = true // another verb, such as daemon-reload
				}
			default:
				all = append(all, Restart{unitName(arg), verb, resource})
			}
			if end {
				break
			}
		}
	}
	return all
}

// unitName gives a name its suffix, as systemctl(1) does.
func unitName(name string) string {
	switch strings.TrimPrefix(path.Ext(name), ".") {
	case "service", "socket", "timer", "path", "target", "mount", "automount", "swap", "slice", "scope":
		return name
	}
	return name + ".service"
}
