package role

import (
	"fmt"
	"strings"
	"testing"
)

// syntax is what cannot be read as one YAML document of text.
var syntax = []struct{ claim, input, want string }{
	{"nothing", "", "f: is empty: it must say cluster, domain, provider and roles"},
	{"nothing but comments", "# later\n", "f: is empty: it must say cluster, domain, provider and roles"},
	{"an empty document", "---\n", "f: is empty: it must say cluster, domain, provider and roles"},
	{"a list", "- a\n", "f:1:1: must be a mapping of keys to values, not a list"},
	{"a word", "blog\n", "f:1:1: must be a mapping of keys to values, not text"},
	{"an unfinished list", "a: [b\n\n# c\n", "f:1: not YAML: did not find expected ',' or ']'"},
	{"a mistake before comments", "a:\n  b: c\n d: e\n# f\n\ng: h\n", "f:3: not YAML: did not find expected key"},
	{"a mistake after empty lines", "\n\na: b\n\nc: d: e\nf: g\n", "f:5: not YAML: mapping values are not allowed in this context"},
	{"a mistake in a long line", "a: b\nc: [" + strings.Repeat("d, ", 5000) + "}]\ne: f\n",
		"f:2: not YAML: did not find expected node content"},
	{"a mistake told where the library reads on", "a:\n  b: [1, }]\n  c: d\n  e: f\n", "f:2: not YAML: did not find expected node content"},
	{"a bracket that is never closed", "a: [b,\n  c]\nd: [e\nf: g\nh: i\n", "f:3: not YAML: did not find expected ',' or ']'"},
	{"a bracket that is never closed in a long file", "a: [\n" + strings.Repeat("x,\n", 80000),
		"f:80000: not YAML: did not find expected node content"}, // near its end, because looking for the bracket would take hours
	{"a quote that is never closed", "a: b\nc: 'd\n\ne: f\n", "f:2: not YAML: found unexpected end of stream"},
	{"an item too far left", "a:\n  - b\n - c\nd: e\n", "f:3: not YAML: did not find expected key"},
	{"a tab", "a:\n\tb: c\n", "f:2: not YAML: found character that cannot start any token"},
	{"a pattern in a list", "a:\n  nodes: [lb[1-2], x]\n",
		`f:2: not YAML: did not find expected ',' or ']'; inside a [list] a host pattern needs quotes: ["web[1-2]", web9]`},
	{"the domain's own name", "a:\n  names: [@, www]\n",
		`f:2: not YAML: found character that cannot start any token; the name @ needs quotes: "@"`},
	{"an alias of nothing", "a: b\nc: *d\n", "f:2: not YAML: unknown anchor 'd' referenced"},
	{"no UTF-8", "a: b\nc: \xff\n", "f:2:4: is not UTF-8 text"},
	{"a control character", "a: b\nc: é\x00\n", "f:2:5: the control character U+0000 has no place here"},
	{"a line end of old", "a: b\rc: d\n", "f:1:5: the control character U+000D has no place here"},
	{"a line end of old at the end", "a: b\r", "f:1:5: the control character U+000D has no place here"},
	{"a line separator", "a: b\u2028c: d\n", "f:1:5: the control character U+2028 has no place here"},
	{"a paragraph separator", "a: b\u2029c: d\n", "f:1:5: the control character U+2029 has no place here"},
	{"two documents", valid + "---\ncluster: other\n", "f:40:1: a second document begins here; roles.yaml is one document"},
	{"a second document that is broken", valid + "---\na: [\n", "f:41: not YAML: did not find expected node content"},
	{"no more than can be", "#" + strings.Repeat("x", maxBytes-1), "f: is empty: it must say cluster, domain, provider and roles"},
	{"too much", "#" + strings.Repeat("x", maxBytes), "f: has 262145 bytes; more than 262144 cannot be a roster"},
}

func TestWhatIsNoDocumentIsRefusedWithItsPlace(t *testing.T) {
	for _, tc := range syntax {
		t.Run(tc.claim, func(t *testing.T) {
			_, err := Parse("f", []byte(tc.input))
			if err == nil || err.Error() != tc.want && !strings.HasPrefix(err.Error(), tc.want+"\n") {
				t.Errorf("got\n%v\nwant\n%s", err, tc.want)
			}
		})
	}
}

// An alias bomb doubles with each line; read as written here it would be a thousand million words.
func TestAnAliasBombIsRefusedWithoutBeingRead(t *testing.T) {
	bomb := "a0: &a0 [lol, lol]\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	_, err := Parse("f", []byte(bomb))
	if err == nil || !strings.Contains(err.Error(), "f:2:10: the alias *a0 is refused") {
		t.Errorf("got %v", err)
	}
}

// An alias is refused once, as an alias, whatever it stands for.
func TestAnAliasIsToldOnce(t *testing.T) {
	text := strings.NewReplacer("mx: 10", "mx: &n 10", "missed_beats: 4", "missed_beats: *n",
		"beat: 200ms", "beat: &d 200ms", "replacement_hold: 20s", "replacement_hold: *d",
		"[mail]", "&l [mail]", "[apt]", "*l", "{zone: blog.example}", "&m {zone: blog.example}", "{provider: hetzner,", "{provider: *m,").Replace(valid)
	_, err := Parse("f", []byte(text))
	want := `f:9:19: the anchor &m is refused: write things out where they belong
f:24:58: the anchor &l is refused: write things out where they belong
f:24:73: the anchor &n is refused: write things out where they belong
f:33:12: the alias *l is refused: write it out
f:37:23: the alias *m is refused: write it out
f:38:17: the anchor &d is refused: write things out where they belong
f:38:41: the alias *n is refused: write it out
f:38:63: the alias *d is refused: write it out`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// Each role needs the two before it, so there are more ways through than could ever be walked.
func TestNeedsThatMeetAgainAreReadInTime(t *testing.T) {
	var b strings.Builder
	b.WriteString("cluster: c\ndomain: c.example\nprovider: {local: {region: r, size: s, image: i}}\nroles:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "  r%d:\n    nodes: n%d\n    understudy: none\n", i, i)
		if i > 1 {
			fmt.Fprintf(&b, "    needs: [{role: r%d, what: x, http: http://x}, {role: r%d, what: x, http: http://x}]\n", i-1, i-2)
		}
	}
	holds(t, parse(t, b.String()))
}

func TestAReportIsBounded(t *testing.T) {
	report := func(keys int) []error {
		var text strings.Builder
		for i := range keys {
			fmt.Fprintf(&text, "key%d: x\n", i)
		}
		_, err := Parse("f", []byte(text.String())) // and four more problems: the keys that are missing
		return unjoin(err)
	}
	if got := len(report(maxProblems - 4)); got != maxProblems {
		t.Errorf("got %d problems, want %d", got, maxProblems)
	}
	problems := report(500)
	if got, want := len(problems), maxProblems+1; got != want {
		t.Fatalf("got %d problems, want %d", got, want)
	}
	if got, want := problems[maxProblems].Error(), "f: and 404 more problems"; got != want {
		t.Errorf("the last is %q, want %q", got, want)
	}
}
