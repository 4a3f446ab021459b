package main

import (
	"bytes"
	"strings"
	"testing"

	"understudy/sidecar/cluster"
)

func TestDiscardAsksFirstAndRecoverTellsHow(t *testing.T) {
	s := newStage(t)
	s.data = true
	s.view.Ledger.Configured = true
	s.view.Ledger.Claims = map[string]cluster.Claim{"lb2": {Node: "lb2", Epoch: 2, Machine: "1002"}}
	s.view.Ledger.Intents = map[string]cluster.Intent{"lb2": {Node: "lb2", N: 1, Machine: "77"}}
	do := func(in string, args ...string) (string, error) {
		var out bytes.Buffer
		cmd := root()
		cmd.SetArgs(append(args, "--socket", s.socket))
		cmd.SetIn(strings.NewReader(in))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := do("no\n", "discard", "lb2"); err == nil || !strings.Contains(out, "Machine 77, which was lb2, will be deleted.") || len(s.wished) > 0 {
		t.Errorf("told no: got %v, wished %+v\n%s", err, s.wished, out)
	}
	for i, c := range []struct {
		in   string
		args []string
		want string
	}{
		{"", []string{"recover", "lb2"}, "machine 77, which was lb2, is kept until you discard it"},
		{"", []string{"recover", "lb2", "--json"}, `"machine": "77"`},
		{"yes\n", []string{"discard", "lb2"}, "machine 77, which was lb2, will be deleted"},
		{"", []string{"discard", "lb2", "--machine", "76", "--yes"}, "machine 76"},
		{"", []string{"discard", "lb2", "--yes", "--json"}, `"written": true`},
	} {
		if out, err := do(c.in, c.args...); err != nil || len(s.wished) != i+1 || !strings.Contains(out, c.want) {
			t.Errorf("%v: got %v, wished %+v\n%s", c.args, err, s.wished, out)
		}
	}
	if out, err := do("", "discard", "lb2", "--machine", "1002", "--yes"); err == nil || !strings.Contains(err.Error(), "which is heard") {
		t.Errorf("a machine that serves: got %v\n%s", err, out)
	}
}
