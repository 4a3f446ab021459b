package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/command"
)

// Provision does to the machine it runs on what base and layer do to a tree: the packages, the
// files, and nothing that two machines must not share. It may be repeated. The machine should then
// be powered off, and the provider asked for an image of it.
func Provision(ctx context.Context, run command.Runner, l Layer, say func(string)) error {
	packages, err := ReadPackages(filepath.Join(l.Repo, PackageList))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir("/"+preset), 0o755); err != nil {
		return err
	}
	// Before the packages: their services must not start on a machine that is to be copied.
	if err := os.WriteFile("/"+preset, []byte(presetText()), 0o644); err != nil {
		return err
	}
	steps := [][]string{
		{"/usr/bin/apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"},
		slices.Concat([]string{"/usr/bin/apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "install", "--no-install-recommends"}, system, packages),
	}
	for _, u := range off {
		steps = append(steps, []string{"/usr/bin/systemctl", "--quiet", "disable", "--now", u})
	}
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"}
	for _, argv := range steps {
		say(strings.Join(argv[:min(len(argv), 8)], " "))
		res, err := run.Run(ctx, command.Cmd{Path: argv[0], Args: argv[1:], Env: env, Timeout: 20 * time.Minute})
		if err != nil {
			return fmt.Errorf("provision: %w", err)
		}
		if res.ExitCode != 0 && argv[0] == "/usr/bin/apt-get" { // a unit that is not there need not be disabled
			return fmt.Errorf("provision: %s: status %d: %s", strings.Join(argv[:2], " "), res.ExitCode, lastLines(res.Stderr, 5))
		}
	}
	if err := l.Write("/"); err != nil {
		return err
	}
	return forget("/")
}

// forget removes what the first boot of each machine makes anew. What cloud-init remembers goes too:
// it would otherwise take the next machine for this one.
func forget(root string) error {
	keys, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*key*"))
	errs := []error{err}
	for _, k := range keys {
		errs = append(errs, os.Remove(k))
	}
	for _, dir := range []string{"var/lib/cloud", "var/lib/understudy"} {
		errs = append(errs, os.RemoveAll(filepath.Join(root, dir)))
	}
	errs = append(errs,
		os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte("uninitialized\n"), 0o444),
		os.WriteFile(filepath.Join(root, "etc/hostname"), []byte(Hostname+"\n"), 0o644))
	return errors.Join(errs...)
}
