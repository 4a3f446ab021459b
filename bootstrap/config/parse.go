package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"understudy/bootstrap/control"
)

// yamlReader takes a YAML document apart and collects everything that is wrong with it.
type yamlReader struct {
	file  string
	lines map[string]int // dotted key → line
	errs  []error
}

// setter takes the value of one key.
type setter struct {
	key string
	set func(key string, n *yaml.Node)
}

// parse reads data over c. Unknown and repeated keys are errors. lines is filled as far as it goes.
func parse(file string, data []byte, c *Config) (lines map[string]int, err error) {
	r := &yamlReader{file: file, lines: map[string]int{}}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return r.lines, nil // an empty file changes nothing; Validate says what is missing
	} else if err != nil {
		return r.lines, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.bad(&doc, "more than one YAML document")
	}
	var patience []setter
	for _, f := range c.Patience.fields() {
		patience = append(patience, setter{f.key, r.duration(f.value)})
	}
	r.mapping("", doc.Content[0], []setter{
		{"sources", func(key string, n *yaml.Node) { c.Sources = r.sources(key, n) }},
		{"branch", r.text(&c.Branch)},
		{"baked", r.text(&c.Baked)},
		{"allowed_signers", r.text(&c.AllowedSigners)},
		{"image_hostname", func(key string, n *yaml.Node) { c.ImageHostnames = r.list(key, n) }},
		{"metadata", func(key string, n *yaml.Node) {
			r.text(&c.Metadata)(key, n)
			if c.Metadata == "none" {
				c.Metadata = ""
			}
			c.Metadata = strings.TrimRight(c.Metadata, "/")
		}},
		{"patience", func(key string, n *yaml.Node) { r.mapping(key, n, patience) }},
		{"retry", func(key string, n *yaml.Node) {
			r.mapping(key, n, []setter{{"first", r.duration(&c.Retry.First)}, {"most", r.duration(&c.Retry.Most)}})
		}},
	})
	return r.lines, errors.Join(r.errs...)
}

func (r *yamlReader) bad(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s:%d: "+format, append([]any{r.file, n.Line}, args...)...))
}

// mapping hands each value of n to the setter of its key.
func (r *yamlReader) mapping(prefix string, n *yaml.Node, setters []setter) {
	if n.Kind != yaml.MappingNode {
		r.bad(n, "%s must be a mapping of keys to values", named(prefix))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(setters, func(s setter) bool { return s.key == k.Value })
		switch {
		case at < 0:
			r.bad(k, "unknown key %q (known: %s)", k.Value, known(setters))
		case seen[k.Value]:
			r.bad(k, "%s is given twice", k.Value)
		default:
			key := strings.TrimPrefix(prefix+"."+k.Value, ".")
			r.lines[key] = k.Line
			setters[at].set(key, v)
		}
		seen[k.Value] = true
	}
}

func named(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return prefix
}

func known(setters []setter) string {
	var keys []string
	for _, s := range setters {
		keys = append(keys, s.key)
	}
	return strings.Join(keys, ", ")
}

func (r *yamlReader) text(into *string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			r.bad(n, "%s must be a text", key)
			return
		}
		*into = n.Value
	}
}

func (r *yamlReader) duration(into *time.Duration) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		d, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || d <= 0 {
			r.bad(n, "%s must be a duration above zero, such as 90s or 5m", key)
			return
		}
		*into = d
	}
}

// list takes one text or a list of them.
func (r *yamlReader) list(key string, n *yaml.Node) (all []string) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	for _, item := range items {
		var s string
		r.text(&s)(key, item)
		all = append(all, s)
	}
	return all
}

// sources takes a list of URLs, or of mappings with further settings.
func (r *yamlReader) sources(key string, n *yaml.Node) (all []control.Source) {
	if n.Kind != yaml.SequenceNode {
		r.bad(n, "%s must be a list", key)
		return nil
	}
	for _, item := range n.Content {
		var s control.Source
		if item.Kind == yaml.MappingNode {
			r.mapping(key, item, []setter{
				{"url", r.text(&s.URL)}, {"timeout", r.duration(&s.Timeout)}, {"password_file", r.text(&s.PasswordFile)},
				{"ca_file", r.text(&s.CAFile)}, {"ssh_key", r.text(&s.SSHKey)}, {"known_hosts", r.text(&s.KnownHosts)},
			})
		} else {
			r.text(&s.URL)(key, item)
		}
		all = append(all, s)
	}
	return all
}
