package control

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
)

// Bounds of a tree that no option changes.
const (
	maxDepth  = 64   // directories inside each other
	maxName   = 255  // NAME_MAX
	maxPath   = 2048 // below PATH_MAX, with room for the place of the releases
	maxTarget = 2048 // of a symbolic link
)

// TreeError says why a tree is not exported. Nothing of it was left on disk.
type TreeError struct {
	Path   string // in the tree, with slashes; empty for the tree as a whole
	Reason string
}

func (e *TreeError) Error() string {
	if e.Path == "" {
		return "tree refused: " + e.Reason
	}
	return fmt.Sprintf("tree refused: %q: %s", e.Path, e.Reason)
}

// Kinds of tree entries, by their git mode.
type kind int

const (
	directory kind = iota
	file
	executable
	symlink
	submodule
)

// kinds holds every mode that git writes, and 100664, which it once wrote (git-fsck(1), badFilemode).
var kinds = map[string]kind{
	"40000": directory, "100644": file, "100664": file, "100755": executable, "120000": symlink, "160000": submodule,
}

// entry is one line of a tree object.
type entry struct {
	name string
	kind kind
	hash plumbing.Hash
}

// parseTree splits a raw tree object: mode, space, name, NUL, 20 bytes of hash, without separators.
func parseTree(raw []byte) ([]entry, error) {
	var entries []entry
	seen := map[string]bool{}
	for len(raw) > 0 {
		mode, rest, ok := bytes.Cut(raw, []byte(" "))
		if !ok {
			return nil, &TreeError{Reason: "malformed: an entry without a name"}
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(rest) < len(plumbing.ZeroHash) {
			return nil, &TreeError{Reason: "malformed: an entry without a hash"}
		}
		e := entry{name: string(name)}
		if e.kind, ok = kinds[string(mode)]; !ok {
			return nil, &TreeError{e.name, fmt.Sprintf("mode %.10q is none that git knows", mode)}
		}
		if seen[e.name] {
			return nil, &TreeError{e.name, "the name is there twice"}
		}
		seen[e.name] = true
		copy(e.hash[:], rest)
		entries = append(entries, e)
		raw = rest[len(e.hash):]
	}
	return entries, nil
}

// whole returns nil when every object below a tree is in the repository. Trees are read, files are only
// looked up: they are checked when they are exported. What is wrong with a tree that can be read is for
// the export to say.
func (s *store) whole(tree plumbing.Hash) error {
	seen := map[plumbing.Hash]bool{}
	todo := []plumbing.Hash{tree}
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		raw, err := s.read(h, plumbing.TreeObject, maxTree)
		if err != nil {
			return err
		}
		entries, err := parseTree(raw)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if seen[e.hash] || e.kind == submodule {
				continue
			}
			seen[e.hash] = true
			if e.kind == directory {
				todo = append(todo, e.hash)
				continue
			}
			if ok, err := s.has(e.hash); err != nil || !ok {
				return or(err, fmt.Errorf("%w: file %s is missing", ErrBroken, e.hash))
			}
		}
	}
	return nil
}

// checkName refuses names that no file of ours may have. Beside what POSIX forbids these are the names
// git refuses (verify_path in read-cache.c): .git in any case, and as Windows and macOS read it. A tree
// that holds one was not made by git, but to be taken for something that it is not.
func checkName(name string) error {
	reason := ""
	switch {
	case name == "":
		reason = "empty name"
	case name == "." || name == "..":
		reason = "the name is that of a directory itself"
	case strings.ContainsRune(name, '/'):
		reason = "slash in a name"
	case len(name) > maxName:
		reason = fmt.Sprintf("the name is longer than %d bytes", maxName)
	case strings.ContainsFunc(name, unicode.IsControl):
		reason = "control character in a name"
	default:
		for part := range strings.SplitSeq(name, `\`) { // a separator on Windows
			if isDotGit(part) {
				reason = "git keeps this name for itself"
			}
		}
	}
	if reason != "" {
		return &TreeError{name, reason}
	}
	return nil
}

// isDotGit says whether some system takes a name for .git. After git's is_ntfs_dotgit (path.c) and
// is_hfs_dotgit (utf8.c).
func isDotGit(name string) bool {
	visible := strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1 // HFS+ ignores these
		}
		return unicode.ToLower(r)
	}, name)
	visible, _, _ = strings.Cut(visible, ":") // an NTFS stream
	visible = strings.TrimRight(visible, ". ")
	return visible == ".git" || visible == "git~1"
}

// checkTarget refuses a symbolic link that could lead out of the tree: an absolute one, or one with more
// leading .. than the link lies deep. Any .. after a name is refused as well, because that name may itself
// be a link to somewhere less deep; with this rule, links stay inside through any chain of links.
func checkTarget(link, target string) error {
	reason := ""
	switch {
	case target == "" || strings.ContainsFunc(target, unicode.IsControl):
		reason = "the symbolic link has no proper target"
	case len(target) > maxTarget:
		reason = fmt.Sprintf("the target of the symbolic link is longer than %d bytes", maxTarget)
	case path.IsAbs(target):
		reason = "the symbolic link is absolute: only links inside the tree are allowed"
	default:
		up, named := 0, false
		for part := range strings.SplitSeq(target, "/") {
			switch {
			case part == "" || part == ".":
			case part != "..":
				named = true
				if isDotGit(part) {
					reason = "the symbolic link leads to a name git keeps for itself"
				}
			case named:
				reason = "the symbolic link has .. after a name: write it without"
			default:
				up++
			}
		}
		if up > strings.Count(link, "/") {
			reason = "the symbolic link leaves the tree"
		}
	}
	if reason != "" {
		return &TreeError{link, reason}
	}
	return nil
}
