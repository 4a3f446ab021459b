//go:build linux

package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Position says what a directory holds. It lies in the directory itself, so that it goes wherever the data go.
type Position struct {
	// Epoch is the highest of which there is anything here. Zero: the directory has never been part of a cluster.
	Epoch uint64
	// Written is the epoch in which this machine was the one that wrote. Equal to Epoch: this is the original.
	Written uint64
	// Complete is the newest epoch whose whole tree has been here at some moment. Below Epoch and Written: a part of it may be missing.
	Complete uint64
}

const positionFile = Own + "/position"

// ReadPosition reads that of a directory. Nothing there is the zero value.
func ReadPosition(root *os.Root) (p Position, err error) {
	text, err := root.ReadFile(positionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, err
	}
	_, err = fmt.Sscanf(string(text), positionFormat, &p.Epoch, &p.Written, &p.Complete)
	if err == nil && (p.String() != string(text) || p.Written > p.Epoch || p.Complete > p.Epoch) {
		err = errors.New("numbers out of order")
	}
	if err != nil {
		return Position{}, fmt.Errorf("%s/%s holds no position (%w): %.60q; remove it if you know that what lies there may be overwritten",
			root.Name(), positionFile, err, text)
	}
	return p, nil
}

const positionFormat = "epoch %d\nwritten %d\ncomplete %d\n"

func (p Position) String() string { return fmt.Sprintf(positionFormat, p.Epoch, p.Written, p.Complete) }

// Write makes it the directory's, durably.
func (p Position) Write(root *os.Root) error { return WriteOwn(root, positionFile, p.String()) }

// WriteOwn replaces a small file below Own, durably, by way of a file beside it.
func WriteOwn(root *os.Root, path, text string) error {
	if err := root.Mkdir(Own, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	beside := path + ".new"
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, strings.NewReader(text))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = root.Rename(beside, path)
	}
	if err == nil {
		err = syncDirectory(root, Own)
	}
	return err
}
