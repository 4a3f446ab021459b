// Package image makes the one generic image from which every node of a cluster boots, whatever its
// role. It has two parts, so that a new build of ours takes a second and not a minute:
//
//   - a base: Debian 13 with the packages that roles need, made by mmdebstrap(1) from a list;
//   - a layer on top: our two programs, the unit files, the boot-time configuration.
//
// Both are found in a cache by a hash of everything they are made from, which image.json beside them
// lists. An image holds no secret: machine-id and SSH host keys are made at first boot, and what a
// node may know reaches it when it joins.
//
// At a real provider the same parts are put onto one fresh machine, of which the provider then makes
// the image: Provision does there what base and layer do here.
package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/command"
)

// Hostname is what a machine made from the image calls itself until it has learned its own name.
const Hostname = "understudy-base"

// Suite is the Debian release of the image.
const Suite = "trixie"

// FilesDir is the directory in a control repo whose files go into the image as they are, under "/".
const FilesDir = "puppet/image-files"

// PackageList is the file in a control repo which names the Debian packages that its roles want in
// the image, one a line, # comments.
const PackageList = "puppet/image-packages"

// system is what every node needs whatever its role: an init, a network, Puppet, git (which checks
// OpenPGP signatures) and a way in for the operator.
var system = []string{
	"ca-certificates", "curl", "dbus", "debian-archive-keyring", "git", "gpg", "gpg-agent", "gpgv", "init", "iproute2", "iputils-ping", "kmod", "less",
	"netbase", "nftables", "openssh-server", "procps", "puppet-agent", "systemd", "systemd-resolved",
	"systemd-sysv", "systemd-timesyncd", "udev",
}

// Builder makes images and trees. All fields are required but Mirror and Progress.
type Builder struct {
	Cache    string // directory, such as ~/.cache/understudy
	Runner   command.Runner
	Mirror   string // of Debian; empty: http://deb.debian.org/debian
	Progress func(line string)
}

// Layer says what goes on top of the base.
type Layer struct {
	Repo     string   // the control repo's checkout: its systemd directory and package list are used
	Programs string   // directory with understudy and understudy-bootstrap
	Sources  []string // of the control repo, in the order in which a machine tries them
	Branch   string
	// Sidecar is the content of sidecar.yaml, for a network where things are reached elsewhere than roles.yaml says.
	// Empty: the image has no such file.
	Sidecar string
}

// Image is a finished image.
type Image struct {
	Trees    []string `json:"trees"` // overlay lower directories, topmost first
	Hash     string   `json:"hash"`
	Manifest string   `json:"manifest"` // path of image.json
}

// Base builds, or finds in the cache, a Debian tree with the system packages and more.
// Kind is part of its name ("base", "tools").
func (b Builder) Base(ctx context.Context, kind string, more []string) (dir string, err error) {
	packages := slices.Concat(system, more)
	slices.Sort(packages)
	packages = slices.Compact(packages)
	args := b.debstrapArgs(packages)
	dir = filepath.Join(b.Cache, kind+"-"+hash(append(args, "layout 2")...)[:12])
	unlock, err := b.lock()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := os.Stat(filepath.Join(dir, "image.json")); err == nil {
		return filepath.Join(dir, "tree"), nil
	}
	b.say("building the %s tree with %d packages (about a minute, once)", kind, len(packages))
	partial, err := os.MkdirTemp(b.Cache, kind+".partial-")
	if err != nil {
		return "", err
	}
	tree := filepath.Join(partial, "tree")
	if err := b.debstrap(ctx, args, tree); err != nil {
		return "", errors.Join(err, os.RemoveAll(partial))
	}
	if err := splitMirror(partial); err != nil {
		return "", errors.Join(err, os.RemoveAll(partial))
	}
	if err := writeManifest(partial, Manifest{Kind: kind, Suite: Suite, Inputs: args, Packages: installed(tree)}); err != nil {
		return "", errors.Join(err, os.RemoveAll(partial))
	}
	if err := errors.Join(os.Chmod(partial, 0o755), os.RemoveAll(dir), os.Rename(partial, dir)); err != nil {
		return "", fmt.Errorf("put the %s tree in place: %w", kind, err)
	}
	return filepath.Join(dir, "tree"), b.prune(kind, dir)
}

// Mirror is where the packages lie from which a base tree was built, and apt's lists that vouch for
// them, as MirrorLists and MirrorDebs.
func Mirror(base string) string { return filepath.Join(filepath.Dir(base), "mirror") }

// What a Mirror holds.
const (
	MirrorLists = "lists"
	MirrorDebs  = "archives"
)

