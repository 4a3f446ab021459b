//go:build linux

package sidecars

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
	"understudy/sidecar/cloud/localcloud"
	"understudy/tests/netns/wire"
)

// token opens the provider's API.
const token = "token-of-the-tests"

// firstMachine is the number of the provider's first machine, and the last byte of its address.
const firstMachine = 2

// Hired is a cluster whose machines are hired: a provider, the local cloud, makes them, and each is a host of the wire that runs
// a sidecar while it has power. The provider's host is called cloud, that of the machine number n is called mn.
type Hired struct {
	*Cluster
	Cloud  *localcloud.Server
	steps  *steps
	memory localcloud.Memory // which machines have power
	slots  map[netip.Addr]*wire.Host
	socks  string // the directory of the admin sockets, whose paths must be short
	boots  sync.WaitGroup

	mu       sync.Mutex
	machines map[int]*machine
	away     bool // the provider's API does not answer
}

// NewHired hires a machine for every node of roles, which is that part of roles.yaml, and waits until all of them serve, or
// would if their role's data were mirrored. At most spare more machines can be hired.
func NewHired(t testing.TB, nodes []string, roles string, spare int) *Hired {
	t.Helper()
	h := &Hired{slots: map[netip.Addr]*wire.Host{}, machines: map[int]*machine{}}
	h.Cluster = &Cluster{t: t, Dir: t.TempDir(), Nodes: nodes, Runs: map[string]*wire.Process{}}
	h.steps = &steps{h: h}
	h.watch = h.steps.watch
	hosts := []string{"cloud"} // 10.9.0.1; then machine n is 10.9.0.n
	for i := range len(nodes) + spare {
		hosts = append(hosts, fmt.Sprintf("m%d", firstMachine+i))
	}
	h.Wire = wire.New(t, append(hosts, "client", "store")...)
	for _, name := range hosts[1:] {
		h.slots[h.Host(name).Addr] = h.Host(name)
	}
	roster := h.keep(Setup{Ledger: true, tokens: map[string]secrets.Secret{"digitalocean": secrets.NewSecret(token)}})
	h.write("roles.yaml", fmt.Sprintf(`cluster: test
domain: test.example
provider: {local: {region: lon1, size: s-1vcpu-1gb, image: understudy-base}}
timings: {replacement_hold: 3s, startup_timeout: 30s}
%s%s`, roster, roles))
	h.sockets()
	h.provide()
	for _, node := range nodes {
		h.order(http.MethodPost, "/v2/droplets", fmt.Sprintf(`{"name": %q, "region": "lon1", "size": "s-1vcpu-1gb", "image": "7555620", "tags": ["test"]}`, node))
	}
	h.Whole(60 * time.Second)
	h.steps.forget()
	return h
}

// sockets makes the directory of the admin sockets.
func (h *Hired) sockets() {
	var err error
	if h.socks, err = os.MkdirTemp("", "us"); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = os.RemoveAll(h.socks) }) // what stays is an empty socket
}

// provide runs the provider.
func (h *Hired) provide() {
	o := localcloud.Defaults()
	o.Token, o.Rate = token, localcloud.RateLimit{}
	o.Addresses.Private = netip.PrefixFrom(h.Host("cloud").Addr, 24).Masked()
	o.BootDelay, o.ActionDelay = 300*time.Millisecond, 200*time.Millisecond
	h.Cloud = localcloud.New(slog.New(slog.DiscardHandler), power{h}, o)
	mux := http.NewServeMux()
	mux.Handle("/metadata/", h.Cloud.Metadata())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if h.isAway() {
			panic(http.ErrAbortHandler)
		}
		h.Cloud.API().ServeHTTP(w, r)
	})
	h.serve("cloud", ":80", mux)
	h.t.Cleanup(func() { // first of all: nothing boots any more
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Cloud.Close(ctx); err != nil {
			h.t.Error(err)
		}
		h.boots.Wait()
	})
}

// SetAway lets the provider's API not answer anybody, or answer again.
func (h *Hired) SetAway(away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = away
}

func (h *Hired) isAway() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.away
}

// order asks the provider for something, as a person would.
func (h *Hired) order(method, path, body string) {
	h.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if h.Cloud.API().ServeHTTP(w, r); w.Code/100 != 2 {
		h.t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

// Machine is the newest machine of a node.
func (h *Hired) Machine(node string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := 0
	for _, m := range h.machines {
		if m.Name == node {
			id = max(id, m.ID)
		}
	}
	return id
}

// Acting is the node that replaces machines, and Others are the rest.
func (h *Hired) Acting() (acting string, others []string) {
	h.t.Helper()
	st, err := h.Status(h.Machine(h.Nodes[0]))
	if err != nil || st.Coordinator == "" {
		h.t.Fatalf("nobody acts: %+v, %v", st, err)
	}
	return st.Coordinator, slices.DeleteFunc(slices.Clone(h.Nodes), func(n string) bool { return n == st.Coordinator })
}

// Look begins to look for two that answer on the address, see Single.
func (h *Hired) Look() { h.Probe = h.Host("client").Probe(h.t, Address.Addr()) }

// HostOf is the name of a machine's host.
func (h *Hired) HostOf(id int) string { return h.of(id).host.Name }

// Status asks a machine's sidecar what it believes.
func (h *Hired) Status(id int) (admin.Status, error) { return h.ask(id, (*admin.Client).Status) }

func (h *Hired) ask(id int, what func(*admin.Client, context.Context) (admin.Status, error)) (admin.Status, error) {
	c := admin.NewSocketClient(h.socket(h.of(id)))
	defer c.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	defer cancel()
	return what(c, ctx)
}

// Explains waits until the status that a person would read on a machine, with what the others say, has a text, and logs it.
func (h *Hired) Explains(id int, within time.Duration, text string) {
	h.t.Helper()
	var page string
	wire.EventuallyEvery(h.t, 100*time.Millisecond, within, func() error {
		st, err := h.ask(id, (*admin.Client).StatusOfAll)
		if err != nil {
			return err
		}
		if page = show.Status(st, show.Look{Width: 130}); !strings.Contains(strings.Join(strings.Fields(page), " "), text) {
			return fmt.Errorf("the status of %s does not say %q:\n%s", st.Node, text, page)
		}
		return nil
	})
	h.t.Logf("machine %d says:\n%s", id, page)
}
