//go:build linux

package datasync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"understudy/sidecar/datasync/tree"
)

// Beside a set's index lie the paths whose content has changed behind the times' back, and a file whose time is that of the last full
// reading.
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
			if err != nil && ctx.Err() == nil {
				k.cfg.Log.Warn("the data could not be read as a whole", "path", s.Root, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
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

// verify reads every byte of a set and compares it with what the index remembers. What has rotted is noted beside the index, for when this
// node opens the set as a mirror: then it is read anew, differs from the source's, and comes from there. A mirror does so at once. At the
// source it waits until the duty moves: until then its index goes on to say what the mirror has.
func (k *Keeper) verify(ctx context.Context, s *kept) error {
	began := time.Now()
	rotten, err := s.read(ctx)
	if err != nil {
		return err
	}
	if _, err := s.stamp(time.Now(), wasRead); err != nil {
		return err
	}
	s.mu.Lock()
	s.verified, s.rotten = time.Now(), rotten
	isSource := s.source != nil
	s.mu.Unlock()
	k.cfg.Log.Info("read all data", "path", s.Root, "rotten", len(rotten), "took", time.Since(began))
	if len(rotten) == 0 {
		return nil
	}
	if err := noteRotten(s.Index, rotten); err != nil {
		return err
	}
	if isSource {
		k.cfg.Log.Error("content has changed on the disk though no time did; the mirror is not touched. Let the duty move (understudy switchover): "+
			"then it comes from there", "path", s.Root, "files", rotten)
		return nil
	}
	k.cfg.Log.Error("content has changed on the disk though no time did; it comes from the source again", "path", s.Root, "files", rotten)
	return k.reopen(s)
}

// read gives the paths whose content is not what the index says, though their times are. Nothing of a session is touched: it has a scanner
// of its own, and the index as it was saved last, in which newer files are simply other files.
func (s *kept) read(ctx context.Context) (rotten []string, err error) {
	known, err := tree.Load(s.Index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing is remembered yet that could be compared
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
	for _, p := range problems.List {
		if p.Why == tree.Rotten {
			rotten = append(rotten, p.Path)
		}
	}
	return rotten, nil
}

// reopen ends the session of a mirror, so that the next one opens it anew.
func (k *Keeper) reopen(s *kept) error {
	k.mu.Lock()
	leave := k.leave[s]
	k.mu.Unlock()
	if leave != nil {
		leave()
	}
	s.follows.Lock()
	defer s.follows.Unlock()
	return s.closeMirror()
}

// noteRotten remembers paths in a file beside the index.
func noteRotten(index string, paths []string) error {
	data, err := json.Marshal(paths)
	if err != nil {
		return err
	}
	name := index + rottenSuffix
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// rottenPaths are the remembered ones. A file that cannot be read remembers none.
func rottenPaths(index string) (paths []string) {
	data, err := os.ReadFile(index + rottenSuffix)
	if err != nil || json.Unmarshal(data, &paths) != nil {
		return nil
	}
	return paths
}

// distrust makes a mirror's scan read the remembered paths, whatever the index says of them, and returns how many there are.
func distrust(index string, known *tree.Tree) int {
	paths := rottenPaths(index)
	for _, path := range paths {
		if known != nil { // else all is read
			known.Distrust(path)
		}
	}
	return len(paths)
}

// trusted forgets the remembered paths: the tree that is saved has read them.
func trusted(index string) error {
	if err := os.Remove(index + rottenSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