// splitMirror moves apt's lists and packages out of a new tree and beside it. An image without them is
// smaller, and apt on a node need not read Debian's 55 MB of lists to install one package of ours.
func splitMirror(dir string) error {
	mirror := Mirror(filepath.Join(dir, "tree"))
	if err := os.Mkdir(mirror, 0o755); err != nil {
		return err
	}
	for name, path := range map[string]string{MirrorLists: "var/lib/apt/lists", MirrorDebs: "var/cache/apt/archives"} {
		path = filepath.Join(dir, "tree", path)
		if err := os.Rename(path, filepath.Join(mirror, name)); err != nil {
			return fmt.Errorf("keep the packages beside the tree: %w", err)
		}
		if err := os.MkdirAll(filepath.Join(path, "partial"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Build makes the image: a base for the repo's package list, and the layer.
func (b Builder) Build(ctx context.Context, l Layer) (Image, error) {
	packages, err := ReadPackages(filepath.Join(l.Repo, PackageList))
	if err != nil {
		return Image{}, err
	}
	base, err := b.Base(ctx, "base", packages)
	if err != nil {
		return Image{}, err
	}
	sum, inputs, err := l.hash(base)
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(b.Cache, "image-"+sum[:12])
	img := Image{Trees: []string{filepath.Join(dir, "tree"), base}, Hash: sum[:12], Manifest: filepath.Join(dir, "image.json")}
	unlock, err := b.lock()
	if err != nil {
		return Image{}, err
	}
	defer unlock() //nolint:errcheck // the lock ends with the process at the latest
	if _, err := os.Stat(img.Manifest); err == nil {
		return img, nil
	}
	partial, err := os.MkdirTemp(b.Cache, "image.partial-")
	if err != nil {
		return Image{}, err
	}
	if err := l.Write(filepath.Join(partial, "tree")); err != nil {
		return Image{}, errors.Join(err, os.RemoveAll(partial))
	}
	m := Manifest{Kind: "image", Suite: Suite, Inputs: inputs, Packages: installed(base)}
	if err := writeManifest(partial, m); err != nil {
		return Image{}, errors.Join(err, os.RemoveAll(partial))
	}
	if err := errors.Join(os.Chmod(partial, 0o755), os.RemoveAll(dir), os.Rename(partial, dir)); err != nil {
		return Image{}, fmt.Errorf("put the image in place: %w", err)
	}
	return img, b.prune("image", dir)
}

// Manifest is what image.json holds: everything the tree was made from.
type Manifest struct {
	Kind     string            `json:"kind"`
	Suite    string            `json:"suite"`
	Made     time.Time         `json:"made"`
	Inputs   []string          `json:"inputs"`
	Packages map[string]string `json:"packages"` // name → version
}

func writeManifest(dir string, m Manifest) error {
	m.Made = time.Now().UTC().Truncate(time.Second)
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "image.json"), append(data, '\n'), 0o644)
}

// prune removes older trees of the same kind, which nothing would ever name again, unless they are
// still in use by a running machine (their directory is busy as an overlay's lower one: we keep the
// newest other one, and remove what is older than a day).
func (b Builder) prune(kind, keep string) error {
	all, err := filepath.Glob(filepath.Join(b.Cache, kind+"-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range all {
		info, err := os.Stat(dir)
		if err != nil || dir == keep || time.Since(info.ModTime()) < 24*time.Hour {
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// Clean removes everything this package has put into the cache.
func (b Builder) Clean() error {
	var errs []error
	for _, pattern := range []string{"base-*", "tools-*", "image-*", "*.partial-*", "lock"} {
		found, err := filepath.Glob(filepath.Join(b.Cache, pattern))
		errs = append(errs, err)
		for _, path := range found {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	if err := os.Remove(b.Cache); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// lock makes builders take turns: two at once would make the same tree twice.
func (b Builder) lock() (unlock func() error, err error) {
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the image cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the image cache: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the image cache: %w", err), f.Close())
	}
	return f.Close, nil
}

func (b Builder) say(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

func (b Builder) mirror() string { return cmp.Or(b.Mirror, "http://deb.debian.org/debian") }

// ReadPackages reads a package list: one name a line, # comments.
func ReadPackages(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the package list: %w", err)
	}
	var names []string
	var errs []error
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if !validPackage(line) {
			errs = append(errs, fmt.Errorf("%s:%d: %q is not a Debian package name", path, i+1, line))
			continue
		}
		names = append(names, line)
	}
	return names, errors.Join(errs...)
}

// validPackage follows Debian Policy 5.6.7: lower case letters, digits, plus, minus and dot.
func validPackage(name string) bool {
	return len(name) >= 2 && name[0] != '-' && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// installed reads the versions from a tree's dpkg database.
func installed(tree string) map[string]string {
	data, err := os.ReadFile(filepath.Join(tree, "var/lib/dpkg/status"))
	if err != nil {
		return nil
	}
	versions := map[string]string{}
	for stanza := range strings.SplitSeq(string(data), "\n\n") {
		var name, version string
		for line := range strings.SplitSeq(stanza, "\n") {
			if v, ok := strings.CutPrefix(line, "Package: "); ok {
				name = v
			} else if v, ok := strings.CutPrefix(line, "Version: "); ok {
				version = v
			}
		}
		if name != "" {
			versions[name] = version
		}
	}
	return versions
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
