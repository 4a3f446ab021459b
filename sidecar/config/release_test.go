package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"understudy/bootstrap/secrets"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// node is the state directory of a machine that has become a node.
func node(t *testing.T) (Config, secrets.Bundle) {
	t.Helper()
	c := Default()
	c.State = t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b := secrets.Bundle{
		Version: 1, ClusterKey: secrets.NewSecret(strings.Repeat("k", 64)),
		Ledger: secrets.LedgerKeys{AccessKey: secrets.NewSecret("a"), SecretKey: secrets.NewSecret("s")},
	}
	sealed, err := secrets.Seal(b, []age.Recipient{id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if err := secrets.SaveMembership(c.State, secrets.Membership{Identity: id, AllowedSigners: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	release := filepath.Join(c.State, "releases", commit)
	write(t, filepath.Join(release, "secrets.age"), string(sealed))
	data, err := os.ReadFile("../../roles.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(release, "roles.yaml"), string(data))
	write(t, filepath.Join(c.State, "bootstrap.json"), `{"version":1,"attempt":1,"commit":"`+commit+`","done":"2026-01-01T00:00:00Z"}`)
	return c, b
}

func TestRosterAndSecretsAreThoseOfTheCurrentRelease(t *testing.T) {
	c, want := node(t)
	r, err := c.Release()
	if err != nil || r.Commit != commit || r.Dir != filepath.Join(c.State, "releases", commit) {
		t.Errorf("release: got %+v, %v", r, err)
	}
	roster, err := c.ReadRoster()
	if err != nil || roster.Cluster != "blog" {
		t.Errorf("roster: got cluster %q, %v; want blog", roster.Cluster, err)
	}
	b, err := c.ReadSecrets()
	if err != nil || !b.ClusterKey.Equal(want.ClusterKey) || !b.Ledger.SecretKey.Equal(want.Ledger.SecretKey) {
		t.Errorf("secrets: %v, or not those that were sealed", err)
	}
}

func TestMachineThatIsNotDoneHasNoRelease(t *testing.T) {
	c := Default()
	c.State = t.TempDir()
	for _, record := range []string{"", `{"version":1,"attempt":1,"commit":"` + commit + `"}`, `{"version":1,"attempt":1,"done":"2026-01-01T00:00:00Z"}`} {
		if record != "" {
			write(t, filepath.Join(c.State, "bootstrap.json"), record)
		}
		if _, err := c.Release(); !errors.Is(err, ErrNoRelease) {
			t.Errorf("%q: got %v, want ErrNoRelease", record, err)
		}
	}
	for _, record := range []string{"{", `{"version":2}`, `{"version":1,"attempt":1,"commit":"../x","done":"2026-01-01T00:00:00Z"}`} {
		write(t, filepath.Join(c.State, "bootstrap.json"), record)
		if _, err := c.Release(); err == nil || errors.Is(err, ErrNoRelease) {
			t.Errorf("%q: got %v, want another error than ErrNoRelease", record, err)
		}
	}
}

func TestClusterKeyFileNeedsNoBundleAndWinsOverOne(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, strings.Repeat("f", 64)+"\n")
	c := Default()
	c.State, c.ClusterKeyFile = t.TempDir(), key
	b, err := c.ReadSecrets()
	if err != nil || b.ClusterKey.Reveal() != strings.Repeat("f", 64) {
		t.Errorf("alone: %v, or another key than the file's", err)
	}
	c, _ = node(t)
	c.ClusterKeyFile = key
	b, err = c.ReadSecrets()
	if err != nil || b.ClusterKey.Reveal() != strings.Repeat("f", 64) || b.Ledger.AccessKey.IsZero() {
		t.Errorf("beside a bundle: %v, or not the file's key with the bundle's other secrets", err)
	}
}

func TestDamagedOrMissingSecretsAreNoEmptyOnes(t *testing.T) {
	c, _ := node(t)
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, strings.Repeat("f", 64))
	if err := os.Remove(filepath.Join(c.State, "identity")); err != nil {
		t.Fatal(err)
	}
	c.ClusterKeyFile = key
	if _, err := c.ReadSecrets(); err == nil {
		t.Error("a bundle that cannot be opened: got no error")
	}
	c.State, c.Secrets = t.TempDir(), "/nowhere/secrets.age"
	if _, err := c.ReadSecrets(); err == nil {
		t.Error("a named bundle that is not there: got no error")
	}
	c.Secrets, c.ClusterKeyFile = "", ""
	if _, err := c.ReadSecrets(); err == nil {
		t.Error("nothing at all: got no error")
	}
	write(t, key, "short")
	c.ClusterKeyFile = key
	if _, err := c.ReadSecrets(); err == nil || strings.Contains(err.Error(), "short") && !strings.Contains(err.Error(), "at least") {
		t.Errorf("a short key: got %v, want a refusal", err)
	}
}

// TestFirstMachineReadsItsRosterBeforeItIsApplied is about the sidecar that must hire the others while Puppet runs for the first time.
func TestFirstMachineReadsItsRosterBeforeItIsApplied(t *testing.T) {
	c, _ := node(t)
	for steps, want := range map[string]bool{`{"name":"export"},{"name":"roles"}`: false, `{"name":"export"},{"name":"roles"},{"name":"secrets"}`: true} {
		write(t, filepath.Join(c.State, "bootstrap.json"), `{"version":1,"attempt":1,"commit":"`+commit+`","steps":[`+steps+`]}`)
		if _, err := c.ReadRoster(); (err == nil) != want || !want && !errors.Is(err, ErrNoRelease) {
			t.Errorf("after %s: roster: got %v, want it readable %v", steps, err, want)
		}
		if _, err := c.ReadSecrets(); (err == nil) != want {
			t.Errorf("after %s: secrets: got %v, want them readable %v", steps, err, want)
		}
		if _, err := c.Release(); !errors.Is(err, ErrNoRelease) {
			t.Errorf("after %s: release: got %v, want ErrNoRelease, for nothing is applied", steps, err)
		}
	}
}
