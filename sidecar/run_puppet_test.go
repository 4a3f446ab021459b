package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"understudy/sidecar/config"
	"understudy/sidecar/units"
)

// After a reboot a node says of the run that was under way that it was interrupted.
func TestAnInterruptedRunIsAmongTheNodesResults(t *testing.T) {
	n := &node{cfg: config.Config{State: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	commit := strings.Repeat("a", 40)
	runs := `{"version":1,"current":{"commit":"` + commit + `","noop":false,"why":"rollout","since":"2026-01-01T00:00:00Z","boot_id":"another"}}`
	if err := os.WriteFile(filepath.Join(n.cfg.State, "runs.json"), []byte(runs), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := n.puppetRunner(&units.Systemd{})
	if err != nil {
		t.Fatal(err)
	}
	if h := r.History(); len(h) != 1 || h[0].Commit != commit || h[0].Good() || !strings.Contains(h[0].Message, "reboot") {
		t.Errorf("got %+v, want that a reboot has interrupted it", h)
	}
}
