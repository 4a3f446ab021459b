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
//	epoch                the highest epoch that anything was taken from
package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Own is the directory at the top that is never mirrored.
const Own = ".understudy"

const (
	staged    = Own + "/tmp"
	trash     = Own + "/trash"
	lost      = Own + "/lost+found"
	epochFile = Own + "/epoch"
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
	dir      *os.File // the root, for syncfs(2)
	accounts Accounts
	next     uint64 // number of the next staged file
	batches  uint64
	epoch    uint64
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
	m := &Mirror{path: path, root: root, accounts: accounts}
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
	m.epoch, err = m.readEpoch()
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
	var err error
	if m.dir != nil {
		err = m.dir.Close()
	}
	return errors.Join(err, m.root.Close())
}

func (m *Mirror) readEpoch() (uint64, error) {
	text, err := m.root.ReadFile(epochFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/%s holds no epoch: %.40q; remove it if you know that only one node has written here", m.path, epochFile, text)
	}
	return n, nil
}

// Epoch is the highest epoch that data were taken from. Zero: none were.
func (m *Mirror) Epoch() uint64 { return m.epoch }

// Accept lets data of an epoch in from now on, and says whether it is the first time. An older one than the highest is a
// StaleEpochError. The epoch is durable when it returns.
func (m *Mirror) Accept(epoch uint64) (first bool, err error) {
	switch {
	case epoch < m.epoch || epoch == 0:
		return false, &StaleEpochError{epoch, m.epoch}
	case epoch == m.epoch:
		return false, nil
	}
	f, name, err := m.stage()
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(strconv.FormatUint(epoch, 10) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = m.root.Rename(name, epochFile)
	}
	if err == nil {
		err = m.syncDirectory(Own)
	}
	if err != nil {
		return false, fmt.Errorf("note epoch %d: %w", epoch, err)
	}
	m.epoch = epoch
	return true, nil
}

// stage creates an empty file that nobody sees yet.
func (m *Mirror) stage() (f *os.File, name string, err error) {
	m.next++
	name = staged + "/" + strconv.FormatUint(m.next, 10)
	f, err = m.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return f, name, err
}

// syncDirectory makes the names in a directory durable.
func (m *Mirror) syncDirectory(path string) error {
	d, err := m.root.Open(path)
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
