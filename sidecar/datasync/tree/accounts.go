//go:build linux

package tree

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Names gives names to numbers.
type Names interface {
	// Refresh is called before each scan, update and stat. An error stops those: a tree in which everybody has lost his name
	// would change every owner on the mirror.
	Refresh() error
	Owner(uid uint32) string // "#1000" where there is no name
	Group(gid uint32) string
}

// Accounts are the Names in passwd(5) and group(5), read again when those change. Accounts kept elsewhere (LDAP) go by their
// number. They may be shared.
type Accounts struct {
	mu            sync.Mutex
	owners, group list
}

type list struct {
	path string
	seen fs.FileInfo // nil: not read yet
	name map[uint32]string
	id   map[string]uint32
}

// NewAccounts reads nothing yet. The directory is /etc but in tests.
func NewAccounts(dir string) *Accounts {
	return &Accounts{owners: list{path: filepath.Join(dir, "passwd")}, group: list{path: filepath.Join(dir, "group")}}
}

func (a *Accounts) Refresh() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.owners.refresh(); err != nil {
		return fmt.Errorf("read the names of owners: %w", err)
	}
	if err := a.group.refresh(); err != nil {
		return fmt.Errorf("read the names of groups: %w", err)
	}
	return nil
}

func (a *Accounts) Owner(uid uint32) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owners.of(uid)
}

func (a *Accounts) Group(gid uint32) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.group.of(gid)
}

// UID is the number of an owner, by name or as "#1000". An error: there is no such name here.
func (a *Accounts) UID(name string) (int, error) { return a.number(&a.owners, name) }

// GID is the same of a group.
func (a *Accounts) GID(name string) (int, error) { return a.number(&a.group, name) }

func (a *Accounts) number(l *list, name string) (int, error) {
	if digits, ok := strings.CutPrefix(name, "#"); ok {
		id, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no account", name)
		}
		return int(id), nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	id, ok := l.id[name]
	if !ok {
		return 0, fmt.Errorf("%s has no %q; the mirror must know the accounts of its source", l.path, name)
	}
	return int(id), nil
}

func (l *list) of(id uint32) string {
	if name, ok := l.name[id]; ok {
		return name
	}
	return "#" + strconv.FormatUint(uint64(id), 10)
}

func (l *list) refresh() error {
	now, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	if l.seen != nil && os.SameFile(l.seen, now) && l.seen.ModTime().Equal(now.ModTime()) && l.seen.Size() == now.Size() {
		return nil
	}
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	names, ids := map[uint32]string{}, map[string]uint32{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), ":", 4)
		if len(fields) < 4 || fields[0] == "" {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		if _, twice := names[uint32(id)]; !twice { // getpwuid(3) takes the first
			names[uint32(id)] = fields[0]
		}
		if _, twice := ids[fields[0]]; !twice {
			ids[fields[0]] = uint32(id)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	l.seen, l.name, l.id = now, names, ids
	return nil
}
