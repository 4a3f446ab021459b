//go:build linux

package site

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"understudy/bootstrap/progress"
	"understudy/bootstrap/role"
	"understudy/sidecar/admin"
	"understudy/sidecar/config"
)

// Pauses between two looks at the nodes. A look costs a sidecar about a millisecond.
const (
	lookSoon = 100 * time.Millisecond // while something is on its way
	lookIdle = time.Second            // while all nodes serve
	askFor   = 2 * time.Second        // one sidecar
)

// watcher knows how far the nodes of the roster are, and those that pushes have added: by the provider's list, by the records of their bootstraps, and by
// what the sidecars say. It only looks.
type watcher struct {
	site *Site
	log  *slog.Logger

	mu     sync.Mutex
	nodes  map[string]*Node
	served map[int]time.Time // by machine: when it first served
	spoken map[int]bool      // by machine: its sidecar has been heard

	order []string // the nodes in the roster's order, and then those that came by a push
}

func newWatcher(s *Site) *watcher {
	w := &watcher{site: s, log: s.log, nodes: map[string]*Node{}, served: map[int]time.Time{}, spoken: map[int]bool{}}
	for _, r := range s.roster.Roles {
		for i, name := range r.Nodes {
			w.nodes[name] = &Node{Name: name, Role: r.Name, First: i == 0}
			w.order = append(w.order, name)
		}
	}
	return w
}

// has notes a node's new machine.
func (w *watcher) has(node string, id int, created time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.nodes[node]; n.Machine < id { // numbers only grow
		*n = Node{Name: n.Name, Role: n.Role, First: n.First, Machine: id, Created: created}
	}
}

// run looks again and again until ctx ends.
func (w *watcher) run(ctx context.Context) error {
	for {
		w.machines()
		for _, name := range w.order {
			w.record(name)
		}
		st, err := w.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			w.heard(st)
		}
		pause := lookSoon
		if w.allServe() {
			pause = lookIdle
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// machines finds machines that others have made for a node.
func (w *watcher) machines() {
	for _, m := range w.site.cloud.Machines() {
		if _, known := w.nodes[m.Name]; known {
			w.has(m.Name, m.ID, time.Now())
		}
	}
}

// record reads how far a node's bootstrap has come.
func (w *watcher) record(name string) {
	w.mu.Lock()
	id := w.nodes[name].Machine
	w.mu.Unlock()
	if id == 0 {
		return
	}
	power := w.site.machines.Running(id)
	var found *progress.Record
	data, err := w.site.machines.ReadFile(id, "/var/lib/understudy/bootstrap.json", 1<<20)
	if err == nil {
		b, err := progress.Parse(data)
		if err == nil { // else as good as not there; the file is replaced whole, so this is a foreign one
			found = &b
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.nodes[name]
	if n.Machine != id {
		return // replaced meanwhile
	}
	if n.Power = power; !power {
		n.Phase, n.Duty, n.Serving = "", "", time.Time{}
	}
	if found != nil {
		n.Bootstrap = found
	}
}

// ask asks one sidecar for what it believes of all: the first that has a majority with it, else the first that answers.
func (w *watcher) ask(ctx context.Context) (admin.Status, error) {
	var best admin.Status
	err := error(admin.ErrUnreachable)
	for _, n := range w.list() {
		leader, on := w.site.machines.Leader(n.Machine)
		if !on || n.Bootstrap == nil || !n.Bootstrap.Finished() {
			continue
		}
		// A socket with a path is found through the file system, whatever the network namespace (unix(7)).
		c := admin.NewSocketClient(filepath.Join("/proc", strconv.Itoa(leader), "root", config.Default().Socket))
		one, cancel := context.WithTimeout(ctx, askFor)
		st, aerr := c.Status(one)
		cancel()
		c.Close()
		if aerr != nil {
			continue
		}
		if err != nil || st.Majority.Have {
			best, err = st, nil
		}
		if st.Majority.Have {
			break
		}
	}
	return best, err
}

// heard takes over what a sidecar says of the nodes.
func (w *watcher) heard(st admin.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, said := range st.Nodes {
		n, known := w.nodes[said.Name]
		if !known { // a push has added it; its machine is found at the next look
			w.nodes[said.Name] = &Node{Name: said.Name, Role: said.Role}
			w.order = append(w.order, said.Name)
			continue
		}
		if !n.Power || said.Machine != "" && said.Machine != strconv.Itoa(n.Machine) {
			continue // of an incarnation that is gone
		}
		w.spoken[n.Machine] = w.spoken[n.Machine] || said.Heard()
		if !w.spoken[n.Machine] {
			continue // the others call it failed, but it has not begun
		}
		n.Phase, n.Duty = said.Phase, said.Duty
		if !settled(said, w.site.roster) {
			n.Serving = time.Time{}
			continue
		}
		if _, before := w.served[n.Machine]; !before {
			w.served[n.Machine] = time.Now()
			w.log.Info("node serves", "node", n.Name, "role", n.Role, "took", time.Since(n.Created).Round(time.Millisecond))
		}
		n.Serving = w.served[n.Machine]
	}
}

// settled says that a node has come as far as it can.
func settled(n admin.Node, r role.Roster) bool {
	at := slices.IndexFunc(r.Roles, func(r role.Role) bool { return r.Name == n.Role })
	return n.Settled(at >= 0 && len(r.Roles[at].Data) > 0)
}

// allServe says that all nodes do, and that the addresses and names by which the world finds them are where they belong.
func (w *watcher) allServe() bool {
	nodes := w.list()
	for _, n := range nodes {
		if n.Serving.IsZero() {
			return false
		}
	}
	held := w.site.cloud.Reserved()
	// Another kind of zone is not in here to be looked at.
	zone := slices.ContainsFunc(w.site.roster.DNS, func(d role.DNS) bool { return d.Kind == "digitalocean" })
	for _, r := range w.site.roster.Roles {
		if r.Address != nil && r.Address.ReservedIP.IsValid() && !slices.ContainsFunc(nodes, func(n Node) bool {
			return n.Role == r.Name && n.Duty == "primary" && n.Machine == held[r.Address.ReservedIP]
		}) {
			return false
		}
		if zone && !w.site.published(r) {
			return false
		}
	}
	return true
}

// list copies the nodes in the roster's order.
func (w *watcher) list() []Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Node
	for _, name := range w.order {
		all = append(all, *w.nodes[name])
	}
	return all
}
