//go:build linux

package tree

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath and maxDepth bound what is looked at: the kernel takes no longer paths (PATH_MAX), and each level keeps a
// descriptor open.
const (
	maxPath  = 4095
	maxDepth = 512
)

// status is what the kernel says of a path.
type status struct {
	kind         uint16 // S_IFMT bits
	mode         uint16
	uid, gid     uint32
	size         int64
	mtime, ctime int64
	inode        uint64
	device       uint64
	several      bool // names
	mount        bool // the root of one
}

func statAt(fd int, name string, flags int) (status, error) {
	var x unix.Statx_t
	for {
		err := unix.Statx(fd, name, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &x)
		if err == unix.EINTR {
			continue
		}
		return status{
			kind: x.Mode & unix.S_IFMT, mode: x.Mode & 0o7777, uid: x.Uid, gid: x.Gid, size: int64(x.Size),
			mtime: nanoseconds(x.Mtime), ctime: nanoseconds(x.Ctime), inode: x.Ino, device: unix.Mkdev(x.Dev_major, x.Dev_minor),
			several: x.Nlink > 1, mount: x.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
		}, err
	}
}

// statOpen is statAt of what is open already.
func statOpen(fd int) (status, error) { return statAt(fd, "", unix.AT_EMPTY_PATH) }

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// same says whether nothing happened between two looks.
func (s status) same(o status) bool {
	return s.inode == o.inode && s.size == o.size && s.mtime == o.mtime && s.ctime == o.ctime && s.kind == o.kind
}

// tick is how much later than a change its times may seem to be: the kernel stamps with a clock that it moves on at every
// tick, 10 ms with HZ=100.
const tick = 20 * time.Millisecond

// racily says whether something read from now on may change once more without its times telling: git's "racily clean"
// (gitformat-index(5)). Filesystems without fractions of seconds (ext3, small inodes of ext4) get two seconds.
func racily(s status, now int64) bool {
	window := int64(tick)
	if s.ctime%1e9 == 0 {
		window = int64(2 * time.Second)
	}
	return s.ctime >= now-window || s.mtime >= now-window && s.mtime <= now+window
}

// clock is the one from which files get their times.
func clock() int64 { return time.Now().UnixNano() }

// open opens one name in a directory: no symlink is followed and no mount is entered, which openat2(2) sees to, whatever
// happens to the name meanwhile.
func open(dir int, name string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// openFile leaves the time of access alone where the kernel lets us.
func openFile(dir int, name string) (*os.File, error) {
	const harmless = unix.O_NONBLOCK | unix.O_NOCTTY // should it have become a fifo or a terminal
	f, err := open(dir, name, harmless|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		return open(dir, name, harmless)
	}
	return f, err
}

func openDir(dir int, name string) (*os.File, error) { return open(dir, name, unix.O_DIRECTORY) }

// names lists an open directory, sorted.
func names(dir int, buf []byte) ([]string, error) {
	var all []string
	for {
		n, err := unix.ReadDirent(dir, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT: // removed since it was opened
			return all, nil
		case err != nil:
			return nil, err
		case n == 0:
			slices.Sort(all)
			return slices.Compact(all), nil
		}
		_, _, all = unix.ParseDirent(buf[:n], -1, all)
	}
}

func readlink(dir int, name string) (string, error) {
	var buf [maxPath + 1]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// MirroredXattr says which extended attributes are part of a tree.
func MirroredXattr(xattr string) bool {
	return strings.HasPrefix(xattr, "user.") || xattr == "security.capability" || strings.HasPrefix(xattr, "system.posix_acl_")
}

// xattrs reads those of what is open. A filesystem that has none is no error.
func xattrs(fd int) ([]Xattr, error) {
	list, err := grown(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var all []Xattr
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if !MirroredXattr(string(name)) {
			continue
		}
		value, err := grown(func(b []byte) (int, error) { return unix.Fgetxattr(fd, string(name), b) })
		if errors.Is(err, unix.ENODATA) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, Xattr{string(name), string(value)})
	}
	slices.SortFunc(all, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// grown calls get with more and more room, up to what the kernel lets an attribute have (XATTR_SIZE_MAX).
func grown(get func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := get(small[:])
	if !errors.Is(err, unix.ERANGE) {
		return small[:max(n, 0)], err
	}
	large := make([]byte, 64<<10)
	n, err = get(large)
	return large[:max(n, 0)], err
}
