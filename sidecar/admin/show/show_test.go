package show

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"understudy/sidecar/admin"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// stories reads what package admin's own goldens hold, so that both tell the same.
func stories[T any](t *testing.T, kind string) map[string]T {
	t.Helper()
	files, err := filepath.Glob("../testdata/*." + kind + ".json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	all := map[string]T{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), "."+kind+".json")] = v
	}
	return all
}

var widths = []int{0, 120, 80, 40, 24}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: %s; rewrite it with -update and review the difference", path, difference(got, string(want)))
	}
}

// atWidths is one text at all widths. It checks the law that no line is wider than it may be or ends with a blank.
func atWidths(t *testing.T, text func(Look) string) string {
	t.Helper()
	var all strings.Builder
	for _, w := range widths {
		got := text(Look{Width: w})
		for _, line := range strings.Split(got, "\n") {
			if n := utf8.RuneCountInString(line); w > 0 && n > w {
				t.Errorf("width %d: %d characters: %s", w, n, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("width %d: blanks at the end of %q", w, line)
			}
		}
		fmt.Fprintf(&all, "--- width %d\n%s", w, got)
	}
	return all.String()
}

func TestStatusAtAllWidthsIsTheGolden(t *testing.T) {
	for name, st := range stories[admin.Status](t, "status") {
		golden(t, name+".status.txt", atWidths(t, func(l Look) string { return Status(st, l) }))
	}
}

func TestPlanAtAllWidthsIsTheGolden(t *testing.T) {
	for name, plan := range stories[admin.Plan](t, "plan") {
		golden(t, name+".plan.txt", atWidths(t, func(l Look) string { return Plan(plan, l) }))
	}
}

func TestIncidentsAtAllWidthsAreTheGolden(t *testing.T) {
	at := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	phases := func(names ...string) []admin.IncidentPhase {
		var out []admin.IncidentPhase
		for i, n := range names {
			d := time.Duration(i*i*i) * 550 * time.Millisecond
			took := time.Duration(0)
			if i > 0 {
				took = at.Add(d).Sub(out[i-1].At)
			}
			out = append(out, admin.IncidentPhase{Name: n, At: at.Add(d), Took: admin.Duration(took), By: "lb2"})
		}
		return out
	}
	detailed := phases("lost", "detected")
	detailed[1].Detail, detailed[0].By = "lb2 and a majority of those it hears have not heard web2 for 500ms", ""
	all := []admin.Incident{
		{ID: "1", Node: "lb1", Role: "lb", Phases: phases("lost", "detected", "taken over", "fenced", "created", "booted", "applied", "synced", "redundant")},
		{ID: "2", Node: "web2", Role: "web", Phases: detailed},
		{ID: "3", Node: "mail1", Role: "mail"},
		{ID: "4", Node: "web1", Role: "web", Cause: "chaos", Phases: phases("lost", "detected", "booted", "redundant")},
	}
	golden(t, "incidents.txt", atWidths(t, func(l Look) string { return Incidents(all, at.Add(10*time.Minute), l) }))
	if got := Incidents(nil, at, Look{}); got != "no node was ever lost\n" {
		t.Errorf("got %q", got)
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// Colour changes nothing but colour, and there is none that was not asked for.
func TestColourIsOnlyColour(t *testing.T) {
	for name, st := range stories[admin.Status](t, "status") {
		for _, w := range widths {
			grey, bright := Status(st, Look{Width: w}), Status(st, Look{Width: w, Colour: true})
			if strings.Contains(grey, "\x1b") {
				t.Errorf("%s: colour unasked for", name)
			}
			if bright == grey || sgr.ReplaceAllString(bright, "") != grey {
				t.Errorf("%s, width %d: with colour\n%s\nwithout\n%s", name, w, bright, grey)
			}
		}
	}
}

// A name or reason from outside cannot steer the terminal, nor break a line.
func TestWhatComesFromOutsideIsShownNotObeyed(t *testing.T) {
	st := stories[admin.Status](t, "status")["blocked"]
	evil := "a\x1b[2J\u009b31m\nb\rc\xff"
	st.Blocked[0].Why, st.Cluster, st.Nodes[0].Machine, st.Roles[0].Names = evil, evil, evil, []string{evil}
	st.Why, st.Warnings = []string{evil}, []string{evil}
	got := Status(st, Look{})
	if strings.ContainsAny(got, "\x1b\u009b\r\x00") || strings.Contains(got, "\nb") || !strings.Contains(got, "a?[2J?31m?b?c?") {
		t.Errorf("got %q", got)
	}
}

func TestWrapLosesNoWord(t *testing.T) {
	text := "mail: 1 of 2 serve: nobody has the duty (mail1 had epoch 2 and is silent for 900ms) " + strings.Repeat("x", 70)
	for w := 5; w < 100; w++ {
		lines := wrap(text, w, w-2)
		if got := strings.ReplaceAll(strings.Join(lines, ""), " ", ""); got != strings.ReplaceAll(text, " ", "") {
			t.Fatalf("width %d: got %q", w, lines)
		}
		for i, l := range lines {
			if n := utf8.RuneCountInString(l); n > w || i > 0 && n > w-2 || n == 0 {
				t.Fatalf("width %d: line %d has %d: %q", w, i, n, lines)
			}
		}
	}
}

// difference is the first line in which two texts differ.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: got %q, want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}
