package layering

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// repository finds the checkout this test belongs to.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(mod), "module understudy\n") {
			return dir
		}
	}
	t.Fatal("no go.mod of module understudy above this test")
	return ""
}

func TestTheRepositoryKeepsItsShape(t *testing.T) {
	dir := repository(t)
	files, err := Files(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no files found")
	}
	for _, finding := range Check(os.DirFS(dir), files) {
		t.Error(finding)
	}
}

// sound is a repository in which nothing is wrong. The offences below are laid on top of it.
var sound = map[string]string{
	"bootstrap/role/role.go": `package role
import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"
)
var ErrNone = errors.New("none")
var _ fmt.Stringer = netip.Addr{}
type Window struct{ wait time.Duration }
func (w Window) init() int { var m map[string]int; m["a"] = 1; x := 1; x++; p := &x; _ = yaml.Node{}; return *p }
`,
	"bootstrap/role/role_test.go":       `package role; import ("os"; "os/exec"; "testing")`,
	"bootstrap/main.go":                 `package main; import ("os"; "understudy/bootstrap/role"; "understudy/bootstrap/command")`,
	"bootstrap/command/command.go":      `package command; import "os/exec"`,
	"bootstrap/control/control_test.go": `package control; import "os/exec"`,
	"sidecar/main.go":                   `package main; import ("os/exec"; "understudy/bootstrap/role")`,
	"sidecar/cluster/cluster.go":        `package cluster; import "understudy/bootstrap/role"`,
	"tests/e2e/e2e_test.go":             `package e2e; import ("understudy/sidecar/cluster"; "understudy/tests/bench")`,
	"tests/layering/testdata/bad.go":    `package this is not Go`,
	"puppet/manifests/site.pp":          ``,
	".ci/run":                           ``,
	"README.md":                         ``,
}

