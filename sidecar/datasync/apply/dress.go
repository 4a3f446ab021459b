//go:build linux

package apply

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"understudy/sidecar/datasync/tree"
)

// owner turns an entry's names into numbers.
func (m *Mirror) owner(e tree.Entry) (uid, gid int, err error) {
	uid, errUser := m.accounts.UID(e.Owner)
	gid, errGroup := m.accounts.GID(e.Group)
	return uid, gid, errors.Join(errUser, errGroup)
}

// dress gives an open file or directory everything but its content. The owner comes first: chown(2) takes setuid away; the time last.
func (m *Mirror) dress(f *os.File, e tree.Entry) error {
	uid, gid, err := m.owner(e)
	if err != nil {
		return err
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	if err := unix.Fchmod(fd, uint32(e.Mode)); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := setXattrs(fd, e.Xattrs); err != nil {
		return err
	}
	at := unix.NsecToTimespec(e.MTime)
	// An empty path with AT_EMPTY_PATH would need Linux 5.8; /proc is there.
	err = unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), []unix.Timespec{at, at}, 0)
	return os.NewSyscallError("utimensat", err)
}

// dressPath does the same to what has its name already.
func (m *Mirror) dressPath(e tree.Entry) error {
	if e.Kind == tree.Symlink {
		return m.dressLink(e.Path, e)
	}
	f, err := m.root.OpenFile(e.Path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() != (e.Kind == tree.Directory) {
		err = fmt.Errorf("%q is a %v here, and should be a %v", e.Path, info.Mode().Type(), e.Kind)
	}
	if err == nil {
		err = m.dress(f, e)
	}
	return errors.Join(err, f.Close())
}

// dressLink gives a symbolic link its owner and time. It has no mode, and none of the attributes that are mirrored.
func (m *Mirror) dressLink(name string, e tree.Entry) error {
	uid, gid, err := m.owner(e)
	if err != nil {
		return err
	}
	dir, err := m.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	at := unix.NsecToTimespec(e.MTime)
	err = os.NewSyscallError("fchownat", unix.Fchownat(int(dir.Fd()), path.Base(name), uid, gid, unix.AT_SYMLINK_NOFOLLOW))
	if err == nil {
		times := []unix.Timespec{at, at}
		err = os.NewSyscallError("utimensat", unix.UtimesNanoAt(int(dir.Fd()), path.Base(name), times, unix.AT_SYMLINK_NOFOLLOW))
	}
	return errors.Join(err, dir.Close())
}

// setXattrs makes the mirrored attributes those that are wanted, and leaves others alone.
func setXattrs(fd int, want []tree.Xattr) error {
	have, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range have {
		if tree.MirroredXattr(name) && !slices.ContainsFunc(want, func(x tree.Xattr) bool { return x.Name == name }) {
			if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("remove attribute %s: %w", name, err)
			}
		}
	}
	for _, x := range want {
		if !tree.MirroredXattr(x.Name) {
			return fmt.Errorf("attribute %.40q is not one that is mirrored", x.Name)
		}
		if err := unix.Fsetxattr(fd, x.Name, []byte(x.Value), 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

func listXattrs(fd int) ([]string, error) {
	n, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("flistxattr", err)
	}
	buf := make([]byte, n+1024) // some may come meanwhile
	if n, err = unix.Flistxattr(fd, buf); err != nil {
		return nil, os.NewSyscallError("flistxattr", err)
	}
	return strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00"), nil
}

// trashTime is how a directory in the trash tells its time.
const trashTime = "20060102T150405Z"

// Purge deletes from the trash what is older than age, and then the oldest until no more than most bytes are left. It says what is left.
func (m *Mirror) Purge(now time.Time, age time.Duration, most int64) (left int64, err error) {
	dir, err := m.root.Open(trash)
	if err != nil {
		return 0, err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return 0, err
	}
	slices.Sort(names) // by time
	sizes := make([]int64, len(names))
	for i, name := range names {
		if sizes[i], err = m.size(trash + "/" + name); err != nil {
			return 0, err
		}
		left += sizes[i]
	}
	for i, name := range names {
		stamp, _, _ := strings.Cut(name, "-")
		made, err := time.Parse(trashTime, stamp)
		if err == nil && now.Sub(made) <= age && left <= most {
			break // and so are all after it
		}
		if err != nil {
			continue // not ours
		}
		if err := m.root.RemoveAll(trash + "/" + name); err != nil {
			return left, err
		}
		left -= sizes[i]
	}
	return left, nil
}

// size is how many bytes the files at and below a path have.
func (m *Mirror) size(p string) (sum int64, err error) {
	info, err := m.root.Lstat(p)
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		return info.Size(), nil
	}
	dir, err := m.root.Open(p)
	if err != nil {
		return 0, err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return 0, err
	}
	for _, name := range names {
		n, err := m.size(p + "/" + name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
