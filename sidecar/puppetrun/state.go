//go:build linux

package puppetrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"understudy/bootstrap/applied"
	"understudy/bootstrap/durable"
)

const (
	runsFile   = "runs.json"
	resultFile = "apply.json" // which the run writes
)

// Kept is how many results are kept.
const Kept = 20

const stateVersion = 1

// state is runs.json. Keys are added, never changed.
type state struct {
	Version int      `json:"version"`
	Current *Current `json:"current,omitempty"`
	Runs    []Result `json:"runs"` // newest first
}

// trim drops the oldest results, except that the newest of each kind stays, in the place of the oldest.
func trim(runs []Result) []Result {
	if len(runs) <= Kept {
		return runs
	}
	kept := slices.Clone(runs[:Kept])
	for _, noop := range []bool{false, true} {
		if at := newest(runs, noop); at >= Kept {
			kept[Kept-1] = runs[at] // all of kept are of the other kind
		}
	}
	return kept
}

// newest is the place of the newest result of a kind, -1 if there is none.
func newest(runs []Result, noop bool) int {
	return slices.IndexFunc(runs, func(r Result) bool { return r.Noop == noop })
}

// load reads the state. A missing file is an empty one. One that cannot be read is put aside, and aside says where: a
// machine that has forgotten its runs is converged by the next one.
func load(path string) (s state, aside string, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, "", nil
	}
	if err != nil {
		return state{}, "", fmt.Errorf("read the results of runs: %w", err)
	}
	if err := json.Unmarshal(data, &s); err == nil && s.Version == stateVersion {
		return s, "", nil
	}
	aside = path + ".unreadable"
	if err := os.Rename(path, aside); err != nil {
		return state{}, "", fmt.Errorf("put the unreadable results of runs aside: %w", err)
	}
	return state{}, aside, nil
}

// save writes the state down. The caller holds mu, or is alone.
func (r *Runner) save() error {
	r.state.Version = stateVersion
	data, err := json.MarshalIndent(r.state, "", "  ")
	if err == nil {
		err = durable.Replace(filepath.Join(r.cfg.Dir, runsFile), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what is run: %w", err)
	}
	return nil
}

// told is what the run has written about itself; nil: nothing, or not about this one.
func (r *Runner) told(c Current) (*applied.Result, error) {
	data, err := os.ReadFile(filepath.Join(r.cfg.Dir, resultFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the result of the run: %w", err)
	}
	res, err := applied.Parse(data)
	if err != nil {
		r.cfg.Log.Warn("the result of the run counts as missing", "err", err) // and the run as failed
		return nil, nil
	}
	if res.Commit != c.Commit || res.Noop != c.Noop {
		return nil, nil // of a run by hand
	}
	return &res, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
