package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
)

// screen shows a status that changes: on a terminal in place, elsewhere again whenever something worth reading has changed.
type screen struct {
	out  io.Writer
	json bool
	live bool
	said string // what of the last status is worth comparing
}

func newScreen(out io.Writer, asJSON bool) *screen {
	return &screen{out: out, json: asJSON, live: !asJSON && isTerminal(out)}
}

// watchStatus shows the status until ctx ends, which is how people end it, so it is no error: the exit status is that of the
// last status seen.
func watchStatus(ctx context.Context, w *where, s *screen) error {
	if s.live {
		// The alternate screen of xterm(1) keeps what was there before; the cursor would only flicker.
		fmt.Fprint(s.out, "\x1b[?1049h\x1b[?25l")
		defer fmt.Fprint(s.out, "\x1b[?25h\x1b[?1049l")
	}
	var last error = exitCode(1)
	for first := true; ; first = false {
		st, err := w.fullStatus(ctx)
		switch {
		case ctx.Err() != nil:
			return last
		case err != nil && first:
			return err // most likely asked wrongly
		case err != nil:
			last = exitCode(1)
			err = s.lost(err)
		default:
			last = redundance(st)
			err = s.show(st)
		}
		if err != nil {
			return err
		}
		if pace(ctx, watchPace) != nil {
			return last
		}
	}
}

func (s *screen) show(st admin.Status) error {
	if s.live {
		return s.redraw(show.Status(st, lookAt(s.out)))
	}
	news, err := substance(st)
	if err != nil || news == s.said {
		return err
	}
	s.said = news
	if s.json {
		return json.NewEncoder(s.out).Encode(st)
	}
	_, err = fmt.Fprintf(s.out, "%s\n%s\n", time.Now().Format(time.DateTime), show.Status(st, lookAt(s.out)))
	return err
}

// lost tells that nobody answers.
func (s *screen) lost(err error) error {
	text := "nobody can tell: " + err.Error() + "\n"
	switch {
	case s.live:
		return s.redraw(text)
	case s.said == text:
		return nil
	}
	s.said = text
	if s.json {
		return json.NewEncoder(s.out).Encode(map[string]string{"error": err.Error()})
	}
	_, err = fmt.Fprintf(s.out, "%s\n%s\n", time.Now().Format(time.DateTime), text)
	return err
}

// redraw writes over what was there, line by line, so that nothing flickers (ECMA-48: CUP, EL, ED). What does not fit on the
// screen is left out at the end, where the least urgent is.
func (s *screen) redraw(text string) error {
	_, err := fmt.Fprint(s.out, "\x1b[H"+strings.ReplaceAll(fitHeight(text, heightOf(s.out)), "\n", "\x1b[K\n")+"\x1b[J")
	return err
}

// fitHeight cuts a text to so many rows less one, in which the cursor stands. Zero: any number.
func fitHeight(text string, rows int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	if rows == 0 || len(lines) < rows {
		return text
	}
	return strings.Join(lines[:max(rows-2, 1)], "") + "…\n"
}

// heightOf is how many rows a terminal has; zero: not known.
func heightOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return rows
}

// substance is a status without what changes all the time.
func substance(st admin.Status) (string, error) {
	st.At, st.Age, st.Ledger.Age = time.Time{}, 0, 0
	st.Why, st.Warnings = nil, nil // they follow from the rest, and name durations
	st.Nodes = append([]admin.Node(nil), st.Nodes...)
	for i := range st.Nodes {
		st.Nodes[i].Silent, st.Nodes[i].Lag = 0, 0
	}
	st.Zones = append([]admin.Zone(nil), st.Zones...)
	for i := range st.Zones {
		st.Zones[i].Age = 0
	}
	if st.Beachhead != nil {
		b := *st.Beachhead
		b.Silent = 0
		st.Beachhead = &b
	}
	text, err := json.Marshal(st)
	return string(text), err
}
