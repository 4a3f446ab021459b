package show

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// table is rows under a head. The last column takes the room that is left, and wraps.
type table struct {
	columns []column
	rows    [][]cell
}

// column is one of a table. When the table is too wide, the columns of the highest rank are left out first; rank 0 stays.
type column struct {
	head string
	rank int
}

type cell struct {
	text string
	tone tone
}

const (
	between = "  "
	// lastRoom is what the last column gets at least before another one must go.
	lastRoom = 14
)

// fit says which columns are shown in a width, and how wide they are. Empty columns are left out.
func (t table) fit(width int) (shown, widths []int) {
	for i := range t.columns {
		w, any := utf8.RuneCountInString(t.columns[i].head), false
		for _, row := range t.rows {
			w = max(w, utf8.RuneCountInString(row[i].text))
			any = any || row[i].text != ""
		}
		widths = append(widths, w)
		if any {
			shown = append(shown, i)
		}
	}
	for width > 0 && t.fixed(shown, widths)+min(lastRoom, widths[shown[len(shown)-1]]) > width {
		worst := -1
		for at, i := range shown {
			if t.columns[i].rank > 0 && (worst < 0 || t.columns[i].rank >= t.columns[shown[worst]].rank) {
				worst = at
			}
		}
		if worst < 0 {
			break
		}
		shown = slices.Delete(shown, worst, worst+1)
	}
	return shown, widths
}

// fixed is the width of all but the last shown column.
func (t table) fixed(shown, widths []int) int {
	sum := 0
	for _, i := range shown[:len(shown)-1] {
		sum += widths[i] + len(between)
	}
	return sum
}

// table writes a table of at least one row; a head of empty names is left out.
func (p *page) table(t table) {
	shown, widths := t.fit(p.look.Width)
	if len(shown) == 0 {
		return
	}
	rows, named := t.rows, false
	head := make([]cell, len(t.columns))
	for i, c := range t.columns {
		head[i] = cell{c.head, faint}
		named = named || c.head != ""
	}
	if named {
		rows = append([][]cell{head}, rows...)
	}
	for _, row := range rows {
		p.row(row, shown, widths, t.fixed(shown, widths))
	}
}

// row writes one row; fixed is where its last column begins.
func (p *page) row(row []cell, shown, widths []int, fixed int) {
	before := ""
	for _, i := range shown[:len(shown)-1] {
		text := clean(row[i].text)
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
		before += p.paint(row[i].tone, text) + pad + between
	}
	last := row[shown[len(shown)-1]]
	if last.text == "" {
		before = strings.TrimRight(before, " ")
	}
	p.out.WriteString(before)
	for i, part := range wrap(clean(last.text), p.room(fixed), p.room(fixed)) {
		if i > 0 {
			p.out.WriteString(strings.Repeat(" ", fixed))
		}
		p.out.WriteString(p.paint(last.tone, part) + "\n")
	}
}
