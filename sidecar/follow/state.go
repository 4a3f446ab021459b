package follow

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"understudy/bootstrap/durable"
)

// stateVersion is raised when a reader of the old form would misunderstand the new one.
const stateVersion = 1

// accepted is the newest commit that counts, as the state file has it. Keys are added, never changed.
type accepted struct {
	Version  int       `json:"version"`
	Commit   string    `json:"commit"`
	Subject  string    `json:"subject,omitempty"`
	When     time.Time `json:"when,omitzero"`
	Signer   string    `json:"signer,omitempty"`
	Trailers []Trailer `json:"trailers,omitempty"`
}

// Trailer is a line such as "Understudy-Remove: web3" at the end of a commit's message (git-interpret-trailers(1)).
type Trailer struct {
	Key   string `json:"key"` // as written; git compares keys without regard to case
	Value string `json:"value"`
}

// loadState reads the file. One that is missing gives the zero value; so does one that cannot be understood, which is moved to
// aside: whoever has forgotten what was accepted knows what was booted, which the signed history still has to descend from.
func loadState(path string) (a accepted, aside string, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return accepted{}, "", nil
	}
	if err != nil {
		return accepted{}, "", fmt.Errorf("read the accepted commit: %w", err)
	}
	if err := json.Unmarshal(data, &a); err == nil && a.Version == stateVersion && isHash(a.Commit) {
		return a, "", nil
	}
	aside = path + ".damaged"
	if err := os.Rename(path, aside); err != nil {
		return accepted{}, "", fmt.Errorf("put the damaged %s aside: %w", filepath.Base(path), err)
	}
	return accepted{}, aside, nil
}

// save writes the file: after a crash at any point there is the old commit or the new one, and after nil it is the new one.
func (a accepted) save(path string) error {
	a.Version = stateVersion
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the accepted commit: %w", err)
	}
	return durable.Replace(path, append(data, '\n'), 0o644)
}

// Bounds of what is taken from a message, which its author chooses.
const (
	maxTrailers = 100
	maxTrailer  = 500 // bytes of a value
)

// ours begins the keys of the trailers that mean something to the cluster, in lower case.
const ours = "understudy-"

// trailers finds those of ours in the last paragraph of a message, unless that is the only one, which is the subject.
func trailers(message string) []Trailer {
	message = strings.TrimRight(strings.ReplaceAll(message, "\r\n", "\n"), "\n ")
	at := strings.LastIndex(message, "\n\n")
	if at < 0 {
		return nil
	}
	var found []Trailer
	for line := range strings.SplitSeq(message[at+2:], "\n") {
		key, value, ok := strings.Cut(line, ":")
		value = strings.ToValidUTF8(strings.TrimSpace(value), "\uFFFD")
		if !ok || !strings.HasPrefix(strings.ToLower(key), ours) || !isKey(key) || len(value) > maxTrailer || len(found) == maxTrailers {
			continue
		}
		found = append(found, Trailer{key, value})
	}
	return found
}

func isKey(s string) bool {
	return len(s) <= 100 && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
