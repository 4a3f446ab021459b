package secrets

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing wrong in a file. Its text never quotes what stands there, because a value in the wrong place
// may be a secret: the position says enough.
type Problem struct {
	File         string
	Line, Column int // counted from 1; Column is 0 where only the line is known
	Msg          string
}

// Error implements error: "secrets.yaml:12:3: unknown key".
func (p *Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where += ":" + strconv.Itoa(p.Line)
	}
	if p.Column > 0 {
		where += ":" + strconv.Itoa(p.Column)
	}
	return where + ": " + p.Msg
}

// document walks one YAML document and collects all that is wrong with it.
type document struct {
	file     string
	problems []error
}

// err joins the problems in the order of the file; nil if there are none.
func (d *document) err() error {
	slices.SortStableFunc(d.problems, func(a, b error) int {
		p, q := a.(*Problem), b.(*Problem)
		if p.Line != q.Line {
			return p.Line - q.Line
		}
		return p.Column - q.Column
	})
	return errors.Join(d.problems...)
}

func (d *document) problem(n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, &Problem{File: d.file, Line: n.Line, Column: n.Column, Msg: fmt.Sprintf(format, args...)})
}

// yamlLine finds the position in the YAML library's errors, which are plain text.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// root parses data as exactly one document and returns its top node, or nil after noting why there is none.
func (d *document) root(data []byte, limit int) *yaml.Node {
	if len(data) > limit {
		d.problems = append(d.problems, &Problem{File: d.file, Msg: fmt.Sprintf("is larger than %d bytes", limit)})
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decode(dec, &doc); errors.Is(err, io.EOF) {
		d.problems = append(d.problems, &Problem{File: d.file, Line: 1, Msg: "is empty"})
		return nil
	} else if err != nil {
		d.problems = append(d.problems, d.syntax(err))
		return nil
	}
	if err := decode(dec, &more); err == nil {
		d.problem(&more, "holds a second document: only one is allowed")
	} else if !errors.Is(err, io.EOF) {
		d.problems = append(d.problems, d.syntax(err))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		d.problem(&doc, "is empty")
		return nil
	}
	return doc.Content[0]
}

// decode turns the library's panics on odd comments ("please report") into errors: no file may stop a boot that way.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("yaml: cannot be parsed")
		}
	}()
	return dec.Decode(n)
}

// syntax keeps the library's line and reason, but not the name of an anchor, the one piece of the file it quotes.
func (d *document) syntax(err error) *Problem {
	text := err.Error()
	m := yamlLine.FindStringSubmatch(text)
	line, _ := strconv.Atoi(m[1]) // no digits: 0, which prints no line
	text = strings.TrimPrefix(text, m[0])
	if strings.Contains(text, "'") && strings.Contains(text, "anchor") {
		text = "refers to an anchor that is not there"
	}
	return &Problem{File: d.file, Line: line, Msg: "is not valid YAML: " + text}
}

// mapping calls visit for each pair of n. Keys must be plain text and stand only once.
func (d *document) mapping(n *yaml.Node, what string, visit func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, "%s must be a mapping (key: value)", what)
		return
	}
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
			d.problem(key, "key in %s must be plain text", what)
			continue
		}
		if line, seen := first[key.Value]; seen {
			d.problem(key, "key in %s stands already on line %d", what, line)
			continue
		}
		first[key.Value] = key.Line
		visit(key, value)
	}
}

// fields is mapping for a fixed set of keys; any other is a problem.
func (d *document) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	d.mapping(n, what, func(key, value *yaml.Node) {
		if visit, ok := known[key.Value]; ok {
			visit(value)
			return
		}
		d.problem(key, "unknown key in %s (known: %s)", what, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	})
}

// text returns the value of a string or !!binary scalar; "" after noting a problem.
func (d *document) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, "%s must be text", what)
		return ""
	}
	switch n.ShortTag() {
	case "!!str":
		if n.Value == "" {
			d.problem(n, "%s is empty", what)
		}
		return n.Value
	case "!!binary":
		raw, err := base64.StdEncoding.DecodeString(strings.Map(dropSpace, n.Value))
		if err != nil || len(raw) == 0 {
			d.problem(n, "%s is not base64", what)
			return ""
		}
		return string(raw)
	case "!!null":
		d.problem(n, "%s is empty", what)
	default:
		d.problem(n, "%s must be text: put it in quotes", what)
	}
	return ""
}

func dropSpace(r rune) rune {
	if r == ' ' || r == '\n' || r == '\r' || r == '\t' {
		return -1
	}
	return r
}

// number returns the value of a whole number between low and high; low after noting a problem.
func (d *document) number(n *yaml.Node, what string, low, high int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || v < low || v > high {
		d.problem(n, "%s must be a whole number from %d to %d", what, low, high)
		return low
	}
	return v
}
