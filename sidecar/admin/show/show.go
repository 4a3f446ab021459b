// Package show puts what the admin API tells into text for people: first whether the cluster is redundant and why not, then
// what is being done, what is blocked and by what, then the tables. It takes values and returns strings, and it fits them
// into the width it is given: sentences wrap, tables leave out their least important columns.
package show

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Look is how a text may look.
type Look struct {
	// Width is how many characters a line may have. Zero: any number, for files and pipes. Below 24 it counts as 24.
	Width int
	// Colour: the reader is a terminal that shows it.
	Colour bool
	// Zone is where clock times are shown for. Nil: UTC.
	Zone *time.Location
}

const narrowest = 24

// tone is what a piece of text says besides its words.
type tone string

// Tones, as parameters of SGR (ECMA-48, 8.3.117). Yellow and red are the plain colours, which every theme keeps readable.
const (
	plain  tone = ""
	strong tone = "1"
	good   tone = "1;32"
	bad    tone = "1;31"
	alert  tone = "33"
	faint  tone = "2"
)

// page gathers lines.
type page struct {
	look Look
	out  strings.Builder
}

func newPage(l Look) *page {
	if l.Width != 0 {
		l.Width = max(l.Width, narrowest)
	}
	if l.Zone == nil {
		l.Zone = time.UTC
	}
	return &page{look: l}
}

func (p *page) String() string { return p.out.String() }

func (p *page) paint(t tone, text string) string {
	if !p.look.Colour || t == plain || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// line writes text after an indent, wrapped to the width; further lines are indented by two more.
func (p *page) line(indent int, t tone, text string) {
	for i, part := range wrap(clean(text), p.room(indent), p.room(indent+2)) {
		if i == 1 {
			indent += 2
		}
		p.out.WriteString(strings.Repeat(" ", indent) + p.paint(t, part) + "\n")
	}
}

func (p *page) room(indent int) int {
	if p.look.Width == 0 {
		return 0
	}
	return max(p.look.Width-indent, narrowest/2)
}

func (p *page) gap() { p.out.WriteByte('\n') }

// heading starts a part of the page.
func (p *page) heading(text string) {
	p.gap()
	p.line(0, strong, text)
}

// clean keeps a text from steering the terminal: what comes from another machine, or from a provider, is shown, not obeyed.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// wrap breaks a text between words into lines of at most first, then rest characters; zero stands for any number. Words that
// are longer are cut.
func wrap(text string, first, rest int) []string {
	if first == 0 || utf8.RuneCountInString(text) <= first {
		return []string{text}
	}
	var lines []string
	line, room := []rune{}, first
	flush := func() {
		lines = append(lines, string(line))
		line, room = nil, rest
	}
	for _, word := range strings.Fields(text) {
		w := []rune(word)
		if len(line) > 0 && len(line)+1+len(w) > room {
			flush()
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		for len(line)+len(w) > room {
			n := room - len(line)
			line = append(line, w[:n]...)
			w = w[n:]
			flush()
		}
		line = append(line, w...)
	}
	if len(line) > 0 {
		flush()
	}
	return lines
}
