package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/control"
)

func loadText(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Log(err)
	}
	return c, err
}

func TestConfigChangesTheDefaults(t *testing.T) {
	c, err := loadText(t, `
sources:
  - https://git.example/control.git
  - {url: "ssh://git@mirror.example/control", timeout: 20s, ssh_key: /etc/understudy/key, known_hosts: /etc/understudy/known_hosts}
branch: production
baked: /usr/share/understudy/control.git
image_hostname: [understudy-base, golden]
metadata: none
patience: {needs: 1h}
retry: {first: 1s}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Sources = []control.Source{{URL: "https://git.example/control.git"},
		{URL: "ssh://git@mirror.example/control", Timeout: 20 * time.Second, SSHKey: "/etc/understudy/key", KnownHosts: "/etc/understudy/known_hosts"}}
	if !slices.Equal(c.Sources, want.Sources) {
		t.Errorf("sources: got %+v, want %+v", c.Sources, want.Sources)
	}
	if c.Branch != "production" || c.Metadata != "" || !slices.Equal(c.ImageHostnames, []string{"understudy-base", "golden"}) {
		t.Errorf("got %+v", c)
	}
	if c.Patience.Needs != time.Hour || c.Patience.Join != want.Patience.Join || c.Retry != (Retry{time.Second, want.Retry.Most}) {
		t.Errorf("got %+v, %+v", c.Patience, c.Retry)
	}
	if all := c.From(); len(all) != 3 || all[2].URL != "/usr/share/understudy/control.git" {
		t.Errorf("got %v, want the copy in the image last", all)
	}
}

func TestConfigReportsEveryProblemWithItsLine(t *testing.T) {
	_, err := loadText(t, `sources: https://git.example/control.git
branch: "a b"
branch: main
baked: relative
patience: {needs: fast, puppet: 1m, dpkg_lock: 2m, lunch: 1h}
retry: {first: -1s}
image_hostname: {a: b}
metadata: ftp://169.254.169.254
`)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		":1: sources must be a list", `:2: branch: "a b" is not a branch name`, ":3: branch is given twice",
		`:4: baked: "relative" must be an absolute path`, ":5: patience.needs must be a duration above zero",
		`:5: unknown key "lunch" (known: hostname, join,`, ":5: patience.puppet: 1m0s must not be below patience.dpkg_lock (2m0s)",
		":6: retry.first must be a duration above zero", ":7: image_hostname must be a text", `:8: metadata: "ftp://169.254.169.254" must be an http URL`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got no %q", want)
		}
	}
}

func TestConfigThatIsNoMappingIsRefused(t *testing.T) {
	for _, text := range []string{"", "- a\n", "a: [\n", "sources: [/x]\n---\nsources: [/y]\n", "\x00", "sources: [/x]\nbranch: null\n", "sources: [{url: ''}]\n"} {
		if _, err := loadText(t, text); err == nil {
			t.Errorf("%q: got no error", text)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file: got no error")
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("sources: [/x]\n")
	f.Add("patience: {needs: 1h}\nretry: {first: 1s, most: 2s}")
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		lines, err := parse("f", []byte(text), &c)
		if err == nil {
			_ = c.Validate("f", lines)
		}
	})
}
