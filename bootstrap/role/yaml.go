package role

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxBytes bounds the file. The roster of 256 nodes, each a role of its own, needs less than half.
const maxBytes = 256 << 10

// value is a YAML node and the way to it, such as roles.lb.nodes, which begins every message.
type value struct {
	*yaml.Node
	path string
}

// child is the same place further down.
func (v value) child(n *yaml.Node, key string) value {
	if v.path == "" {
		return value{n, key}
	}
	return value{n, v.path + "." + key}
}

// reader reads YAML values strictly and notes everything that is wrong with them. Its methods return
// what they could make of a value; whoever goes on with a wrong one only finds more problems, as
// the file is refused in any case.
type reader struct {
	problems
}

func (r *reader) failf(v value, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if v.path != "" {
		msg = v.path + ": " + msg
	}
	r.add(v.Line, v.Column, "%s", msg)
}

// document returns the root of the only document in data, and whether there is one.
func (r *reader) document(data []byte) (value, bool) {
	if len(data) > maxBytes {
		r.add(0, 0, "has %d bytes; more than %d cannot be a roster", len(data), maxBytes)
		return value{}, false
	}
	if !r.isText(data) {
		return value{}, false
	}
	input := &byteReader{data: data}
	docs, err := decode(input)
	if err != nil {
		r.syntax(data, input.read, err)
		return value{}, false
	}
	if len(docs) == 0 || docs[0].Content[0].ShortTag() == "!!null" {
		r.add(0, 0, "is empty: it must say cluster, domain, provider and roles")
		return value{}, false
	}
	if len(docs) > 1 {
		r.add(docs[1].Line, docs[1].Column, "a second document begins here; roles.yaml is one document")
	}
	root := value{docs[0].Content[0], ""}
	r.plain(root.Node)
	return root, true
}

