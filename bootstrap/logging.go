package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/term"
)

// programName is how the journal and messages call us.
const programName = "understudy-bootstrap"

// newLogger writes for whoever reads: fields into the journal when standard error is the journal, lines
// for people on a terminal, and logfmt into files and pipes.
func newLogger(stderr *os.File) *slog.Logger {
	if journalled, err := journal.StderrIsJournalStream(); err == nil && journalled {
		return slog.New(&journalHandler{send: journal.Send})
	}
	if term.IsTerminal(int(stderr.Fd())) {
		return slog.New(&lineHandler{out: stderr, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", mu: new(sync.Mutex)})
	}
	return slog.New(slog.NewTextHandler(stderr, nil))
}

// attrs is the part that both handlers share: the attributes of the logger itself. Groups are not used in
// this program; their names are ignored.
type attrs struct{ own []slog.Attr }

func (a attrs) with(more []slog.Attr) attrs {
	return attrs{append(append([]slog.Attr(nil), a.own...), more...)}
}

// each visits the logger's attributes and the record's, empty ones left out.
func (a attrs) each(r slog.Record, visit func(key, value string)) {
	one := func(at slog.Attr) bool {
		if v := valueText(at.Value.Resolve()); v != "" {
			visit(at.Key, v)
		}
		return true
	}
	for _, at := range a.own {
		one(at)
	}
	r.Attrs(one)
}

// valueText prints durations and times as people read them.
func valueText(v slog.Value) string {
	if v.Kind() == slog.KindDuration {
		return short(v.Duration()).String()
	}
	return v.String()
}

// short rounds a duration to what matters.
func short(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}

// text renders "message key=value…" for people. Who we are stands elsewhere already. A detail is a sentence
// of its own and takes the place of the message.
func (a attrs) text(r slog.Record) string {
	var b strings.Builder
	message := r.Message
	a.each(r, func(key, value string) {
		switch key {
		case "detail":
			message = value
			return
		case "phase", "node", "role", "attempt", "commit":
			return
		}
		if strings.ContainsAny(value, " \"=") {
			value = fmt.Sprintf("%q", value)
		}
		b.WriteString(" " + key + "=" + value)
	})
	return message + b.String()
}

// lineHandler writes one line for people per record: time, phase, message.
type lineHandler struct {
	attrs
	out    io.Writer
	colour bool
	mu     *sync.Mutex
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	phase := ""
	h.each(r, func(key, value string) {
		if key == "phase" {
			phase = value
		}
	})
	line := fmt.Sprintf("%s  %-8s  %s", r.Time.Format("15:04:05.0"), phase, h.text(r))
	if h.colour {
		switch {
		case r.Level >= slog.LevelError:
			line = "\x1b[31m" + line + "\x1b[0m"
		case r.Level >= slog.LevelWarn:
			line = "\x1b[33m" + line + "\x1b[0m"
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintln(h.out, line)
	return err
}

func (h *lineHandler) WithAttrs(more []slog.Attr) slog.Handler {
	c := *h
	c.attrs = h.with(more)
	return &c
}

func (h *lineHandler) WithGroup(string) slog.Handler { return h }

// journalHandler sends every attribute as a field of its own (systemd.journal-fields(7)): PHASE, NODE,
// ROLE, ATTEMPT, ERR…, so that `journalctl PHASE=puppet` works.
type journalHandler struct {
	attrs
	send func(message string, p journal.Priority, fields map[string]string) error
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": programName}
	phase := ""
	h.each(r, func(key, value string) {
		fields[fieldName(key)] = value
		if key == "phase" {
			phase = value + ": "
		}
	})
	priority := journal.PriInfo
	switch {
	case r.Level >= slog.LevelError:
		priority = journal.PriErr
	case r.Level >= slog.LevelWarn:
		priority = journal.PriWarning
	}
	return h.send(phase+h.text(r), priority, fields)
}

func (h *journalHandler) WithAttrs(more []slog.Attr) slog.Handler {
	return &journalHandler{h.with(more), h.send}
}

func (h *journalHandler) WithGroup(string) slog.Handler { return h }

// fieldName makes a journal field of a key: upper case, digits and underscores, not at the start. Fields
// of the journal's own are not taken over.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}, key)
	name = strings.TrimLeft(name, "_0123456789")
	if name == "" || name == "MESSAGE" || name == "PRIORITY" {
		return "ATTR_" + name
	}
	return name
}
