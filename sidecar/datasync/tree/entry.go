//go:build linux

package tree

import "fmt"

// Hash is a BLAKE3-256 sum.
type Hash [32]byte

// Kind is what lies at a path. Zero: unknown, only in entries that are Unsettled.
type Kind uint8

const (
	Directory Kind = iota + 1
	File
	Symlink
)

func (k Kind) String() string {
	switch k {
	case Directory:
		return "directory"
	case File:
		return "file"
	case Symlink:
		return "symlink"
	}
	return "unknown"
}

// Xattr is one extended attribute.
type Xattr struct{ Name, Value string }

// Entry is what is mirrored of one path.
type Entry struct {
	// Path is relative to the root, with slashes, any bytes but NUL. The root is ".".
	Path string
	Kind Kind
	// Unsettled: it is there, but what it is could not be established: it kept changing while being read, could not be
	// read, or is a mount point. Whatever a mirror has at and below such a path must stay.
	Unsettled bool
	// Mode is the permissions with setuid (04000), setgid (02000) and sticky (01000). Of symlinks: 0777.
	Mode uint16
	// Owner and Group are names, or "#1000" for a number that has none.
	Owner, Group string
	// MTime is in nanoseconds since 1970, and may be negative.
	MTime int64
	// Size of a file's content in bytes; zero for the others.
	Size int64
	// Hash of a file's content; of a directory: its digest. Zero for symlinks and where Unsettled.
	Hash   Hash
	Target string // of a symlink, as it stands there
	// Xattrs are sorted by name; only the kinds that are mirrored, see the package comment. Symlinks have none. Read only.
	Xattrs []Xattr
	// Link is the first path, by bytes, of the same inode within the tree, unless that is Path. The rest of the entry is
	// then the same as there.
	Link string
}

// Totals is how much a tree, or a part of one, holds.
type Totals struct {
	Directories, Files, Symlinks int // each hard link counts
	Unsettled                    int // also counted by their kind
	Bytes                        int64
}

// Entries is how many paths there are.
func (t Totals) Entries() int { return t.Directories + t.Files + t.Symlinks }

// Problem is something that is not mirrored, and why.
type Problem struct {
	Path string
	Why  string
}

func (p Problem) String() string { return fmt.Sprintf("%q: %s", p.Path, p.Why) }

// Problems keeps the first hundred and counts the rest. Zero: none.
type Problems struct {
	List  []Problem
	Count int
	// Rotten are all files, in no order, that Options.Verify found to have other content than the index says, or none that can be read,
	// though nothing has changed by their times.
	Rotten []string
}

const problemsKept = 100

func (p *Problems) add(path, why string) {
	p.Count++
	if len(p.List) < problemsKept {
		p.List = append(p.List, Problem{path, why})
	}
}
