package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"understudy/bootstrap/secrets"
)

// launchRepo is a control repo with fresh secrets, edited, and the directory of its keys.
func launchRepo(t *testing.T, roles string, edit func(b *secrets.Bundle)) (repo, keys string) {
	t.Helper()
	repo, key := secretRepo(t)
	if err := os.WriteFile(filepath.Join(repo, "roles.yaml"), []byte(roles), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := openSecrets(repo, key)
	if err != nil {
		t.Fatal(err)
	}
	edit(&b)
	to, err := readRecipients(repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := seal(io.Discard, repo, b, to); err != nil {
		t.Fatal(err)
	}
	const signer = "ops@blog.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"
	if err := os.WriteFile(filepath.Join(filepath.Dir(key), signersFile), []byte(signer), 0o644); err != nil {
		t.Fatal(err)
	}
	return repo, filepath.Dir(key)
}

// TestLaunchRefusesWhatCannotComeToACluster is about what is known before anybody is asked.
func TestLaunchRefusesWhatCannotComeToACluster(t *testing.T) {
	reference := read(t, "../roles.yaml")
	whole := func(b *secrets.Bundle) {
		b.Provider = map[string]secrets.Secret{"digitalocean": secrets.NewSecret("dop_v1_canary")}
		b.Ledger = secrets.LedgerKeys{AccessKey: secrets.NewSecret("a"), SecretKey: secrets.NewSecret("s-canary")}
	}
	var hetzner strings.Builder
	for line := range strings.Lines(reference) {
		switch {
		case strings.HasPrefix(line, "  digitalocean: {region"):
			line = "  hetzner: {region: fsn1, size: cx22, image: understudy-base}\n"
		case strings.HasPrefix(line, "beachhead:"):
			line = "beachhead: {provider: digitalocean}\n"
		}
		hetzner.WriteString(line)
	}
	for name, c := range map[string]struct {
		roles string
		edit  func(b *secrets.Bundle)
		args  []string // KEYS stands for the directory of the keys
		want  string
	}{
		"another provider": {hetzner.String(), whole, nil, "roles.yaml has provider hetzner"},
		"no token":         {reference, func(b *secrets.Bundle) { whole(b); b.Provider = nil }, nil, "its token must be in secrets.age"},
		"no ledger keys":   {reference, func(b *secrets.Bundle) { whole(b); b.Ledger = secrets.LedgerKeys{} }, nil, "launched by its ledger"},
		"a bad roster":     {"cluster: x\n", whole, nil, "roles.yaml"},
		"unknown seed":     {reference, whole, []string{"--seed-node", "db1"}, "db1"},
		"no keys there":    {reference, whole, []string{"--keys", "/nonexistent"}, "no such file"},
		"no signers there": {reference, whole, []string{"--signers", "/nonexistent"}, "whose commits of the control repo are applied"},
		"no signers in it": {reference, whole, []string{"--signers", "../roles.yaml"}, "../roles.yaml"},
		"local and keys":   {reference, whole, []string{"--local", "demo"}, "none of the others can be"},
	} {
		repo, keys := launchRepo(t, c.roles, c.edit)
		args := append([]string{"launch", "--repo", repo}, c.args...)
		if !strings.Contains(strings.Join(args, " "), "--keys") {
			args = append(args, "--keys", keys)
		}
		cmd := root()
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestLaunchTakesTheClustersKeyAndNoOther(t *testing.T) {
	repo, keys := launchRepo(t, read(t, "../roles.yaml"), func(*secrets.Bundle) {})
	var at launchAt
	signers := filepath.Join(keys, signersFile)
	if err := at.read(repo, filepath.Join(keys, clusterKey), signers); err != nil || at.roster.Cluster != "blog" || !strings.Contains(read(t, filepath.Join(keys, clusterKey)), at.member.Identity.String()) {
		t.Errorf("got cluster %q, %v", at.roster.Cluster, err)
	}
	_, other := secretRepo(t)
	if err := at.read(repo, filepath.Join(filepath.Dir(other), clusterKey), signers); err == nil || !strings.Contains(err.Error(), "the cluster's own key") {
		t.Errorf("another cluster's key: got %v", err)
	}
}
