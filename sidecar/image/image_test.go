package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkout makes a minimal control repo and a directory with two programs.
func checkout(t *testing.T) Layer {
	t.Helper()
	repo, programs := t.TempDir(), t.TempDir()
	write(t, filepath.Join(repo, "systemd", "understudy-bootstrap.service"), "[Unit]\n")
	write(t, filepath.Join(repo, "systemd", "understudy-chaos.timer"), "[Timer]\n")
	write(t, filepath.Join(repo, "systemd", "ssh.service.d", "a.conf"), "[Service]\n")
	write(t, filepath.Join(repo, "systemd", "README"), "not a unit\n")
	write(t, filepath.Join(repo, PackageList), "nginx # web\npuppet-module-puppetlabs-stdlib\n\n")
	write(t, filepath.Join(repo, FilesDir, "etc/facter/facter.conf"), "facts : {}\n")
	for _, p := range []string{"understudy", "understudy-bootstrap"} {
		write(t, filepath.Join(programs, p), "#!program "+p)
	}
	return Layer{Repo: repo, Programs: programs, Sources: []string{"https://git.example/c.git"}, Branch: "main", Sidecar: "log_level: debug\n"}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLayerHoldsProgramsUnitsConfigurationAndModules(t *testing.T) {
	l, root := checkout(t), t.TempDir()
	for range 2 { // writing twice gives the same
		if err := l.Write(root); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"usr/bin/understudy": "#!program understudy",
		"usr/lib/systemd/system/understudy-bootstrap.service": "[Unit]\n",
		"usr/lib/systemd/system/understudy-chaos.timer":       "[Timer]\n",
		"usr/lib/systemd/system/ssh.service.d/a.conf":         "[Service]\n",
		"etc/facter/facter.conf":                              "facts : {}\n",
		"etc/understudy/bootstrap.yaml":                       "https://git.example/c.git",
		"etc/understudy/sidecar.yaml":                         "log_level: debug\n",
	} {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: got %q, %v; want it to contain %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		"etc/systemd/system/multi-user.target.wants/understudy-bootstrap.service": "/usr/lib/systemd/system/understudy-bootstrap.service",
		"etc/systemd/system/multi-user.target.wants/understudy.service":           "/usr/lib/systemd/system/understudy.service",
		"etc/systemd/system/sysinit.target.wants/understudy-metadata.service":     "/usr/lib/systemd/system/understudy-metadata.service",
		"usr/share/understudy/modules/stdlib":                                     "/usr/share/puppet/modules.available/puppetlabs-stdlib",
	} {
		if got, err := os.Readlink(filepath.Join(root, path)); err != nil || got != want {
			t.Errorf("%s: got link %q, %v; want %q", path, got, err, want)
		}
	}
	if wanted, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/*/understudy-chaos*")); err != nil || len(wanted) > 0 {
		t.Errorf("chaos starts by itself: %v, %v", wanted, err)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/lib/systemd/system/README")); err == nil {
		t.Error("a file that is no unit was installed as one")
	}
}

func TestImageHashFollowsEveryInput(t *testing.T) {
	l := checkout(t)
	first, inputs, err := l.hash("/cache/base-1/tree")
	if err != nil {
		t.Fatal(err)
	}
	changes := map[string]func(l *Layer) string{
		"a program": func(l *Layer) string {
			write(t, filepath.Join(l.Programs, "understudy"), "new")
			return "/cache/base-1/tree"
		},
		"a unit": func(l *Layer) string {
			write(t, filepath.Join(l.Repo, "systemd/a.timer"), "new")
			return "/cache/base-1/tree"
		},
		"a source":     func(l *Layer) string { l.Sources = append(l.Sources, "x"); return "/cache/base-1/tree" },
		"sidecar.yaml": func(l *Layer) string { l.Sidecar = ""; return "/cache/base-1/tree" },
		"a branch":     func(l *Layer) string { l.Branch = "next"; return "/cache/base-1/tree" },
		"the base":     func(*Layer) string { return "/cache/base-2/tree" },
		"a module": func(l *Layer) string {
			write(t, filepath.Join(l.Repo, PackageList), "puppet-module-puppetlabs-concat\n")
			return "/cache/base-1/tree"
		},
	}
	for name, change := range changes {
		l := checkout(t)
		got, _, err := l.hash(change(&l))
		if err != nil {
			t.Fatal(err)
		}
		if got == first {
			t.Errorf("%s changed, the hash did not", name)
		}
	}
	if len(inputs) < 5 {
		t.Errorf("got %d inputs listed: %q", len(inputs), inputs)
	}
}

func TestPackageListRefusesWhatIsNoPackageWithItsLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "nginx\n# comment\nNginx\nok2\n--option\n")
	_, err := ReadPackages(path)
	if err == nil || !strings.Contains(err.Error(), ":3: ") || !strings.Contains(err.Error(), ":5: ") {
		t.Errorf("got %v, want problems at lines 3 and 5", err)
	}
}

func TestImageOfThisRepositoryListsItsModules(t *testing.T) {
	l := Layer{Repo: "../.."}
	got, err := l.modules()
	if err != nil {
		t.Fatal(err)
	}
	if want := "puppetlabs-stdlib"; !slices.Contains(got, want) {
		t.Errorf("got %q, want %s among them", got, want)
	}
}

func TestPackagesAreKeptBesideTheTreeAndNotInIt(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	write(t, filepath.Join(tree, "var/lib/apt/lists/deb_Packages"), "list")
	write(t, filepath.Join(tree, "var/cache/apt/archives/a_1_all.deb"), "deb")
	if err := splitMirror(dir); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{MirrorLists + "/deb_Packages", MirrorDebs + "/a_1_all.deb"} {
		if _, err := os.Stat(filepath.Join(Mirror(tree), kept)); err != nil {
			t.Error(err)
		}
	}
	for _, apt := range []string{"var/lib/apt/lists", "var/cache/apt/archives"} {
		left, err := os.ReadDir(filepath.Join(tree, apt))
		if err != nil || len(left) != 1 || left[0].Name() != "partial" {
			t.Errorf("%s: got %v, %v; want apt's empty partial directory and nothing else", apt, left, err)
		}
	}
}

func TestProvisionForgetsWhatMachinesMustNotShare(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub", "etc/ssh/sshd_config", "var/lib/cloud/instance/x", "var/lib/understudy/identity", "etc/machine-id", "etc/hostname"} {
		write(t, filepath.Join(root, f), "secret of one machine")
	}
	if err := forget(root); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub", "var/lib/cloud", "var/lib/understudy"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", gone, err)
		}
	}
	if id, err := os.ReadFile(filepath.Join(root, "etc/machine-id")); err != nil || string(id) != "uninitialized\n" {
		t.Errorf("machine-id: got %q, %v; want uninitialized", id, err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/ssh/sshd_config")); err != nil {
		t.Error(err)
	}
}
