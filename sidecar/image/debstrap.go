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

// keyrings of Debian 13. Debian 12's debian-archive-keyring has them since 2023.3+deb12u2.
var keyrings = []string{
	"/usr/share/keyrings/debian-archive-trixie-automatic.gpg",
	"/usr/share/keyrings/debian-archive-trixie-security-automatic.gpg",
	"/usr/share/keyrings/debian-archive-trixie-stable.gpg",
}

// off are the units that Debian starts by itself and that are a role's to start, or nobody's:
// on a node Puppet decides which of them runs, and apt's own timers would hold the dpkg lock while
// the first run needs it.
var off = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "dovecot.service", "e2scrub_all.timer", "fstrim.timer",
	"haproxy.service", "nginx.service", "opendkim.service", "postfix.service", "puppet.service", "remote-fs.target",
	"systemd-pstore.service",
}

var on = []string{"ssh.service", "systemd-networkd.service", "systemd-network-generator.service", "systemd-resolved.service"}

// preset is read by systemctl preset and by dpkg's maintainer scripts: a service package that is
// installed later does not start before Puppet has configured it.
const preset = "etc/systemd/system-preset/50-understudy.preset"

func presetText() string {
	var b strings.Builder
	b.WriteString("# Services run when Puppet says so, never because a package was installed.\n")
	for _, u := range on {
		fmt.Fprintf(&b, "enable %s\n", u)
	}
	for _, u := range slices.Concat(early, enabled) {
		fmt.Fprintf(&b, "enable %s\n", u)
	}
	for _, u := range off {
		fmt.Fprintf(&b, "disable %s\n", u)
	}
	return b.String()
}

// debstrapArgs are mmdebstrap's arguments without the target directory.
func (b Builder) debstrapArgs(packages []string) []string {
	args := []string{
		"--variant=minbase", "--mode=root", "--components=main", "--include=" + strings.Join(packages, ","),
		"--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"",
		// The packages stay beside the tree's apt lists: nodes without internet install from them.
		"--aptopt=APT::Keep-Downloaded-Packages \"true\"", "--skip=cleanup/apt/cache,cleanup/apt/lists",
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
	}
	for _, k := range keyrings {
		args = append(args, "--keyring="+k)
	}
	// Its hooks are shell by mmdebstrap's own definition; they hold no variable text but "$1".
	hook := func(format string, values ...any) {
		args = append(args, "--customize-hook="+fmt.Sprintf(format, values...))
	}
	hook(`chroot "$1" systemctl --quiet enable %s`, strings.Join(on, " "))
	hook(`for u in %s; do chroot "$1" systemctl --quiet disable $u 2>/dev/null || :; done`, strings.Join(off, " "))
	hook(`rm -f "$1"/etc/ssh/ssh_host_*key*`)
	hook(`echo uninitialized >"$1"/etc/machine-id`) // machine-id(5): the next boot is the first
	hook(`echo %s >"$1"/etc/hostname`, Hostname)
	hook(`printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 %s\n' >"$1"/etc/hosts`, Hostname)
	hook(`echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %s main' >"$1"/etc/apt/sources.list`, Suite)
	hook(`chroot "$1" journalctl --update-catalog`)
	return append(args, Suite)
}

func (b Builder) debstrap(ctx context.Context, args []string, tree string) error {
	for _, k := range keyrings {
		if _, err := os.Stat(k); err != nil {
			return fmt.Errorf("%w: Debian 13's keys are missing; install debian-archive-keyring 2023.3+deb12u2 or later", err)
		}
	}
	start := time.Now()
	res, err := b.Runner.Run(ctx, command.Cmd{
		Path: "/usr/bin/mmdebstrap", Args: append(append([]string{}, args...), tree, b.mirror()),
		Env:     []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "TMPDIR=" + filepath.Dir(tree)},
		Timeout: 20 * time.Minute,
		OnLine: func(_, line string) {
			if msg, ok := strings.CutPrefix(line, "I: "); ok && !strings.Contains(msg, "hook") && !strings.HasPrefix(msg, "skipping") {
				b.say("%s (%.0f s)", msg, time.Since(start).Seconds())
			}
		},
	})
	var missing *command.StartError
	switch {
	case errors.As(err, &missing):
		return fmt.Errorf("%w: install it with: apt-get install mmdebstrap", err)
	case err != nil:
		return fmt.Errorf("build tree: %w", err)
	case res.ExitCode != 0:
		return fmt.Errorf("build tree: mmdebstrap ended with status %d:\n%s", res.ExitCode, lastLines(res.Stderr, 12))
	}
	path := filepath.Join(tree, preset)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(presetText()), 0o644)
}

func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
