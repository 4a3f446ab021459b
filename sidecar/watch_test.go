package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal (pty(7)) and what has been written to it.
type terminal struct {
	tty  *os.File
	seen tape
}

func newTerminal(t *testing.T, columns, rows uint16) *terminal {
	t.Helper()
	pt, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(pt.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(pt.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(pt.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{tty: tty}
	var g errgroup.Group
	g.Go(func() error {
		buf := make([]byte, 4096)
		for {
			n, err := pt.Read(buf)
			_, _ = term.seen.Write(buf[:n]) // never fails
			if err != nil {
				return nil // EIO: the other side is closed
			}
		}
	})
	t.Cleanup(func() {
		tty.Close() // may be closed already
		_ = g.Wait()
		pt.Close()
	})
	return term
}

// runOn runs the program with its output on the terminal.
func (term *terminal) runOn(ctx context.Context, args ...string) error {
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(term.tty)
	return cmd.ExecuteContext(ctx)
}

func TestOnATerminalStatusFitsAndHasColour(t *testing.T) {
	s := newStage(t)
	s.boot()
	for _, noColour := range []string{"", "1"} {
		t.Setenv("NO_COLOR", noColour)
		t.Setenv("TERM", "xterm")
		term := newTerminal(t, 40, 50)
		if err := term.runOn(t.Context(), "status", "--socket", s.socket); !errors.Is(err, notRedundant) {
			t.Fatal(err)
		}
		until(t, func() bool { return strings.Contains(term.seen.String(), "needed") })
		text := term.seen.String()
		if got, want := strings.Contains(text, "\x1b["), noColour == ""; got != want {
			t.Errorf("NO_COLOR=%q: colour %v, want %v", noColour, got, want)
		}
		if noColour == "" {
			continue
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > 40 {
				t.Errorf("%d characters: %q", n, line)
			}
		}
	}
}

// Watching leaves the terminal as it was, also when it is interrupted, and never scrolls it.
func TestWatchGivesTheTerminalBack(t *testing.T) {
	s := newStage(t)
	t.Setenv("TERM", "xterm")
	term := newTerminal(t, 80, 6)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var g errgroup.Group
	var err error
	g.Go(func() error {
		err = term.runOn(ctx, "status", "--socket", s.socket, "--watch")
		return nil
	})
	until(t, func() bool { return strings.Contains(term.seen.String(), "blog is redundant") })
	s.boot()
	until(t, func() bool { return strings.Contains(term.seen.String(), "lb2 is booting") })
	interrupt()
	_ = g.Wait() // never fails
	if !errors.Is(err, notRedundant) {
		t.Errorf("got %v, want exit status 3", err)
	}
	until(t, func() bool { return strings.HasSuffix(term.seen.String(), "\x1b[?25h\x1b[?1049l") })
	text := term.seen.String()
	if !strings.HasPrefix(text, "\x1b[?1049h\x1b[?25l") {
		t.Errorf("begins with %.20q", text)
	}
	for i, page := range strings.Split(text, "\x1b[H") {
		if n := strings.Count(page, "\n"); n > 5 {
			t.Errorf("page %d has %d lines on a screen of 6", i, n)
		}
	}
}

func TestWhatDoesNotFitIsLeftOutAtTheEnd(t *testing.T) {
	for _, tc := range []struct {
		rows int
		want string
	}{{0, "a\nb\nc\nd\n"}, {5, "a\nb\nc\nd\n"}, {4, "a\nb\n…\n"}, {1, "a\n…\n"}} {
		if got := fitHeight("a\nb\nc\nd\n", tc.rows); got != tc.want {
			t.Errorf("%d rows: got %q, want %q", tc.rows, got, tc.want)
		}
	}
}
