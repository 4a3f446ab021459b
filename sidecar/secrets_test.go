package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// secretRepo is a control repo with fresh secrets, and its operator's key.
func secretRepo(t *testing.T) (repo, key string) {
	t.Helper()
	repo, keys := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	if err := os.MkdirAll(filepath.Join(repo, "puppet"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := initSecrets(io.Discard, repo, keys); err != nil {
		t.Fatal(err)
	}
	return repo, filepath.Join(keys, offlineKey)
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEveryKeyOpensTheFirstBundleAndNoneIsInTheRepo(t *testing.T) {
	repo, key := secretRepo(t)
	for _, i := range identities {
		path := filepath.Join(filepath.Dir(key), i.file)
		b, err := openSecrets(repo, path)
		if err != nil || b.ClusterKey.IsZero() || b.Restic.IsZero() {
			t.Errorf("%s: %v", i.file, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", i.file, info.Mode(), err)
		}
	}
	for _, name := range []string{sealedFile, recipientsFile} {
		if text := read(t, filepath.Join(repo, name)); strings.Contains(text, "SECRET-KEY") {
			t.Errorf("%s has a private key", name)
		}
	}
}

func TestInitOverwritesNothingAndKeepsKeysOutOfTheRepo(t *testing.T) {
	repo, key := secretRepo(t)
	before := read(t, filepath.Join(repo, sealedFile))
	if err := initSecrets(io.Discard, repo, filepath.Join(t.TempDir(), "other")); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("again: %v", err)
	}
	if err := initSecrets(io.Discard, t.TempDir(), filepath.Dir(key)); err == nil {
		t.Error("keys were overwritten")
	}
	other := t.TempDir()
	if err := initSecrets(io.Discard, other, filepath.Join(other, "keys")); err == nil || !strings.Contains(err.Error(), "inside the control repo") {
		t.Errorf("keys in the repo: %v", err)
	}
	if read(t, filepath.Join(repo, sealedFile)) != before {
		t.Error("the bundle has changed")
	}
}

func TestEditSealsWhatHasNoMistakes(t *testing.T) {
	repo, key := secretRepo(t)
	var seen string
	tries := 0
	add := func(_ context.Context, path string) error {
		seen = path
		text := read(t, path)
		if tries++; tries == 1 {
			text += "provider: {digitalocean: }\nbrunch: 1\n"
		} else {
			text = strings.ReplaceAll(text, "provider: {digitalocean: }\nbrunch: 1\n", "provider: {digitalocean: dop_v1_canary}\n")
		}
		return os.WriteFile(path, []byte(text), 0o600)
	}
	var told []string
	var out bytes.Buffer
	if err := editSecrets(t.Context(), &out, repo, key, add, func(err error) bool { told = append(told, err.Error()); return true }); err != nil {
		t.Fatal(err)
	}
	b, err := openSecrets(repo, key)
	if err != nil || b.Provider["digitalocean"].Reveal() != "dop_v1_canary" {
		t.Errorf("got %v", err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "unknown key") || !strings.Contains(out.String(), "sealed") {
		t.Errorf("told %q, out %q", told, out.String())
	}
	if _, err := os.Stat(filepath.Dir(seen)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the plain text is still at %s", seen)
	}
	if strings.Contains(read(t, filepath.Join(repo, sealedFile)), "canary") {
		t.Error("the token is in the sealed file")
	}
}

func TestEditChangesNothingWithoutNeed(t *testing.T) {
	repo, key := secretRepo(t)
	before := read(t, filepath.Join(repo, sealedFile))
	broken := errors.New("broken")
	spoil := func(_ context.Context, path string) error { return os.WriteFile(path, []byte("version: 9\n"), 0o600) }
	for name, c := range map[string]struct {
		edit func(context.Context, string) error
		want string // in the error; empty: none
	}{
		"no change":     {func(context.Context, string) error { return nil }, ""},
		"editor failed": {func(context.Context, string) error { return broken }, "broken"},
		"given up":      {spoil, "given up"},
	} {
		err := editSecrets(t.Context(), io.Discard, repo, key, c.edit, func(error) bool { return false })
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if read(t, filepath.Join(repo, sealedFile)) != before {
			t.Errorf("%s: the bundle has changed", name)
		}
	}
}

func TestRekeySealsForWhomeverTheListNames(t *testing.T) {
	repo, key := secretRepo(t)
	fresh, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fresh.key")
	if err := os.WriteFile(path, []byte(fresh.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecrets(repo, path); err == nil {
		t.Fatal("a stranger's key opens it")
	}
	list := filepath.Join(repo, recipientsFile)
	if err := os.WriteFile(list, []byte(read(t, list)+"# a colleague\n"+fresh.Recipient().String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := secretsRekeyCommand()
	cmd.SetArgs([]string{"--repo", repo, "--identity", key})
	cmd.SetOut(io.Discard)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecrets(repo, path); err != nil {
		t.Errorf("after rekey: %v", err)
	}
	if err := os.WriteFile(list, []byte(fresh.Recipient().String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "one key only") {
		t.Errorf("one recipient: %v", err)
	}
}

func TestAPrivateKeyIsNeverInAnError(t *testing.T) {
	repo, _ := secretRepo(t)
	path := filepath.Join(t.TempDir(), "bad.key")
	if err := os.WriteFile(path, []byte("AGE-SECRET-KEY-1CANARY\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, identity := range []string{path, "", filepath.Join(repo, "none")} {
		if _, err := openSecrets(repo, identity); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: %v", identity, err)
		}
	}
}
