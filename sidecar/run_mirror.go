package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"understudy/bootstrap/role"
	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/datasync"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/peerlink"
	"understudy/sidecar/units"
)

// roleData is a role's data on this node, in the loop's words.
type roleData struct {
	node, role string // this one, and its
	keeper     *datasync.Keeper
}

// newData reads what lies in the role's directories. Nil: the role has none.
func (p *parts) newData(jobs *units.Units) (*roleData, error) {
	if len(p.role.Data) == 0 {
		return nil, nil
	}
	indices := filepath.Join(p.cfg.State, "data")
	if err := os.MkdirAll(indices, 0o700); err != nil {
		return nil, err
	}
	accounts := tree.NewAccounts("/etc")
	var sets []datasync.Set
	for _, d := range p.role.Data {
		sets = append(sets, datasync.Set{
			Name: p.role.Name + " " + d.Path, Root: d.Path, Index: filepath.Join(indices, url.PathEscape(d.Path)), Policy: policyOf(d.Kind), Accounts: accounts,
		})
	}
	keeper, err := datasync.NewKeeper(datasync.KeeperConfig{
		Sets: sets, Log: p.log, Mine: func() uint64 { return p.heldEpoch(p.role.Name) }, Primary: p.otherPrimary,
		Writing: func(ctx context.Context) (bool, error) {
			if len(p.role.PrimaryUnits) == 0 {
				return false, nil
			}
			s, err := jobs.State(ctx, p.role.PrimaryUnits)
			return s.Running, err
		},
		Dial: func(ctx context.Context, node string) (net.Conn, error) { return p.dial(ctx, node, peerlink.Mirror) },
	})
	if err != nil {
		return nil, err
	}
	return &roleData{p.cfg.Node, p.role.Name, keeper}, nil
}

// policyOf is how data of a kind are mirrored.
func policyOf(k role.Kind) tree.Policy {
	switch k {
	case role.Maildir:
		return tree.Maildir()
	case role.Apt:
		return tree.AptRepository()
	}
	return tree.Policy{}
}

// otherPrimary is the node that has the duty of this node's role, if that is another one and is heard.
func (p *parts) otherPrimary() (string, bool) {
	_, v, _, _ := p.snapshot()
	for _, node := range p.role.Nodes {
		if node == p.cfg.Node || !p.hears(node) {
			continue
		}
		acts := slices.ContainsFunc(v.Peers[node].Said.Holds, func(h cluster.Hold) bool {
			return h.Duty == p.role.Name && (h.State == cluster.Held || h.State == cluster.Offered)
		})
		if acts {
			return node, true
		}
	}
	return "", false
}

// Mirrors implements reconcile.Data.
func (d *roleData) Mirrors() []cluster.Mirror {
	c := d.keeper.Copy()
	m := cluster.Mirror{Role: d.role, Epoch: c.Epoch, Source: c.Source, Complete: c.Complete, CaughtUp: c.CaughtUp, Lag: c.Lag, Behind: c.Behind}
	if c.Never {
		m.Lag = cluster.Forever
	}
	return []cluster.Mirror{m}
}

// Woes implements reconcile.Data.
func (d *roleData) Woes() map[string]string { return d.keeper.Woes() }

// Barrier implements reconcile.Data.
func (d *roleData) Barrier(ctx context.Context) error { return d.keeper.Barrier(ctx) }

// barrier returns nil when everything that is in the role's data now is durable on the mirror.
func (p *parts) barrier(ctx context.Context) error {
	if p.data == nil {
		return errors.New("the role has no data")
	}
	return p.data.Barrier(ctx)
}

// Sync implements admin.Backend.
func (b backend) Sync(ctx context.Context, f admin.SyncFor) (admin.RoleData, error) {
	if b.data == nil {
		return admin.RoleData{}, errors.New("this node's role has no data")
	}
	if f.Allow > 0 {
		b.data.keeper.Allow(f.Allow)
	}
	durable := false
	if f.Wait > 0 {
		waiting, cancel := context.WithTimeout(ctx, time.Duration(f.Wait))
		err := b.data.Barrier(waiting)
		late := waiting.Err() != nil
		cancel()
		if err != nil && !late {
			return admin.RoleData{}, err
		}
		durable = err == nil
	}
	out := b.data.told()
	out.Durable = durable
	return *out, nil
}

// told is what this node knows of the role's data. Nil: the role has none.
func (d *roleData) told() *admin.RoleData {
	if d == nil {
		return nil
	}
	c := d.keeper.Copy()
	out := &admin.RoleData{Role: d.role, CaughtUp: c.CaughtUp, Never: c.Never, Lag: admin.Duration(c.Lag)}
	for _, set := range d.keeper.Sets() {
		out.Directories = append(out.Directories, directory(set))
		if set.Source != nil {
			out.Primary = d.node
		}
	}
	return out
}

// directory is one set in the API's words.
func directory(set datasync.SetState) admin.Directory {
	const mostRotten = 10
	d := admin.Directory{Path: set.Root, Trouble: oneLine(set.Trouble), Verified: set.Verified, Rotten: set.Rotten[:min(len(set.Rotten), mostRotten)]}
	st := set.Source
	if st == nil {
		return d
	}
	d.Mirror, d.Compared, d.Changes, d.Bytes = st.Mirror, st.Compared, st.Changes, st.Bytes
	d.Watched, d.Unwatched, d.Why, d.Overflows = st.Watch.Watched, st.Watch.Unwatched, st.Watch.Why, st.Watch.Overflows
	for _, w := range st.Waiting {
		d.Waiting = append(d.Waiting, admin.Waiting{Path: w.Path, Why: w.Why})
	}
	if st.Refused != nil {
		d.Refused, d.Allow = st.Refused.Why, st.Refused.Allow
	}
	return d
}
