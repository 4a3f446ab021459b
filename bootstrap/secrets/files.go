package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// WriteFiles makes dir hold exactly the bundle's files of the given groups, as dir/group/name: directories 0700, files
// 0400, owned by the caller. dir should lie on a tmpfs; its parent is made if missing.
//
// The whole tree changes at once: it is built beside dir and exchanged with it (renameat2(2), RENAME_EXCHANGE), so dir
// is never missing or mixed, and a group or file that is gone from the bundle is gone from dir. Who holds the old
// directory open sees its files vanish, not change. A crash leaves dir as it was or as it should be; what else it leaves, the next call removes. Calls for the
// same parent directory wait for each other (flock(2)).
func (b Bundle) WriteFiles(dir string, groups ...string) error {
	if err := b.Validate(); err != nil {
		return fmt.Errorf("write secret files: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("write secret files: %w", err)
	}
	parent, base := filepath.Split(dir)
	if base == "" {
		return errors.New("write secret files: the target must not be the root directory")
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("write secret files: %w", err)
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return fmt.Errorf("write secret files: %w", err)
	}
	defer root.Close()
	if err := b.replaceTree(root, base, groups); err != nil {
		return fmt.Errorf("write secret files into %s: %w", dir, err)
	}
	return nil
}

// replaceTree does the work of WriteFiles inside the parent directory.
func (b Bundle) replaceTree(root *os.Root, base string, groups []string) (err error) {
	at, err := root.Open(".")
	if err != nil {
		return err
	}
	defer at.Close() // ends the lock
	if err := lock(at); err != nil {
		return err
	}
	fresh := "." + base + ".new"                  // the new tree; after the exchange, the old one
	if err := root.RemoveAll(fresh); err != nil { // left by a crash
		return err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(fresh)) }()
	if err := b.writeTree(root, fresh, groups); err != nil {
		return err
	}
	if _, err := root.Lstat(base); errors.Is(err, fs.ErrNotExist) {
		err = root.Rename(fresh, base)
		return errors.Join(err, at.Sync())
	} else if err != nil {
		return err
	}
	fd := int(at.Fd())
	if err := unix.Renameat2(fd, fresh, fd, base, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange old and new (the file system must know RENAME_EXCHANGE, as tmpfs and ext4 do): %w", err)
	}
	return at.Sync()
}

func lock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writeTree makes the directory top with the files of groups, all of it down to the disk where there is one.
func (b Bundle) writeTree(root *os.Root, top string, groups []string) error {
	if err := makeDir(root, top); err != nil {
		return err
	}
	groups = slices.Compact(slices.Sorted(slices.Values(groups)))
	for _, group := range groups {
		if !groupPattern.MatchString(group) {
			return fmt.Errorf("group %q: %s", group, groupRule)
		}
		sub := filepath.Join(top, group)
		if err := makeDir(root, sub); err != nil {
			return err
		}
		for name, content := range sorted(b.Files[group]) {
			if err := createFile(root, filepath.Join(sub, name), []byte(content.Reveal()), 0o400); err != nil {
				return err
			}
		}
		if err := syncDir(root, sub); err != nil {
			return err
		}
	}
	return syncDir(root, top)
}

// makeDir makes a directory that must not exist yet, 0700 whatever the umask.
func makeDir(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o700); err != nil {
		return err
	}
	return root.Chmod(name, 0o700)
}
