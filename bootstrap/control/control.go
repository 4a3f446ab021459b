// Package control brings the Puppet control repo onto a node: it fetches a branch from the first source
// that answers, verifies the signature of its newest commit against the allowed signers, proves that it
// descends from the oldest commit that is still acceptable, and exports its tree into a release
// directory.
//
// It promises that a kill -9 or a power loss at any point leaves either the old state or the new one,
// plus leftovers that the next call removes; that a damaged local copy is thrown away and cloned anew;
// and that nothing it was not asked to trust reaches a release: every object is read with its hash
// checked, so the signature over a commit covers each byte exported from it. A source therefore need
// not be trusted for what it serves, only for serving at all.
//
// The local copy is a source in turn: Handler serves it to other machines, which need not trust this one either.
//
// It refuses submodules, symbolic links that leave the tree, names that git itself refuses, trees beyond
// its limits, and commits whose headers are not exactly in the form git writes.
//
// The wire protocol is git's version 0 (gitprotocol-pack(5), gitprotocol-http(5)); the messages, the
// pack index and the reading of packs are go-git's, the conversation and everything written to disk are
// our own, because go-git v5 ignores some deadlines, cannot recover a half-made clone, and does not say
// which of its failures are a full disk.
package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/command"
)

// Reasons why the control repo cannot be had or used. Test with errors.Is.
var (
	// ErrNoNetwork: the source cannot be reached; of a *FetchError: none of them can. Retrying can help.
	ErrNoNetwork = errors.New("not reachable")
	// ErrNoBranch: the repository is there and has no such branch.
	ErrNoBranch = errors.New("no such branch")
	// ErrNoCommit: the branch is there, and Options.Pin is not in its history as far as the source has that.
	ErrNoCommit = errors.New("the branch does not have the commit")
	// ErrNoRepository: the source answers, and there is no git repository at this place.
	ErrNoRepository = errors.New("no such repository")
	// ErrAuth: the source wants other credentials, or is not the host it should be.
	ErrAuth = errors.New("access denied")
	// ErrDiskFull: no space, or no quota, is left. Nothing was changed. Retrying helps once there is.
	ErrDiskFull = errors.New("the disk is full")
	// ErrTooLarge: the repository is beyond a limit of Options.
	ErrTooLarge = errors.New("too large")
	// ErrBroken: an object is missing or damaged. A local copy found so has been thrown away: fetch again.
	ErrBroken = errors.New("the repository is damaged")
	// ErrMalformed: the commit is not in the exact form git writes, so readers could disagree about it.
	ErrMalformed = errors.New("malformed commit")
	// ErrUnsigned: the commit carries no signature.
	ErrUnsigned = errors.New("the commit is not signed")
	// ErrBadSignature: the commit carries a signature that is malformed, was made over something else, or
	// by a key that was not valid then.
	ErrBadSignature = errors.New("bad signature")
	// ErrTooOld: the commit is neither the oldest acceptable one nor a descendant of it.
	ErrTooOld = errors.New("the commit does not descend from the oldest acceptable one")
	// ErrNoHistory: the history at hand is cut off before the question can be answered. Fetch again with
	// Options.Oldest set. It is always wrapped together with ErrTooOld: what is not proven is refused.
	ErrNoHistory = errors.New("the history at hand is cut off")
)

// Commit is one commit of the control repo, fetched and whole. The zero value is no commit.
type Commit struct {
	Hash    string    // 40 hexadecimal digits
	When    time.Time // the committer's clock, which may say anything
	Subject string    // first line of the message, in valid UTF-8, at most 200 bytes; may be empty
}

