//go:build linux

package datasync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"understudy/sidecar/datasync/apply"
	"understudy/sidecar/datasync/tree"
)

const markFile = apply.Own + "/set"

func openRoot(set Set) (*os.Root, error) {
	root, err := os.OpenRoot(set.Root)
	if err != nil {
		return nil, fmt.Errorf("open the data: %w", err)
	}
	return root, nil
}

// marked looks for a directory's mark, which names the set.
func marked(root *os.Root, set Set) (tree.Marker, error) {
	text, err := root.ReadFile(markFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return tree.Unmarked, nil
	case err != nil:
		return 0, err
	case strings.TrimSpace(string(text)) != set.Name:
		return tree.Foreign, nil
	}
	return tree.Marked, nil
}

func markRoot(set Set) error {
	root, err := openRoot(set)
	if err != nil {
		return err
	}
	return errors.Join(mark(root, set), root.Close())
}

// mark marks a directory that has never been looked at. One that has been and is not marked is not the same directory.
func mark(root *os.Root, set Set) error {
	m, err := marked(root, set)
	if err != nil {
		return err
	}
	if m == tree.Unmarked {
		if _, err := os.Stat(set.Index); errors.Is(err, fs.ErrNotExist) {
			return apply.WriteOwn(root, markFile, set.Name+"\n")
		}
	}
	return tree.Situation{Marker: m}.Check()
}
