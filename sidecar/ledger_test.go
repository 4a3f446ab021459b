package main

import (
	"bytes"
	"strings"
	"testing"

	"understudy/sidecar/cluster"
)

func TestLedgerReseedAsksFirstAndRefusesWithoutAMajority(t *testing.T) {
	s := newStage(t)
	s.view.Ledger.Configured, s.view.Ledger.Sound, s.view.Ledger.Failing = true, true, true
	s.view.Ledger.Forgot = "the claims of lb2 ends at 0 and was at 3"
	s.view.Ledger.Known = &cluster.Recall{Claims: map[string]cluster.Claim{"lb2": {Node: "lb2", Epoch: 3, Machine: "m7"}}}
	do := func(in string, args ...string) (string, error) {
		var out bytes.Buffer
		cmd := root()
		cmd.SetArgs(append(append([]string{"ledger"}, args...), "--socket", s.socket))
		cmd.SetIn(strings.NewReader(in))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := do("", "show")
	if err != exitCode(3) || !strings.Contains(out, "was at 3") || !strings.Contains(out, "machine m7") || !strings.Contains(out, "ledger reseed") {
		t.Errorf("show: got %v\n%s", err, out)
	}
	if out, err := do("yes\n", "reseed"); err == nil || !strings.Contains(err.Error(), "2 of 2 members must") {
		t.Errorf("lb2 does not answer: got %v\n%s", err, out)
	}
	s.alone = true
	if out, err := do("no\n", "reseed"); err == nil || !strings.Contains(out, "reseed 1: would write") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("told no: got %v\n%s", err, out)
	}
	if len(s.reseeded) != 0 {
		t.Fatalf("wrote %v unasked", s.reseeded)
	}
	for i, args := range [][]string{{"reseed"}, {"reseed", "--yes"}, {"reseed", "--yes", "--json"}} {
		out, err := do("yes\n", args...)
		if err != nil || len(s.reseeded) != i+1 || !strings.Contains(out, "m7") {
			t.Errorf("%v: got %v, wrote %d times\n%s", args, err, len(s.reseeded), out)
		}
	}
}
