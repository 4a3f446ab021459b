//go:build linux

package datasync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"understudy/bootstrap/durable"
	"understudy/sidecar/datasync/tree"
)

// Beside a set's index lie the paths of files that have rotted, and a file whose time is that of the last full reading.
const (
	rottenSuffix   = ".rotten"
	verifiedSuffix = ".verified"
)

// verifyEvery is how often every byte is read, where nobody says otherwise; lookWhether how often it is looked whether it is time.
const (
	verifyEvery = 7 * 24 * time.Hour
	lookWhether = time.Minute
)

// verifies reads one set after the other, whenever it is time for one.
func (k *Keeper) verifies(ctx context.Context) error {
	every := k.cfg.Verify
	if every == 0 {
		every = verifyEvery
	}
	if every < 0 {
		return nil
	}
	tick := time.NewTicker(min(lookWhether, every))
	defer tick.Stop()
	for {
		for _, s := range k.sets {
			last, err := s.lastVerified(every)
			if err == nil && time.Since(last) >= every {
				err = k.verify(ctx, s)
			}
			if ctx.Err() == nil {
				k.couldRead(s, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// couldRead says why a set could not be read as a whole, once.
func (k *Keeper) couldRead(s *kept, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != "" && why != s.unread {
		k.cfg.Log.Warn("the data could not be read as a whole", "path", s.Root, "err", err)
	}
	s.unread = why
}

// lastVerified is when the set was read as a whole, by the disk's word. A new one counts as read at some time in the last period, so
// that not all are read at once.
func (s *kept) lastVerified(every time.Duration) (time.Time, error) {
	info, err := os.Stat(s.Index + verifiedSuffix)
	if err == nil {
		return info.ModTime(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, err
	}
	return s.stamp(time.Now().Add(-rand.N(every)), "")
}

// wasRead stands in the stamp of a set that was really read.
const wasRead = "read"

func (s *kept) stamp(at time.Time, text string) (time.Time, error) {
	name := s.Index + verifiedSuffix
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return time.Time{}, err
	}
	return at, os.Chtimes(name, at, at)
}

// remembered takes over what an earlier process has found.
func (s *kept) remembered() {
	s.rotten = rottenPaths(s.Index)
	name := s.Index + verifiedSuffix
	if text, err := os.ReadFile(name); err != nil || string(text) != wasRead {
		return
	}
	if info, err := os.Stat(name); err == nil {
		s.verified = info.ModTime()
	}
}

// verify reads every byte of a set and compares it with what the index remembers. What has rotted is noted beside the index, which goes on
// to say what ought to be there. A mirror gets that from the source again, and until then it is no equal copy. At the source it waits until
// the duty moves, whether that is soon or after restarts: the mirror has the content that ought to be there, and is not touched.
func (k *Keeper) verify(ctx context.Context, s *kept) error {
	began := time.Now()
	rotten, err := s.read(ctx)
	if errors.Is(err, errNoIndex) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := noteRotten(s.Index, rotten); err != nil {
		return err
	}
	if _, err := s.stamp(time.Now(), wasRead); err != nil {
		return err
	}
	isSource := k.readAll(s, rotten)
	k.cfg.Log.Info("read all data", "path", s.Root, "rotten", len(rotten), "took", time.Since(began))
	switch some := rotten[:min(len(rotten), mostNamed)]; {
	case len(rotten) == 0:
	case isSource:
		k.cfg.Log.Error("files have rotted: they cannot be read, or their content has changed though no time did. The mirror is not touched; let the duty move "+
			"(understudy switchover), and they come from there", "path", s.Root, "count", len(rotten), "files", some)
	default:
		k.cfg.Log.Error("files have rotted: they cannot be read, or their content has changed though no time did. They come from the source again",
			"path", s.Root, "count", len(rotten), "files", some)
	}
	return nil
}

// mostNamed is how many files one line of the log names.
const mostNamed = 20

// readAll takes over what verify has found. A mirror that is open is opened anew.
func (k *Keeper) readAll(s *kept, rotten []string) (isSource bool) {
	s.mu.Lock()
	s.verified, s.rotten = time.Now(), rotten
	isSource = s.source != nil
	s.again = !isSource && s.mirror != nil && len(rotten) > 0
	again := s.again
	s.mu.Unlock()
	if !again {
		return isSource
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if leave := k.leave[s]; leave != nil { // else the next session sees it
		leave()
	}
	return isSource
}

// errNoIndex: nothing is remembered yet that could be compared.
var errNoIndex = errors.New("there is no index yet")

// read gives the paths of what has rotted, in no order. Nothing of a session is touched: it has a scanner of its own, and the index as it
// was saved last, in which newer files are simply other files.
func (s *kept) read(ctx context.Context) (rotten []string, err error) {
	known, err := tree.Load(s.Index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoIndex
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(s.Root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	scan, err := tree.NewScanner(dir, tree.Options{Policy: s.Policy, Names: s.Accounts, Readers: 1, Verify: true})
	if err != nil {
		return nil, err
	}
	_, problems, err := scan.Scan(ctx, known)
	if err != nil {
		return nil, fmt.Errorf("read all of %s: %w", s.Root, err)
	}
	return problems.Rotten, nil
}

// noteRotten remembers paths in a file beside the index, or that there are none.
func noteRotten(index string, paths []string) error {
	name := index + rottenSuffix
	if len(paths) == 0 {
		return durable.Remove(name)
	}
	return durable.Replace(name, []byte(strings.Join(paths, "\x00")), 0o600) // a path is any bytes but that one
}

// rottenPaths are the remembered ones. A file that cannot be read remembers none.
func rottenPaths(index string) []string {
	data, err := os.ReadFile(index + rottenSuffix)
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(string(data), "\x00")
}
