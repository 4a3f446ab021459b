package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxBytes bounds the file: the addresses of a thousand peers need less.
const maxBytes = 64 << 10

// reader takes one YAML document apart and notes everything that is wrong with it.
type reader struct {
	file  string
	at    map[string]*yaml.Node // where each key's value stands
	after []func()              // what can be read only once the rest has been
	found []found
}

type found struct {
	line, column int
	msg          string
}

// field is a key that a mapping may have, and what to do with its value. key is the whole way to it.
type field struct {
	name string
	set  func(key string, n *yaml.Node)
}

// entry is one line of a mapping.
type entry struct {
	name, key string // key: the whole way
	value     *yaml.Node
}

// add notes a problem with key at n; nil stands for the file as a whole.
func (r *reader) add(n *yaml.Node, key, format string, args ...any) {
	f := found{msg: fmt.Sprintf(format, args...)}
	if key != "" {
		f.msg = key + ": " + f.msg
	}
	if n != nil {
		f.line, f.column = n.Line, n.Column
	}
	r.found = append(r.found, f)
}

// err joins all problems in the order of the file.
func (r *reader) err() error {
	slices.SortStableFunc(r.found, func(a, b found) int { return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column)) })
	var errs []error
	for _, f := range r.found {
		place := r.file
		if f.line > 0 {
			place = fmt.Sprintf("%s:%d:%d", r.file, f.line, f.column)
		}
		errs = append(errs, fmt.Errorf("%s: %s", place, f.msg))
	}
	return errors.Join(errs...)
}

// place is where the value of key stands, or of the nearest key above it.
func (r *reader) place(key string) *yaml.Node {
	for key != "" {
		if n, ok := r.at[key]; ok {
			return n
		}
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
	}
	return nil
}

// document returns the root of the only document in data. It is nil if there is nothing to read.
func (r *reader) document(data []byte) *yaml.Node {
	if len(data) > maxBytes {
		r.add(nil, "", "has %d bytes; more than %d cannot be a configuration", len(data), maxBytes)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = dec.Decode(&second)
	}
	switch {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.add(nil, "", "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: ")) // which has the line, as a rule
		return nil
	default:
		r.add(&second, "", "a second document begins here; the configuration is one")
	}
	root := doc.Content[0]
	if root.ShortTag() == "!!null" && root.Anchor == "" {
		return nil // nothing but comments
	}
	r.plain(root)
	return root
}

// plain refuses what makes a file mean something else than it shows. Without aliases a document cannot grow when it is
// read, either.
func (r *reader) plain(n *yaml.Node) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.ShortTag() == "!!merge" || n.Style&yaml.TaggedStyle != 0 {
		r.add(n, "", "anchors, aliases, merge keys and tags are refused: write it out")
	}
	for _, child := range n.Content {
		r.plain(child)
	}
}

// entries returns a mapping's entries, the first of each key.
func (r *reader) entries(key string, n *yaml.Node) []entry {
	if n.Kind != yaml.MappingNode {
		r.add(n, key, "must be a mapping of keys to values")
		return nil
	}
	var all []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		e := entry{name, strings.TrimPrefix(key+"."+name, "."), n.Content[i+1]}
		switch {
		case n.Content[i].Kind != yaml.ScalarNode:
			r.add(n.Content[i], key, "a key must be a word")
		case slices.ContainsFunc(all, func(o entry) bool { return o.name == name }):
			r.add(n.Content[i], e.key, "stands here twice")
		default:
			all = append(all, e)
			r.at[e.key] = e.value
		}
	}
	return all
}

// mapping hands each value of n to its field, and refuses other keys.
func (r *reader) mapping(key string, n *yaml.Node, fields []field) {
	for _, e := range r.entries(key, n) {
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == e.name })
		if at < 0 {
			var known []string
			for _, f := range fields {
				known = append(known, f.name)
			}
			r.add(e.value, e.key, "unknown key; known: %s", strings.Join(known, ", "))
			continue
		}
		fields[at].set(e.key, e.value)
	}
	if key == "" {
		for _, f := range r.after {
			f()
		}
	}
}

// later runs f when all other keys have been read.
func (r *reader) later(f func()) { r.after = append(r.after, f) }

// section reads a mapping within.
func (r *reader) section(fields ...field) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) { r.mapping(key, n, fields) }
}

// text takes one line of printable text; a number without quotes is one, too.
func (r *reader) text(into *string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		switch tag := n.ShortTag(); {
		case n.Kind != yaml.ScalarNode || tag != "!!str" && tag != "!!int":
			r.add(n, key, "must be text")
		case n.Value == "":
			r.add(n, key, "must not be empty; leave the key out instead")
		case strings.ContainsFunc(n.Value, func(c rune) bool { return !unicode.IsPrint(c) }):
			r.add(n, key, "must be one line of printable text")
		default:
			*into = n.Value
		}
	}
}

// unlessNone takes text, where "none" switches the thing off.
func (r *reader) unlessNone(into *string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if r.text(into)(key, n); *into == "none" {
			*into = ""
		}
	}
}
