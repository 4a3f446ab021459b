package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
)

func TestApplyConfirmsARemovalOnlyWhenToldYes(t *testing.T) {
	defer func(d time.Duration) { seenWithin = d }(seenWithin)
	seenWithin = 0
	s := newStage(t)
	commit := strings.Repeat("7", 40)
	s.view.Rollout.Head = strings.Repeat("1", 40)
	s.view.Ledger.Claims = map[string]cluster.Claim{"web3": {Node: "web3", Epoch: 2, Machine: "1003"}}
	do := func(in string, args ...string) (string, error) {
		var out bytes.Buffer
		cmd := root()
		cmd.SetArgs(append([]string{"apply", "--confirm-removal", "--socket", s.socket}, args...))
		cmd.SetIn(strings.NewReader(in))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := do("yes\n"); err == nil || !strings.Contains(err.Error(), "no commit waits") || len(s.confirmed) > 0 {
		t.Errorf("nothing waits: got %v\n%s", err, out)
	}
	s.removal = admin.Removal{Commit: commit, Nodes: []string{"web3", "web4"}}
	for _, c := range []struct {
		in, out string
		args    []string
		done    bool
	}{
		{"no\n", "Commit 77777777 removes web3 (machine 1003, which will be deleted), web4. Type yes: ", nil, false},
		{"yes\n", "commit 77777777 goes on, and removes web3 (machine 1003", nil, true},
		{"", "goes on", []string{"--yes"}, true},
		{"", `"machines": [`, []string{"--yes", "--json"}, true},
	} {
		s.confirmed = nil
		out, err := do(c.in, c.args...)
		if (err == nil) != c.done || slices.Contains(s.confirmed, commit) != c.done || !strings.Contains(out, c.out) {
			t.Errorf("%q %v: got %v, confirmed %v\n%s", c.in, c.args, err, s.confirmed, out)
		}
	}
}
