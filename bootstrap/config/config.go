// Package config is /etc/understudy/bootstrap.yaml, which is baked into the image: what a machine must know before it has the
// control repo. Bootstrap reads it first of all; the sidecar takes from it where pushes come from. It promises that a file with
// problems gives all of them at once, each with its line, and it refuses unknown and repeated keys. It holds no secret, only the
// places of files that do.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/control"
)

// Path is where the file lies on a node.
const Path = "/etc/understudy/bootstrap.yaml"

// Config is what the file says, over what Default does. Everything else comes from the control repo.
type Config struct {
	// Sources of the control repo, tried in this order. Required, unless Baked is set.
	Sources []control.Source
	// Branch to follow.
	Branch string
	// Baked is a copy of the repository in the image: the last resort. Empty: none.
	Baked string
	// AllowedSigners is who may sign commits, in the format of ssh-keygen(1), ALLOWED SIGNERS. What the
	// cluster gives at the join wins over it. The file may be missing.
	AllowedSigners string
	// ImageHostnames are the names that mean "not named yet", besides localhost.
	ImageHostnames []string
	// Metadata is the base URL of the provider's metadata service. Empty: there is none.
	Metadata string
	// Patience is how long each kind of waiting may take before we give up for this time.
	Patience Patience
	// Retry is the pause between two tries of anything: it starts at First, doubles up to Most, and half
	// of it is chance. When the network changes, the next try comes at once.
	Retry Retry
}

// Patience holds durations that are all above zero.
type Patience struct {
	Hostname   time.Duration // for a name: from the start of the network to the metadata service's answer
	Join       time.Duration // for a peer that answers
	Control    time.Duration // for a source of the control repo
	Needs      time.Duration // for what other roles must provide first
	Puppet     time.Duration // for one Puppet run
	PuppetLock time.Duration // for another Puppet run to end
	DpkgLock   time.Duration // for dpkg's lock, inside a Puppet run
}

// Retry bounds the pauses between tries.
type Retry struct{ First, Most time.Duration }

// Default is the configuration that a file changes. It is not valid by itself: sources are missing.
func Default() Config {
	return Config{
		Branch:         "main",
		AllowedSigners: "/etc/understudy/allowed_signers",
		Metadata:       "http://169.254.169.254/metadata/v1",
		Patience: Patience{
			Hostname: 5 * time.Minute, Join: 5 * time.Minute, Control: 5 * time.Minute, Needs: 15 * time.Minute,
			Puppet: 30 * time.Minute, PuppetLock: 10 * time.Minute, DpkgLock: 2 * time.Minute,
		},
		Retry: Retry{First: 100 * time.Millisecond, Most: 5 * time.Second},
	}
}

// Load reads the file at path over Default and validates the result. All problems come at once.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	c := Default()
	lines, err := parse(path, data, &c)
	return c, errors.Join(err, c.Validate(path, lines))
}

// Validate checks values and their relations. lines tells in which line of file a key stands, for the
// messages; it may be nil.
func (c Config) Validate(file string, lines map[string]int) error {
	var errs []error
	bad := func(key, format string, args ...any) {
		place := file
		if n := lines[key]; n > 0 {
			place = fmt.Sprintf("%s:%d", file, n)
		}
		errs = append(errs, fmt.Errorf("%s: %s: "+format, append([]any{place, key}, args...)...))
	}
	if len(c.Sources) == 0 && c.Baked == "" {
		bad("sources", "at least one is needed, such as https://git.example/control.git")
	}
	for _, s := range c.Sources {
		if s.URL == "" {
			bad("sources", "a source has no url")
		}
		if s.Timeout < 0 {
			bad("sources", "timeout %v of %s must not be negative", s.Timeout, s)
		}
		for name, path := range map[string]string{"password_file": s.PasswordFile, "ca_file": s.CAFile, "ssh_key": s.SSHKey, "known_hosts": s.KnownHosts} {
			if path != "" && !filepath.IsAbs(path) {
				bad("sources", "%s %q of %s must be an absolute path", name, path, s)
			}
		}
	}
	if c.Branch == "" || strings.ContainsAny(c.Branch, " ~^:?*[\\") {
		bad("branch", "%q is not a branch name", c.Branch)
	}
	for key, path := range map[string]string{"allowed_signers": c.AllowedSigners, "baked": c.Baked} {
		if path != "" && !filepath.IsAbs(path) {
			bad(key, "%q must be an absolute path", path)
		}
	}
	if u, err := url.Parse(c.Metadata); c.Metadata != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		bad("metadata", "%q must be an http URL, or none", c.Metadata)
	}
	sane := c.Retry.First > 0 && c.Retry.First <= c.Retry.Most
	if !sane {
		bad("retry", "first %v must be above zero and most %v not below it", c.Retry.First, c.Retry.Most)
	}
	for _, p := range c.Patience.fields() {
		if sane && *p.value < c.Retry.Most {
			bad("patience."+p.key, "%v must be at least retry.most (%v)", *p.value, c.Retry.Most)
		}
	}
	if c.Patience.Puppet < c.Patience.DpkgLock {
		bad("patience.puppet", "%v must not be below patience.dpkg_lock (%v), which is waited for inside a run", c.Patience.Puppet, c.Patience.DpkgLock)
	}
	slices.SortStableFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

type patienceField struct {
	key   string
	value *time.Duration
}

// fields lists the durations under their keys.
func (p *Patience) fields() []patienceField {
	return []patienceField{
		{"hostname", &p.Hostname}, {"join", &p.Join}, {"control", &p.Control}, {"needs", &p.Needs}, {"puppet", &p.Puppet},
		{"puppet_lock", &p.PuppetLock}, {"dpkg_lock", &p.DpkgLock},
	}
}

// From is all places to fetch from: origin first, the copy in the image last.
func (c Config) From() []control.Source {
	all := slices.Clone(c.Sources)
	if c.Baked != "" {
		all = append(all, control.Source{URL: c.Baked})
	}
	return all
}
