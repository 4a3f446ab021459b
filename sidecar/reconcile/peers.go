package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"time"

	"understudy/bootstrap/durable"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// Pauses of the search for peers.
const (
	peersEvery = 2 * time.Second
	listEvery  = 30 * time.Second // of the provider, and only while some member is not heard
	// listTimeout is for all pages of such a list.
	listTimeout = 20 * time.Second
)

// peerBook is what is known of where the members are. It belongs to the observer that looks for them.
type peerBook struct {
	set    map[string]netip.AddrPort // where they are
	told   bool                      // the mesh knows
	listed map[string]netip.Addr     // by the provider, by node
	asked  cluster.Instant
}

// findPeers tells the mesh where the members are: as configured; else by their claims; else where they were last; and, for one
// that is not heard, where the provider's newest list has a machine of its name. The mesh itself follows a peer that is heard
// from elsewhere.
func (l *Loop) findPeers(ctx context.Context) error {
	b := &l.book
	first := b.set == nil
	if first {
		if err := b.recall(l.cfg.PeersFile); err != nil {
			l.log.Warn("where the members were last is not known", "err", err) // they are found in other ways
		}
	}
	heard := l.look().View.Peers // the mesh itself is looked at by turns only, see Mesh
	if first {                   // what is known must not wait for the provider's answer
		if err := l.setPeers(heard); err != nil {
			return err
		}
	}
	listErr := l.listMachines(ctx, heard)
	return errors.Join(listErr, l.setPeers(heard))
}

// setPeers tells the mesh where the members are, if that has changed.
func (l *Loop) setPeers(heard map[string]cluster.Peer) error {
	b := &l.book
	v, _ := l.board.look()
	next := map[string]netip.AddrPort{}
	for _, k := range l.cfg.Policy.Nodes {
		if k != l.cfg.Policy.Self {
			next[k] = l.whereIs(k, v, heard[k])
		}
	}
	if maps.Equal(next, b.set) && b.told {
		return nil
	}
	l.world.Mesh.SetPeers(next)
	b.set, b.told = next, true
	return b.remember(l.cfg.PeersFile)
}

func (l *Loop) whereIs(k string, v decide.View, p cluster.Peer) netip.AddrPort {
	if at, ok := l.cfg.Peers[k]; ok {
		return at
	}
	if at := l.book.listed[k]; at.IsValid() && p.Heard == 0 {
		return netip.AddrPortFrom(at, l.cfg.Port)
	}
	if c := v.Ledger.Claims[k]; c.Private.IsValid() {
		return netip.AddrPortFrom(c.Private, l.cfg.Port)
	}
	if at := p.Said.Private; at.IsValid() {
		return netip.AddrPortFrom(at, l.cfg.Port)
	}
	return l.book.set[k]
}

// listMachines asks the provider for all machines while a member that nobody has configured is not heard.
func (l *Loop) listMachines(ctx context.Context, heard map[string]cluster.Peer) error {
	b, now := &l.book, l.cfg.Now()
	unknown := false
	for _, k := range l.cfg.Policy.Nodes {
		_, configured := l.cfg.Peers[k]
		unknown = unknown || k != l.cfg.Policy.Self && !configured && heard[k].Heard == 0
	}
	if !unknown || l.world.Provider == nil || b.asked != 0 && now.Sub(b.asked) < listEvery {
		return nil
	}
	b.asked = now
	machines, err := l.world.Provider.List(ctx)
	if err != nil {
		return fmt.Errorf("list the cluster's machines: %w", err)
	}
	b.listed = map[string]netip.Addr{}
	for _, m := range machines {
		if m.Private.IsValid() && m.ID != l.cfg.Machine {
			b.listed[m.Name] = m.Private // of two of one name, the one with the higher ID: the list is sorted by it
		}
	}
	return nil
}

// recall reads where the members were.
func (b *peerBook) recall(path string) error {
	b.set = map[string]netip.AddrPort{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &b.set)
}

// remember writes where they are, for a start when neither ledger nor provider can be asked.
func (b *peerBook) remember(path string) error {
	known := maps.Clone(b.set)
	maps.DeleteFunc(known, func(_ string, at netip.AddrPort) bool { return !at.IsValid() })
	data, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.Replace(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember where the members are: %w", err)
	}
	return nil
}
