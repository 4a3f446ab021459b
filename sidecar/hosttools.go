package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/bootstrap/command"
)

// hostTools are the programs the local cloud uses on the host, with the Debian packages they come
// from. None of these packages starts a server.
var hostTools = []struct{ path, pkg string }{
	{"/usr/bin/git", "git"},
	{"/usr/bin/mmdebstrap", "mmdebstrap"},
	{"/usr/bin/nsenter", "util-linux"},
	{"/usr/bin/systemd-nspawn", "systemd-container"},
	{"/usr/sbin/nft", "nftables"},
	{"/usr/share/keyrings/debian-archive-trixie-stable.gpg", "debian-archive-keyring"},
}

func hostPackages() []string {
	var names []string
	for _, t := range hostTools {
		if t.pkg != "git" && t.pkg != "util-linux" { // on every machine that got this far
			names = append(names, t.pkg)
		}
	}
	return names
}

// installTools makes sure that hostTools are there; with install it fetches the missing ones.
func installTools(ctx context.Context, run command.Runner, say func(string), install bool) error {
	var missing []string
	for _, t := range hostTools {
		if _, err := os.Stat(t.path); err != nil && !slices.Contains(missing, t.pkg) {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if !install {
		return fmt.Errorf("this machine lacks %s; install with: sudo apt-get install --no-install-recommends %s (or add --install)",
			strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	return aptInstall(ctx, run, say, missing)
}

func aptInstall(ctx context.Context, run command.Runner, say func(string), packages []string) error {
	say("installing on this machine: " + strings.Join(packages, " "))
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"}
	apt := func(args ...string) (command.Result, error) {
		return run.Run(ctx, command.Cmd{
			Path: "/usr/bin/apt-get", Args: append([]string{"-qq", "-y", "-o", "DPkg::Lock::Timeout=300"}, args...), Env: env, Timeout: 10 * time.Minute,
		})
	}
	// Its status is not asked: an unreachable third repository is no reason to stop, and a list that
	// is really missing shows in the installation.
	if _, err := apt("update"); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(packages, ", "), err)
	}
	res, err := apt(append([]string{"install", "--no-install-recommends"}, packages...)...)
	if err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(packages, ", "), err)
	}
	if res.ExitCode != 0 {
		return fmt.Errorf("apt-get install %s: status %d: %s", strings.Join(packages, " "), res.ExitCode, strings.TrimSpace(string(res.Stderr)))
	}
	return nil
}

// hostToolsCommand serves the Makefile: everything that needs root is done by this program, so that
// sudo need be trusted with nothing else.
func hostToolsCommand() *cobra.Command {
	var install bool
	cmd := &cobra.Command{
		Use: "host-tools PACKAGE...", Hidden: true, Args: cobra.MinimumNArgs(1),
		Short: "Make sure that Debian packages are installed on this machine",
		RunE: func(cmd *cobra.Command, packages []string) error {
			var missing []string
			for _, p := range packages {
				found, err := filepath.Glob("/var/lib/dpkg/info/" + p + "*.list")
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(found, func(f string) bool {
					return f == "/var/lib/dpkg/info/"+p+".list" || strings.HasPrefix(f, "/var/lib/dpkg/info/"+p+":")
				}) {
					missing = append(missing, p)
				}
			}
			if len(missing) == 0 {
				return nil
			}
			if !install {
				return fmt.Errorf("this machine lacks %s", strings.Join(missing, ", "))
			}
			if err := needRoot("installing packages"); err != nil {
				return err
			}
			return aptInstall(cmd.Context(), command.Exec{}, func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }, missing)
		},
	}
	cmd.Flags().BoolVar(&install, "install", false, "install what is missing")
	return cmd
}
