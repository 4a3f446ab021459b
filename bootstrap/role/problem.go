package role

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds one report; whoever has more has fed us something that is no roles.yaml.
const maxProblems = 100

// Problem is one thing wrong with the file. Parse joins all of them with errors.Join, sorted by
// place; errors.As finds the first.
type Problem struct {
	File   string
	Line   int // from 1; zero: the file as a whole
	Column int // from 1, in characters; zero: not known
	Msg    string
}

// Error gives the place in the form editors jump to: file:line:column.
func (p *Problem) Error() string {
	place := p.File
	if p.Line > 0 {
		place += fmt.Sprintf(":%d", p.Line)
		if p.Column > 0 {
			place += fmt.Sprintf(":%d", p.Column)
		}
	}
	return place + ": " + p.Msg
}

// problems collects what is wrong with one file.
type problems struct {
	file  string
	found []*Problem
}

func (p *problems) add(line, column int, format string, args ...any) {
	p.found = append(p.found, &Problem{p.file, line, column, fmt.Sprintf(format, args...)})
}

// err joins what was found, in the order of the file. It is nil if nothing was.
func (p *problems) err() error {
	slices.SortStableFunc(p.found, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for _, problem := range p.found[:min(len(p.found), maxProblems)] {
		errs = append(errs, problem)
	}
	if more := len(p.found) - maxProblems; more > 0 {
		errs = append(errs, &Problem{File: p.file, Msg: fmt.Sprintf("and %d more problems", more)})
	}
	return errors.Join(errs...)
}

// quote shows a word of the file's in a message, cut to what fits on a line.
func quote(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", s)
}

// closest returns the word of known that is most likely meant by word, or "" if none is near. Of
// equally near ones it is the first.
func closest(word string, known []string) string {
	best, least := "", len(word)/3+2
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their neighbour.
// The algorithm is the optimal string alignment variant of Damerau–Levenshtein.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// either joins words for a message: "a", "a or b", "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