func check(t *testing.T, tree map[string]string) string {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range tree {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	var findings []string
	for _, finding := range Check(fsys, slices.Sorted(maps.Keys(tree))) {
		findings = append(findings, finding.String())
	}
	return strings.Join(findings, "\n")
}

func TestASoundRepositoryHasNoFindings(t *testing.T) {
	if got := check(t, sound); got != "" {
		t.Errorf("got\n%s\nwant nothing", got)
	}
}

func TestEachOffenceIsFound(t *testing.T) {
	const decide = "sidecar/decide/decide.go"
	for _, tc := range []struct{ claim, name, text, want string }{
		{"bootstrap knows no sidecar", "bootstrap/x.go", `package main; import "understudy/sidecar/cluster"`,
			"bootstrap/x.go:1: imports understudy/sidecar/cluster; bootstrap knows nothing of the sidecar"},
		{"nor do its tests", "bootstrap/x_test.go", `package main; import "understudy/sidecar"`,
			"bootstrap/x_test.go:1: imports understudy/sidecar; bootstrap knows nothing of the sidecar"},
		{"bootstrap knows no tests", "bootstrap/x.go", `package main; import "understudy/tests/sim"`,
			"bootstrap/x.go:1: imports understudy/tests/sim; nothing outside tests knows of them"},
		{"simulate knows the simulator only", "sidecar/simulate_cmd.go", `package main; import _ "understudy/tests/sim/model"`,
			"sidecar/simulate_cmd.go:1: imports understudy/tests/sim/model; nothing outside tests knows of them"},
		{"the sidecar knows no tests", "sidecar/x.go", `package main; import _ "understudy/tests/sim"`,
			"sidecar/x.go:1: imports understudy/tests/sim; nothing outside tests knows of them"},
		{"only command runs programs", "bootstrap/control/x.go", `package control; import "os/exec"`,
			"bootstrap/control/x.go:1: imports os/exec; only bootstrap/command runs other programs"},
		{"not what is below it", "bootstrap/command/x/x.go", `package x; import "os/exec"`,
			"bootstrap/command/x/x.go:1: imports os/exec; only bootstrap/command runs other programs"},
		{"a file is Go", "sidecar/x.go", `package`, "sidecar/x.go: sidecar/x.go:1:8: expected 'IDENT', found 'EOF'"},

		{"the top is fixed", "scripts/run.sh", ``, "scripts: is not one of the names that may lie at the top"},
		{"files at the top, too", "main.go", `package main`, "main.go: is not one of the names that may lie at the top"},
		{"no cmd", "sidecar/cmd/x.go", `package cmd`, "sidecar/cmd: is a directory whose name says nothing about what is inside"},
		{"no internal", "bootstrap/internal/a/x.go", `package a`, "bootstrap/internal: is a directory whose name says nothing about what is inside"},
		{"no pkg", "puppet/pkg/x", ``, "puppet/pkg: is a directory whose name says nothing about what is inside"},
		{"no docs", "tests/docs/x.md", ``, "tests/docs: is a directory whose name says nothing about what is inside"},
		{"no util", "bootstrap/util/x.go", `package util`, "bootstrap/util: is a directory whose name says nothing about what is inside"},

		{"pure: no context", decide, `package decide; import "context"`, decide + ":1: imports context, which a pure package does not"},
		{"pure: no os", decide, `package decide; import "os"`, decide + ":1: imports os, which a pure package does not"},
		{"pure: no programs", "bootstrap/role/x.go", `package role; import "os/exec"`,
			"bootstrap/role/x.go:1: imports os/exec; only bootstrap/command runs other programs\n" +
				"bootstrap/role/x.go:1: imports os/exec, which a pure package does not"},
		{"pure: no net", decide, `package decide; import "net"`, decide + ":1: imports net, which a pure package does not"},
		{"pure: no slog", decide, `package decide; import "log/slog"`, decide + ":1: imports log/slog, which a pure package does not"},
		{"pure: no rand", decide, `package decide; import "math/rand/v2"`, decide + ":1: imports math/rand/v2, which a pure package does not"},
		{"pure: no sync", decide, `package decide; import "sync"`, decide + ":1: imports sync, which a pure package does not"},
		{"pure: nothing impure of ours", decide, `package decide; import "understudy/bootstrap/command"`,
			decide + ":1: imports understudy/bootstrap/command, which a pure package does not"},
		{"pure: nobody else's", decide, `package decide; import "github.com/miekg/dns"`,
			decide + ":1: imports github.com/miekg/dns, which a pure package does not"},
		{"pure: no dot import", decide, `package decide; import . "time"`,
			decide + ":1: imports time as .; a pure package names what it uses"},
		{"pure: no import for its effects", decide, `package decide; import _ "time"`,
			decide + ":1: imports time as _; a pure package names what it uses"},

		{"pure: no clock", decide, "package decide\nimport \"time\"\nvar t = time.Now()", decide + ":3: uses time.Now"},
		{"pure: no clock by another name", decide, "package decide\nimport clock \"time\"\nvar now = clock.Now", decide + ":3: uses time.Now"},
		{"pure: no sleep", decide, "package decide\nimport \"time\"\nfunc f() { time.Sleep(1) }", decide + ":3: uses time.Sleep"},
		{"pure: no timer", decide, "package decide\nimport \"time\"\nfunc f() { time.AfterFunc(1, nil) }", decide + ":3: uses time.AfterFunc"},
		{"pure: no place", decide, "package decide\nimport \"time\"\nvar l = time.Local", decide + ":3: uses time.Local"},
		{"pure: no output", decide, "package decide\nimport \"fmt\"\nfunc f() { fmt.Println() }", decide + ":3: uses fmt.Println"},
		{"pure: no builtin output", decide, "package decide\nfunc f() { println() }", decide + ":2: calls println"},
		{"pure: no goroutine", decide, "package decide\nfunc f() { go f() }", decide + ":2: starts a goroutine"},
		{"pure: no channel", decide, "package decide\ntype t struct { c chan int }", decide + ":2: uses a channel"},
		{"pure: no sending", decide, "package decide\nfunc f[C C1](c C) { c <- 1 }", decide + ":2: uses a channel"},
		{"pure: no select", decide, "package decide\nfunc f() { select {} }", decide + ":2: uses a channel"},
		{"pure: no init", decide, "package decide\nfunc init() {}", decide + ":2: has an init function"},

		{"pure: no assignment", decide, "package decide\nvar v int\nfunc f() { v = 1 }", decide + ":3: changes the package variable v"},
		{"pure: no operation", decide, "package decide\nvar v int\nfunc f() { v += 1 }", decide + ":3: changes the package variable v"},
		{"pure: no counter", decide, "package decide\nvar v int\nfunc f() { v++ }", decide + ":3: changes the package variable v"},
		{"pure: no cache", decide, "package decide\nvar v = map[int]int{}\nfunc f() { v[1] = 1 }", decide + ":3: changes the package variable v"},
		{"pure: no field", decide, "package decide\nvar v struct{ a []int }\nfunc f() { (v.a[1:])[0] = 1 }", decide + ":3: changes the package variable v"},
		{"pure: nothing behind a pointer", decide, "package decide\nvar v *int\nfunc f() { *v = 1 }", decide + ":3: changes the package variable v"},
		{"pure: no address", decide, "package decide\nvar v int\nfunc f() { g(&v) }", decide + ":3: changes the package variable v"},
		{"pure: no loop variable", decide, "package decide\nvar u, v int\nfunc f() { for u, v = range g() {} }",
			decide + ":3: changes the package variable u\n" + decide + ":3: changes the package variable v"},
		{"pure: no delete", decide, "package decide\nvar v = map[int]int{}\nfunc f() { delete(v, 1) }", decide + ":3: changes the package variable v"},
		{"pure: not from another file either", "bootstrap/role/x.go", "package role\nfunc f() { ErrNone = nil }",
			"bootstrap/role/x.go:2: changes the package variable ErrNone"},
	} {
		t.Run(tc.claim, func(t *testing.T) {
			tree := maps.Clone(sound)
			tree[tc.name] = tc.text
			if got := check(t, tree); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestAMissingPureRoleIsFound(t *testing.T) {
	tree := maps.Clone(sound)
	delete(tree, "bootstrap/role/role.go")
	if got, want := check(t, tree), "bootstrap/role/role.go: is missing"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// write makes files in a directory of its own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var listed = map[string]string{
	".gitignore":          "# built\n/build/\nunderstudy\n*.test\n\n",
	"go.mod":              "",
	"tests/a.go":          "",
	"tests/build/b.go":    "",
	"build/understudy":    "",
	"sidecar/understudy":  "",
	"sidecar/sub/x.test":  "",
	"bootstrap/deleted":   "",
	"bootstrap/untracked": "",
}

func TestFilesAreThoseGitIgnoresNot(t *testing.T) {
	want := []string{".gitignore", "bootstrap/untracked", "go.mod", "tests/a.go", "tests/build/b.go"}
	t.Run("in a checkout", func(t *testing.T) {
		dir := write(t, listed)
		git := func(args ...string) {
			cmd := exec.Command("git", args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GIT_DIR="+filepath.Join(dir, ".git"), "GIT_WORK_TREE="+dir, "GIT_INDEX_FILE="+filepath.Join(dir, ".git/index"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
		git("init", "--quiet")
		git("add", "go.mod", "tests", "bootstrap/deleted")
		if err := os.Remove(filepath.Join(dir, "bootstrap/deleted")); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GIT_DIR", "/nonexistent") // as in a hook of another repository
		got, err := Files(t.Context(), dir)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v\nwant %q", got, err, want)
		}
	})
	t.Run("in an unpacked archive", func(t *testing.T) {
		files := maps.Clone(listed)
		delete(files, "bootstrap/deleted")
		got, err := Files(t.Context(), write(t, files))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v\nwant %q", got, err, want)
		}
	})
	t.Run("in a checkout without git", func(t *testing.T) {
		files := maps.Clone(listed)
		delete(files, "bootstrap/deleted")
		files[".git/HEAD"] = ""
		t.Setenv("PATH", "")
		got, err := Files(t.Context(), write(t, files))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v\nwant %q", got, err, want)
		}
	})
	t.Run("a pattern it cannot read is told", func(t *testing.T) {
		_, err := Files(t.Context(), write(t, map[string]string{".gitignore": "!x\n"}))
		if err == nil || !strings.Contains(err.Error(), "!x is more than this reads") {
			t.Errorf("got %v", err)
		}
	})
}
