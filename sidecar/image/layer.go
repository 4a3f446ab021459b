package image

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"understudy/sidecar/config"
)

// programs are the two binaries, each a single static file.
var programs = []string{"understudy", "understudy-bootstrap"}

// enabled are the units of ours that start by themselves: the one makes the machine a node, the other, which waits for
// that, is the sidecar.
var enabled = []string{"understudy-bootstrap.service", "understudy.service"}

// early are those that must be done before any other service starts.
var early = []string{"understudy-metadata.service"}

// hash covers every input of the layer, and the base it lies on.
func (l Layer) hash(base string) (sum string, inputs []string, err error) {
	inputs = []string{"base " + filepath.Base(filepath.Dir(base)), "config " + l.config(), "sidecar " + l.Sidecar, "enabled " + strings.Join(slices.Concat(early, enabled), " "), resolved}
	files := []string{}
	for _, p := range programs {
		files = append(files, filepath.Join(l.Programs, p))
	}
	units, err := l.units()
	if err != nil {
		return "", nil, err
	}
	for _, u := range units {
		files = append(files, filepath.Join(l.Repo, "systemd", u))
	}
	own, err := l.files()
	if err != nil {
		return "", nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		files = append(files, own[name])
	}
	for _, path := range files {
		h, err := hashFile(path)
		if err != nil {
			return "", nil, fmt.Errorf("image layer: %w", err)
		}
		inputs = append(inputs, filepath.Base(path)+" sha256:"+h)
	}
	modules, err := l.modules()
	if err != nil {
		return "", nil, err
	}
	inputs = append(inputs, "modules "+strings.Join(modules, " "))
	return hash(inputs...), inputs, nil
}

// units lists the unit files and drop-ins of the repo, relative to its systemd directory.
func (l Layer) units() ([]string, error) {
	dir := filepath.Join(l.Repo, "systemd")
	var units []string
	for _, pattern := range []string{"*.service", "*.target", "*.timer", "*.path", "*.socket", "*.d/*.conf"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return nil, err
			}
			units = append(units, name)
		}
	}
	if len(units) == 0 {
		return nil, fmt.Errorf("no unit files in %s: is %s a checkout of the project?", dir, l.Repo)
	}
	slices.Sort(units)
	return units, nil
}

// files lists the control repo's own files for the image: path under "/" → where they lie.
func (l Layer) files() (map[string]string, error) {
	dir := filepath.Join(l.Repo, FilesDir)
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return nil // a control repo need not have any
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		found[name] = path
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("image layer: %w", err)
	}
	return found, nil
}

// modules reads which of Debian's Puppet modules the control repo uses: the packages named
// puppet-module-<author>-<name> in its package list.
func (l Layer) modules() ([]string, error) {
	packages, err := ReadPackages(filepath.Join(l.Repo, PackageList))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range packages {
		if rest, ok := strings.CutPrefix(p, "puppet-module-"); ok {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names, nil
}

// config is /etc/understudy/bootstrap.yaml: all that a machine knows before it has joined.
func (l Layer) config() string {
	var b strings.Builder
	b.WriteString("# What a machine must know before it has the control repo. All else comes from there.\n")
	b.WriteString("sources:\n")
	for _, s := range l.Sources {
		fmt.Fprintf(&b, "  - %q\n", s)
	}
	fmt.Fprintf(&b, "branch: %q\n", l.Branch)
	fmt.Fprintf(&b, "image_hostname: %s\n", Hostname)
	return b.String()
}

// resolved keeps a node from remembering that a name does not exist: nodes wait for names that are
// about to be published, and zones let resolvers remember a "no" for half an hour.
const resolved = "[Resolve]\nCache=no-negative\n"

// Write puts the layer's files under root: an empty directory for a local image, "/" on a machine of
// which a provider's image is to be made. Files appear whole; writing twice gives the same result.
func (l Layer) Write(root string) error {
	units, err := l.units()
	if err != nil {
		return err
	}
	modules, err := l.modules()
	if err != nil {
		return err
	}
	own, err := l.files()
	if err != nil {
		return err
	}
	var errs []error
	for name, path := range own {
		errs = append(errs, copyFile(path, filepath.Join(root, name), 0o644))
	}
	for _, p := range programs {
		errs = append(errs, copyFile(filepath.Join(l.Programs, p), filepath.Join(root, "usr/bin", p), 0o755))
	}
	for _, u := range units {
		errs = append(errs, copyFile(filepath.Join(l.Repo, "systemd", u), filepath.Join(root, "usr/lib/systemd/system", u), 0o644))
	}
	errs = append(errs,
		writeFile(filepath.Join(root, "etc/systemd/resolved.conf.d/50-understudy.conf"), []byte(resolved), 0o644),
		writeFile(filepath.Join(root, "etc/understudy/bootstrap.yaml"), []byte(l.config()), 0o644))
	for target, wanted := range map[string][]string{"sysinit.target": early, "multi-user.target": enabled} {
		for _, u := range wanted {
			errs = append(errs, link("/usr/lib/systemd/system/"+u, filepath.Join(root, "etc/systemd/system", target+".wants", u)))
		}
	}
	if l.Sidecar != "" {
		errs = append(errs, writeFile(filepath.Join(root, strings.TrimPrefix(config.Path, "/")), []byte(l.Sidecar), 0o644))
	}
	// Debian keeps modules that are not to be on everybody's path in modules.available; each one on
	// the path costs every run (0.1 s measured), so only those named get there, under their short name.
	for _, m := range modules {
		short := m[strings.IndexByte(m, '-')+1:]
		errs = append(errs, link("/usr/share/puppet/modules.available/"+m, filepath.Join(root, "usr/share/understudy/modules", short)))
	}
	// Newer than /usr, so that the first boot does not spend 0.2 s on rebuilding what the image's
	// packages have just built: ldconfig's cache, the journal's catalog (systemd-update-done(8)).
	for _, mark := range []string{"etc/.updated", "var/.updated"} {
		errs = append(errs, writeFile(filepath.Join(root, mark), []byte("# The image was made with everything up to date.\n"), 0o644))
	}
	return errors.Join(errs...)
}

func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("image layer: %w", err)
	}
	return writeFile(to, data, mode)
}

func writeFile(to string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("image layer: %w", err)
	}
	temp := to + ".new"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return fmt.Errorf("image layer: %w", err)
	}
	if err := errors.Join(os.Chmod(temp, mode), os.Rename(temp, to)); err != nil {
		return fmt.Errorf("image layer: %w", err)
	}
	return nil
}

func link(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("image layer: %w", err)
	}
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("image layer: %w", err)
	}
	if err := os.Symlink(target, path); err != nil {
		return fmt.Errorf("image layer: %w", err)
	}
	return nil
}
