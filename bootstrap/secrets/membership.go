package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"filippo.io/age"
)

// Names under the state directory, /var/lib/understudy on a node.
const (
	identityFile       = "identity"
	allowedSignersFile = "allowed_signers"
	oldestCommitFile   = "oldest_commit"
	pinnedCommitFile   = "pinned_commit"
	joinKeyFile        = "join.key"
)

// Membership is what a node gets by joining: the key to the cluster's secrets, and what to believe of the control repo.
type Membership struct {
	// Identity opens secrets.age. Its own String method shows the private key, which is why Membership has one, too.
	Identity *age.X25519Identity
	// AllowedSigners is in OpenSSH's allowed_signers format, at most 256 KiB. Empty: the image's own file holds.
	AllowedSigners []byte
	// OldestCommit is the commit that an accepted one must descend from or be, in hex. Empty: any.
	OldestCommit string
	// Commit is the one that this node shall take at its first boot, in hex: that of its peers, while the branch's newest may be one that
	// nobody has tried yet. Empty: the newest.
	Commit string
}

func (m Membership) check() error {
	switch {
	case m.Identity == nil:
		return errors.New("membership without an identity")
	case len(m.AllowedSigners) > maxAllowedSigners:
		return fmt.Errorf("membership: allowed signers are larger than %d bytes", maxAllowedSigners)
	case m.OldestCommit != "" && !commitPattern.MatchString(m.OldestCommit):
		return errors.New("membership: oldest commit is not a commit's hash")
	case m.Commit != "" && !commitPattern.MatchString(m.Commit):
		return errors.New("membership: commit is not a commit's hash")
	}
	return nil
}

// String shows the public half.
func (m Membership) String() string {
	who := "nobody"
	if m.Identity != nil {
		who = m.Identity.Recipient().String()
	}
	return fmt.Sprintf("membership of %s from commit %q", who, m.OldestCommit)
}

// Format implements fmt.Formatter: every verb shows String.
func (m Membership) Format(f fmt.State, _ rune) { writeRedacted(f, m.String()) }

// LogValue implements slog.LogValuer.
func (m Membership) LogValue() slog.Value { return slog.StringValue(m.String()) }

// MarshalText implements encoding.TextMarshaler, for JSON and YAML too.
func (m Membership) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// SaveMembership writes identity (0400), allowed_signers, oldest_commit and pinned_commit into dir, making it if need be, each file
// whole or not at all. The identity comes last: while it is missing the node has not joined, and asks again with the
// same join key, which is removed only now. An empty field removes its file.
func SaveMembership(dir string, m Membership) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("save membership: %w", err)
	}
	root, err := openState(dir)
	if err != nil {
		return fmt.Errorf("save membership: %w", err)
	}
	defer root.Close()
	line := func(text string) []byte {
		if text == "" {
			return nil
		}
		return []byte(text + "\n")
	}
	identity := fmt.Sprintf("# public key: %s\n%s\n", m.Identity.Recipient(), m.Identity)
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{allowedSignersFile, m.AllowedSigners, 0o644},
		{oldestCommitFile, line(m.OldestCommit), 0o644},
		{pinnedCommitFile, line(m.Commit), 0o644},
		{identityFile, []byte(identity), 0o400},
		{joinKeyFile, nil, 0},
	} {
		if err := replaceFile(root, f.name, f.data, f.mode); err != nil {
			return fmt.Errorf("save membership: %w", err)
		}
	}
	return nil
}

// LoadMembership reads what SaveMembership wrote. An error that is fs.ErrNotExist means that this node has not joined.
func LoadMembership(dir string) (Membership, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Membership{}, fmt.Errorf("load membership: %w", err)
	}
	defer root.Close()
	m := Membership{}
	if m.Identity, err = readIdentity(root, identityFile); err != nil {
		return Membership{}, fmt.Errorf("load membership: %w", err)
	}
	if m.AllowedSigners, err = readFile(root, allowedSignersFile, maxAllowedSigners); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Membership{}, fmt.Errorf("load membership: %w", err)
	}
	for name, commit := range map[string]*string{oldestCommitFile: &m.OldestCommit, pinnedCommitFile: &m.Commit} {
		text, err := readFile(root, name, 128)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Membership{}, fmt.Errorf("load membership: %w", err)
		}
		*commit = strings.TrimSpace(string(text))
	}
	if err := m.check(); err != nil {
		return Membership{}, fmt.Errorf("load from %s: %w", dir, err)
	}
	return m, nil
}

// ForgetCommit drops Membership.Commit from dir: it was for the first boot, which is over.
func ForgetCommit(dir string) error {
	root, err := os.OpenRoot(dir)
	if err == nil {
		defer root.Close()
		err = replaceFile(root, pinnedCommitFile, nil, 0)
	}
	if err != nil {
		return fmt.Errorf("forget the commit of the first boot: %w", err)
	}
	return nil
}

// joinKey returns the newcomer's own key from dir, made and on disk before it is first used: a node that crashes
// between asking and saving must ask again as the same recipient, for its ticket is good for no other.
func joinKey(dir string) (*age.X25519Identity, error) {
	if dir == "" {
		return age.GenerateX25519Identity()
	}
	root, err := openState(dir)
	if err != nil {
		return nil, fmt.Errorf("join key: %w", err)
	}
	defer root.Close()
	key, err := readIdentity(root, joinKeyFile)
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("join key: %w", err)
	}
	if key, err = age.GenerateX25519Identity(); err != nil {
		return nil, fmt.Errorf("join key: %w", err)
	}
	if err := replaceFile(root, joinKeyFile, []byte(key.String()+"\n"), 0o400); err != nil {
		return nil, fmt.Errorf("join key: %w", err)
	}
	return key, nil
}

func openState(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// readIdentity does not pass on age's errors: they may quote the file.
func readIdentity(root *os.Root, name string) (*age.X25519Identity, error) {
	data, err := readFile(root, name, 16<<10)
	if err != nil {
		return nil, err
	}
	ids, err := age.ParseIdentities(bytes.NewReader(data))
	if err == nil && len(ids) == 1 {
		if id, ok := ids[0].(*age.X25519Identity); ok {
			return id, nil
		}
	}
	return nil, fmt.Errorf("%s does not hold exactly one age X25519 identity", name)
}

func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// replaceFile makes name hold data, or removes it where data is empty; after a crash it is either as before or done.
func replaceFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	if len(data) == 0 {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(root, ".")
	}
	temp := "." + name + ".new"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := createFile(root, temp, data, mode); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	return syncDir(root, ".")
}

// createFile writes a file that must not exist yet, down to the disk.
func createFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
