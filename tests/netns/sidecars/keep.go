//go:build linux

package sidecars

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	mdns "github.com/miekg/dns"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/sidecar/ledger/sigv4"
	"understudy/tests/netns/wire"
)

const (
	bucket  = "test-understudy"
	tsigKey = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
)

// keep makes the sealed bundle, and the servers that a cluster keeps outside of its nodes. It adds them to the roster.
func (c *Cluster) keep(s Setup) string {
	c.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		c.t.Fatal(err)
	}
	c.member = secrets.Membership{Identity: id}
	keys := sigv4.Keys{AccessKey: secrets.NewSecret("access"), SecretKey: secrets.NewSecret("secret")}
	sealed, err := secrets.Seal(secrets.Bundle{
		Version: secrets.BundleVersion, ClusterKey: secrets.NewSecret(strings.Repeat("k", 64)), Provider: s.tokens,
		Ledger: secrets.LedgerKeys{AccessKey: keys.AccessKey, SecretKey: keys.SecretKey},
		TSIG:   map[string]secrets.TSIGKey{"ddns": {Algorithm: "hmac-sha256", Secret: secrets.NewSecret(tsigKey)}},
	}, []age.Recipient{id.Recipient()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("secrets.age", string(sealed))
	roster := s.Roster
	if s.Ledger {
		roster += fmt.Sprintf("ledger: {s3: {endpoint: %q, bucket: %s}}\n", c.storeURL(), bucket)
		c.keepObjects(keys)
	}
	if s.DNS {
		roster += fmt.Sprintf("dns: [{rfc2136: {server: \"%s:53\", zone: test.example, key: ddns}}]\n", c.Host("names").Addr)
		c.keepZone()
	}
	return roster
}

// join gives a node what joining would have.
func (c *Cluster) join(host string) {
	c.t.Helper()
	if err := secrets.SaveMembership(filepath.Join(c.Dir, host), c.member); err != nil {
		c.t.Fatal(err)
	}
}

// storeURL is where the object store is.
func (c *Cluster) storeURL() string { return fmt.Sprintf("http://%s:9000", c.Host("store").Addr) }

// keepObjects serves an object store at the host store.
func (c *Cluster) keepObjects(keys sigv4.Keys) {
	c.t.Helper()
	store, err := objectstore.New(objectstore.Options{
		Dir: filepath.Join(c.Dir, "objects"), Buckets: []string{bucket}, Keys: keys, Log: slog.New(slog.DiscardHandler), Now: c.now,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.Store, c.keys = store, keys
	c.serve("store", ":9000", store)
}

// serve answers HTTP at a host until the test ends. Whose clock was stepped gets answers that bear the date it would see.
func (c *Cluster) serve(host, address string, h http.Handler) {
	c.t.Helper()
	l, err := c.Host(host).NS.Listen(c.t.Context(), address)
	if err != nil {
		c.t.Fatal(err)
	}
	dated := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", c.now(r).UTC().Format(http.TimeFormat))
		h.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: c.watch(dated), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	c.t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
			c.t.Error(err)
		}
	})
}

// from is the address of a host that asks.
func from(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		panic(fmt.Sprintf("a request from %q: %v", r.RemoteAddr, err)) // net/http wrote it
	}
	return at.Addr().Unmap()
}

// now is what time it is, seen from a host that asks: its own clock is right for itself.
func (c *Cluster) now(r *http.Request) time.Time {
	if by, stepped := c.clocks.Load(from(r)); stepped {
		return time.Now().Add(-by.(time.Duration))
	}
	return time.Now()
}

// StepClock lets a host's wall clock be ahead, as far as servers' answers tell: the kernel has one such clock for all.
func (c *Cluster) StepClock(host string, by time.Duration) { c.clocks.Store(c.Host(host).Addr, by) }

// keepZone serves test.example at the host names, by Knot from the tools tree.
func (c *Cluster) keepZone() {
	c.t.Helper()
	tree := wire.Program(c.t, "UNDERSTUDY_TOOLS_TREE", "the tree with the programs that tests run beside ours")
	at := c.Host("names").Addr
	dir := filepath.Join(c.Dir, "knot")
	c.write("knot/zone", fmt.Sprintf("$ORIGIN test.example.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 900 604800 60\n@ IN NS ns1\nns1 IN A %s\nkept IN TXT \"not ours\"\n", at))
	conf := c.write("knot/config", fmt.Sprintf(`
server:
    rundir: "%[1]s"
    listen: %[2]s@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "%[1]s"
key:
  - id: ddns
    algorithm: hmac-sha256
    secret: %[3]s
acl:
  - id: may
    key: ddns
    action: update
zone:
  - domain: test.example
    file: "%[1]s/zone"
    acl: may
    zonefile-sync: -1
`, dir, at, tsigKey))
	// Run by the tree's own loader it finds its own libraries and needs no chroot.
	cmd := exec.Command(filepath.Join(tree, "lib64/ld-linux-x86-64.so.2"), "--library-path", filepath.Join(tree, "usr/lib/x86_64-linux-gnu"),
		filepath.Join(tree, "usr/sbin/knotd"), "-c", conf)
	cmd.Env = []string{"LANG=C"}
	c.zone = c.Host("names").Start("knot", cmd)
	wire.Eventually(c.t, 10*time.Second, func() error {
		_, err := c.Published("ns1")
		return err
	})
}

// Published asks the name server for a name's addresses.
func (c *Cluster) Published(name string) ([]string, error) {
	conn, err := c.Host("names").NS.Dial(c.t.Context(), netip.AddrPortFrom(c.Host("names").Addr, 53))
	if err != nil {
		return nil, err
	}
	q := new(mdns.Msg).SetQuestion(name+".test.example.", mdns.TypeA)
	dc := &mdns.Conn{Conn: conn}
	defer dc.Close()
	if err := errors.Join(conn.SetDeadline(time.Now().Add(time.Second)), dc.WriteMsg(q)); err != nil {
		return nil, err
	}
	answer, err := dc.ReadMsg()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, rr := range answer.Answer {
		if a, ok := rr.(*mdns.A); ok {
			all = append(all, a.A.String())
		}
	}
	slices.Sort(all)
	return all, nil
}

// State is the memory file of a node, as text.
func (c *Cluster) State(host string) string {
	text, err := os.ReadFile(filepath.Join(c.Dir, host, "sidecar.json"))
	if err != nil {
		return ""
	}
	return string(text)
}
