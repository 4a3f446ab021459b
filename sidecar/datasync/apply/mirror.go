//go:build linux

// Package apply makes a directory the mirror of another, change by change. Files appear whole: their content is staged beside, checked
// against its hash, given its owner, mode, times and attributes, made durable, and only then renamed to where it belongs. A batch of
// changes shares one sync. What is removed lies in a trash for a while.
//
// It trusts nobody with paths: each goes through an os.Root, and none through a symbolic link. It assumes that nobody else writes below the
// directory; whoever does loses what he wrote to the next comparison, and nothing outside.
//
// Everything of its own lies in .understudy at the top, which only root may enter:
//
//	tmp/                 what is being staged; emptied when a Mirror is opened
//	trash/TIME-N/        what batch N removed, by its path
//	lost+found/EPOCH/    what the writer of that epoch did not have when it was compared first, by its path
//	position             what the directory holds, see Position
package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Own is the directory at the top that is never mirrored.
const Own = ".understudy"

const (
	staged = Own + "/tmp"
	trash  = Own + "/trash"
	lost   = Own + "/lost+found"
)

// Accounts turns names into numbers; *tree.Accounts does.
type Accounts interface {
	UID(name string) (int, error)
	GID(name string) (int, error)
}

// Mirror is a directory that follows another. Its methods are for one goroutine at a time.
type Mirror struct {
	path     string
	root     *os.Root
	dir      *os.File // the root
	staging  *os.File // the directory of what is staged
	near     *os.File // see at
	accounts Accounts
	next     uint64 // number of the newest staged file
	sum      *blake3.Hasher
	buf      []byte
	batches  uint64
	position Position
	touched  map[string]bool // directories with names that are not durable yet
}

// StaleEpochError says that somebody offers data under an epoch that has been left behind.
type StaleEpochError struct{ Offered, Known uint64 }

func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("the data come from the primary of epoch %d, and epoch %d has begun", e.Offered, e.Known)
}

// Open begins to mirror into a directory, which must exist. What an earlier process has staged is thrown away.
func Open(path string, accounts Accounts) (*Mirror, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the mirror: %w", err)
	}
	m := &Mirror{path: path, root: root, accounts: accounts, touched: map[string]bool{}, sum: blake3.New(), buf: make([]byte, 256<<10)}
	if err := m.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the mirror %s: %w", path, err), m.Close())
	}
	return m, nil
}

func (m *Mirror) prepare() (err error) {
	if m.dir, err = m.root.Open("."); err != nil {
		return err
	}
	if err := m.ownDirectory(Own); err != nil {
		return err
	}
	if err := m.root.RemoveAll(staged); err != nil {
		return err
	}
	for _, dir := range []string{staged, trash, lost} {
		if err := m.ownDirectory(dir); err != nil {
			return err
		}
	}
	if m.staging, err = m.open(staged, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return err
	}
	m.position, err = ReadPosition(m.root)
	return err
}

// ownDirectory makes sure that one of ours is a directory, and not somebody's symbolic link.
func (m *Mirror) ownDirectory(path string) error {
	err := m.root.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := m.root.Lstat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "use", Path: path, Err: syscall.ENOTDIR}
	}
	return err
}

// Close ends it. It may be called after a failure.
func (m *Mirror) Close() error {
	var errs []error
	m.forget()
	for _, f := range []*os.File{m.staging, m.dir} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, m.root.Close())...)
}

// Position is what the directory holds now.
func (m *Mirror) Position() Position { return m.position }

// Accept lets data of an epoch in from now on, and says whether the directory has not been equal to the source's in that epoch yet. An
// older one than the highest is a StaleEpochError. What it returns is durable.
func (m *Mirror) Accept(epoch uint64) (first bool, err error) {
	if epoch < m.position.Epoch || epoch == 0 {
		return false, &StaleEpochError{epoch, m.position.Epoch}
	}
	if epoch > m.position.Epoch {
		next := m.position
		next.Epoch = epoch
		if err := m.note(next); err != nil {
			return false, err
		}
	}
	return m.position.Complete != epoch, nil
}

// LostAndFound is where an epoch's first comparison puts what only this side has.
func (m *Mirror) LostAndFound(epoch uint64) string {
	return filepath.Join(m.path, lost, strconv.FormatUint(epoch, 10))
}

// Complete notes that the directory is equal to the source's.
func (m *Mirror) Complete() error {
	if m.position.Complete == m.position.Epoch {
		return nil
	}
	next := m.position
	next.Complete = next.Epoch
	return m.note(next)
}

func (m *Mirror) note(p Position) error {
	if err := p.Write(m.root); err != nil {
		return fmt.Errorf("note the position of the mirror: %w", err)
	}
	m.position = p
	return nil
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(root *os.Root, path string) error {
	d, err := root.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncAll makes everything on the file system durable, syncfs(2). Since Linux 5.8 it tells of failed writes.
func (m *Mirror) syncAll() error {
	if err := unix.Syncfs(int(m.dir.Fd())); err != nil {
		return &fs.PathError{Op: "sync", Path: m.path, Err: err}
	}
	return nil
}

// Full says that an error means that the disk, or what the owner may have of it, is full.
func Full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
