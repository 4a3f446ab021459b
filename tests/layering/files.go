package layering

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Files lists what belongs to the repository at root: in a checkout, what git tracks or would track;
// elsewhere (an unpacked archive, no git on the machine), every file that .gitignore does not name.
// Paths are relative to root, sorted, with slashes.
func Files(ctx context.Context, root string) ([]string, error) {
	git, missing := exec.LookPath("git")
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil || missing != nil {
		return walk(root)
	}
	// The checkout may belong to somebody else, as it does when the tests run as root (git-config(1),
	// safe.directory); and a hook's variables would point git at another one.
	cmd := exec.CommandContext(ctx, git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GIT_") })
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the files of the checkout %s: %w", root, err)
	}
	files := strings.FieldsFunc(string(out), func(c rune) bool { return c == 0 })
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(name string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return errors.Is(err, fs.ErrNotExist) // deleted, and git has not been told yet
	}), nil
}

func walk(root string) ([]string, error) {
	ignored, err := ignoredBy(root)
	if err != nil {
		return nil, err
	}
	var files []string
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case name == ".git" || ignored(name):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !entry.IsDir():
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the files in %s: %w", root, err)
	}
	slices.Sort(files)
	return files, nil
}

// ignoredBy reads the top .gitignore, as far as ours goes: names and paths with * and ?, no negation
// (gitignore(5)).
func ignoredBy(root string) (func(name string) bool, error) {
	data, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var patterns []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "!") || strings.Contains(line, "**"):
			return nil, fmt.Errorf(".gitignore: %s is more than this reads; use a plain name or path", line)
		default:
			patterns = append(patterns, strings.TrimSuffix(line, "/"))
		}
	}
	return func(name string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			subject := name
			if !strings.Contains(pattern, "/") {
				subject = path.Base(name)
			}
			ok, err := path.Match(strings.TrimPrefix(pattern, "/"), subject)
			return ok && err == nil
		})
	}, nil
}
