package puppet_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestEveryHieraKeyIsAParameterOfAClass finds misspelt and forgotten settings: automatic lookup ignores them silently. The
// other direction, a parameter without a value, is a compile error.
func TestEveryHieraKeyIsAParameterOfAClass(t *testing.T) {
	for _, name := range files(t, ".yaml") {
		if !strings.HasPrefix(name, "data/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(repo, "puppet", name))
		if err != nil {
			t.Fatal(err)
		}
		var settings map[string]any
		if err := yaml.Unmarshal(data, &settings); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for key := range settings {
			if complaint := orphan(key); complaint != "" {
				t.Errorf("puppet/%s: %s: %s", name, key, complaint)
			}
		}
	}
}

// orphan says why nobody would look key up; "" if a class has that parameter.
func orphan(key string) string {
	parts := strings.Split(key, "::")
	if len(parts) < 3 {
		return "is not <module>::<class>::<parameter>"
	}
	last := len(parts) - 1
	manifest := filepath.Join(append([]string{repo, "puppet", "site-modules", parts[0], "manifests"}, parts[1:last]...)...) + ".pp"
	data, err := os.ReadFile(manifest)
	if err != nil {
		return "there is no such class"
	}
	head, _, _ := strings.Cut(string(data), "\n) {")
	if !regexp.MustCompile(`(?m)^  \S.*\$` + parts[last] + `( =.*)?,$`).MatchString(head) {
		return "the class has no such parameter"
	}
	return ""
}

func TestAnOrphanedKeyIsRecognised(t *testing.T) {
	for key, want := range map[string]bool{
		"profile::lb::maxconn":          false,
		"profile::mail::users":          false,
		"profile::lb::max_conn":         true,
		"profile::balancer::maxconn":    true,
		"maxconn":                       true,
		"profile::mail::postfix::relay": true,
	} {
		if got := orphan(key); (got != "") != want {
			t.Errorf("orphan(%s) = %q, want a complaint: %v", key, got, want)
		}
	}
}
