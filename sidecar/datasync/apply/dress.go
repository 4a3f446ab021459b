//go:build linux

package apply

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"understudy/sidecar/datasync/tree"
)

// owner turns an entry's names into numbers.
func (m *Mirror) owner(e tree.Entry) (uid, gid int, err error) {
	uid, errUser := m.accounts.UID(e.Owner)
	gid, errGroup := m.accounts.GID(e.Group)
	return uid, gid, errors.Join(errUser, errGroup)
}

// freshness says what an inode may carry already.
type freshness int

const (
	used  freshness = iota
	fresh           // made by us, as root: it belongs to root and has no attributes
)

// dress gives an open file or directory everything but its content. The owner comes first: chown(2) takes setuid away; the time last.
func (m *Mirror) dress(fd int, e tree.Entry, f freshness) error {
	uid, gid, err := m.owner(e)
	if err != nil {
		return err
	}
	if f == used || uid != 0 || gid != 0 {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return os.NewSyscallError("fchown", err)
		}
	}
	if err := unix.Fchmod(fd, uint32(e.Mode)); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := setXattrs(fd, e.Xattrs, f); err != nil {
		return err
	}
	return setTime(fd, e.MTime)
}

// setTime is futimens(3): utimensat(2) without a path, for which there is no wrapper.
func setTime(fd int, nanoseconds int64) error {
	at := unix.NsecToTimespec(nanoseconds)
	times := [2]unix.Timespec{at, at}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("utimensat", errno)
	}
	return nil
}

var errKind = errors.New("it is of another kind here")

// dressPath does the same to what has its name already.
func (m *Mirror) dressPath(e tree.Entry) error {
	if e.Kind == tree.Symlink {
		at, err := m.at(e.Path)
		if err != nil {
			return err
		}
		return m.dressLink(at, e)
	}
	f, err := m.open(e.Path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() != (e.Kind == tree.Directory) {
		err = fmt.Errorf("%w: %v", errKind, info.Mode().Type())
	}
	if err == nil {
		err = m.dress(int(f.Fd()), e, used)
	}
	return errors.Join(err, f.Close())
}

// dressLink gives a symbolic link its owner and time. It has no mode, and none of the attributes that are mirrored.
func (m *Mirror) dressLink(p place, e tree.Entry) error {
	uid, gid, err := m.owner(e)
	if err != nil {
		return err
	}
	if err := p.fail("chown", unix.Fchownat(p.dir, p.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	at := unix.NsecToTimespec(e.MTime)
	return p.fail("set the time of", unix.UtimesNanoAt(p.dir, p.name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}

// setXattrs makes the mirrored attributes those that are wanted, and leaves others alone.
func setXattrs(fd int, want []tree.Xattr, f freshness) error {
	var have []string
	if f == used {
		var err error
		if have, err = listXattrs(fd); err != nil {
			return err
		}
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
