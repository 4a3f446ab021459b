package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"understudy/bootstrap/durable"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// memoryVersion is raised when a reader of the old form would misunderstand the new one.
const memoryVersion = 1

// lasting is what outlives the process. Keys are added, never changed.
type lasting struct {
	Version int `json:"version"`
	decide.Lasting
	Paused bool `json:"paused,omitempty"`
	// Boot is the machine's boot (see random(4), boot_id) in which a sidecar has voted last.
	Boot string `json:"boot,omitempty"`
	// Claim is the epoch of the identity claim that this node had for Machine when it last knew. Zero: none.
	Claim   uint64 `json:"claim,omitempty"`
	Machine string `json:"machine,omitempty"`
	// Ledger is the newest that the ledger has shown.
	Ledger *cluster.Recall `json:"ledger,omitempty"`
}

// loadMemory reads the lasting part of the memory. A missing file is a node's first start. One that cannot be read is put
// aside, and aside says where: a node that forgot its epochs is safe, because a majority remembers its promises and a node
// that starts grants nothing for a while.
func loadMemory(path string) (l lasting, aside string, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return lasting{}, "", nil
	}
	if err != nil {
		return lasting{}, "", fmt.Errorf("read the memory: %w", err)
	}
	if err := json.Unmarshal(data, &l); err == nil && l.Version == memoryVersion {
		return l, "", nil
	}
	aside = path + ".unreadable"
	if err := os.Rename(path, aside); err != nil {
		return lasting{}, "", fmt.Errorf("put the unreadable memory aside: %w", err)
	}
	return lasting{}, aside, nil
}

// encode is the file's content. Equal memories give equal bytes.
func (l lasting) encode() ([]byte, error) {
	l.Version = memoryVersion
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the memory: %w", err)
	}
	return append(data, '\n'), nil
}

// save writes the file, if it would change. After an error nothing of it may be said or done.
func (l *Loop) save(v decide.View, d decide.Decision) error {
	next := l.kept
	next.Lasting, next.Paused = d.Memory.Lasting, v.Orders.Pause
	next.Ledger = v.Ledger.Known
	if d.Say.Voting {
		next.Boot = l.cfg.Boot
	}
	if v.Claim.Mine {
		next.Claim, next.Machine = v.Claim.Epoch, l.cfg.Machine
	}
	if l.saved && reflect.DeepEqual(next, l.kept) {
		return nil
	}
	data, err := next.encode()
	if err != nil {
		return err
	}
	if err := durable.Replace(l.cfg.MemoryFile, data, 0o600); err != nil {
		return fmt.Errorf("save the memory: %w", err)
	}
	l.kept, l.saved = next, true
	return nil
}
