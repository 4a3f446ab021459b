package mailjournal

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// Maildirs knows who has got which entry, by the journal header in the files. It is the one place that cannot disagree
// with itself after a failover: a list of what was delivered (as the duplicate extension of Sieve keeps, RFC 7352) is a
// file of its own, which may reach the mirror before the message does, and then the message would be dropped.
type Maildirs struct {
	// Domains whose mailboxes are here.
	Domains []string
	// Resolve returns the mailbox of an address of these domains, as Postfix's virtual aliases would. Nil: the address
	// itself, without the part behind a plus sign. A wrong answer costs a duplicate, never a message.
	Resolve func(address string) string

	got map[ID]map[string]bool // mailboxes
}

// maxHeader is how much of a message is searched for the header. Ours is the first but for what Dovecot and Postfix put before.
const maxHeader = 256 << 10

// Scan reads the Maildirs below root, which lie as DOMAIN/USER/Maildir. Files last changed before since are not looked at;
// choose the oldest entry's time less a day or so, as it is another machine's clock.
func (m *Maildirs) Scan(ctx context.Context, root string, since time.Time) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	m.got = make(map[ID]map[string]bool)
	return fs.WalkDir(dir.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // read or moved by its user meanwhile
			return nil
		case err != nil || ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case entry.IsDir() && strings.HasPrefix(name, ".understudy"):
			return fs.SkipDir
		case !entry.Type().IsRegular() || path.Base(path.Dir(name)) != "cur" && path.Base(path.Dir(name)) != "new":
			return nil
		}
		parts := strings.SplitN(name, "/", 4)
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || len(parts) < 4 {
			return nil
		}
		if err != nil || info.ModTime().Before(since) {
			return err
		}
		return m.look(dir, name, parts[1]+"@"+parts[0])
	})
}

func (m *Maildirs) look(dir *os.Root, name, mailbox string) error {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	id, ok, err := headerID(io.LimitReader(f, maxHeader))
	if !ok || err != nil {
		return err
	}
	if m.got[id] == nil {
		m.got[id] = make(map[string]bool)
	}
	m.got[id][strings.ToLower(mailbox)] = true
	return nil
}

// headerID finds the journal header of a message. Only the first counts: the milter puts it above all others.
func headerID(r io.Reader) (id ID, ok bool, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		text := strings.TrimRight(line, "\r\n")
		if err != nil && err != io.EOF {
			return id, false, err
		}
		if text == "" {
			return id, false, nil
		}
		if name, value, found := strings.Cut(text, ":"); found && strings.EqualFold(name, Header) {
			id, err := ParseID(strings.TrimSpace(value))
			return id, err == nil, nil
		}
		if err == io.EOF {
			return id, false, nil
		}
	}
}

// Missing implements Filter.
func (m *Maildirs) Missing(e Entry) (local, outbound []Recipient) {
	for _, to := range e.To {
		address := strings.ToLower(to.Address)
		at := strings.LastIndexByte(address, '@')
		if !m.here(address[at+1:]) {
			outbound = append(outbound, to)
		} else if !m.got[e.ID][m.mailbox(address)] {
			local = append(local, to)
		}
	}
	return local, outbound
}

func (m *Maildirs) here(domain string) bool {
	for _, d := range m.Domains {
		if strings.EqualFold(d, domain) {
			return true
		}
	}
	return false
}

func (m *Maildirs) mailbox(address string) string {
	if m.Resolve != nil {
		return strings.ToLower(m.Resolve(address))
	}
	user, domain, _ := strings.Cut(address, "@")
	user, _, _ = strings.Cut(user, "+")
	return user + "@" + domain
}
