package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"understudy/bootstrap/secrets"
)

func TestJournalGetsFields(t *testing.T) {
	var messages []string
	var got []map[string]string
	var priorities []journal.Priority
	log := slog.New(&journalHandler{send: func(m string, p journal.Priority, f map[string]string) error {
		messages, priorities, got = append(messages, m), append(priorities, p), append(got, f)
		return nil
	}})
	log = log.With("node", "web1", "role", "")
	log.Warn("trying again", "phase", "control", "reason", "no route", "_odd.key", 1, "message", "x")
	log.Error("failed", "took", 1234567*time.Microsecond, "key", secrets.NewSecret("s3cret"))
	log.Debug("not sent")
	if len(got) != 2 || messages[0] != `control: trying again reason="no route" _odd.key=1 message=x` || messages[1] != "failed took=1.23s key=REDACTED" {
		t.Fatalf("got %q", messages)
	}
	for key, want := range map[string]string{"PHASE": "control", "NODE": "web1", "REASON": "no route", "ODD_KEY": "1", "ATTR_MESSAGE": "x", "SYSLOG_IDENTIFIER": programName} {
		if got[0][key] != want {
			t.Errorf("%s: got %q, want %q", key, got[0][key], want)
		}
	}
	if _, ok := got[0]["ROLE"]; ok {
		t.Error("an empty attribute is a field")
	}
	if priorities[0] != journal.PriWarning || priorities[1] != journal.PriErr {
		t.Errorf("priorities: got %v", priorities)
	}
}

func TestTerminalGetsTimePhaseAndMessage(t *testing.T) {
	var out bytes.Buffer
	h := &lineHandler{out: &out, mu: new(sync.Mutex)}
	log := slog.New(h).With("node", "web1", "attempt", 2)
	log.Info("commit 1a2b of main", "phase", "control", "took", 1500*time.Microsecond)
	h.colour = true
	log = slog.New(h)
	log.Error("failed", "err", errors.New("no way"))
	lines := strings.Split(out.String(), "\n")
	if _, text, _ := strings.Cut(lines[0], "  "); text != "control   commit 1a2b of main took=2ms" {
		t.Errorf("got %q", lines[0])
	}
	if !strings.HasPrefix(lines[1], "\x1b[31m") || !strings.HasSuffix(lines[1], "failed err=\"no way\"\x1b[0m") {
		t.Errorf("got %q, want it red", lines[1])
	}
}