// decode returns the documents in a text, but no more than two, as one is wanted.
func decode(text io.Reader) ([]*yaml.Node, error) {
	decoder := yaml.NewDecoder(text)
	var docs []*yaml.Node
	for len(docs) < 2 {
		doc := &yaml.Node{}
		err := decoder.Decode(doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

// byteReader hands out its data byte by byte and counts.
type byteReader struct {
	data []byte
	read int // handed out
}

func (b *byteReader) Read(p []byte) (int, error) {
	if b.read == len(b.data) {
		return 0, io.EOF
	}
	n := copy(p, b.data[b.read:b.read+1])
	b.read += n
	return n, nil
}

// isText refuses, with its place, what the YAML library refuses without one or counts as the end of a
// line where editors do not.
func (r *reader) isText(data []byte) bool {
	line, column := 1, 1
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		i += size
		switch {
		case c == utf8.RuneError && size == 1:
			r.add(line, column, "is not UTF-8 text")
			return false
		case c == '\n':
			line, column = line+1, 0
		case c == '\t', c == '\r' && i < len(data) && data[i] == '\n':
		case unicode.IsControl(c), c == '\u2028', c == '\u2029':
			r.add(line, column, "the control character %U has no place here", c)
			return false
		}
		column++
	}
	return true
}

// maxReread bounds, in bytes, the search for the line of a mistake, each step of which reads the file
// again. A file of ordinary length is searched from end to end.
const maxReread = 512 << 10

// syntax notes what the YAML library says after it has read so many bytes, with a hint for the two
// mistakes our format invites. The library itself names the line where the surrounding block began,
// counted from 0 or from 1. So we take the line it had read to, which is that of the mistake or a little
// further on, and go back as long as the text before it has the same mistake.
func (r *reader) syntax(data []byte, read int, err error) {
	lines := strings.SplitAfter(string(data), "\n")
	line := strings.Count(string(data[:read]), "\n") + 1
	msg := yamlMessage(err)
	for range min(line-1, maxReread/read) {
		if _, err := decode(strings.NewReader(strings.Join(lines[:line-1], ""))); yamlMessage(err) != msg {
			break
		}
		line--
	}
	hint := ""
	switch text := lines[line-1]; {
	case strings.Count(text, "[") > 1:
		hint = `; inside a [list] a host pattern needs quotes: ["web[1-2]", web9]`
	case strings.Contains(text, "@"):
		hint = `; the name @ needs quotes: "@"`
	}
	r.add(line, 0, "not YAML: %s%s", msg, hint)
}

var yamlPlace = regexp.MustCompile(`^yaml: (line [0-9]+: )?`)

// yamlMessage returns what the YAML library says, without where.
func yamlMessage(err error) string {
	if err == nil {
		return ""
	}
	return yamlPlace.ReplaceAllString(err.Error(), "")
}

// plain refuses what makes a file mean something else than it shows: anchors, aliases, merge keys
// and tags. Without aliases a document cannot grow when it is read, either.
func (r *reader) plain(n *yaml.Node) {
	at := value{n, ""}
	switch {
	case n.Kind == yaml.AliasNode:
		r.failf(at, "the alias *%s is refused: write it out", n.Value)
	case n.ShortTag() == "!!merge":
		r.failf(at, "the merge key << is refused: write it out")
	case n.Anchor != "":
		r.failf(at, "the anchor &%s is refused: write things out where they belong", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		r.failf(at, "the tag %s is refused: use quotes for text", quote(n.Tag))
	}
	for _, child := range n.Content {
		r.plain(child)
	}
}

// wrongType says what v should have been.
func (r *reader) wrongType(v value, want string) {
	if v.Kind == yaml.AliasNode {
		return // refused as such already
	}
	r.failf(v, "must be %s, not %s", want, kind(v.Node))
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!str":
		return "text"
	default: // a number, true, a date
		return quote(n.Value) + " without quotes"
	}
}

// entry is one line of a mapping.
type entry struct {
	key        string
	name, with value // the key and what stands behind it
}

// entries returns a mapping's entries in the order of the file, the first of each key.
func (r *reader) entries(v value) []entry {
	if v.Kind != yaml.MappingNode {
		r.wrongType(v, "a mapping of keys to values")
		return nil
	}
	var entries []entry
	lines := make(map[string]int, len(v.Content)/2)
	for i := 0; i+1 < len(v.Content); i += 2 {
		key, with := v.Content[i], v.Content[i+1]
		name := value{key, v.path}
		switch {
		case key.Kind == yaml.AliasNode || key.ShortTag() == "!!merge": // refused as such already
		case key.ShortTag() != "!!str":
			r.failf(name, "a key must be text, not %s", kind(key))
		case lines[key.Value] > 0:
			r.failf(name, "%s stands here twice, first on line %d", quote(key.Value), lines[key.Value])
		default:
			lines[key.Value] = key.Line
			entries = append(entries, entry{key.Value, name, v.child(with, key.Value)})
		}
	}
	return entries
}

// field is a key a mapping may have.
type field struct {
	key   string
	must  presence
	parse func(value)
}

type presence bool

const (
	required presence = true
	optional presence = false
)

// place finds where a key of a mapping stands, or the mapping itself if it does not have the key.
type place struct {
	mapping value
	keys    map[string]value
}

func (p place) of(key string) value {
	if v, ok := p.keys[key]; ok {
		return v
	}
	return p.mapping
}

// has reports whether the mapping has the key.
func (p place) has(key string) bool { _, ok := p.keys[key]; return ok }

// mapping reads the fields of v, refuses other keys, and misses the required ones.
func (r *reader) mapping(v value, fields ...field) place {
	at := place{v, map[string]value{}}
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
next:
	for _, e := range r.entries(v) {
		for _, f := range fields {
			if f.key == e.key {
				at.keys[e.key] = e.with
				f.parse(e.with)
				continue next
			}
		}
		r.failf(e.name, "unknown key %s; %s", quote(e.key), meant(e.key, known))
	}
	if v.Kind != yaml.MappingNode {
		return at
	}
	for _, f := range fields {
		if f.must == required && !at.has(f.key) {
			r.failf(v, "%s is missing", f.key)
		}
	}
	return at
}

// meant is the hint behind an unknown word.
func meant(word string, known []string) string {
	if near := closest(word, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known: " + strings.Join(known, ", ")
}

// list returns the items of a list.
func (r *reader) list(v value) []value {
	if v.Kind != yaml.SequenceNode {
		r.wrongType(v, "a list")
		return nil
	}
	if len(v.Content) == 0 {
		r.failf(v, "is an empty list; leave the key out instead")
	}
	items := make([]value, len(v.Content))
	for i, n := range v.Content {
		items[i] = value{n, v.path}
	}
	return items
}

// text returns one line of text. The result is "" if it is none, which has been noted then.
func (r *reader) text(v value) string {
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
		r.wrongType(v, "text")
		return ""
	}
	switch {
	case v.Value == "":
		r.failf(v, "must not be empty")
		return ""
	case strings.ContainsFunc(v.Value, func(c rune) bool { return !unicode.IsPrint(c) }):
		r.failf(v, "must be one line of printable text, not %s", quote(v.Value))
		return ""
	}
	return v.Value
}

// checked returns text that valid accepts; want says what that is.
func (r *reader) checked(v value, valid func(string) bool, want string) string {
	s := r.text(v)
	if s != "" && !valid(s) {
		r.failf(v, "%s is not %s", quote(s), want)
		return ""
	}
	return s
}

// oneOf returns text that is one of words.
func (r *reader) oneOf(v value, words ...string) string {
	return r.checked(v, func(s string) bool { return slices.Contains(words, s) }, either(words))
}

// items returns the items of a list, or v itself if it is none: one of a thing needs no brackets.
func (r *reader) items(v value) []value {
	if v.Kind == yaml.SequenceNode {
		return r.list(v)
	}
	return []value{v}
}

// texts returns one checked text or a list of them, without repetitions.
func (r *reader) texts(v value, valid func(string) bool, want string) []string {
	var texts []string
	for _, item := range r.items(v) {
		s := r.checked(item, valid, want)
		switch {
		case s == "":
		case slices.Contains(texts, s):
			r.failf(item, "%s stands here twice", quote(s))
		default:
			texts = append(texts, s)
		}
	}
	return texts
}

// flag returns true or false; otherwise where it is neither.
func (r *reader) flag(v value, otherwise bool) bool {
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!bool" {
		r.wrongType(v, "true or false")
		return otherwise
	}
	return v.Value == "true"
}

// number returns a decimal number from low to high.
func (r *reader) number(v value, low, high int) int {
	want := fmt.Sprintf("a number from %d to %d", low, high)
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!int" {
		r.wrongType(v, want)
		return 0
	}
	n, err := strconv.Atoi(v.Value)
	if err != nil || n < low || n > high {
		r.failf(v, "must be %s, not %s", want, quote(v.Value))
		return 0
	}
	return n
}

// duration returns a length of time from low to high, written with its unit.
func (r *reader) duration(v value, low, high time.Duration) time.Duration {
	want := fmt.Sprintf("a duration with its unit from %v to %v", low, high)
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
		r.wrongType(v, want)
		return 0
	}
	d, err := time.ParseDuration(v.Value)
	if err != nil || d < low || d > high {
		r.failf(v, "must be %s, not %s", want, quote(v.Value))
		return 0
	}
	return d
}
