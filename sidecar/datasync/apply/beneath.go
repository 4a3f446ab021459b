//go:build linux

package apply

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openBeneath opens a path below a directory by openat2(2): no symbolic link is followed and no mount is entered on the way.
func openBeneath(dir int, p string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dir, p, &how)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "open", Path: p, Err: err}
		}
		return os.NewFile(uintptr(fd), p), nil
	}
}

// open opens what lies at a path of the mirror.
func (m *Mirror) open(p string, flags int) (*os.File, error) {
	return openBeneath(int(m.dir.Fd()), p, flags)
}

// place is a name in an open directory.
type place struct {
	dir  int
	name string
	path string // for messages
}

// at finds the place of a path. It is good until the next call: changes come by directory, so that one is kept open.
func (m *Mirror) at(p string) (place, error) {
	dir := path.Dir(p)
	if m.near == nil || m.near.Name() != dir {
		m.forget()
		f, err := m.open(dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return place{}, err
		}
		m.near = f
	}
	return place{int(m.near.Fd()), path.Base(p), p}, nil
}

// forget is for when directories move.
func (m *Mirror) forget() {
	if m.near != nil {
		_ = m.near.Close() // of a path only
		m.near = nil
	}
}

func (p place) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: p.path, Err: err}
}

// stat says what is there, without following it.
func (p place) stat() (st unix.Stat_t, err error) {
	return st, p.fail("stat", unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW))
}

// empty says that nothing is there.
func (p place) empty() (bool, error) {
	_, err := p.stat()
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

func isDir(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// rename moves what is at p to another place, and replaces what is there.
func (p place) rename(to place) error {
	return to.fail("rename", unix.Renameat(p.dir, p.name, to.dir, to.name))
}

func (p place) remove() error { return p.fail("remove", unix.Unlinkat(p.dir, p.name, 0)) }

// beside is a place for what nobody may see yet.
func (m *Mirror) beside() place {
	m.next++
	name := strconv.FormatUint(m.next, 10)
	return place{int(m.staging.Fd()), name, staged + "/" + name}
}

// create makes an empty file.
func (p place) create() (*os.File, error) {
	for {
		fd, err := unix.Openat(p.dir, p.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, p.fail("create", err)
		}
		return os.NewFile(uintptr(fd), p.path), nil
	}
}