// Options tune a Repo. The zero value is ready to use.
type Options struct {
	// Log gets one line per source that failed and per change on disk. Nil: nothing is logged.
	Log *slog.Logger
	// Oldest is the hash of the oldest acceptable commit; Fetch then brings the history that Descends
	// needs. Empty: one commit without its history is enough.
	Oldest string
	// Pin is the hash of the commit that Fetch shall bring in place of the branch's newest, out of the history of that; a source
	// whose branch does not have it fails with ErrNoCommit. The local branch is at the newest nevertheless. Empty: the newest.
	Pin string
	// Runner runs git and gpg, for OpenPGP signatures only. Nil: command.Exec{}.
	Runner command.Runner
	// Git and GPG are absolute paths. Empty: /usr/bin/git and /usr/bin/gpg.
	Git, GPG string
	// MaxPack is how many bytes one fetch may bring. Zero: 1 GiB.
	MaxPack int64
	// MaxFiles and MaxBytes bound an exported tree: entries of any kind, and bytes of all files.
	// Zero: 50,000 and 512 MiB.
	MaxFiles int
	MaxBytes int64
}

// Repo is the local copy of the control repo and the releases made from it. Calls that change anything
// exclude each other, also between processes, by a lock file beside Dir.
type Repo struct {
	Dir      string // bare git repository; need not exist yet
	Releases string // directory of releases, one per commit; need not exist yet
	opts     Options
	hold     bool // the branch stays at opts.Oldest, whatever is fetched: see Bring
	traffic  *traffic
}

// Open names the places; it touches neither. Both must be absolute, and on a file system that supports
// rename and flock.
func Open(dir, releases string, o Options) (*Repo, error) {
	if !filepath.IsAbs(dir) || !filepath.IsAbs(releases) {
		return nil, fmt.Errorf("control repo %q and releases %q: both paths must be absolute", dir, releases)
	}
	if o.Oldest != "" && !isHash(o.Oldest) {
		return nil, fmt.Errorf("oldest acceptable commit %q: not a full commit hash (40 hexadecimal digits)", o.Oldest)
	}
	if o.Pin != "" && !isHash(o.Pin) {
		return nil, fmt.Errorf("pinned commit %q: not a full commit hash (40 hexadecimal digits)", o.Pin)
	}
	if o.MaxPack < 0 || o.MaxFiles < 0 || o.MaxBytes < 0 {
		return nil, errors.New("limits of the control repo must not be negative")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Runner == nil {
		o.Runner = command.Exec{}
	}
	o.Git, o.GPG = or(o.Git, "/usr/bin/git"), or(o.GPG, "/usr/bin/gpg")
	o.MaxPack, o.MaxBytes = or(o.MaxPack, 1<<30), or(o.MaxBytes, 512<<20)
	o.MaxFiles = or(o.MaxFiles, 50_000)
	return &Repo{Dir: filepath.Clean(dir), Releases: filepath.Clean(releases), opts: o, traffic: new(traffic)}, nil
}

// or returns v, or otherwise when v is zero.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func isHash(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// lockPoll is how often a held lock is tried again.
const lockPoll = 20 * time.Millisecond

// lock waits until no other call, in this process or another, changes the repository or the releases.
// The kernel drops the lock of a killed process.
func (r *Repo) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(r.Dir), 0o755); err != nil {
		return nil, diskFull(err)
	}
	f, err := os.OpenFile(r.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskFull(err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s, held by another process: %w", f.Name(), context.Cause(ctx))
		}
	}
}

// diskFull marks an error that means there is no space left, whichever call it came from.
func diskFull(err error) error {
	if errors.Is(err, ErrDiskFull) || !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return fmt.Errorf("%w (make room, then try again): %w", ErrDiskFull, err)
}

// syncDir makes the entries of a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writeDurably makes a new file, or replaces one, so that after a crash either the old or the new
// content is there. The directory must exist.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already unless something fails below
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// tempPrefix starts the name of everything unfinished; what has it may be deleted under the lock.
const tempPrefix = ".tmp-"

// removeTemps deletes what a killed process left unfinished directly inside dir.
func removeTemps(dir, prefix string, remove func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
