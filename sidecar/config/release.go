package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"understudy/bootstrap/progress"
	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
)

// ErrNoRelease says that bootstrap has not finished on this machine, so there is nothing to read a roster from.
var ErrNoRelease = errors.New("this machine has applied no release yet")

var errNoBundle = errors.New("there is no secrets.age")

// Release is the commit of the control repo that this machine has applied.
type Release struct {
	Commit string // in hexadecimal
	Dir    string // with the commit's files
}

// Release finds the current release by what bootstrap has written down. The error wraps ErrNoRelease when there is none.
func (c Config) Release() (Release, error) { return c.release(progress.Record.Finished) }

// Verified is Release also while the release is being applied for the first time.
func (c Config) Verified() (Release, error) { return c.release(opened) }

// ReadFiles are the files of the current release that this configuration is made of, by name. It has none where all of them are
// named by hand.
func (c Config) ReadFiles() (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, instead := range map[string]string{"roles.yaml": c.Roster, "secrets.age": c.Secrets} {
		if instead != "" {
			continue
		}
		path, err := c.path("", name)
		if errors.Is(err, ErrNoRelease) {
			continue
		}
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the current release: %w", err)
		}
		files[name] = data
	}
	return files, nil
}

// opened says that bootstrap has verified a release and could open its secrets, though it need not have been applied yet.
func opened(r progress.Record) bool {
	_, done := r.Step(progress.Secrets)
	return done || r.Finished()
}

func (c Config) release(good func(progress.Record) bool) (Release, error) {
	data, err := os.ReadFile(filepath.Join(c.State, "bootstrap.json"))
	if errors.Is(err, os.ErrNotExist) {
		return Release{}, ErrNoRelease
	}
	if err != nil {
		return Release{}, fmt.Errorf("find the current release: %w", err)
	}
	record, err := progress.Parse(data)
	if err != nil {
		return Release{}, fmt.Errorf("find the current release: %w", err)
	}
	if !good(record) || record.Commit == "" {
		return Release{}, ErrNoRelease
	}
	// The record is bootstrap's own, but a commit that is a path would lead anywhere.
	if strings.Trim(record.Commit, "0123456789abcdef") != "" {
		return Release{}, fmt.Errorf("find the current release: %q is no commit", record.Commit)
	}
	return Release{record.Commit, filepath.Join(c.State, "releases", record.Commit)}, nil
}

// ReadRoster reads the roster that the configuration names, or that of the current release.
func (c Config) ReadRoster() (role.Roster, error) {
	path, err := c.path(c.Roster, "roles.yaml")
	if err != nil {
		return role.Roster{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return role.Roster{}, fmt.Errorf("read the roster: %w", err)
	}
	return role.Parse(path, data)
}

// Membership is the directory of what this node got by joining.
func (c Config) Membership() string { return c.State }

// ReadSecrets opens the sealed bundle with the identity in State, and lays the key of ClusterKeyFile over it. Where there
// is a ClusterKeyFile, there need not be a bundle: the one returned then has nothing else.
func (c Config) ReadSecrets() (secrets.Bundle, error) {
	b, err := c.openBundle()
	none := errors.Is(err, errNoBundle) || errors.Is(err, ErrNoRelease)
	if err != nil && !(none && c.ClusterKeyFile != "" && c.Secrets == "") {
		return secrets.Bundle{}, err
	}
	if c.ClusterKeyFile == "" {
		return b, nil
	}
	data, err := os.ReadFile(c.ClusterKeyFile)
	if err != nil {
		return secrets.Bundle{}, fmt.Errorf("read the cluster key: %w", err)
	}
	b.Version, b.ClusterKey = secrets.BundleVersion, secrets.NewSecret(strings.TrimSpace(string(data)))
	if err := b.Validate(); err != nil {
		return secrets.Bundle{}, fmt.Errorf("%s: %w", c.ClusterKeyFile, err)
	}
	return b, nil
}

func (c Config) openBundle() (secrets.Bundle, error) {
	path, err := c.path(c.Secrets, "secrets.age")
	if err != nil {
		return secrets.Bundle{}, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return secrets.Bundle{}, fmt.Errorf("%w: %w", errNoBundle, err)
	}
	if err != nil {
		return secrets.Bundle{}, fmt.Errorf("read the secrets: %w", err)
	}
	m, err := secrets.LoadMembership(c.State)
	if err != nil {
		return secrets.Bundle{}, fmt.Errorf("open the secrets: %w", err)
	}
	b, err := secrets.Open(data, age.Identity(m.Identity))
	if err != nil {
		return secrets.Bundle{}, fmt.Errorf("open the secrets: %w", err)
	}
	return b, nil
}

// path is the configured one, or that of a file of the current release. On the first machine of a cluster the sidecar begins before
// the release is applied, so one that has been verified will do.
func (c Config) path(configured, name string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	r, err := c.release(opened)
	return filepath.Join(r.Dir, name), err
}
