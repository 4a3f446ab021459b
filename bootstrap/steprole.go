package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"understudy/bootstrap/progress"
	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
)

// rosterFile and secretsFile are the names in the control repo.
const (
	rosterFile  = "roles.yaml"
	secretsFile = "secrets.age"
)

// roles reads who should exist and finds ourselves in it.
func roles(_ context.Context, b *boot) (string, error) {
	b.release = b.releaseDir()
	data, err := os.ReadFile(filepath.Join(b.release, rosterFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", failf(exitRoles, "add it and push", "the control repo has no %s", rosterFile)
	}
	if err != nil {
		return "", err
	}
	b.roster, err = role.Parse(rosterFile, data)
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			b.log.Error("not valid", "problem", line)
		}
		return "", fail(exitRoles, err, "correct it and push")
	}
	if err := b.findSelf(); err != nil {
		return "", err
	}
	if before := b.engine.record.Role; before != b.self.Name {
		if before != "" {
			b.engine.record.Forget(progress.Secrets, progress.Needs, progress.Puppet)
		}
		b.engine.record.Role = b.self.Name
	}
	b.engine.relog()
	return fmt.Sprintf("%s is %s", b.fact.Node, b.self.Name), nil
}

func (b *boot) findSelf() error {
	const next = "add the name to a role in roles.yaml and push, or create the machine under a name that is there"
	if b.role == "" {
		var err error
		if b.self, err = b.roster.ForHost(b.node); err != nil {
			return fail(exitUnknownHost, err, next)
		}
		if b.fact, err = b.roster.Fact(b.node); err != nil {
			return fail(exitUnknownHost, err, next)
		}
		return nil
	}
	at := slices.IndexFunc(b.roster.Roles, func(r role.Role) bool { return r.Name == b.role })
	if at < 0 {
		return failf(exitUnknownHost, "see roles.yaml for the roles there are", "-role %s: there is no such role", b.role)
	}
	b.self = b.roster.Roles[at]
	fact, err := b.roster.Fact(b.self.Nodes[0])
	if err != nil {
		return fail(exitUnknownHost, err, next)
	}
	b.fact = fact
	b.fact.Node, b.fact.FirstNode = b.engine.record.Node, b.engine.record.Node == b.self.Nodes[0]
	return nil
}

// openSecrets opens the sealed bundle and lays out the files that Puppet needs of it, in memory.
func openSecrets(_ context.Context, b *boot) (string, error) {
	data, err := os.ReadFile(filepath.Join(b.release, secretsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "the control repo has no secrets.age", nil
	}
	if err != nil {
		return "", err
	}
	m, err := secrets.LoadMembership(b.at.state)
	if err != nil {
		if b.noop {
			return "not opened: this machine has no identity of the cluster yet", nil
		}
		return "", fail(exitSecrets, fmt.Errorf("secrets.age cannot be opened: this machine has no identity of the cluster: %w", err),
			"create it with a ticket as its user data, or put the identity into "+filepath.Join(b.at.state, "identity")+" (mode 0400)")
	}
	bundle, err := secrets.Open(data, age.Identity(m.Identity))
	if err != nil {
		return "", fail(exitSecrets, err, "see `understudy secrets rekey` and `secrets edit`, push, and the node tries again")
	}
	count := len(bundle.Files[secrets.GroupCommon]) + len(bundle.Files[b.self.Name])
	if b.noop && exists(b.at.secrets) {
		return "opened; the files that are there stay as they are", nil
	}
	b.lent = b.noop
	if err := bundle.WriteFiles(b.at.secrets, secrets.GroupCommon, b.self.Name); err != nil {
		return "", fail(exitSecrets, err, "see whether "+filepath.Dir(b.at.secrets)+" is a writable tmpfs")
	}
	if b.noop {
		return fmt.Sprintf("%d files for %s and %s, until this run ends", count, secrets.GroupCommon, b.self.Name), nil
	}
	return fmt.Sprintf("%d files for %s and %s", count, secrets.GroupCommon, b.self.Name), nil
}

// facts hands Puppet what it must know of roles.yaml, as the structured fact `understudy`.
func facts(_ context.Context, b *boot) (string, error) {
	if !b.noop {
		if err := b.nameInHosts(b.fact.Node + "." + b.roster.Domain); err != nil {
			return "", err
		}
	}
	data, err := json.MarshalIndent(map[string]role.Fact{"understudy": b.fact}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("make the fact: %w", err)
	}
	path := b.at.factsPlain
	switch {
	case b.noop:
		path = filepath.Join(b.scratch, "understudy.json")
		if err := b.outweighFact(path); err != nil {
			return "", err
		}
	case strings.Contains(b.puppet.Binary, "/opt/puppetlabs/"):
		path = b.at.factsAIO
	}
	if err := writeFile(path, append(data, '\n'), 0o644, replaceable); err != nil {
		return "", fmt.Errorf("write the fact for Puppet: %w", err)
	}
	return path, nil
}

// outweighFact makes a run without effects see the fact in the scratch directory and not an older one of the
// machine's: among external facts the machine's own win, so it is a custom fact with more weight.
func (b *boot) outweighFact(path string) error {
	code := fmt.Sprintf("require 'json'\nFacter.add(:understudy) do\n  has_weight 1_000_000\n  setcode { JSON.parse(File.read(%q))['understudy'] }\nend\n", path)
	if err := writeFile(filepath.Join(b.scratch, "vardir", "lib", "facter", "understudy.rb"), []byte(code), 0o644, replaceable); err != nil {
		return fmt.Errorf("write the fact for Puppet: %w", err)
	}
	return nil
}
