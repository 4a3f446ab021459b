package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"understudy/bootstrap/applied"
	"understudy/sidecar/config"
	"understudy/sidecar/decide"
	"understudy/sidecar/puppetrun"
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

func TestWhatDecisionsAreToldOfARun(t *testing.T) {
	restarts := []applied.Restart{
		{Unit: "nginx.service", Verb: "reload"}, {Unit: "opendkim.service", Verb: "restart"}, {Unit: "opendkim.service", Verb: "stop"},
		{Unit: "systemd-journald.service", Verb: "restart"}, {Unit: "new.service", Verb: "start"},
	}
	numbers := applied.Resources{Total: 9, Changed: 2, OutOfSync: 3}
	for _, c := range []struct {
		name string
		r    applied.Result
		want decide.RunReading
	}{
		{"real", applied.Result{Resources: numbers, Restarts: restarts}, decide.RunReading{Good: true, Changes: 2, Restarts: []string{"opendkim.service"}}},
		{"without effects", applied.Result{Noop: true, Resources: numbers}, decide.RunReading{Good: true, Changes: 3}},
		{"the commit's fault", applied.Result{Code: 32, Fault: applied.Commit, Message: "broken"}, decide.RunReading{Judged: true, Why: "broken"}},
		{"a full disk", applied.Result{Code: 40, Fault: applied.Machine, Message: "full"}, decide.RunReading{Why: "full"}},
		{"a reboot", applied.Result{Code: 1, Fault: applied.Machine, Interrupted: true}, decide.RunReading{Cut: true}},
		{"no memory", applied.Result{Code: 32, Fault: applied.Machine, Kind: "killed"}, decide.RunReading{Cut: true}},
	} {
		c.want.ID, c.want.Commit, c.r.Commit = "x", "c", "c"
		if got := reading(puppetrun.Result{Result: c.r, ID: "x"}); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
