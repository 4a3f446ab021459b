package puppet_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"understudy/bootstrap/role"
)

var update = flag.Bool("update", false, "rewrite the facts that the specs compile with")

// roster reads the reference cluster.
func roster(t *testing.T) role.Roster {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repo, "roles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := role.Parse("roles.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files lists the files of the control repo whose name ends so, relative to puppet/, in order.
func files(t *testing.T, suffix string) []string {
	t.Helper()
	top := filepath.Join(repo, "puppet")
	var found []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		name, err := filepath.Rel(top, path)
		found = append(found, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no file in puppet/ ends in %s", suffix)
	}
	return found
}

func puppet(args ...string) call {
	return call{Args: append([]string{"/usr/bin/puppet"}, args...)}
}

func TestEveryManifestParses(t *testing.T) {
	must(t, puppet(append([]string{"parser", "validate"}, files(t, ".pp")...)...))
}

func TestEveryTemplateParses(t *testing.T) {
	must(t, puppet(append([]string{"epp", "validate"}, files(t, ".epp")...)...))
}

func TestLintFindsNothing(t *testing.T) {
	// .puppet-lint.rc in the control repo holds the options, so that a bare puppet-lint says the same.
	if said := must(t, call{Args: append([]string{"/usr/bin/puppet-lint"}, files(t, ".pp")...)}); said != "" {
		t.Error(said)
	}
}

func TestEveryScriptIsValidPOSIXShell(t *testing.T) {
	for _, name := range files(t, "") {
		data, err := os.ReadFile(filepath.Join(repo, "puppet", name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte("#!/bin/sh\n")) {
			must(t, call{Args: []string{"/usr/bin/dash", "-n", name}})
		}
	}
}

// TestTheSpecsHaveTheFactsOfTheReferenceCluster keeps the specs, which run without Go, on what bootstrap really hands over.
func TestTheSpecsHaveTheFactsOfTheReferenceCluster(t *testing.T) {
	dir := filepath.Join(repo, "puppet", "spec", "fixtures", "facts")
	var want []string
	r := roster(t)
	for _, ro := range r.Roles {
		for _, node := range ro.Nodes {
			fact, err := r.Fact(node)
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.MarshalIndent(map[string]role.Fact{"understudy": fact}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, '\n')
			path := filepath.Join(dir, node+".json")
			want = append(want, node+".json")
			if *update {
				if err := os.WriteFile(path, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s is not what roles.yaml says (%v): go test ./tests/puppet -run Facts -update rewrites it", path, err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			t.Errorf("%s is the fact of a node that roles.yaml does not have", e.Name())
		}
	}
}
