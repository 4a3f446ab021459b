package converge

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"understudy/bootstrap/command"
)

// Environment is the directory of a release that is the Puppet environment. Puppet refuses a dash in it.
const Environment = "puppet"

// ErrNotInstalled means that there is no puppet in any of the known places.
var ErrNotInstalled = errors.New("puppet is not installed")

// Find returns the installed Puppet: that of OpenVox or Puppet's own packages, else the distribution's. It
// starts nothing. The error wraps ErrNotInstalled.
func Find(runner command.Runner, paths Paths) (Puppet, error) {
	for _, path := range paths.Binaries {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		return Puppet{Runner: runner, Binary: path, Ruby: interpreter(path), Paths: paths}, nil
	}
	return Puppet{}, fmt.Errorf("%w (looked for %s)", ErrNotInstalled, strings.Join(paths.Binaries, ", "))
}

// interpreter returns the Ruby that runs the puppet at path, empty when that cannot be told. In Puppet's
// and OpenVox' packages path is a shell wrapper round <prefix>/puppet/bin/puppet, which cleans the
// environment; ours is clean. A gem's wrapper script is left alone: it chooses versions at run time.
func interpreter(path string) string {
	for _, script := range []string{path, filepath.Join(filepath.Dir(path), "../puppet/bin/puppet")} {
		if ruby := shebang(script); ruby != "" {
			return ruby
		}
	}
	return ""
}

func shebang(script string) string {
	f, err := os.Open(script)
	if err != nil {
		return ""
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	ruby, plain := "", false
	for n := 0; n < 30 && scan.Scan(); n++ {
		line := scan.Text()
		if n == 0 {
			fields := strings.Fields(strings.TrimPrefix(line, "#!"))
			if !strings.HasPrefix(line, "#!") || len(fields) != 1 || !strings.HasPrefix(filepath.Base(fields[0]), "ruby") {
				return ""
			}
			ruby = fields[0]
		}
		plain = plain || strings.Contains(line, "require 'puppet/util/command_line'")
	}
	if !plain || !filepath.IsAbs(ruby) {
		return ""
	}
	return ruby
}

// environment is what we need to know of an environment.conf.
type environment struct {
	manifest   string // absolute: a file or a directory
	ownVersion bool   // it sets config_version, which beats the command line
}

// readEnvironment reads environment.conf; a missing one has Puppet's defaults. `puppet apply` needs to be
// told the manifest on its command line, so the setting is followed here.
func readEnvironment(dir string) (environment, error) {
	env := environment{manifest: filepath.Join(dir, "manifests")}
	name := filepath.Join(dir, "environment.conf")
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return env, nil
	}
	if err != nil {
		return env, fmt.Errorf("read the environment's settings: %w", err)
	}
	for i, line := range strings.Split(string(data), "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `'"`)
		switch {
		case !ok || strings.HasPrefix(key, "#"):
		case key == "config_version":
			env.ownVersion = true
		case key == "manifest" && strings.Contains(value, "$"):
			return env, fmt.Errorf("puppet/environment.conf:%d: manifest = %s: write a path relative to the environment, without variables", i+1, value)
		case key == "manifest" && filepath.IsAbs(value):
			env.manifest = value
		case key == "manifest" && value != "":
			env.manifest = filepath.Join(dir, value)
		}
	}
	return env, nil
}
