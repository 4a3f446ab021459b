package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runSimulate runs the command with arguments, and returns what it printed.
func runSimulate(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs(append([]string{"simulate"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSimulateTellsWhatBecameOfACluster(t *testing.T) {
	args := []string{"--days", "30", "--seed", "3", "--every", "72h", "--json", "../roles.yaml"}
	first, err := runSimulate(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(first), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{"cpu_seconds", "days", "extinct", "faults", "healed_longest_seconds", "healed_median_seconds", "healed_p99_seconds", "losses",
		"machines_created", "seed", "takeovers", "trace", "violations", "whole"}
	var keys []string
	for k := range got {
		keys = append(keys, k)
	}
	if slices.Sort(keys); !slices.Equal(keys, want) {
		t.Errorf("got the keys %q, want %q", keys, want)
	}
	if got["days"] != 30.0 || got["seed"] != 3.0 || got["faults"].(float64) < 3 || len(got["violations"].([]any)) > 0 || got["whole"].(float64) < 0.9 {
		t.Errorf("got %v", got)
	}
	var again map[string]any
	second, err := runSimulate(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(second), &again); err != nil || again["trace"] != got["trace"] {
		t.Errorf("the same seed gave the traces %v and %v, %v", got["trace"], again["trace"], err)
	}
	text, err := runSimulate(t, "--days", "3", "../roles.yaml")
	if err != nil || !strings.Contains(text, "3 days, ") || !strings.Contains(text, "laws broken: 0") {
		t.Errorf("got %v, %s", err, text)
	}
}

func TestSimulateRefusesWhatItCannotPlay(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "roles.yaml")
	if err := os.WriteFile(broken, []byte("cluster: c\nroles: {lb: {nodes: 7}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--days", "0", "../roles.yaml"}, "--days must be at least 1"},
		{[]string{"--every", "-1s", "../roles.yaml"}, "not negative"},
		{[]string{filepath.Join(dir, "nothing.yaml")}, "no such file"},
		{[]string{broken}, "roles.yaml:2"},
	} {
		if _, err := runSimulate(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.args, err, c.want)
		}
	}
}
