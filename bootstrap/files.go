package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/progress"
)

// durability says what a write has to survive.
type durability int

const (
	// replaceable content may be lost in a power failure: the step it tells of is then repeated.
	replaceable durability = iota
	// durable content is on the disk when the write returns.
	durable
)

// saveRecord replaces the record at path.
func saveRecord(r progress.Record, path string, d durability) error {
	if r.Steps == nil {
		r.Steps = []progress.Step{}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the record of steps: %w", err)
	}
	if err := writeFile(path, append(data, '\n'), 0o644, d); err != nil {
		return fmt.Errorf("write the record of steps: %w", err)
	}
	return nil
}

// writeFile replaces a file whole: whoever reads it sees the old content or the new one.
func writeFile(path string, data []byte, mode os.FileMode, d durability) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+filepath.Base(path)+".new") // one name, so that a crash leaves at most one
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode))
	if d == durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if d != durable {
		return nil
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isDiskFull tells the two errors by which a file system says that it has no room.
func isDiskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
