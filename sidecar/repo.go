package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"

	"github.com/spf13/cobra"
)

// repoFlag adds --repo, whose default is the checkout around the current directory.
func repoFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "repo", "", "directory with roles.yaml and puppet/ (default: the checkout around the current directory)")
}

// findRepo completes --repo.
func findRepo(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "roles.yaml")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no roles.yaml here or above: change into your control repo, or name it with --repo DIR")
		}
		dir = up
	}
}

// cacheFlag adds --cache.
func cacheFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "cache", "", "directory of built images (default ~/.cache/understudy, under sudo that of the caller)")
}

// findCache completes --cache. Under sudo the caller's home counts: root's is elsewhere.
func findCache(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	if name := os.Getenv("SUDO_USER"); name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return "", fmt.Errorf("find the cache directory: %w", err)
		}
		return filepath.Join(u.HomeDir, ".cache", "understudy"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w; name it with --cache DIR", err)
	}
	return filepath.Join(dir, "understudy"), nil
}

// needRoot says what to do when the caller may not.
func needRoot(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root (namespaces, mounts): run it with sudo", what)
	}
	return nil
}
